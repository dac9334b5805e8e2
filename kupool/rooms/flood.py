"""Flow control of a room: pauses or refuses senders that are faster than the room."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from kupool.rooms.failures import RoomBusy
from kupool.rooms.peers import Peer
from kupool.rooms.settings import FloodPolicy, RoomSettings


class Sender(Protocol):
    """A sender of messages; ``waiting`` of them have not been handled yet."""

    connections: list[Peer]
    waiting: int


class Flood:
    """Admits messages to a room's queue, and pauses connections that send too many.

    A paused connection is read again when half of the excess is handled: of the member's own
    messages, and of the room's. Twice the limit of the queue is never exceeded, whatever the
    policy. Messages of the application are refused at once.
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
        """Count one more waiting message; raises :class:`RoomBusy`."""
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
        """Count a message as handled; ``left`` messages still wait."""
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
        """Resume a connection that was paused here."""
        if self._paused.pop(connection, None) is not None:
            # Later: held messages are handled at once, and a handler may be running now.
            self._clock.callLater(0, connection.release)

    def let_all_go(self) -> None:
        """Resume all paused connections."""
        for connection in list(self._paused):
            self.let_go(connection)


__all__ = ["Flood", "Sender"]
