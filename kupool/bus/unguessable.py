"""Random numbers that nobody can guess, and that do not reveal how many exist."""

from __future__ import annotations

from os import urandom

#: Numbers drawn at a time: a call of the system costs more than all the rest.
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
