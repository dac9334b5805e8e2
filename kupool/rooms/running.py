"""Runs one handler, with a time limit."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.callbacks import attempt, awaited, deferred_of
from kupool.errors import TIMEOUT, RequestError


class HandlerTimeout(RequestError):
    """A handler exceeded its time limit; the sender is answered ``timeout``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(TIMEOUT)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"a handler took longer than {self.seconds} s"


def refusal(failure: Failure) -> bool:
    """Return whether a handler's failure is a deliberate refusal, which only the sender is told."""
    return bool(failure.check(RequestError)) and not failure.check(HandlerTimeout)


class Running:
    """Runs a handler and calls ``done`` once, with its result or Failure.

    ``done`` may be called before :meth:`start` returns. A handler that has not finished after
    ``timeout`` seconds (0: no limit) is cancelled. If it does not react, it is abandoned, and its
    later result is ignored.
    """

    __slots__ = ("_deferred", "_done", "_ended", "_timer")

    def __init__(self, done: Callable[[object], None]) -> None:
        self._done = done
        self._ended = False
        self._timer: IDelayedCall | None = None
        self._deferred: Deferred[object] | None = None

    def start(self, call: Callable[[], object], clock: IReactorTime, timeout: float) -> None:
        """Call the handler."""
        result = attempt(call)
        if isinstance(result, Deferred):
            self.watch(result, clock, timeout)
        else:
            self._end(result)

    def watch(self, result: Deferred[object], clock: IReactorTime, timeout: float) -> None:
        """Wait for the result of a handler that was called already."""
        self._wait_for(result)
        if not self._ended and timeout:
            self._timer = clock.callLater(timeout, self._overdue, timeout)

    def _wait_for(self, result: Deferred[object]) -> None:
        self._deferred = result
        result.addBoth(self._fired)

    def cancel(self, failure: Failure) -> None:
        """Cancel it now, with ``failure``."""
        if not self._ended:
            self._end(failure)
            if self._deferred is not None:
                cancelled = attempt(self._deferred.cancel)
                if isinstance(cancelled, Failure):  # the handler may have its own way to cancel
                    Logger(__name__).failure("A handler could not be cancelled", cancelled)

    def _overdue(self, timeout: float) -> None:
        self._timer = None
        self.cancel(Failure(HandlerTimeout(timeout)))

    def _fired(self, result: object) -> None:
        if awaited(result):  # as from a coroutine that returned a Deferred
            result = deferred_of(result)
            if self._ended:
                result.addErrback(lambda failure: None).cancel()
            else:
                self._wait_for(result)
        elif not self._ended:
            self._end(result)
        elif isinstance(result, Failure):
            # Not with a logger of ours: a stored event would keep the room alive.
            Logger(__name__).debug("An abandoned handler ended: {error}", error=result.value)

    def _end(self, result: object) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._done(result)


__all__ = ["HandlerTimeout", "Running", "refusal"]
