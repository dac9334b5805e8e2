"""The clock that retention follows, whatever the wall clock shows."""

from __future__ import annotations

from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from kupool.stats.retention import FASTEST, RetentionClock
from kupool.storage.clocks import YEAR_2024

DAY = 86400.0
NOW = 1_800_000_000.0
IN_1970 = 1000.0
IN_2099 = 4_070_908_800.0


class Step(NamedTuple):
    """``ran`` seconds pass; then the wall clock shows ``wall``, and retention goes by ``used``."""

    ran: float
    wall: float
    used: float


class Case(NamedTuple):
    name: str
    kept: float | None
    wall: float
    steps: tuple[Step, ...]
    #: What is kept at the end.
    left: float
    newest: float | None = None


CASES = (
    Case(
        "a normal run",
        NOW,
        NOW,
        (Step(1, NOW + 1, NOW + 1), Step(3600, NOW + 3601, NOW + 3601)),
        NOW + 3601,
    ),
    Case("the first start", None, NOW, (Step(60, NOW + 60, NOW + 60),), NOW + 60),
    Case(
        "40 days ahead at the start, then corrected",
        NOW,
        NOW + 40 * DAY,
        (
            Step(0, NOW + 40 * DAY, NOW),
            Step(600, NOW + 40 * DAY + 600, NOW + 1200),
            Step(1, NOW + 601, NOW + 601),
        ),
        NOW + 601,
    ),
    Case(
        "40 days ahead while it runs, then corrected",
        NOW,
        NOW,
        (
            Step(10, NOW + 10, NOW + 10),
            Step(1, NOW + 11 + 40 * DAY, NOW + 12),
            Step(3600, NOW + 3611 + 40 * DAY, NOW + 7212),
            Step(1, NOW + 3612, NOW + 3612),
            Step(1, NOW + 3613, NOW + 3613),
        ),
        NOW + 3613,
    ),
    Case(
        "1970 at the start, then corrected",
        NOW,
        IN_1970,
        (
            Step(0, IN_1970, IN_1970),
            Step(60, IN_1970 + 60, IN_1970 + 60),
            Step(1, NOW + 61, NOW + 2),
            Step(100, NOW + 161, NOW + 161),
        ),
        NOW + 161,
    ),
    Case(
        "1970 while it runs",
        NOW,
        NOW,
        (Step(10, NOW + 10, NOW + 10), Step(1, IN_1970, IN_1970), Step(9, NOW + 20, NOW + 20)),
        NOW + 20,
    ),
    Case(
        "1970 on the very first start",
        None,
        IN_1970,
        (Step(60, IN_1970 + 60, IN_1970 + 60), Step(60, NOW, YEAR_2024 + 120)),
        YEAR_2024 + 120,
    ),
    Case(
        "2099 on the very first start, then corrected",
        None,
        IN_2099,
        (Step(60, IN_2099 + 60, IN_2099 + 60), Step(1, NOW, NOW), Step(1, NOW + 1, NOW + 1)),
        NOW + 1,
    ),
    Case(
        "2099 on the first start over the data of the release before",
        None,
        IN_2099,
        (Step(60, IN_2099 + 60, NOW + 120), Step(1, NOW + 61, NOW + 61)),
        NOW + 61,
        newest=NOW,
    ),
    Case(
        "the release before had a wrong clock itself",
        None,
        NOW,
        (Step(1, NOW + 1, NOW + 1),),
        NOW + 1,
        newest=IN_2099,
    ),
    Case(
        "the release before ran in 1970",
        None,
        NOW,
        (Step(1, NOW + 1, NOW + 1),),
        NOW + 1,
        newest=IN_1970,
    ),
    Case("a restart at once", NOW, NOW + 1, (Step(1, NOW + 2, NOW + 2),), NOW + 2),
    Case(
        "a long downtime: it lags, and catches up at twice the time run",
        NOW,
        NOW + 10 * DAY,
        (
            Step(0, NOW + 10 * DAY, NOW),
            Step(DAY, NOW + 11 * DAY, NOW + 2 * DAY),
            Step(8 * DAY, NOW + 19 * DAY, NOW + 18 * DAY),
            Step(DAY, NOW + 20 * DAY, NOW + 20 * DAY),
            Step(DAY, NOW + 21 * DAY, NOW + 21 * DAY),
        ),
        NOW + 21 * DAY,
    ),
    Case(
        "a clock that goes back a little",
        NOW,
        NOW,
        (Step(1, NOW - 3600, NOW - 3600), Step(1, NOW - 3599, NOW - 3599)),
        NOW - 3599,
    ),
)


class RetentionClockTests(SynchronousTestCase):
    """Issue 11, point 3: retention follows a clock that no wrong wall clock can rush."""

    def test_cases(self) -> None:
        for case in CASES:
            clock = RetentionClock(case.kept, case.wall, 500.0, case.newest)
            running = 500.0
            for number, step in enumerate(case.steps):
                running += step.ran
                used = clock.tick(step.wall, running)
                self.assertAlmostEqual(used, step.used, 3, f"{case.name}, step {number}")
            self.assertAlmostEqual(clock.seconds, case.left, 3, case.name)

    def test_never_ahead_of_the_wall_clock_nor_too_fast(self) -> None:
        """Whatever the wall clock does from one second to the next."""
        walls = [NOW, IN_1970, IN_2099, NOW + 40 * DAY, NOW - DAY, YEAR_2024, 0.0, NOW + 5]
        for first in (None, *walls):
            for start in walls:
                clock, running = RetentionClock(first, start, 0.0), 0.0
                before = clock.seconds
                for wall in walls * 2:
                    running += 7.0
                    self.assertLessEqual(clock.tick(wall, running), wall)
                    self.assertLessEqual(clock.seconds, before + FASTEST * 7.0)
                    before = clock.seconds

    def test_a_running_clock_that_stands_still(self) -> None:
        clock = RetentionClock(NOW, NOW, 100.0)
        self.assertEqual(clock.tick(NOW + DAY, 100.0), NOW)
        self.assertEqual(clock.tick(NOW + DAY, 50.0), NOW)
        self.assertEqual(clock.tick(NOW + DAY, 100.0), NOW)

    def test_a_start_behind_the_last_run(self) -> None:
        """A wall clock that was set back while nothing ran is followed at the start."""
        clock = RetentionClock(NOW + 100, NOW, 0.0)
        self.assertEqual(clock.seconds, NOW)
        self.assertEqual(clock.tick(NOW + 50, 1.0), NOW + FASTEST)

    def test_the_first_time_that_a_wall_clock_may_tell(self) -> None:
        """Earlier than 2024 it is not set at all, and is not followed."""
        for wall, followed in ((YEAR_2024, YEAR_2024), (YEAR_2024 - 1, NOW)):
            clock = RetentionClock(NOW, NOW, 0.0)
            clock.tick(wall, 1.0)
            self.assertEqual(clock.seconds, followed)
            # So it is with what was counted before.
            self.assertEqual(RetentionClock(None, NOW, 0.0, wall).seconds, followed)
