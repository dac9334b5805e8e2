"""Who is turned away: each is counted, and a flood of them is a few lines of the log."""

from __future__ import annotations

from collections import Counter

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: Seconds between two lines about refusals for the same reason.
PERIOD = 60.0


class Refusals:
    """Counts refusals by their reason, and logs the first at once, the others by the minute."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        #: How many there were, by reason.
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._said: dict[str, int] = {}
        self._timers: dict[str, IDelayedCall] = {}

    def note(self, reason: str) -> bool:
        """Count one; ``reason`` is one of few, and says what was refused and why.

        Returns whether it was logged: where there is more to say, that is the moment.
        """
        self.counts[reason] += 1
        first = reason not in self._timers
        if first:
            self._say(reason)
        return first

    def _say(self, reason: str) -> None:
        total = self.counts[reason]
        count = total - self._said.get(reason, 0)
        self._timers.pop(reason, None)
        if count:
            self._said[reason] = total
            self._timers[reason] = self._clock.callLater(PERIOD, self._say, reason)
            self._log.warn(
                "Refused: {reason}: {count}, {total} since the start",
                reason=reason,
                count=count,
                total=total,
            )

    def stop(self) -> None:
        """Say what has not been said, and nothing by itself any more."""
        for reason, timer in list(self._timers.items()):
            timer.cancel()
            self._say(reason)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


__all__ = ["PERIOD", "Refusals"]
