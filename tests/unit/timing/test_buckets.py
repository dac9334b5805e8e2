"""Token buckets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.timing.buckets import Bucket


class BucketTests(SynchronousTestCase):
    """K-45: so many at once, and so many a second."""

    def test_burst_then_rate(self) -> None:
        bucket = Bucket(1.0, 5.0, 0.0)
        self.assertEqual([bucket.spend(0.0) for _ in range(7)], [True] * 5 + [False] * 2)
        self.assertFalse(bucket.spend(0.999))
        self.assertTrue(bucket.spend(1.0))
        self.assertFalse(bucket.spend(1.0))

    def test_never_more_than_the_burst(self) -> None:
        bucket = Bucket(1.0, 2.0, 0.0)
        self.assertEqual(bucket.level(1e6), 2.0)
        bucket.refund()
        self.assertEqual([bucket.spend(1e6) for _ in range(3)], [True, True, False])

    def test_refund(self) -> None:
        bucket = Bucket(1.0, 2.0, 0.0)
        bucket.spend(0.0)
        bucket.spend(0.0)
        self.assertTrue(bucket.empty(0.0))
        bucket.refund()
        self.assertFalse(bucket.empty(0.0))

    @given(st.lists(st.floats(0, 5), max_size=200), st.floats(0.1, 10), st.integers(1, 10))
    def test_bound(self, waits: list[float], rate: float, burst: int) -> None:
        """K-45: in any stretch of time no more pass than the burst and the rate allow."""
        bucket, now, passed = Bucket(rate, burst, 0.0), 0.0, 0
        for wait in waits:
            now += wait
            passed += bucket.spend(now)
        self.assertLessEqual(passed, burst + now * rate + 1e-6)

    def test_wait(self) -> None:
        """issue 12: after that time, and not before, there is a token."""
        bucket = Bucket(0.5, 1.0, 0.0)
        self.assertEqual(bucket.wait(0.0), 0.0)
        bucket.spend(0.0)
        self.assertEqual(bucket.wait(0.0), 2.0)
        self.assertEqual(bucket.wait(1.5), 0.5)
        self.assertFalse(bucket.spend(1.9))
        self.assertTrue(bucket.spend(2.0))
