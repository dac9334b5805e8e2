"""Token buckets: how often something may happen. Pure: time is given as ``now``."""

from __future__ import annotations

from collections.abc import Hashable


class Bucket:
    """Holds up to ``burst`` tokens and gains ``rate`` of them a second."""

    __slots__ = ("_burst", "_rate", "_stamp", "_tokens", "holders")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._stamp = now
        #: How many hold on to it; :class:`SharedBuckets` keeps it for them.
        self.holders = 0

    def level(self, now: float) -> float:
        """Return how many tokens there are."""
        gained = (now - self._stamp) * self._rate
        return min(self._burst, self._tokens + gained) if gained > 0 else self._tokens

    def empty(self, now: float) -> bool:
        """Say whether not even one token is there."""
        return self.level(now) < 1.0

    def full(self, now: float) -> bool:
        """Say whether it holds all it can, as a new one does."""
        return self.level(now) >= self._burst

    def spend(self, now: float) -> bool:
        """Take one token; returns False, and takes none, when there is none."""
        level = self.level(now)
        self._stamp = now
        self._tokens = level - 1.0 if level >= 1.0 else level
        return level >= 1.0

    def refund(self) -> None:
        """Give one token back."""
        self._tokens = min(self._burst, self._tokens + 1.0)


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

    def _purge(self, now: float) -> None:
        """Drop the buckets that tell nothing: full ones that nobody holds."""
        self._buckets = {k: b for k, b in self._buckets.items() if b.holders or not b.full(now)}
        self._purge_at = max(1024, 2 * len(self._buckets))
