"""Rejections by user, reason and minute."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import DUPLICATE, INVALID_RESULT
from kupool.pool.tally import RejectionTally
from kupool.wire.batches import Rejection

WALL = 1_800_000_000.0  # a whole minute


class MinuteTests(SynchronousTestCase):
    """K-75: the minute of a rejection, by one look at the wall clock in each."""

    def test_minutes_and_steps_of_the_clock(self) -> None:
        wall = [WALL + 50.0]
        tally = RejectionTally(lambda: wall[0])
        tally.add("ann", DUPLICATE, 10.0)
        wall[0] += 10.0
        tally.add("ann", DUPLICATE, 20.0)
        minute = int(WALL)
        first, second = Rejection("ann", 22, minute), Rejection("ann", 22, minute + 60)
        self.assertEqual(dict(tally.take()), {first: 1, second: 1})
        wall[0] -= 3600.0
        tally.add("ann", DUPLICATE, 21.0)
        self.assertEqual(dict(tally.take()), {Rejection("ann", 22, minute - 3540): 1})
        self.assertEqual(tally.outcomes, {"Duplicate submission": 3})

    def test_the_minute_ends_exactly(self) -> None:
        tally = RejectionTally(lambda: WALL + now - 100.0)
        minute = int(WALL)
        for now in (100.0, 159.9, 160.0):
            tally.add("ann", DUPLICATE, now)
        self.assertEqual(
            dict(tally.take()),
            {Rejection("ann", 22, minute): 2, Rejection("ann", 22, minute + 60): 1},
        )

    def test_outcomes_are_never_handed_over(self) -> None:
        """K-91: those since the start stay, whoever takes the others."""
        tally = RejectionTally(lambda: WALL)
        for error in (DUPLICATE, INVALID_RESULT, DUPLICATE):
            tally.add("ann", error, 0.0)
        found = {"Duplicate submission": 2, "Invalid result": 1}
        self.assertEqual(tally.outcomes, found)
        tally.take()
        self.assertEqual(tally.outcomes, found)
        self.assertEqual((len(tally), tally.take()), (0, {}))


class WorkerTests(SynchronousTestCase):
    """Issue 18, build 4: rejections are counted for the worker, too."""

    def test_names_with_a_worker(self) -> None:
        tally = RejectionTally(lambda: WALL)
        for name in ("ann.rig1", "ann.rig1", "ann.rig2", "ann", ".x"):
            tally.add(name, DUPLICATE, 0.0)
        minute = int(WALL)
        self.assertEqual(
            dict(tally.take()),
            {
                Rejection("ann", 22, minute, "rig1"): 2,
                Rejection("ann", 22, minute, "rig2"): 1,
                Rejection("ann", 22, minute): 1,
                Rejection(".x", 22, minute): 1,
            },
        )


class BoundTests(SynchronousTestCase):
    """K-75: so many are counted by name until they are taken; the rest under no name."""

    def test_over_several_minutes(self) -> None:
        """Those of the minutes before count as well."""
        wall = [WALL]
        tally = RejectionTally(lambda: wall[0])
        for number in range(9_999):
            tally.add(f"user{number}", DUPLICATE, 0.0)
        wall[0] += 60.0
        for user in ("ann", "bob", "ann", "carol", "bob"):
            tally.add(user, DUPLICATE, 60.0)
        tally.add("bob", INVALID_RESULT, 60.0)
        self.assertEqual(len(tally), 10_002)
        taken = tally.take()
        minute = int(wall[0])
        self.assertEqual(taken[Rejection("ann", 22, minute)], 2)
        self.assertEqual(taken[Rejection("", 22, minute)], 3)
        self.assertEqual(taken[Rejection("", 23, minute)], 1)
        self.assertEqual(taken.total(), 9_999 + 6)
        tally.add("bob", DUPLICATE, 61.0)
        self.assertEqual(tally.take(), {Rejection("bob", 22, minute): 1})
