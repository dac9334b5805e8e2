"""Say what happens often: the first time at once, and then the sum of each period."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

K = TypeVar("K", bound=Hashable)


class Summaries(Generic[K]):
    """Adds up what happens, by key.

    ``say`` is called with a key and how often it has happened since it was said last: at once for
    the first time, and then at most once in ``period`` seconds. It must not raise.
    """

    def __init__(self, clock: IReactorTime, period: float, say: Callable[[K, int], object]) -> None:
        self._clock = clock
        self._period = period
        self._say = say
        self._unsaid: Counter[K] = Counter()
        self._timers: dict[K, IDelayedCall] = {}

    def __len__(self) -> int:
        """Return the number of keys that were said in the last period."""
        return len(self._timers)

    def __contains__(self, key: object) -> bool:
        """Return whether a key was said in the last period."""
        return key in self._timers

    def note(self, key: K, count: int = 1) -> bool:
        """Add to a key; returns whether it was said at once."""
        self._unsaid[key] += count
        if key in self._timers:
            return False
        self._tell(key)
        return True

    def stop(self) -> None:
        """Say what is not said yet, and stop the timers."""
        timers, self._timers = self._timers, {}
        for timer in timers.values():
            timer.cancel()
        unsaid, self._unsaid = self._unsaid, Counter()
        for key, count in unsaid.items():
            self._say(key, count)

    def _tell(self, key: K) -> None:
        self._timers.pop(key, None)
        count = self._unsaid.pop(key, 0)
        if count:
            self._timers[key] = self._clock.callLater(self._period, self._tell, key)
            self._say(key, count)


__all__ = ["Summaries"]
