"""What a room sends: in order, and a bounded part of it in each turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from twisted.logger import Logger

from kupool.rooms.broadcast import Packet
from kupool.rooms.peers import Peer
from kupool.timing.chunks import CHUNK


class RoomPackets:
    """The packets of one room, at most ``limit`` of them.

    ``dropped`` counts what slow readers did not get, and what was over the limit.
    """

    __slots__ = ("_code", "_limit", "_queue", "dropped")

    _log = Logger()

    def __init__(self, code: str, limit: int) -> None:
        self._code = code
        self._limit = limit
        self._queue: deque[tuple[Iterator[Peer], Packet]] | None = None
        self.dropped = 0

    @property
    def pending(self) -> bool:
        """Whether something waits for :meth:`run`."""
        return bool(self._queue)

    def send(self, packet: Packet, connections: list[Peer], later: bool) -> int:
        """Send at once what is small and overtakes nothing, and otherwise keep it.

        Returns to how many connections it was sent.
        """
        if not later and not self._queue and len(connections) <= CHUNK:
            self._deliver(packet, connections)
            return len(connections)
        if self._queue is None:
            self._queue = deque()
        elif len(self._queue) >= self._limit:
            if packet.droppable:
                self.dropped += len(connections)
                return 0
            # Neither may it be lost, nor overtake, nor wait with ever more: a long turn.
            while self._queue:
                self.run(CHUNK)
            self._queue = deque()
        self._queue.append((iter(connections), packet))
        return 0

    def run(self, budget: int) -> int:
        """Send the next to up to ``budget`` connections; returns how many it were."""
        if not self._queue:
            return 0
        connections, packet = self._queue[0]
        chunk = list(islice(connections, budget))
        if len(chunk) < budget:
            self._queue.popleft()
        if not self._queue:
            self._queue = None  # an empty one keeps its block of memory
        self._deliver(packet, chunk)
        return len(chunk)

    def _deliver(self, packet: Packet, connections: list[Peer]) -> None:
        for connection in connections:
            try:
                self.dropped += packet.send(connection)
            except BaseException:  # a payload may be a function of the application's
                self._log.failure("Room {code} could not send", code=self._code)


__all__ = ["RoomPackets"]
