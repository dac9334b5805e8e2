"""What an application is told of its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from kupool.errors import CloseReason
    from kupool.session.connection import Connection


class IConnectionObserver(Interface):
    """What an application does when connections come and go."""

    def opened(connection: Connection) -> None:
        """Called once, before the first message; sets the connection's router."""

    def closed(connection: Connection, reason: Failure) -> None:
        """Called exactly once for every connection that was ``opened``."""

    def settle(connection: Connection) -> Deferred[None] | None:
        """Return what to wait for before a connection ends whose peer has finished.

        The peer sends no more, but may still read the answers that are on their way.
        """


class IClosingObserver(IConnectionObserver):
    """An observer that also has a last word."""

    def closing(connection: Connection, reason: CloseReason | None) -> Deferred[object] | None:
        """Called before a connection is closed, while it can still send.

        A Deferred that it returns is waited for, at most the write timeout, but for a
        slow reader. ``reason`` is None where the peer has finished. Not called for a
        connection that is lost before anyone closes it.
        """


__all__ = ["IClosingObserver", "IConnectionObserver"]
