"""A member of a room: a user, with the connections they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kupool.rooms.broadcast import Packet, Payload, notification
from kupool.rooms.peers import Peer
from kupool.session.outbox import EventPolicy

if TYPE_CHECKING:
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
        self.connections: list[Peer] = []
        self.joined_at = self.last_seen = now
        self.waiting = 0
        self.data: Any = None

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

    def send(
        self,
        payload: Payload,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> int:
        """Send to every connection of the member; returns how many those are.

        In order with the room's broadcasts; for ``key`` and ``policy`` see
        :class:`~kupool.rooms.broadcast.Packet`.
        """
        self.room.send(Packet(payload, key, policy), list(self.connections))
        return len(self.connections)

    def notify(
        self,
        method: str,
        params: object,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> int:
        """Send the member a notification, ``{"id":null,"method":...,"params":...}``."""
        return self.send(notification(method, params), key=key, policy=policy)

    def leave(self, reason: str = "left") -> None:
        """Be a member no more; the connections stay open. Harmless when repeated."""
        if self.present:
            self.room.lobby.members.leave(self.user, reason)


__all__ = ["Member", "Presence"]
