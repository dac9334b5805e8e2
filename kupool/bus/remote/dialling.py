"""Comes back for ever: one connection after another to the same endpoint."""

from __future__ import annotations

from collections.abc import Callable
from random import random as _random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.bus.remote.link import Link, LinkFactory

#: Seconds: the first wait, which doubles with every failure, the longest, and the time
#: that an attempt to connect may take.
BACKOFF_FIRST = 0.25
BACKOFF_MOST = 15.0
CONNECT_TIMEOUT = 10.0


class Dialler:
    """Keeps a link up; ``make`` builds one, ``up`` is told of each that stands.

    ``greet`` does what has to be done first over a new one: its Deferred fires with it.

    The wait before an attempt is between half and all of the backoff, chosen by
    ``random``, which returns a number from 0 to 1.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        make: Callable[[], Link],
        up: Callable[[Link], object],
        random: Callable[[], float] = _random,
        greet: Callable[[Link], Deferred[Link]] | None = None,
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._make = make
        self._up = up
        self._random = random
        self._greet = greet
        self._failures = 0
        self._wanted = False
        self._dialling: Deferred[Any] | None = None
        self._retry: IDelayedCall | None = None

    def start(self) -> Deferred[None]:
        """Connect; fires when connected, and fails, for good, where that first fails."""
        self._wanted = True
        started: Deferred[None] = Deferred(lambda _: self.stop())
        self._dial(started)
        return started

    def stop(self) -> None:
        """Connect no more."""
        self._wanted = False
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.cancel()

    def again(self) -> None:
        """Connect again after a while: the link has ended."""
        if self._wanted:
            wait = min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(self._failures, 16))
            self._failures += 1
            self._retry = self._clock.callLater(wait * (0.5 + self._random() / 2), self._dial, None)

    def steady(self) -> None:
        """The link works: the next wait is the first again."""
        self._failures = 0

    def _dial(self, started: Deferred[None] | None) -> None:
        endpoint: Any = self._endpoint
        dialling: Deferred[Any] = endpoint.connect(LinkFactory(self._make))
        if self._greet is not None:
            dialling.addCallback(self._greet)
        self._dialling = dialling.addTimeout(CONNECT_TIMEOUT, self._clock)
        dialling.addBoth(self._dialled, started)

    def _dialled(self, result: object, started: Deferred[None] | None) -> None:
        self._dialling = None
        if isinstance(result, Link):
            if not self._wanted:
                result.abort()
                return
            self._up(result)
            if started is not None:
                started.callback(None)
            return
        failure = result if isinstance(result, Failure) else Failure(TypeError(repr(result)))
        if started is not None and not started.called:
            self._wanted = False
            started.errback(failure)
        elif self._wanted:
            self._log.warn("No connection to the bus: {why}", why=failure.getErrorMessage())
            self.again()


__all__ = ["BACKOFF_FIRST", "BACKOFF_MOST", "CONNECT_TIMEOUT", "Dialler"]
