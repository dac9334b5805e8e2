"""What is written to the counts in PostgreSQL, as far as it needs no server."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.stats.postgres_writes import within


class TimeTests(SynchronousTestCase):
    def test_times_that_can_be_stored(self) -> None:
        """K-73: from the epoch to the end of 9999; others become the nearest of these."""
        last = 253_402_300_799
        for seconds, stored in (
            (-(10**30), 0),
            (-1, 0),
            (0, 0),
            (1, 1),
            (last, last),
            (last + 1, last),
            (10**30, last),
        ):
            self.assertEqual(within(seconds), stored)
