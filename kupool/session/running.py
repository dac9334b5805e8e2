"""Measure elapsed time without the pauses in which this process did not run.

While a process is stopped, a machine suspended, or a reactor blocked, nothing is read. The
data that peers sent waits in buffers, so no peer counts as silent or late for that time.
Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

#: Most pauses that are remembered; older ones are forgotten.
MOST_PAUSES = 100


class RunningTime:
    """Detects pauses by beats and other timers that fire late.

    ``now`` returns seconds of a monotonic clock. Call :meth:`beat` every ``interval``
    seconds: the time between two beats beyond ``slack`` intervals was a pause. For other
    timers, the delay beyond ``slack - 1`` intervals was a pause.
    """

    def __init__(self, now: Callable[[], float], interval: float, slack: float = 2.0) -> None:
        self._now = now
        self._interval = interval
        self._slack = slack
        self._beaten = now()
        #: (begin, end) of each pause.
        self._pauses: deque[tuple[float, float]] = deque(maxlen=MOST_PAUSES)

    def start(self) -> None:
        """Start or restart; the time before is not a pause."""
        self._beaten = self._now()

    def beat(self) -> float:
        """Take a beat; returns the seconds of a pause that has just ended, 0 for none."""
        due = self._beaten + self._interval
        self._beaten = self._now()
        return self.fired(due)

    def fired(self, due: float) -> float:
        """Note that a timer due at ``due`` fires now; returns as :meth:`beat`."""
        now = self._now()
        if now - due <= (self._slack - 1.0) * self._interval:
            return 0.0
        self._pauses.append((due, now))
        return now - due

    def elapsed(self, since: float) -> float:
        """Return the seconds for which this process has run since a time of the clock."""
        paused = sum(end - max(begin, since) for begin, end in self._pauses if end > since)
        return self._now() - since - paused


__all__ = ["MOST_PAUSES", "RunningTime"]
