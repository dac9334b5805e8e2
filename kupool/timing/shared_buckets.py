"""One token bucket for each user or address. Pure: time is given as ``now``."""

from __future__ import annotations

from collections.abc import Hashable

from kupool.timing.buckets import Bucket


class SharedBuckets:
    """One bucket for each key: a user, or an address, across their sessions.

    A bucket outlives the sessions that hold it until it is full again, so that coming
    back does not refill it.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[Hashable, Bucket] = {}
        self._purge_at = 1024

    def __len__(self) -> int:
        return len(self._buckets)

    def hold(self, key: Hashable, now: float) -> Bucket:
        """Return the bucket of a key; whoever lets go of it lowers its ``holders``."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._purge_at:
                self._purge(now)
            bucket = self._buckets[key] = Bucket(self._rate, self._burst, now)
        bucket.holders += 1
        return bucket

    def level(self, key: Hashable, now: float) -> float:
        """Return how many tokens a key has."""
        bucket = self._buckets.get(key)
        return self._burst if bucket is None else bucket.level(now)

    def wait(self, key: Hashable, now: float) -> float:
        """Return how many seconds it takes until a key has a token; 0 where it has one."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.wait(now)

    def spend(self, key: Hashable, now: float) -> bool:
        """Take a token of a key that nobody holds; returns False when there is none."""
        bucket = self.hold(key, now)
        bucket.holders -= 1
        return bucket.spend(now)

    def _purge(self, now: float) -> None:
        """Drop the buckets that tell nothing: full ones that nobody holds."""
        self._buckets = {k: b for k, b in self._buckets.items() if b.holders or not b.full(now)}
        self._purge_at = max(1024, 2 * len(self._buckets))


__all__ = ["SharedBuckets"]
