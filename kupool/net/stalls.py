"""Finds handlers that never yield: says where the reactor stands while it stands still.

A handler that computes, or blocks, in the reactor's thread holds everybody up, and nothing
in that thread can say so. A watchdog outside of it can: see :mod:`faulthandler`.
"""

from __future__ import annotations

import faulthandler
import sys
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kupool.ranges import check, number


class StallWatch:
    """Writes the stack of every thread to a file when the reactor has stood still for a while.

    That happens once ``seconds`` have passed, while it still stands; ``file`` is standard
    error unless another one with a descriptor is given. When the reactor goes on, the log
    has a warning with how long it was, and ``stalls`` one more. One watch at a time works
    in a process. Raises :class:`ValueError` for a time that is not above zero.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, seconds: float = 2.0, file: Any = None) -> None:
        check({"seconds": number(above=True)}, seconds=seconds)
        self.stalls = 0
        self._clock = clock
        self._seconds = seconds
        self._file = file
        self._beaten = 0.0
        self._loop = LoopingCall(self._beat)
        self._loop.clock = clock

    def start(self) -> None:
        """Watch from now on."""
        if not self._loop.running:
            self._beaten = self._clock.seconds()
            self._loop.start(self._seconds / 4).addErrback(
                lambda failure: self._log.failure(
                    "The watch for a blocked reactor stopped because of an error", failure
                )
            )

    def stop(self) -> None:
        """Watch no more."""
        if self._loop.running:
            self._loop.stop()
            faulthandler.cancel_dump_traceback_later()

    def _beat(self) -> None:
        now = self._clock.seconds()
        stood, self._beaten = now - self._beaten, now
        if stood >= self._seconds:
            self.stalls += 1
            self._log.warn("The reactor was blocked for {stood:.1f} s", stood=stood)
        faulthandler.dump_traceback_later(self._seconds, file=self._file or sys.stderr)


__all__ = ["StallWatch"]
