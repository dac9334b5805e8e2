"""Finds handlers that never yield: says where the reactor stands while it stands still.

A handler that computes, or blocks, in the reactor's thread holds everybody up, and nothing
in that thread can say so. Another thread can.
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

#: Beats of the reactor, and looks at them, in the time after which it counts as standing still.
BEATS = 4


class StallWatch:
    """Writes the stack of every thread to a file when the reactor has stood still for a while.

    That happens once ``seconds`` have passed, while it still stands; ``file`` is standard
    error unless another one with a descriptor is given. When the reactor goes on, the log
    has a warning with how long it was, and ``stalls`` one more. Time in which the whole
    process stood still does not count for the stacks. Code that never lets another thread run,
    as a regular expression may be, is in the log alone. Raises :class:`ValueError` for a time
    that is not above zero.
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
        """Watch from now on."""
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
        """Watch no more."""
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
        """Look for beats, in a thread of its own, and write the stacks when there are none.

        The looks are counted, as those of a process that was stopped do not happen either.
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

        No other thread runs meanwhile. The watchdog of :mod:`faulthandler` reads the stacks of
        threads that do, which ends the process with a segmentation fault now and then.
        """
        file = self._file or sys.stderr
        with suppress(OSError, ValueError):  # nobody reads it any more, or it was closed
            header = f"The reactor has been blocked for {self._seconds:g} s:\n"
            os.write(file.fileno(), header.encode())
            faulthandler.dump_traceback(file)


__all__ = ["StallWatch"]
