"""Who is in a room, and what is sent to them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from kupool.rooms.broadcast import Packet, Payload, notification
from kupool.rooms.members import Member, Presence
from kupool.rooms.outgoing import RoomPackets
from kupool.rooms.peers import Peer
from kupool.rooms.settings import House
from kupool.session.outbox import EventPolicy

if TYPE_CHECKING:
    from kupool.rooms.lobby import Lobby


class Audience:
    """The members of a room; :class:`kupool.rooms.room.Room` adds what is done with them."""

    __slots__ = ("_house", "_outgoing", "_work", "code", "members", "queued")

    def __init__(self, code: str, house: House) -> None:
        self.code = code
        #: The members by user, for reading: they come and go by the lobby.
        self.members: dict[str, Member] = {}
        self.queued = False
        self._house = house
        # Most rooms are idle: what only a busy one needs is made when it is.
        self._outgoing: RoomPackets | None = None
        #: What this message has sent so far, as units of work.
        self._work = 0

    @property
    def lobby(self) -> Lobby:
        """The lobby that the room is in."""
        return self._house.lobby

    @property
    def dropped(self) -> int:
        """How many messages were dropped because members read slowly."""
        return 0 if self._outgoing is None else self._outgoing.dropped

    def presence(self) -> list[Presence]:
        """Return the members of this moment, in the order they joined."""
        return [member.presence for member in self.members.values()]

    def broadcast(
        self,
        payload: Payload,
        *,
        without: Collection[object] = (),
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> None:
        """Send to every connection of every member, encoded once for each framing.

        ``without`` leaves out users, members and connections. For ``key`` and ``policy``
        see :class:`Packet`. Broadcasts of a room arrive in order; large ones take
        several turns of the reactor, and the room's next message waits for them.
        """
        self.send(Packet(payload, key, policy), self._connections(without))

    def notify(
        self,
        method: str,
        params: object,
        *,
        without: Collection[object] = (),
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> None:
        """Broadcast a notification, ``{"id":null,"method":...,"params":...}``."""
        self.broadcast(notification(method, params), without=without, key=key, policy=policy)

    def send(self, packet: Packet, connections: list[Peer], later: bool = False) -> None:
        """Send to some connections, now if they are few and ``later`` is not asked for."""
        if not connections:
            return
        if self._outgoing is None:
            self._outgoing = RoomPackets(self.code, self._house.settings.outgoing_limit)
        self._work += self._outgoing.send(packet, connections, later)
        if self._outgoing.pending:
            self._house.turns.wake(self)

    def send_later(self, packet: Packet) -> None:
        """Send to everybody here when it is the room's turn."""
        self.send(packet, self._connections(()), later=True)

    def _connections(self, without: Collection[object]) -> list[Peer]:
        return [
            connection
            for member in self.members.values()
            if not without or (member.user not in without and member not in without)
            for connection in member.connections
            if not without or connection not in without
        ]

    @property
    def ready(self) -> bool:
        """Whether something waits to be sent."""
        return self._outgoing is not None and self._outgoing.pending

    def run(self, budget: int) -> int:
        """Send what waits, up to ``budget`` times; returns how often it was."""
        return 0 if self._outgoing is None else self._outgoing.run(budget)


__all__ = ["Audience"]
