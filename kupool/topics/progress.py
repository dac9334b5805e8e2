"""How far the records of a partition are processed, when they end in any order. Pure.

Only what is processed without a gap from the beginning may be committed: a record behind one that
is still being processed is delivered again after a crash.
"""

from __future__ import annotations

from itertools import takewhile


class PartitionProgress:
    """The records of one partition from an offset on.

    ``position`` is the offset to commit: everything below it is processed.
    """

    __slots__ = ("_end", "_settled", "position")

    def __init__(self, start: int) -> None:
        self.position = start
        #: Behind the last record that was added.
        self._end = start
        #: Offset -> whether the record is processed, in the order of offsets.
        self._settled: dict[int, bool] = {}

    def __len__(self) -> int:
        """Return the number of records from the first one that is not processed."""
        return len(self._settled)

    def add(self, offset: int) -> None:
        """A record is being processed; offsets only grow."""
        if offset < self._end:
            raise ValueError(f"offset {offset} was added before, the next is {self._end} or later")
        self._settled[offset] = False
        self._end = offset + 1

    def settle(self, offset: int) -> None:
        """A record is processed; one that was never added, or is settled, changes nothing."""
        if offset not in self._settled:
            return
        self._settled[offset] = True
        for passed in list(takewhile(self._settled.__getitem__, self._settled)):
            del self._settled[passed]
        # Offsets may have gaps: what is next is the first open one, or what is read next.
        self.position = next(iter(self._settled), self._end)

    def skip_to(self, offset: int) -> None:
        """There are no records below an offset any more, as those that were dropped."""
        self._end = max(self._end, offset)
        if not self._settled:
            self.position = self._end


__all__ = ["PartitionProgress"]
