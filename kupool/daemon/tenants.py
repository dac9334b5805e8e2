"""Combines several observers of one server's connections; the first one admits them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.errors import CloseReason
from kupool.net.interfaces import IClosingObserver, IConnectionObserver
from kupool.session.connection import Connection


@implementer(IClosingObserver)
class Tenants:
    """The ``first`` sets the router of a connection; all are told of its end, the first one
    last.
    """

    _log = Logger()

    def __init__(self, first: IConnectionObserver, *others: IClosingObserver) -> None:
        self._first = first
        self._others = others

    def opened(self, connection: Connection) -> None:
        """Let the first set the router."""
        self._first.opened(connection)

    def closing(
        self, connection: Connection, reason: CloseReason | None
    ) -> Deferred[object] | None:
        """Give the others their last word; the first has none."""
        told = [self._guarded(other.closing, connection, reason) for other in self._others]
        waiting = [word for word in told if isinstance(word, Deferred)]
        if not waiting:
            return None
        return DeferredList(waiting, consumeErrors=True).addCallback(lambda _: None)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Tell all observers; a failure of one does not affect the others."""
        for other in self._others:
            self._guarded(other.closed, connection, reason)
        self._first.closed(connection, reason)

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """Wait for everything that an observer waits for."""
        everyone = (*self._others, self._first)
        waiting = [d for d in (tenant.settle(connection) for tenant in everyone) if d is not None]
        if len(waiting) < 2:
            return waiting[0] if waiting else None
        return DeferredList(waiting, consumeErrors=True).addCallback(lambda _: None)

    def _guarded(self, call: Callable[..., object], *arguments: object) -> object:
        try:
            return call(*arguments)
        except BaseException:
            self._log.failure("The end of a connection could not be handled")
            return None


def user_of(connection: Connection) -> str:
    """Return the user of an authorized session."""
    user: str = connection.context.user
    return user


__all__ = ["Tenants", "user_of"]
