"""A histogram of durations in a fixed amount of memory. Pure."""

from __future__ import annotations

from collections.abc import Mapping

#: Number of buckets between two powers of two, so the relative error is at most 1/32.
_PARTS = 32
_BITS = 5


class Histogram:
    """Counts durations from a microsecond on, with an error of about 3 %."""

    __slots__ = ("_counts", "largest", "total")

    def __init__(self) -> None:
        self._counts: list[int] = [0] * (_PARTS * 40)
        self.total = 0
        #: The exact longest duration, in seconds.
        self.largest = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        us = int(seconds * 1e6)
        if us < _PARTS:
            index = us if us > 0 else 0
        else:
            shift = us.bit_length() - _BITS - 1
            index = min((shift << _BITS) + (us >> shift), len(self._counts) - 1)
        self._counts[index] += 1
        self.total += 1
        if seconds > self.largest:
            self.largest = seconds

    def counts(self) -> dict[int, int]:
        """Return the counts that are not 0, by the number of their bucket, for :meth:`restored`."""
        return {index: count for index, count in enumerate(self._counts) if count}

    @classmethod
    def restored(cls, counts: Mapping[int, int], largest: float) -> Histogram:
        """Return the histogram of which these are the ``counts`` and the longest duration.

        Raises :class:`IndexError` for a bucket that there is not.
        """
        made = cls()
        for index, count in counts.items():
            made._counts[index] += count
            made.total += count
        made.largest = largest
        return made

    def quantile(self, part: float) -> float:
        """Return the seconds that a fraction ``part`` (0 to 1) of the durations did not exceed.

        Returns 0 if nothing was counted.
        """
        wanted = part * self.total
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(self.largest, _upper(index) / 1e6)
        return self.largest


def _upper(index: int) -> int:
    """Return the upper end of a bucket in microseconds."""
    if index < _PARTS:
        return index + 1
    shift = (index >> _BITS) - 1
    return ((index & (_PARTS - 1)) + _PARTS + 1) << shift
