"""What a move says while it runs, and in the end. Pure."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Report(Protocol):
    """Is told how far a move is."""

    def begin(self, text: str, total: int) -> None:
        """A piece of work begins, with about so many steps."""

    def advance(self, steps: int) -> None:
        """So many steps more are done."""


class Compared(NamedTuple):
    """What is the same on both sides: how many, the sum where there is one, and a checksum."""

    name: str
    number: int
    total: int | None
    checksum: str


__all__ = ["Compared", "Report"]
