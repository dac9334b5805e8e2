"""Reconnection: one attempt after the other, on Twisted's ``ClientService``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer


class Standing(Protocol):
    """The session that a successful attempt made."""

    def ended(self) -> Deferred[Any]:
        """Return a Deferred that fires, and never fails, when the session has ended."""


class _Stand:
    """The transport of a session as :class:`ClientService` sees it.

    The service does not end sessions; their users do, in order.
    """

    def loseConnection(self) -> None:
        """Do nothing."""


@implementer(IStreamClientEndpoint)
class Redial:
    """Makes a session, and another one whenever it has ended, until it is stopped.

    ``attempt`` makes one: it returns a Deferred of a :class:`Standing`, or fails. ``wait``
    is called after each failed attempt with the failure, and after each session with the
    result of its Deferred. It returns the seconds until the next attempt, or None for
    never.

    ``ClientService`` resets its count of failures at each connection, and sees neither the
    greeting nor the close. So it gets whole sessions instead of connections: this class is
    the endpoint that makes them, and the wait is chosen outside of the service.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        attempt: Callable[[], Any],
        wait: Callable[[Any], float | None],
    ) -> None:
        self._clock = clock
        self._attempt = attempt
        self._decide = wait
        self._next = 0.0
        self._within = False
        factory = Factory.forProtocol(StreamProtocol)
        factory.noisy = False
        self._service = ClientService(
            self, factory, retryPolicy=lambda failures: self._next, clock=clock
        )

    def __repr__(self) -> str:
        return "<a session>"

    @property
    def running(self) -> bool:
        """Whether there is a session, or another attempt will follow."""
        return bool(self._service.running)

    def start(self) -> None:
        """Start the first attempt; does nothing if already started."""
        if not self.running:
            self._service.startService()

    def stop(self) -> Deferred[None]:
        """Make no other attempt, and cancel a running one.

        An open session is not ended. Fires when the session, if any, has ended.
        """
        stopped: Deferred[None] = maybeDeferred(self._service.stopService)
        return stopped

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Make one attempt; called by the service."""
        self._within = True
        attempt = maybeDeferred(self._attempt)
        outcome: Deferred[Any] = Deferred(lambda _: attempt.cancel())
        attempt.addCallbacks(
            self._stands,
            self._failed,
            callbackArgs=(protocolFactory, outcome),
            errbackArgs=(outcome,),
        )
        attempt.addErrback(lambda failure: self._log.failure("A session was lost", failure))
        self._within = False
        return outcome

    def _stands(self, session: Standing, factory: Any, outcome: Deferred[Any]) -> None:
        presence = factory.buildProtocol(None)
        presence.makeConnection(_Stand())
        if not outcome.called:
            outcome.callback(presence)
        session.ended().addCallback(self._ended, presence)

    def _ended(self, why: object, presence: Any) -> None:
        self._choose(why)
        presence.connectionLost(Failure(ConnectionDone()))

    def _failed(self, failure: Failure, outcome: Deferred[Any]) -> None:
        if self.running:
            self._choose(failure)
        if not outcome.called:
            outcome.errback(failure)

    def _choose(self, ended: object) -> None:
        wait = self._decide(ended) if self.running else None
        self._next = 1.0 if wait is None else wait
        if wait is not None:
            return
        if self._within:
            # The service cannot be stopped while it is changing its state.
            self._clock.callLater(0, self.stop)
        else:
            self.stop()


__all__ = ["Redial", "Standing"]
