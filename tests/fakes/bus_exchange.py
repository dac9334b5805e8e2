"""A carrier in memory, on a fake clock: what RabbitMQ is to nodes of the bus."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from kupool.bus import BusError
from kupool.bus.rabbit.carrier import EVERYBODY, ICarrier


class Exchange:
    """Joins carriers; ``up`` says whether it takes connections."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.up = True
        self.queues: dict[str, MemoryCarrier] = {}
        #: What has been sent: (from, to, body), for tests to look at.
        self.sent: list[tuple[str, str, bytes]] = []
        #: Returns whether something sent (from, to, body) gets lost on its way.
        self.loses: Callable[[str, str, bytes], bool] = lambda *sent: False

    def fall(self) -> None:
        """End, as a broker that is killed."""
        self.up = False
        for carrier in list(self.queues.values()):
            carrier.cut()

    def carry(self, sender: MemoryCarrier, address: str, body: bytes, seconds: float) -> None:
        self.sent.append((sender.address, address, body))
        if self.loses(sender.address, address, body):
            return
        targets = list(self.queues.values()) if address == EVERYBODY else []
        if address in self.queues:
            targets = [self.queues[address]]
        if not targets:
            self.clock.callLater(0, sender.came_back, sender.address, address)
        for target in targets:
            target.put(sender.node, sender.address, body, self.clock.seconds() + seconds)


@implementer(ICarrier)
class MemoryCarrier:
    """One node's connection to an exchange; comes back a second after it was lost."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.node = self.address = ""
        self.writable = True
        #: Whether it neither takes anything nor says anything.
        self.frozen = False
        self.drops: list[str] = []
        self._connections = 0
        self._queue: deque[tuple[str, str, bytes, float]] = deque()
        self._closed = False
        self._listener: Any = None

    def connect(self, node: str, listener: Any) -> Deferred[None]:
        self.node, self._listener = node, listener
        if not self.exchange.up:
            return fail(BusError("nobody there"))
        self._come()
        return succeed(None)

    def _come(self) -> None:
        if self._closed:
            return
        if not self.exchange.up:
            self._listener.down("nobody there")
            self.exchange.clock.callLater(1.0, self._come)
            return
        self._connections += 1
        self.address = f"{self.node}.{self._connections}"
        self.exchange.queues[self.address] = self
        self._listener.up(self.address)

    def put(self, *message: Any) -> None:
        self._queue.append(message)
        self.exchange.clock.callLater(0, self._deliver, self.address)

    def _deliver(self, address: str) -> None:
        while self._queue and not self.frozen and address == self.address:
            sender, reply_to, body, expires = self._queue.popleft()
            if self.exchange.clock.seconds() <= expires:
                self._listener.received(sender, reply_to, body)

    def came_back(self, mine: str, address: str) -> None:
        if mine == self.address:
            self._listener.returned(address)

    def thaw(self) -> None:
        """Go on, first with what has piled up."""
        self.frozen = False
        self._deliver(self.address)

    def resume(self) -> None:
        """Take again what is sent."""
        self.writable = True
        self._listener.resumed()

    def send(self, address: str, body: bytes, seconds: float) -> None:
        if self.address and not self.frozen:
            self.exchange.carry(self, address, body, seconds)

    def count(self) -> Deferred[int]:
        return succeed(len(self.exchange.queues))

    def vanish(self) -> None:
        """Be gone without a word, for good, as a process that is killed."""
        self._closed = self.frozen = True
        self.exchange.queues.pop(self.address, None)

    def cut(self) -> None:
        """Lose the connection."""
        if self.exchange.queues.pop(self.address, None) is not None:
            self.address = ""
            self._queue.clear()
            self._listener.down("cut")
            self.exchange.clock.callLater(1.0, self._come)

    def drop(self, why: str) -> None:
        self.drops.append(why)
        self.cut()

    def close(self) -> Deferred[None]:
        self._closed = True
        self.exchange.queues.pop(self.address, None)
        self.address = ""
        return succeed(None)
