"""The observer of an application that only answers, and the base of those that do more."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.interfaces import IConnectionObserver
from kupool.net.routing.interfaces import IRouter
from kupool.session.connection import Connection


@implementer(IConnectionObserver)
class Observer:
    """Gives every connection the same router; a subclass overrides what it needs."""

    def __init__(self, router: IRouter) -> None:
        self.router = router

    def opened(self, connection: Connection) -> None:
        """Set the connection's router."""
        connection.router = self.router

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Do nothing: nothing is kept of a connection."""

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """Wait for nothing: every answer has been sent when its handler returned."""
        return None


__all__ = ["Observer"]
