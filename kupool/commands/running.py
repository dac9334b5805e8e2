"""Runs a command on the reactor, from its start to its exit status."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
)
from twisted.python.failure import Failure
from zope.interface import implementer, provider

from kupool.client.failures import ClientError
from kupool.commands.console import complain, forget_output
from kupool.printable import printable
from kupool.timing.waiting import Waiters

#: Seconds within which two signals count as one.
SAME_SIGNAL = 0.5


class Ending:
    """The end of a run; only the first cause counts."""

    def __init__(self) -> None:
        self._waiting = Waiters[None]()
        self._error: BaseException | None = None
        self.over = False
        #: Whether a signal caused it.
        self.asked = False

    def ask(self) -> None:
        """A signal ends the run."""
        self.asked = not self.over
        self.reach()

    def reach(self) -> None:
        """The run ends normally."""
        if not self.over:
            self.over = True
            self._waiting.tell(None)

    def fail(self, error: BaseException) -> None:
        """An error ends the run; :meth:`wait` raises it."""
        if not self.over:
            self._error = error
            self.reach()

    async def wait(self) -> None:
        """Wait for the end; raises the error that caused it, if one did."""
        if not self.over:
            await self._waiting.wait()
        if self._error is not None:
            raise self._error


class Output:
    """Lines on standard output; a broken pipe ends the run."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._live = False
        self.tty = sys.stdout.isatty()

    def line(self, text: str) -> None:
        """Print one line above the live line."""
        text = printable(text)
        self._write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
        self._live = False

    def live(self, text: str) -> None:
        """Replace the last line of a terminal; text that does not fit is cut."""
        columns = shutil.get_terminal_size().columns
        self._write(f"\r\x1b[K{printable(text)[: columns - 1]}")
        self._live = True

    def end(self) -> None:
        """Leave the live line on the screen."""
        if self._live:
            self._write("\n")
            self._live = False

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            forget_output()
            self._ending.reach()
        except OSError as error:
            forget_output()
            self._ending.fail(ClientError(f"standard output: {error.strerror or error}"))


@implementer(IReadDescriptor)
class PipeReaderWatch:
    """Watches whether the reader of the pipe on standard output goes away.

    A command that waits prints nothing, and would not learn of it. ``gone`` fails with
    :class:`BrokenPipeError` then, and never fires if standard output is no pipe.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._descriptor = -1
        self.gone: Deferred[None] = Deferred(lambda _: self._stop())
        with suppress(OSError):  # it has no descriptor
            found = sys.stdout.fileno()
            if stat.S_ISFIFO(os.fstat(found).st_mode):
                self._descriptor = found
                reactor.addReader(self)

    def fileno(self) -> int:
        """Return the descriptor that is watched."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Return what Twisted calls it."""
        return type(self).__name__

    def _stop(self) -> None:
        if self._descriptor >= 0:
            self._reactor.removeReader(self)

    def doRead(self) -> None:
        """The end for writing can be read only when the other one is closed."""
        self.connectionLost(Failure(BrokenPipeError()))

    def connectionLost(self, reason: Failure) -> None:
        """The reader has gone away, or the reactor stops."""
        self._stop()
        if not self.gone.called:
            self.gone.errback(BrokenPipeError())


def run(command: Callable[[Any, Ending], Coroutine[Any, Any, int]], log_level: Any) -> int:
    """Run a command on the reactor until it returns its exit status.

    SIGINT and SIGTERM reach the given ending. A second signal, a little later, ends the process. A
    :class:`ClientError` or :class:`ValueError` becomes one line on stderr and status 1. An
    :class:`OSError`, such as that of a broken pipe, is raised again. Log messages from
    ``log_level`` on go to stderr.
    """
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    # The pace must not follow the wall clock: Twisted's own clock is time.time.
    reactor.seconds = time.monotonic
    _log_to_stderr(log_level)
    ending = Ending()
    status = 1
    unexplained: OSError | None = None

    def begin() -> None:
        _handle_signals(reactor, ending)
        Deferred.fromCoroutine(command(reactor, ending)).addBoth(finish)

    def finish(result: int | Failure) -> None:
        nonlocal status, unexplained
        try:
            if not isinstance(result, Failure):
                status = result
            elif isinstance(result.value, OSError):
                unexplained = result.value
            else:
                status = _explain(result)
        finally:
            reactor.stop()

    reactor.callWhenRunning(begin)
    reactor.run()
    if unexplained is not None:
        raise unexplained  # for run_to_status
    return status


def raise_descriptor_limit(wanted: int) -> None:
    """Allow this many open files; raises :class:`ValueError` if that is forbidden."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise ValueError(
                f"{wanted} open files are needed and {hard} are allowed; raise 'ulimit -n'"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _explain(failure: Failure) -> int:
    if failure.check(ClientError, ValueError):
        complain(failure.getErrorMessage())
    else:
        with suppress(OSError):
            failure.printTraceback(file=sys.stderr)
    return 1


def _handle_signals(reactor: Any, ending: Ending) -> None:
    asked = 0.0

    def stop(number: int, frame: object) -> None:
        nonlocal asked
        now = time.monotonic()
        # A terminal and a parent process may both send the same Ctrl-C.
        if asked and now - asked > SAME_SIGNAL:
            os._exit(1)
        asked = asked or now
        reactor.callFromThread(ending.ask)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _log_to_stderr(level: Any) -> None:
    @provider(ILogObserver)
    def write(event: LogEvent) -> None:
        # Only an unexpected error needs its traceback: it is a fault of this program.
        ours = str(event.get("log_namespace", "")).startswith("kupool")
        text = printable(formatEvent(event) or "an error")
        failure = event.get("log_failure")
        if failure is not None and ours:
            lines = failure.getTraceback().rstrip().split("\n")
            text = "\n  ".join((text, *map(printable, lines)))
        elif failure is not None:
            text += f": {printable(failure.getErrorMessage())}"
        with suppress(OSError):  # nobody reads it any more
            sys.stderr.write(f"kupool: {text}\n")

    predicate = LogLevelFilterPredicate(defaultLogLevel=level)
    # Twisted's service logs each wait, which our clients report better.
    predicate.setLogLevelForNamespace("twisted.application", LogLevel.warn)
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(write, [predicate])], redirectStandardIO=False
    )
