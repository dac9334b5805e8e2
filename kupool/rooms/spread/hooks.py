"""Default hooks for rooms on several hosts."""

from __future__ import annotations

from zope.interface import implementer

from kupool.rooms.broadcast import notification
from kupool.rooms.hooks import RoomHooks
from kupool.rooms.room import Room
from kupool.rooms.spread import ISpreadHooks
from kupool.session.connection import Connection


@implementer(ISpreadHooks)
class SpreadHooks(RoomHooks):
    """Like :class:`~kupool.rooms.hooks.RoomHooks`; a subclass overrides what it needs."""

    def on_hand_over(self, room: Room) -> object:
        """Return no state: the new host starts with an empty room."""
        return None

    def on_room_lost(self, connection: Connection, code: str, user: str, reason: str) -> None:
        """Send the notification ``room`` with the event ``lost``."""
        lost = {"room": code, "event": "lost", "user": user, "data": reason}
        connection.send(notification("room", lost))


__all__ = ["SpreadHooks"]
