"""The signals of the process: stop, stop at once, and read the settings again.

Twisted's own handlers end the process with the signal's status after an orderly stop;
an orderly stop is no failure, so these let it exit with 0.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

#: Signals that follow the first within so many seconds are the same one: a process
#: that forwards a signal to its child and to its group sends it twice.
SAME = 0.1


class Signals:
    """Handles SIGTERM, SIGINT and SIGHUP once the reactor runs."""

    def __init__(self, reactor: Any, reload: Callable[[], None]) -> None:
        self._reactor = reactor
        self._reload = reload
        self._stopping: float | None = None

    def install(self) -> None:
        """Take the signals over from the reactor as soon as it has set its own."""
        self._reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._hang_up)

    def _stop(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._stopping is not None:
            if now - self._stopping < SAME:
                return
            # In the handler itself: the reactor may be what does not react.
            os.write(2, b"kupool: a second signal, stopping at once\n")
            os._exit(1)
        self._stopping = now
        self._reactor.callFromThread(self._stop_reactor)

    def _stop_reactor(self) -> None:
        if self._reactor.running:
            self._reactor.stop()

    def _hang_up(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._reload)


def exit_with_failure() -> None:
    """End the process now, with status 1; called last of all, at exit.

    A service has no other way to give twistd an exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)
