"""What an application does in its rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from kupool.rooms.events import Incoming
    from kupool.rooms.lobby import Lobby
    from kupool.rooms.matchmaking import MatchOutcome
    from kupool.rooms.room import Room
    from kupool.session.connection import Connection


class IRoomHooks(Interface):
    """What an application does in its rooms.

    Every hook but ``on_init`` may return a Deferred or a coroutine. Where a hook raises
    :class:`kupool.errors.RequestError`, the peer is answered with its row; every other
    exception goes to ``on_error``, and stops nothing.
    """

    def on_init(lobby: Lobby) -> None:
        """Called once, before anything else."""

    def on_parse_user(connection: Connection, body: object) -> object:
        """Say who is talking, from the first message of a connection that is in no room.

        Returns ``(room code, user)``, or a Deferred or coroutine of that; None refuses.
        The room is created where there is none; the user is then a member, and the
        message is the first that the room handles of them.
        """

    def on_create_room(room: Room) -> object:
        """Prepare a new room, ``room.data`` above all.

        The room handles nothing before a returned Deferred or coroutine has ended. When
        it fails, the room is closed.
        """

    def on_dispatch_message(room: Room, incoming: Incoming) -> object:
        """Handle a member's message; what it returns, or a Deferred or coroutine of it,
        answers the message. The room handles nothing else before that.
        """

    def on_dispatch_system_message(room: Room, event: object) -> object:
        """Handle what happened to the room (:mod:`kupool.rooms.events`), as above."""

    def on_error(room: Room | None, failure: Failure, subject: object) -> object:
        """Called with what failed: a message, an event, a connection's first message."""

    def on_match_players(lobby: Lobby, outcome: MatchOutcome) -> object:
        """Called with players that were matched, or with those whose time was up."""

    def on_parse_match(connection: Connection, body: object) -> object:
        """Return the :class:`~kupool.rooms.matchmaking.MatchRequest` of a message, or a
        Deferred or coroutine of it; None refuses.
        """


__all__ = ["IRoomHooks"]
