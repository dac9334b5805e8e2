"""Token buckets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.pool.limits import Bucket, SharedBuckets


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


class SharedTests(SynchronousTestCase):
    """K-46: one bucket for all the sessions of a user or an address."""

    def test_same_bucket(self) -> None:
        buckets = SharedBuckets(1.0, 1.0)
        self.assertIs(buckets.hold("alice", 0.0), buckets.hold("alice", 5.0))
        self.assertIsNot(buckets.hold("alice", 0.0), buckets.hold("bob", 0.0))

    def test_coming_back_does_not_refill(self) -> None:
        buckets = SharedBuckets(0.01, 1.0)
        bucket = buckets.hold("alice", 0.0)
        bucket.spend(0.0)
        bucket.holders -= 1
        for n in range(5000):
            buckets.hold(n, 1.0).holders -= 1
        self.assertTrue(buckets.hold("alice", 1.0).empty(1.0))

    def test_bounded(self) -> None:
        """K-46: buckets that are full and nobody holds are dropped."""
        buckets = SharedBuckets(1.0, 1.0)
        for n in range(100_000):
            buckets.hold(n, 0.0).holders -= 1
        self.assertLessEqual(len(buckets), 1024)

    def test_held_is_kept(self) -> None:
        """K-46: two sessions of a user never get a bucket each."""
        buckets = SharedBuckets(1.0, 1.0)
        held = buckets.hold("alice", 0.0)
        for n in range(5000):
            buckets.hold(n, 10.0).holders -= 1
        self.assertIs(buckets.hold("alice", 10.0), held)
