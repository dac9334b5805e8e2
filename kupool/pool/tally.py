"""Counts of rejected submissions by name, reason and minute. Pure: times are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from kupool.errors import ErrorText
from kupool.wire.batches import Rejection
from kupool.wire.messages import split_username

#: At most this many (name, reason, minute) are counted between two commits; more rejections are
#: counted without a name.
MAX_TALLIES = 10_000


class RejectionTally:
    """Counts rejections until they are taken.

    ``wall`` returns seconds since the epoch. It is read once for each minute, and after each
    :meth:`take`.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        #: Rejections of each reason since the start, without those of the current minute.
        self._outcomes: Counter[str] = Counter()
        self._earlier: Counter[Rejection] = Counter()
        #: (name, reason) -> count of the current minute, which ends at ``_minute_ends``.
        self._counts: dict[tuple[str, ErrorText], int] = {}
        self._minute = 0
        self._minute_ends = float("-inf")

    def add(self, username: str, error: ErrorText, now: float) -> None:
        """Count one rejection of a session; ``now`` is in seconds on the clock of the process."""
        if now >= self._minute_ends:
            self._begin_minute(now)
        counts, key = self._counts, (username, error)
        count = counts.get(key)
        if count is None:
            count = 0
            if len(self) >= MAX_TALLIES:
                key = ("", error)
                count = counts.get(key, 0)
        counts[key] = count + 1

    def _begin_minute(self, now: float) -> None:
        self._put_by()
        wall = self._wall()
        self._minute = int(wall) // 60 * 60
        self._minute_ends = now + 60.0 - wall % 60.0

    def _put_by(self) -> None:
        for (username, error), count in self._counts.items():
            self._outcomes[error.text] += count
            user, worker = split_username(username)
            self._earlier[Rejection(user, error.code, self._minute, worker)] += count
        self._counts = {}
        self._minute_ends = float("-inf")

    def __len__(self) -> int:
        """Return the number of (name, reason, minute) with counts to take."""
        return len(self._counts) + len(self._earlier)

    @property
    def outcomes(self) -> Counter[str]:
        """Rejections since the start, by error text."""
        self._put_by()
        return self._outcomes

    def take(self) -> Counter[Rejection]:
        """Return and reset the rejections counted since the last call."""
        self._put_by()
        taken, self._earlier = self._earlier, Counter()
        return taken


__all__ = ["MAX_TALLIES", "RejectionTally"]
