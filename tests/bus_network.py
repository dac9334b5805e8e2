"""A network in memory, on a fake clock, between clients of a bus and its server."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer


class Wire:
    """One side's transport: what is written reaches the other side in a later turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.protocol: Any = None
        self.other: Any = None
        self.producer: Any = None
        self.frozen = False
        self.over = False
        self._ending = False
        self._queue: list[bytes] = []
        self._scheduled = False
        self._paused = False

    def write(self, data: bytes) -> None:
        if not self.over and not self._ending:
            self._queue.append(data)
            self._soon()

    def writeSequence(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._carry)

    def _carry(self) -> None:
        self._scheduled = False
        if self.over or self.frozen or self.other._paused:
            return
        data, self._queue = b"".join(self._queue), []
        if data and not self.other.over:
            self.other.protocol.dataReceived(data)
        if self._ending and not self._queue:
            self.cut(ConnectionDone())

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self.other._soon()

    def freeze(self) -> None:
        """What this side writes goes nowhere from now on."""
        self.frozen = True

    def loseConnection(self) -> None:
        self._ending = True
        self._soon()

    loseWriteConnection = loseConnection

    def abortConnection(self) -> None:
        self._clock.callLater(0, self.cut, ConnectionLost())

    def cut(self, why: Exception | None = None) -> None:
        """End the connection, for both sides, losing what is under way."""
        for side in (self, self.other):
            if not side.over:
                side.over = True
                self._clock.callLater(
                    0, side.protocol.connectionLost, Failure(why or ConnectionLost())
                )

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 4000)

    getHost = getPeer


@implementer(IStreamClientEndpoint)
class Network:
    """The server's endpoint; ``up`` says whether it accepts."""

    def __init__(self, clock: Clock, server_factory: Any) -> None:
        self._clock = clock
        self.server_factory = server_factory
        self.up = True
        self.attempts = 0
        #: The clients' sides of the connections, in the order of their coming.
        self.wires: list[Wire] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        self.attempts += 1
        if not self.up:
            return fail(ConnectError())
        here, there = Wire(self._clock), Wire(self._clock)
        here.other, there.other = there, here
        here.protocol = factory.buildProtocol(there.getPeer())
        there.protocol = self.server_factory.buildProtocol(here.getPeer())
        self.wires.append(here)
        there.protocol.makeConnection(there)
        here.protocol.makeConnection(here)
        return succeed(here.protocol)
