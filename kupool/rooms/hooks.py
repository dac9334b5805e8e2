"""Default hooks, which a subclass overrides as needed."""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.rooms.lobby import IRoomHooks, Lobby
from kupool.rooms.matchmaking import MatchOutcome
from kupool.rooms.room import Incoming, Room
from kupool.session.connection import Connection


@implementer(IRoomHooks)
class RoomHooks:
    """Refuses users and matches, ignores messages, and logs errors."""

    log = Logger()

    def on_init(self, lobby: Lobby) -> None:
        """Do nothing."""

    def on_parse_user(self, connection: Connection, body: object) -> object:
        """Refuse."""
        return None

    def on_create_room(self, room: Room) -> object:
        """Do nothing: ``room.data`` stays None."""
        return None

    def on_dispatch_message(self, room: Room, incoming: Incoming) -> object:
        """Do nothing."""
        return None

    def on_dispatch_system_message(self, room: Room, event: object) -> object:
        """Do nothing."""
        return None

    def on_error(self, room: Room | None, failure: Failure, subject: object) -> None:
        """Log the failure."""
        code = None if room is None else room.code
        self.log.failure(
            "A hook of room {code} failed: {subject!r}", failure, code=code, subject=subject
        )

    def on_match_players(self, lobby: Lobby, outcome: MatchOutcome) -> object:
        """Do nothing."""
        return None

    def on_parse_match(self, connection: Connection, body: object) -> object:
        """Refuse."""
        return None


__all__ = ["RoomHooks"]
