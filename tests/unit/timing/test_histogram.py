"""A histogram of durations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

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

    def test_kept_and_restored(self) -> None:
        """A-55: a histogram goes on from the counts that were kept of it."""
        first = Histogram()
        for value in (0.001, 0.002, 0.5):
            first.add(value)
        second = Histogram.restored(first.counts(), first.largest)
        self.assertEqual((second.total, second.largest), (3, 0.5))
        for part in (0.1, 0.5, 0.9, 1.0):
            self.assertEqual(second.quantile(part), first.quantile(part))
        second.add(2.0)
        self.assertEqual((second.total, second.quantile(1.0)), (4, 2.0))
        self.assertRaises(IndexError, Histogram.restored, {10**6: 1}, 1.0)
