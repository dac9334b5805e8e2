"""Permissions for the daemon's rooms and matches."""

from __future__ import annotations

from kupool.permissions.table import PermissionTable
from kupool.pool.session import Session
from kupool.session.connection import Connection


class RoomAccess:
    """Decides which rooms a session may create and join, and in which modes it may wait.

    It goes by the ``table``. Names of rooms and modes have levels like topics of the bus. Users who
    are in a room stay in it when the table changes.
    """

    def __init__(self, table: PermissionTable) -> None:
        self._table = table

    def __call__(self, connection: Connection, action: str, name: str) -> bool:
        """Return whether the user of a connection may do something with a room or a mode."""
        session: Session = connection.context
        return self._table.of(session.role).allow(session.user, action, name)


__all__ = ["RoomAccess"]
