"""What a load counts: K-66."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.client.load_counts import MAX_JOBS, Spread
from kupool.timing.histogram import Histogram


class HistogramTests(SynchronousTestCase):
    """K-66: latencies are known to about 3 % whatever their number."""

    def test_empty(self) -> None:
        histogram = Histogram()
        self.assertEqual((histogram.quantile(0.5), histogram.largest), (0.0, 0.0))

    @given(
        st.lists(st.floats(0, 1000), min_size=1, max_size=200),
        st.sampled_from([0.5, 0.9, 0.99, 1.0]),
    )
    def test_quantiles(self, values: list[float], part: float) -> None:
        """K-66: a quantile is that of the sorted values, within a bucket."""
        histogram = Histogram()
        for value in values:
            histogram.add(value)
        ordered = sorted(values)
        index = max(0, -(-len(ordered) * int(part * 100) // 100) - 1)
        true = ordered[index]
        found = histogram.quantile(part)
        self.assertLessEqual(found, histogram.largest)
        self.assertGreaterEqual(found, true - 1e-6 if true < histogram.largest else true)
        self.assertLessEqual(found, true * (1 + 1 / 32) + 2e-6)
        self.assertEqual(histogram.largest, ordered[-1])
        self.assertEqual(histogram.total, len(values))


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
