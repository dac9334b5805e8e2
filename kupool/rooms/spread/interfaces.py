"""The hooks of an application for rooms on several hosts."""

from __future__ import annotations

from kupool.rooms import IRoomHooks
from kupool.rooms.room import Room
from kupool.session.connection import Connection


class ISpreadHooks(IRoomHooks):
    """The hooks of an application whose rooms may move from host to host.

    ``on_parse_user`` is called at the connection's host, the hooks of a room at the room's host.
    There a connection of another host can be sent to and held like any other.
    """

    def on_hand_over(room: Room) -> object:
        """Return the state of a room that has ended here because it belongs to another host now.

        Bytes, None for no state, or a Deferred or coroutine of that. The room's new host gets it
        with the event :class:`kupool.rooms.events.TakenOver`.
        """

    def on_room_lost(connection: Connection, code: str, user: str, reason: str) -> object:
        """Tell a member on a connection of this host that the room and its state are lost.

        The reason is ``host lost``, ``cut off`` (this host lost the bus), or why the move failed.
        """


__all__ = ["ISpreadHooks"]
