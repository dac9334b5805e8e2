"""What could be left of connections, for the sweep of live channels."""

from __future__ import annotations

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from kupool.live.sweep import SweptIndex
from kupool.net.manager import ConnectionManager
from kupool.session.connection import Connection


def swept_connections(name: str, manager: ConnectionManager) -> SweptIndex:
    """Return the connections of a manager, which should be none that has ended.

    One that ends has a few seconds to do so, which is less than the time between two sweeps.
    """

    def forget(connection: Connection) -> None:
        reason = Failure(ConnectionLost("the transport has ended without a word"))
        connection.abort()
        connection.lost(reason)
        if connection in manager:
            manager.ended(connection, reason)

    return SweptIndex(name, lambda: [manager], _ended, forget)


def _ended(connection: Connection) -> int | None:
    return None if connection.sends else connection.id


__all__ = ["swept_connections"]
