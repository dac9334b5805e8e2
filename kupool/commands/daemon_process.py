"""The daemon as a child process of a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.timing.waiting import Waiters

# A session of its own, so that Ctrl-C reaches the command alone, which stops the daemon
# in its turn; and on Linux an end with the command, should that be killed.
_START = """
import ctypes, os, signal, sys
os.setsid()
os.dup2(1, 2)  # one place for all that it says, so that it says nothing twice
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
from twisted.scripts.twistd import run
run()
"""


class DaemonProcess(ProcessProtocol):
    """Runs ``twistd kupool`` and passes on its output, line by line.

    ``on_line`` gets each line without its end. ``on_end`` gets the exit status if the daemon ended
    by itself.
    """

    _log = Logger()

    def __init__(self, on_line: Callable[[str], object], on_end: Callable[[int], object]) -> None:
        self._on_line = on_line
        self._on_end = on_end
        self._rest = b""
        self._told = False
        self._running = False
        self._ended = Waiters[None]()

    def start(self, reactor: Any, flags: Sequence[str]) -> None:
        """Start the daemon with its flags."""
        arguments = [sys.executable, "-c", _START, "--nodaemon", "--pidfile=", "kupool", *flags]
        self._running = True
        reactor.spawnProcess(self, sys.executable, arguments, env=dict(os.environ))

    def stop(self) -> Deferred[None]:
        """Start an orderly shutdown of the daemon; fires when it has ended."""
        if not self._running:
            return succeed(None)
        ended = self._ended.wait()
        if not self._told:
            self._told = True
            transport: Any = self.transport
            transport.signalProcess("TERM")
        return ended

    def outReceived(self, data: bytes) -> None:
        """Handle output of the daemon."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:
        """Report the end of the daemon."""
        self._running = False
        if self._rest:
            self.outReceived(b"\n")
        self._ended.tell(None)
        if not self._told:
            status = getattr(reason.value, "exitCode", None)
            self._on_end(1 if status is None else status)
