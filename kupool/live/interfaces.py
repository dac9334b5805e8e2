"""What every channel does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from kupool.session.connection import Connection


class IChannel(Interface):
    """A channel whose subscribers want the newest message only."""

    def subscribe(connection: Connection) -> None:
        """Let a connection have what is published from now on.

        Whoever subscribes a connection unsubscribes it when it has ended; one that
        has ended already is ignored.
        """

    def unsubscribe(connection: Connection) -> None:
        """Let it have nothing more; harmless where it has not subscribed."""

    def publish(payload: bytes) -> Deferred[None]:
        """Send the same payload to all; fires when every outbox has it."""

    def publish_each(make: Callable[[Connection], bytes]) -> Deferred[None]:
        """Send each subscriber the payload that ``make`` returns for it."""


__all__ = ["IChannel"]
