"""A command on the reactor: from its start to its exit status."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    globalLogBeginner,
)
from twisted.python.failure import Failure
from zope.interface import provider

from kupool.client.failures import ClientError
from kupool.timing.waiting import Waiters

#: Seconds within which two signals are taken for one.
SAME_SIGNAL = 0.5


class Ending:
    """The end of a run: the first cause decides."""

    def __init__(self) -> None:
        self._waiting = Waiters[None]()
        self._error: BaseException | None = None
        self.over = False

    def reach(self) -> None:
        """The run is over, as it should be."""
        if not self.over:
            self.over = True
            self._waiting.tell(None)

    def fail(self, error: BaseException) -> None:
        """The run is over, because of an error that :meth:`wait` raises."""
        if not self.over:
            self._error = error
            self.reach()

    async def wait(self) -> None:
        """Wait for the end; raises what it was for, if that is an error."""
        if not self.over:
            await self._waiting.wait()
        if self._error is not None:
            raise self._error


class Output:
    """Lines on standard output; a reader that goes away ends the run."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._live = False
        self.tty = sys.stdout.isatty()

    def line(self, text: str) -> None:
        """Print one line, above the live one."""
        self._write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
        self._live = False

    def live(self, text: str) -> None:
        """Replace the last line of a terminal."""
        self._write(f"\r\x1b[K{text}")
        self._live = True

    def end(self) -> None:
        """Leave the live line standing."""
        if self._live:
            self._write("\n")
            self._live = False

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still buffered must not fail again when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            self._ending.reach()


def run(command: Callable[[Any, Ending], Coroutine[Any, Any, int]], log_level: Any) -> int:
    """Run a command on the reactor until it returns its exit status.

    SIGINT and SIGTERM reach the ending that it is given; another one, a little later, ends
    the process.
    A :class:`ClientError` or :class:`ValueError` becomes one line on stderr and status
    1. Messages of the log from ``log_level`` on go to stderr.
    """
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    # The pace must not follow a clock that is set: Twisted's own is time.time.
    reactor.seconds = time.monotonic
    _log_to_stderr(log_level)
    ending = Ending()
    status = 1

    def begin() -> None:
        _handle_signals(reactor, ending)
        Deferred.fromCoroutine(command(reactor, ending)).addBoth(finish)

    def finish(result: int | Failure) -> None:
        nonlocal status
        status = _explain(result) if isinstance(result, Failure) else result
        reactor.stop()

    reactor.callWhenRunning(begin)
    reactor.run()
    return status


def raise_descriptor_limit(wanted: int) -> None:
    """Allow so many open files; raises :class:`ValueError` where that is forbidden."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise ValueError(
                f"{wanted} open files are needed and {hard} are allowed; raise 'ulimit -n'"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _explain(failure: Failure) -> int:
    if failure.check(ClientError, ValueError):
        print(f"kupool: {failure.getErrorMessage()}", file=sys.stderr)
    else:
        failure.printTraceback(file=sys.stderr)
    return 1


def _handle_signals(reactor: Any, ending: Ending) -> None:
    asked = 0.0

    def stop(number: int, frame: object) -> None:
        nonlocal asked
        now = time.monotonic()
        # A terminal and a parent process may both pass on the same Ctrl-C.
        if asked and now - asked > SAME_SIGNAL:
            os._exit(1)
        asked = asked or now
        reactor.callFromThread(ending.reach)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _log_to_stderr(level: Any) -> None:
    @provider(ILogObserver)
    def write(event: LogEvent) -> None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if text:
            sys.stderr.write(f"kupool: {text}\n")

    predicate = LogLevelFilterPredicate(defaultLogLevel=level)
    # Twisted's service says of each wait what our clients say better.
    predicate.setLogLevelForNamespace("twisted.application", LogLevel.warn)
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(write, [predicate])], redirectStandardIO=False
    )
