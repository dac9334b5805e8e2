"""What is added to the days of users and of workers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.stats import BatchCounts, Rejection
from kupool.stats.daily import DayCount, fold_days
from kupool.stats.fold import DAY, as_rows, fold_rows

T = 1_800_057_600


class DailyTests(SynchronousTestCase):
    """Issue 18, build 2: days are exact, also of what came without the name of a worker."""

    def test_days(self) -> None:
        rows = as_rows(
            fold_rows(
                [
                    BatchCounts("b1", b"", T, ["a.x", "a.x", "a", "b"]),
                    BatchCounts("b2", b"", T + 60, ["a.x"]),
                    BatchCounts("b3", b"", T + DAY, ["a.y"]),
                ]
            )
        )
        found = fold_days(
            rows,
            {
                Rejection("a", 22, T + 60, "x"): 2,
                Rejection("a", 23, T, "x"): 1,
                Rejection("a", 23, T): 4,
                Rejection("", 23, T): 9,
            },
        )
        self.assertEqual(
            found.users,
            [
                DayCount(T, "a", "", 4, 7, T + 60),
                DayCount(T, "b", "", 1, 0, T),
                DayCount(T + DAY, "a", "", 1, 0, T + DAY),
            ],
        )
        self.assertEqual(
            found.workers,
            [
                DayCount(T, "a", "", 1, 4, T),
                DayCount(T, "a", "x", 3, 3, T + 60),
                DayCount(T, "b", "", 1, 0, T),
                DayCount(T + DAY, "a", "y", 1, 0, T + DAY),
            ],
        )
