"""The retention clock, which decides how old data is. Pure: the times are given.

Deleting or rolling up old data must not depend on the wall clock: if it is 40 days ahead for a
minute, a month of data would be deleted. The retention clock is never ahead of the wall clock, and
never advances faster than twice the time that the daemon has run. If the wall clock is set back,
the retention clock follows at once; forwards it catches up while the daemon runs.
"""

from __future__ import annotations

from kupool.storage.clocks import YEAR_2024

#: The most seconds that it advances for a second that the daemon runs.
FASTEST = 2.0


class RetentionClock:
    """The retention clock, in seconds since the epoch.

    ``kept`` is its time at the end of the last run, None if there was none. Then it starts at the
    time of the wall clock, or at ``newest``, the time of the last known event, if that is earlier.
    ``running`` are seconds on a clock that nobody sets.
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
        """The time to save for the next run. The wall clock may be behind it."""
        return self._seconds

    def tick(self, wall: float, running: float) -> float:
        """Advance to the time of the other two clocks; returns the time that retention uses."""
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
