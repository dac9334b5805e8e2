"""A token bucket for each user or address, shared by their sessions. Pure: takes ``now``."""

from __future__ import annotations

from collections.abc import Hashable

from kupool.timing.buckets import Bucket


class SharedBuckets:
    """One token bucket per key (a user or an address), shared by all sessions of the key.

    A bucket outlives its sessions until it is full again, so that reconnecting does not
    refill it.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[Hashable, Bucket] = {}
        self._purge_at = 1024

    def __len__(self) -> int:
        return len(self._buckets)

    def hold(self, key: Hashable, now: float) -> Bucket:
        """Return the bucket of a key; the caller decreases its ``holders`` when it releases it."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._purge_at:
                self._purge(now)
            bucket = self._buckets[key] = Bucket(self._rate, self._burst, now)
        bucket.holders += 1
        return bucket

    def level(self, key: Hashable, now: float) -> float:
        """Return the number of tokens of a key."""
        bucket = self._buckets.get(key)
        return self._burst if bucket is None else bucket.level(now)

    def wait(self, key: Hashable, now: float) -> float:
        """Return the seconds until a key has a token; 0 if it has one."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.wait(now)

    def spend(self, key: Hashable, now: float) -> bool:
        """Take a token of a key that has no holder; returns False if there is none."""
        bucket = self.hold(key, now)
        bucket.holders -= 1
        return bucket.spend(now)

    def _purge(self, now: float) -> None:
        """Remove buckets that are full and have no holder."""
        self._buckets = {k: b for k, b in self._buckets.items() if b.holders or not b.full(now)}
        self._purge_at = max(1024, 2 * len(self._buckets))


__all__ = ["SharedBuckets"]
