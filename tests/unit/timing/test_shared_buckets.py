"""Token buckets of users and addresses."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.timing.shared_buckets import SharedBuckets


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
