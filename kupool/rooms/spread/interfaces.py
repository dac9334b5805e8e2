"""What an application does in rooms that are spread over hosts."""

from __future__ import annotations

from kupool.rooms import IRoomHooks
from kupool.rooms.room import Room
from kupool.session.connection import Connection


class ISpreadHooks(IRoomHooks):
    """What an application does in rooms that may move from host to host.

    ``on_parse_user`` is called at the connection's host, all that has to do with a room at
    the room's. There a connection of another host sends, and holds, as others do.
    """

    def on_hand_over(room: Room) -> object:
        """Return the state of a room that has ended here because it belongs elsewhere now.

        Bytes, None for no state, or a Deferred or coroutine of that. The room's new host
        is told with the event :class:`kupool.rooms.events.TakenOver`.
        """

    def on_room_lost(connection: Connection, code: str, user: str, reason: str) -> object:
        """Tell a member of this host's connections that the room is gone, state and all:
        ``host lost``, ``cut off`` (this host, from the bus), or why it could not be moved.
        """


__all__ = ["ISpreadHooks"]
