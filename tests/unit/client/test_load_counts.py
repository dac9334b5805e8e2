"""What a load counts: K-66."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.client.load_counts import MAX_JOBS, Spread


class SpreadTests(SynchronousTestCase):
    """K-66: the spread of a job is from its first to its last receipt."""

    def test_widest_of_those_that_reached_most(self) -> None:
        spread = Spread()
        self.assertIsNone(spread.widest())
        spread.received(1, 10.0)
        self.assertIsNone(spread.widest())
        spread.received(1, 19.0)
        for session in range(3):
            spread.received(2, 40.0 + session * 0.01)
            spread.received(3, 70.0 + session * 0.02)
        job, seconds, sessions = spread.widest() or (0, 0.0, 0)
        self.assertEqual((job, sessions), (3, 3))
        self.assertAlmostEqual(seconds, 0.04)

    def test_bounded(self) -> None:
        spread = Spread()
        for job in range(MAX_JOBS + 50):
            spread.received(job, float(job))
            spread.received(job, job + (100.0 if job < 50 else 1.0))
        self.assertEqual((spread.widest() or (0, 0.0, 0))[1], 1.0)
