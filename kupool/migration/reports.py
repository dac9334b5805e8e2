"""What a move reports while it runs and at its end. Pure."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Report(Protocol):
    """Gets the progress of a move."""

    def begin(self, text: str, total: int) -> None:
        """A step of the move begins, with about this amount of work."""

    def advance(self, steps: int) -> None:
        """This amount of work is done."""


class Compared(NamedTuple):
    """What is equal on both sides: the number, the sum if there is one, and a checksum."""

    name: str
    number: int
    total: int | None
    checksum: str


__all__ = ["Compared", "Report"]
