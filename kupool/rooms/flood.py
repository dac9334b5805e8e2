"""What a room does about senders that are faster than it is."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from kupool.rooms.failures import RoomBusy
from kupool.rooms.peers import Peer
from kupool.rooms.settings import FloodPolicy, RoomSettings


class Sender(Protocol):
    """One who sends messages; ``waiting`` of them have not been handled yet."""

    connections: list[Peer]
    waiting: int


class Flood:
    """Admits messages to one room's queue, and holds back who sends too many.

    A connection that is paused is read again when half of what was too much is gone: of
    the member's own messages, and of the room's. Whatever the policy, twice the limit of
    the queue is never exceeded, and the application's own messages are refused at once.
    """

    __slots__ = ("_clock", "_limit", "_paused", "_refuse", "_sender_limit", "refused")

    def __init__(self, clock: IReactorTime, settings: RoomSettings) -> None:
        self._clock = clock
        self._limit = settings.queue_limit
        self._sender_limit = settings.sender_limit
        self._refuse = settings.flood is FloodPolicy.REFUSE
        self._paused: dict[Peer, Sender] = {}
        self.refused = 0

    def admit(self, code: str, sender: Sender, connection: Peer | None, waiting: int) -> None:
        """Count one more message to the ``waiting``; raises :class:`RoomBusy`."""
        full = waiting >= self._limit or sender.waiting >= self._sender_limit
        if full and (self._refuse or connection is None or waiting >= 2 * self._limit):
            self.refused += 1
            raise RoomBusy(f"messages of room {code}")
        sender.waiting += 1
        if self._refuse or connection is None:
            return
        if waiting + 1 >= self._limit or sender.waiting >= self._sender_limit:
            if connection not in self._paused:
                connection.hold()  # once: it is released once
            self._paused[connection] = sender

    def taken(self, sender: Sender, left: int) -> None:
        """Count a message that waits no more, where ``left`` still do."""
        sender.waiting -= 1
        if not self._paused or left > self._limit // 2:
            return
        enough = self._sender_limit // 2
        if left == self._limit // 2:
            free = [c for c, paused in self._paused.items() if paused.waiting <= enough]
        elif sender.waiting <= enough:
            free = [c for c in sender.connections if c in self._paused]
        else:
            return
        for connection in free:
            self.let_go(connection)

    def let_go(self, connection: Peer) -> None:
        """Read a connection again, if it was paused here."""
        if self._paused.pop(connection, None) is not None:
            # Later: what was held is handled at once, and we may be within a handler.
            self._clock.callLater(0, connection.release)

    def let_all_go(self) -> None:
        """Read all of them again."""
        for connection in list(self._paused):
            self.let_go(connection)


__all__ = ["Flood", "Sender"]
