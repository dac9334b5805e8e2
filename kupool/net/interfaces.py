"""The interfaces that an application implements to observe its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from kupool.errors import CloseReason
    from kupool.session.connection import Connection


class IConnectionObserver(Interface):
    """An application's callbacks for the start and end of connections."""

    def opened(connection: Connection) -> None:
        """Called once, before the first message; sets the connection's router."""

    def closed(connection: Connection, reason: Failure) -> None:
        """Called exactly once for every connection that was ``opened``."""

    def settle(connection: Connection) -> Deferred[None] | None:
        """Return a Deferred to wait for before a connection ends whose peer has finished sending.

        The peer may still read pending answers.
        """


class IClosingObserver(IConnectionObserver):
    """An observer that can also send a last message."""

    def closing(connection: Connection, reason: CloseReason | None) -> Deferred[object] | None:
        """Called before a connection is closed, while it can still send.

        The close waits for a returned Deferred, for at most the write timeout, but not for
        a slow reader. ``reason`` is None if the peer has finished sending. It is not called
        for a connection that is lost without a close.
        """


__all__ = ["IClosingObserver", "IConnectionObserver"]
