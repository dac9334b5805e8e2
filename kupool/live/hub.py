"""Channels of which only the newest message matters.

A subscriber that reads slowly skips to the newest when it reads again, and delays
nobody: see :meth:`kupool.session.connection.Connection.send_latest`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kupool.live import IChannel
from kupool.net.manager import ConnectionManager
from kupool.session.connection import Connection
from kupool.session.lifecycle import CLOSED


@implementer(IChannel)
class LatestChannel:
    """A channel over the connections of one manager; ``name`` is the conflation key."""

    def __init__(self, manager: ConnectionManager, name: str) -> None:
        self._manager = manager
        self._name = name
        self._subscribers: dict[int, Connection] = {}

    def __len__(self) -> int:
        return len(self._subscribers)

    def subscribe(self, connection: Connection) -> None:
        """Let a connection have what is published from now on; one that ended is ignored."""
        if connection.state is not CLOSED:
            self._subscribers[connection.id] = connection

    def unsubscribe(self, connection: Connection) -> None:
        """Let it have nothing more."""
        self._subscribers.pop(connection.id, None)

    def publish(self, payload: bytes) -> Deferred[None]:
        """Send the same payload to all, encoded once for each framing."""
        return self._manager.broadcast(
            payload, key=self._name, connections=list(self._subscribers.values())
        )

    def publish_each(self, make: Callable[[Connection], bytes]) -> Deferred[None]:
        """Send each subscriber a payload of its own."""

        def send(connection: Connection) -> None:
            connection.send_latest(self._name, connection.framing.encode(make(connection)))

        return self._manager.each(send, list(self._subscribers.values()))


__all__ = ["LatestChannel"]
