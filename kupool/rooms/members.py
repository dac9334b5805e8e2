"""A member of a room: a user, with the connections they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kupool.net.connection import Connection
    from kupool.rooms.room import Room


class Presence(NamedTuple):
    """A member as others see them; times are in seconds since the epoch."""

    user: str
    online: bool
    joined_at: float
    last_seen: float


class Member:
    """A user in a room. ``data`` is the application's own; times are since the epoch.

    ``waiting`` is how many of the member's messages the room has not handled yet.
    """

    __slots__ = ("connections", "data", "joined_at", "last_seen", "room", "user", "waiting")

    def __init__(self, room: Room, user: str, now: float) -> None:
        #: The room, also after the member has left it: ``present`` tells.
        self.room = room
        self.user = user
        self.connections: list[Connection] = []
        self.joined_at = self.last_seen = now
        self.waiting = 0
        self.data: object = None

    @property
    def online(self) -> bool:
        """Whether the member has a connection."""
        return bool(self.connections)

    @property
    def present(self) -> bool:
        """Whether the member still is one."""
        return self.room.members.get(self.user) is self

    @property
    def presence(self) -> Presence:
        """The member as others see them."""
        return Presence(self.user, self.online, self.joined_at, self.last_seen)


__all__ = ["Member", "Presence"]
