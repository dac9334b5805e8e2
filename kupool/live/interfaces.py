"""The interface of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from kupool.session.connection import Connection


class IChannel(Interface):
    """A channel whose subscribers want only the newest message."""

    def subscribe(connection: Connection) -> None:
        """Subscribe a connection to messages from now on.

        The caller unsubscribes the connection when it ends. A connection that has already
        ended is ignored.
        """

    def unsubscribe(connection: Connection) -> None:
        """Unsubscribe a connection; does nothing if it is not subscribed."""

    def publish(payload: bytes) -> Deferred[None]:
        """Send the same payload to all subscribers; fires when it is in every outbox."""

    def publish_each(make: Callable[[Connection], bytes]) -> Deferred[None]:
        """Send each subscriber the payload that ``make`` returns for it."""


__all__ = ["IChannel"]
