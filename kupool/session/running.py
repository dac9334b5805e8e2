"""How long something has lasted, without the time in which this process did not run.

A process that was stopped, a machine that was suspended, or a reactor that was blocked has
read nothing meanwhile. What its peers sent lies in buffers, and nobody may be called silent
or late for it. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

#: Pauses that are remembered; older ones count no more.
MOST_PAUSES = 100


class RunningTime:
    """Notices pauses by beats and other timers that come late.

    ``now`` returns seconds of a clock that is never set. :meth:`beat` is to be called every
    ``interval`` seconds; what goes beyond ``slack`` intervals between two beats was a pause. So
    was what goes beyond ``slack`` less one between the time of another timer and its call.
    """

    def __init__(self, now: Callable[[], float], interval: float, slack: float = 2.0) -> None:
        self._now = now
        self._interval = interval
        self._slack = slack
        self._beaten = now()
        #: (begin, end) of each pause.
        self._pauses: deque[tuple[float, float]] = deque(maxlen=MOST_PAUSES)

    def start(self) -> None:
        """Begin to watch, or begin again: what came before is no pause."""
        self._beaten = self._now()

    def beat(self) -> float:
        """Take a beat; returns how many seconds of a pause have just ended, 0 for none."""
        due = self._beaten + self._interval
        self._beaten = self._now()
        return self.fired(due)

    def fired(self, due: float) -> float:
        """Take note of a timer that was due at a time, and fires now; returns as :meth:`beat`."""
        now = self._now()
        if now - due <= (self._slack - 1.0) * self._interval:
            return 0.0
        self._pauses.append((due, now))
        return now - due

    def elapsed(self, since: float) -> float:
        """Return how many seconds this process has run since a time of the clock."""
        now = self._now()
        paused = sum(
            max(0.0, min(end, now) - max(begin, since))
            for begin, end in self._pauses
            if end > since
        )
        return now - since - paused


__all__ = ["MOST_PAUSES", "RunningTime"]
