"""How far a sequence of numbered items is processed, when they end in any order. Pure.

Only what is processed without a gap from the beginning may be saved: an item behind one that is
still being processed is delivered again after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile


class ContiguousProgress:
    """Items from a number on; numbers grow, and may have gaps.

    ``position`` is the number to save: everything below it is processed.
    """

    __slots__ = ("_end", "_settled", "position")

    def __init__(self, start: int) -> None:
        self.position = start
        #: Behind the last item that was added.
        self._end = start
        #: Number -> whether the item is processed, in the order of numbers.
        self._settled: dict[int, bool] = {}

    def __len__(self) -> int:
        """Return the number of items from the first one that is not processed."""
        return len(self._settled)

    def is_open(self, number: int) -> bool:
        """Return whether an item was added, and is not processed."""
        return not self._settled.get(number, True)

    def add(self, number: int) -> None:
        """An item is being processed; numbers only grow."""
        if number < self._end:
            raise ValueError(f"{number} was added before, the next is {self._end} or later")
        self._settled[number] = False
        self._end = number + 1

    def settle(self, numbers: Iterable[int]) -> None:
        """Items are processed; one that was never added, or is settled, changes nothing."""
        settled = self._settled
        for number in numbers:
            if number in settled:
                settled[number] = True
        for passed in list(takewhile(settled.__getitem__, settled)):
            del settled[passed]
        # Numbers may have gaps: what is next is the first open one, or what is read next.
        self.position = next(iter(settled), self._end)

    def skip_to(self, number: int) -> None:
        """There are no items below a number any more, as those that were dropped."""
        self._end = max(self._end, number)
        if not self._settled:
            self.position = self._end


__all__ = ["ContiguousProgress"]
