"""Count refusals and limit their log lines, so that a flood of them does not fill the log."""

from __future__ import annotations

from collections import Counter

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: Seconds between two log lines for the same reason.
PERIOD = 60.0


class Refusals:
    """Counts refusals by reason; logs the first at once, and then a summary each minute."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        #: Number of refusals by reason.
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._said: dict[str, int] = {}
        self._timers: dict[str, IDelayedCall] = {}

    def note(self, reason: str) -> bool:
        """Count a refusal; ``reason`` is one of a few texts that say what was refused and why.

        Returns whether it was logged, so that the caller can log details at the same time.
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
        """Log the refusals that are not logged yet, and stop the timer."""
        for reason, timer in list(self._timers.items()):
            timer.cancel()
            self._say(reason)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


__all__ = ["PERIOD", "Refusals"]
