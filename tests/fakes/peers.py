"""What the tests of `kupool.net` and `kupool.live` are made of: observers and transports."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.interfaces import IConnectionObserver
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.routing.router import IRouter, Router
from kupool.session.connection import Connection
from kupool.wire.framing import LINE, Framing, Item


@implementer(IConnectionObserver)
class Observer:
    """Gives every connection one router, and remembers who came and went."""

    def __init__(self, router: Any = None) -> None:
        self.router = router or ping_router()
        self.connections: list[Connection] = []
        self.ended: list[tuple[Connection, Failure]] = []
        self.settling: Deferred[None] | None = None
        self.finished: list[Connection] = []
        self.on_open: Callable[[Connection], object] = lambda connection: None

    def opened(self, connection: Connection) -> None:
        connection.router = self.router
        self.connections.append(connection)
        self.on_open(connection)

    def closed(self, connection: Connection, reason: Failure) -> None:
        self.ended.append((connection, reason))

    def settle(self, connection: Connection) -> Deferred[None] | None:
        self.finished.append(connection)
        return self.settling


def ping_router() -> Router:
    router = Router()
    router.add("ping", lambda connection, message: True)
    return router


@implementer(IRouter)
class Recorder:
    """A router that notes every message, and may do something about it."""

    def __init__(self, act: Callable[[Connection, Item], bytes | None] | None = None) -> None:
        self.items: list[Item] = []
        self._act = act

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        self.items.append(item)
        return None if self._act is None else self._act(connection, item)


class PeerTransport(StringTransport):
    """A transport in memory; while it is ``full``, it pauses its producer on a write."""

    def __init__(self, host: str = "192.0.2.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 4000))
        self.full = False
        self.aborted = False
        self.reading = True

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.full and self.producer is not None:
            self.producer.pauseProducing()

    def drain(self) -> None:
        """The peer has read everything."""
        self.full = False
        if self.producer is not None:
            self.producer.resumeProducing()

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def unregisterProducer(self) -> None:
        self.producer = None

    def taken(self) -> bytes:
        """What was written since the last call."""
        data = self.value()
        self.clear()
        return data


class TurnClock(Clock):
    """A clock that tells one turn of the reactor from the next."""

    def turn(self) -> None:
        """Make the calls that are due, and none of those that they bring."""
        due = [call for call in self.calls if call.getTime() <= self.seconds()]
        self.calls = [call for call in self.calls if call not in due]
        for call in due:
            call.called = 1
            call.func(*call.args, **call.kw)


class Bench:
    """A manager on a fake clock, and connections on transports in memory."""

    def __init__(self, router: Any = None, **settings: Any) -> None:
        self.clock = TurnClock()
        self.observer = Observer(router)
        self.manager = ConnectionManager(self.clock, self.observer, ServerSettings(**settings))

    def connect(
        self, framing: Framing = LINE, host: str = "192.0.2.1"
    ) -> tuple[Connection, PeerTransport]:
        transport = PeerTransport(host)
        return self.manager.admit(transport, host, framing), transport

    def turns(self) -> None:
        """Let connections go on that have sent more than their share of a turn."""
        for _ in range(1000):
            self.clock.advance(0)

    def sweep_after(self, seconds: float) -> None:
        """Let time pass, with a sweep each second and at the end."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            self.manager.sweep()
        self.clock.advance(seconds - int(seconds))
        self.manager.sweep()


def lines(data: bytes) -> list[Any]:
    """Decode the messages of the framing `line`."""
    assert data == b"" or data.endswith(b"\n"), data
    return [json.loads(line) for line in data.splitlines()]


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Take the framing `frame` apart, without the code under test: (opcode, payload)."""
    out = []
    while data:
        size = int.from_bytes(data[1:5], "little")
        assert len(data) >= 5 + size, data
        out.append((data[0], data[5 : 5 + size]))
        data = data[5 + size :]
    return out


def int32s(data: bytes) -> list[bytes]:
    """Take the framing `int32` apart, without the code under test."""
    out = []
    while data:
        size = int.from_bytes(data[:4], "big")
        assert len(data) >= 4 + size, data
        out.append(data[4 : 4 + size])
        data = data[4 + size :]
    return out


def tlvs(data: bytes) -> list[tuple[int, bytes]]:
    """Take the framing `tlv` apart, without the code under test."""
    out = []
    while data:
        size = int.from_bytes(data[:4], "little")
        out.append((int.from_bytes(data[4:8], "little"), data[8 : 8 + size]))
        data = data[8 + size :]
    return out
