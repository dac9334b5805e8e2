"""Detects and reports steps of the wall clock."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from kupool.kinds import format_duration

#: Seconds that the wall clock may move, between two checks, against a clock that nobody sets.
TOLERATED = 2.0

#: Seconds for which a step is reported.
TOLD = 600.0


class ClockWatch:
    """Compares the wall clock with a clock that nobody sets; to be called every second.

    ``wall`` returns seconds since the epoch. ``steady`` returns seconds since the boot, including
    the time that the machine slept, so that waking up is not a step.
    """

    _log = Logger()

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()
        self._step = self._stepped_at = 0.0

    def look(self) -> None:
        """Check whether the wall clock was set since the last call."""
        steady = self._steady()
        offset = self._wall() - steady
        step, self._offset = offset - self._offset, offset
        if abs(step) > TOLERATED:
            self._step, self._stepped_at = step, steady
            self._log.warn("The wall clock {moved}", moved=self._moved())

    @property
    def problem(self) -> str:
        """The last step, for some minutes; empty if there was none."""
        if not self._step or self._steady() - self._stepped_at >= TOLD:
            return ""
        return f"the wall clock {self._moved()}"

    def _moved(self) -> str:
        direction = "ahead" if self._step > 0 else "back"
        return f"was set {direction} by {format_duration(round(abs(self._step), 1))}"


__all__ = ["TOLD", "TOLERATED", "ClockWatch"]
