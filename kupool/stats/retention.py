"""The clock that retention follows. Pure: the times are given.

What deletes or rolls up old data must not believe a wall clock: one that is 40 days ahead for
a minute would delete a month. So this clock is never ahead of the wall clock, and never
advances faster than twice the time that the daemon has run. A clock that was put right takes
it along at once, when that means backwards; forwards it catches up while the daemon runs.
"""

from __future__ import annotations

from kupool.storage.clocks import YEAR_2024

#: Seconds that it advances at the most in a second that the daemon runs.
FASTEST = 2.0


class RetentionClock:
    """The retention clock, in seconds since the epoch.

    ``kept`` is its time as the last run left it, None where there was none. Then it begins at
    the time of the wall clock, or at ``newest``, when something was last known to happen,
    where that is earlier. ``running`` are seconds on a clock that nobody sets.
    """

    def __init__(
        self, kept: float | None, wall: float, running: float, newest: float | None = None
    ) -> None:
        if kept is None:
            kept = max(wall, YEAR_2024)
            if newest is not None and newest >= YEAR_2024:
                kept = min(kept, newest)
        self._seconds = kept
        self._running = running
        self._follow_down(wall)

    @property
    def seconds(self) -> float:
        """Its time, to be kept for the next run. The wall clock may be behind it."""
        return self._seconds

    def tick(self, wall: float, running: float) -> float:
        """Advance to a time of the other two clocks; returns what retention goes by."""
        ran = max(0.0, running - self._running)
        self._running = max(self._running, running)
        if wall > self._seconds:
            self._seconds = min(wall, self._seconds + FASTEST * ran)
        else:
            self._follow_down(wall)
        return min(self._seconds, wall)

    def _follow_down(self, wall: float) -> None:
        if YEAR_2024 <= wall < self._seconds:
            self._seconds = wall


__all__ = ["FASTEST", "RetentionClock"]
