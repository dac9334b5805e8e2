"""Detect a blocked reactor, and show where it is blocked.

A handler that computes or blocks in the reactor's thread delays everything else. Code in
that thread cannot report it, so another thread does.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kupool.ranges import check, number

#: Number of beats, and of checks of them, in the ``seconds`` of a :class:`StallWatch`.
BEATS = 4


class StallWatch:
    """Writes the stack of every thread to a file when the reactor is blocked for too long.

    The stacks are written once the reactor has been blocked for ``seconds``, while it is
    still blocked. ``file`` is standard error by default; another file needs a descriptor.
    When the reactor runs again, a warning with the duration is logged, and ``stalls`` is
    increased.

    Time in which the whole process was suspended does not count for the stacks. Code that
    never releases the GIL, such as some regular expressions, only causes the warning in the
    log. Raises :class:`ValueError` for a time that is not above zero.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, seconds: float = 2.0, file: Any = None) -> None:
        check({"seconds": number(above=True)}, seconds=seconds)
        self.stalls = 0
        self._clock = clock
        self._seconds = seconds
        self._file = file
        self._beaten = 0.0
        self._beats = 0
        self._over = threading.Event()
        self._loop = LoopingCall(self._beat)
        self._loop.clock = clock

    def start(self) -> None:
        """Start the watch."""
        if not self._loop.running:
            self._beaten = self._clock.seconds()
            self._over = threading.Event()
            threading.Thread(
                target=self._watch, args=(self._over,), name="kupool-stalls", daemon=True
            ).start()
            self._loop.start(self._seconds / BEATS).addErrback(
                lambda failure: self._log.failure(
                    "The watch for a blocked reactor stopped because of an error", failure
                )
            )

    def stop(self) -> None:
        """Stop the watch."""
        if self._loop.running:
            self._loop.stop()
            self._over.set()

    def _beat(self) -> None:
        now = self._clock.seconds()
        stood, self._beaten = now - self._beaten, now
        self._beats += 1
        if stood >= self._seconds:
            self.stalls += 1
            self._log.warn("The reactor was blocked for {stood:.1f} s", stood=stood)

    def _watch(self, over: threading.Event) -> None:
        """Look for beats in a separate thread, and write the stacks when they stop.

        The checks are counted instead of timed, because a suspended process makes none.
        """
        seen, without = self._beats, 0
        while not over.wait(self._seconds / BEATS):
            if self._beats != seen:
                seen, without = self._beats, 0
                continue
            without += 1
            if without == BEATS:
                self._write_stacks()

    def _write_stacks(self) -> None:
        """Write the stack of every thread.

        No other thread runs meanwhile. The watchdog of :mod:`faulthandler` reads the stacks
        of running threads, which sometimes ends the process with a segmentation fault.
        """
        file = self._file or sys.stderr
        with suppress(OSError, ValueError):  # the reader has closed it, or it was closed here
            header = f"The reactor has been blocked for {self._seconds:g} s:\n"
            os.write(file.fileno(), header.encode())
            faulthandler.dump_traceback(file)


__all__ = ["StallWatch"]
