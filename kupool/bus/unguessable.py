"""Numbers that nobody can guess, and that tell nothing of how many there are."""

from __future__ import annotations

from os import urandom

#: Numbers that are drawn at a time: asking the system costs more than all else about one.
_DRAWN = 512


class Unguessable:
    """Draws numbers of 64 random bits."""

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers: list[int] = []

    def number(self) -> int:
        """Return a number below 2 ** 64."""
        if not self._numbers:
            self._numbers = memoryview(urandom(8 * _DRAWN)).cast("Q").tolist()
        return self._numbers.pop()

    def text(self) -> str:
        """Return a number as 16 hexadecimal digits."""
        return f"{self.number():016x}"


__all__ = ["Unguessable"]
