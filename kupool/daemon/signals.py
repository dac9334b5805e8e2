"""Signal handlers of the process: stop, stop at once, and reload.

Twisted's own handlers end the process with the signal's status even after an orderly stop. An
orderly stop is not a failure, so these handlers exit with 0.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

#: A signal within this many seconds after the first counts as the same: a process that forwards a
#: signal to its child and to its group sends it twice.
SAME = 0.1


class Signals:
    """Handles SIGTERM, SIGINT and SIGHUP once the reactor runs."""

    def __init__(self, reactor: Any, reload: Callable[[], None]) -> None:
        self._reactor = reactor
        self._reload = reload
        self._stopping: float | None = None

    def install(self) -> None:
        """Replace the reactor's signal handlers as soon as it has set them."""
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
            # In the handler itself: the reactor may be blocked.
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
