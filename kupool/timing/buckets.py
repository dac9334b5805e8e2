"""Token buckets, which limit how often something may happen. Pure: takes ``now``."""

from __future__ import annotations


class Bucket:
    """A token bucket: up to ``burst`` tokens, ``rate`` new ones a second, full at first."""

    __slots__ = ("_burst", "_rate", "_stamp", "_tokens", "holders")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._stamp = now
        #: Number of holders, if they are counted.
        self.holders = 0

    def level(self, now: float) -> float:
        """Return the number of tokens."""
        gained = (now - self._stamp) * self._rate
        return min(self._burst, self._tokens + gained) if gained > 0 else self._tokens

    def empty(self, now: float) -> bool:
        """Return whether there is less than one token."""
        return self.level(now) < 1.0

    def full(self, now: float) -> bool:
        """Return whether it holds ``burst`` tokens, like a new one."""
        return self.level(now) >= self._burst

    def wait(self, now: float) -> float:
        """Return the seconds until there is a token; 0 if there is one."""
        return max(0.0, (1.0 - self.level(now)) / self._rate)

    def spend(self, now: float) -> bool:
        """Take one token; returns False, and takes none, if there is none."""
        level = self.level(now)
        self._stamp = now
        self._tokens = level - 1.0 if level >= 1.0 else level
        return level >= 1.0

    def refund(self) -> None:
        """Give one token back."""
        self._tokens = min(self._burst, self._tokens + 1.0)


__all__ = ["Bucket"]
