"""The default connection observer, and the base class of others."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.interfaces import IConnectionObserver
from kupool.net.routing.interfaces import IRouter
from kupool.session.connection import Connection


@implementer(IConnectionObserver)
class Observer:
    """Gives every connection the same router; subclasses override what they need."""

    def __init__(self, router: IRouter) -> None:
        self.router = router

    def opened(self, connection: Connection) -> None:
        """Set the connection's router."""
        connection.router = self.router

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Do nothing: this class keeps no state per connection."""

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """Return None: every answer has been sent when its handler returned."""
        return None


__all__ = ["Observer"]
