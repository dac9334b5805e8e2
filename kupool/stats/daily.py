"""Counts of whole UTC days, which are kept beside the minutes: they do not change by a roll-up.

With them, what 100,000 workers did today is one row each. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kupool.stats.counts import MinuteCount
from kupool.stats.fold import DAY
from kupool.wire.batches import Rejection


class DayCount(NamedTuple):
    """What to add to a day of a user, or of one worker; ``day`` is in seconds since the epoch.

    ``last`` is the newest minute with an accepted submission, 0 if there is none.
    """

    day: int
    username: str
    worker: str
    accepted: int
    rejected: int
    last: int


class DayCounts(NamedTuple):
    """What to add to the days of users and of workers, sorted.

    The workers of a user are all they submitted: those without a name of a worker are in the row
    whose ``worker`` is empty.
    """

    users: list[DayCount]
    workers: list[DayCount]


def fold_days(rows: Iterable[MinuteCount], rejections: Mapping[Rejection, int]) -> DayCounts:
    """Return what to add for some per-minute rows and some rejections.

    Rejections without a name are left out.
    """
    users, workers = _Sums(), _Sums()
    unnamed: Counter[tuple[str, int]] = Counter()
    for username, worker, minute, count in rows:
        if worker:
            workers.accept(username, worker, minute, count)
            unnamed[username, minute] -= count
        else:
            users.accept(username, "", minute, count)
            unnamed[username, minute] += count
    for (username, minute), count in unnamed.items():
        if count > 0:
            workers.accept(username, "", minute, count)
    for rejection, count in rejections.items():
        if rejection.username:
            day = rejection.minute // DAY * DAY
            users.rejected[day, rejection.username, ""] += count
            workers.rejected[day, rejection.username, rejection.worker] += count
    return DayCounts(users.rows(), workers.rows())


class _Sums:
    """Sums by (day, user, worker)."""

    def __init__(self) -> None:
        self.accepted: Counter[tuple[int, str, str]] = Counter()
        self.rejected: Counter[tuple[int, str, str]] = Counter()
        self._last: dict[tuple[int, str, str], int] = {}

    def accept(self, username: str, worker: str, minute: int, count: int) -> None:
        key = (minute // DAY * DAY, username, worker)
        self.accepted[key] += count
        self._last[key] = max(self._last.get(key, 0), minute)

    def rows(self) -> list[DayCount]:
        keys = sorted({*self.accepted, *self.rejected})
        return [
            DayCount(*key, self.accepted[key], self.rejected[key], self._last.get(key, 0))
            for key in keys
        ]


__all__ = ["DayCount", "DayCounts", "fold_days"]
