"""Token buckets: how often something may happen. Pure: time is given as ``now``."""

from __future__ import annotations


class Bucket:
    """Holds up to ``burst`` tokens and gains ``rate`` of them a second; full at first."""

    __slots__ = ("_burst", "_rate", "_stamp", "_tokens", "holders")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._stamp = now
        #: How many hold on to it, where somebody counts them.
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

    def wait(self, now: float) -> float:
        """Return how many seconds it takes until there is a token; 0 where there is one."""
        return max(0.0, (1.0 - self.level(now)) / self._rate)

    def spend(self, now: float) -> bool:
        """Take one token; returns False, and takes none, when there is none."""
        level = self.level(now)
        self._stamp = now
        self._tokens = level - 1.0 if level >= 1.0 else level
        return level >= 1.0

    def refund(self) -> None:
        """Give one token back."""
        self._tokens = min(self._burst, self._tokens + 1.0)


__all__ = ["Bucket"]
