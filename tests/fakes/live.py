"""Live channels and their subscribers, on connections in memory and a clock of the test."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from kupool.live.hub import Hub
from kupool.live.interfaces import IChannelStore
from kupool.live.publications import (
    ClientDetails,
    NewPublication,
    PublicationGap,
    PublishedRecord,
)
from kupool.live.rules import ChannelRule, ChannelRules
from kupool.live.service import LiveService
from kupool.live.session import LiveLimits, LiveSession
from kupool.live.table import ChannelSources
from kupool.session.connection import Connection
from kupool.topics.memory import MemoryTopics
from kupool.topics.service import TopicLimits, Topics
from kupool.wire.framing import LINE, Framing
from tests.fakes.peers import Bench, PeerTransport


class JsonEncoding:
    """Messages as arrays: what it is, the channel, and the rest; counts how often it encodes."""

    def __init__(self) -> None:
        self.encoded = 0

    def publication(self, channel: str, record: PublishedRecord) -> bytes:
        self.encoded += 1
        return b'["pub","%b",%d,%b]' % (channel.encode(), record.offset, record.data)

    def join(self, channel: str, details: ClientDetails) -> bytes:
        return msgspec.json.encode(["join", channel, details.client_id])

    def leave(self, channel: str, details: ClientDetails) -> bytes:
        return msgspec.json.encode(["leave", channel, details.client_id])


class FakeSubscriber:
    """A client on a connection in memory; ``log`` has its callbacks."""

    role = "user"

    def __init__(
        self,
        client_id: str,
        encoding: JsonEncoding,
        connection: Connection,
        transport: PeerTransport,
        *,
        user: str = "",
    ) -> None:
        self.client_id = client_id
        self.user = user
        self.connection_info = b""
        self.encoding = encoding
        self.peer = connection
        self.transport = transport
        self.log: list[Any] = []
        self.told: list[tuple[str, PublicationGap]] = []

    def gap(self, channel: str, gap: PublicationGap) -> None:
        self.told.append((channel, gap))
        self.peer.send(json.dumps(["gap", channel, gap.missed, gap.reason]).encode())

    def unsubscribed(self, channel: str, reason: str) -> None:
        self.log.append(("unsubscribed", channel, reason))

    def too_slow(self, channel: str) -> None:
        self.log.append(("too slow", channel))

    def stall(self) -> None:
        """Read nothing more."""
        self.transport.full = True
        self.peer.pauseProducing()

    def read(self) -> None:
        """Read everything."""
        self.transport.drain()

    def taken(self) -> list[Any]:
        """Return what arrived since the last call."""
        return [json.loads(line) for line in self.transport.taken().splitlines()]

    def data(self) -> list[Any]:
        """Return the data of the publications that arrived since the last call."""
        return [each[3] for each in self.taken() if each[0] == "pub"]


class LiveWorld:
    """A service with rules on a clock of the test, and clients."""

    def __init__(
        self,
        *rules: ChannelRule,
        may: Callable[[str, str, str, str], bool] = lambda *_: True,
        durable: Callable[[ChannelRule], IChannelStore] | None = None,
        hub: Callable[[IReactorTime], Hub] = Hub,
        **limits: Any,
    ) -> None:
        self.bench = Bench(max_connections=0)
        self.clock = self.bench.clock
        self.wall = 1_000.0
        self._epochs = count(1)
        self.service = LiveService(
            ChannelSources(
                self.clock,
                hub(self.clock),
                lambda: self.wall + self.clock.seconds(),
                lambda: f"epoch{next(self._epochs)}",
                durable,
            ),
            ChannelRules(rules),
            may=may,
            limits=LiveLimits(**limits),
        )
        self.encoding = JsonEncoding()
        self._ids = count(1)

    def client(self, user: str = "", framing: Framing = LINE) -> tuple[FakeSubscriber, LiveSession]:
        """Let a client connect."""
        connection, transport = self.bench.connect(framing)
        client_id = f"c{next(self._ids)}"
        subscriber = FakeSubscriber(client_id, self.encoding, connection, transport, user=user)
        return subscriber, self.service.connect(subscriber)

    def turns(self) -> None:
        """Let all that is due now happen."""
        for _ in range(1000):
            if not any(call.getTime() <= self.clock.seconds() for call in self.clock.calls):
                return
            self.clock.turn()


class SlowEngine:
    """An engine of topics in memory whose answers come when the test lets them."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._engine = MemoryTopics(wall)
        self.capabilities = self._engine.capabilities
        #: The answers that have not come, in the order of the calls.
        self.answers: deque[Callable[[], None]] = deque()
        self.slow = False
        #: What calls fail with instead, if anything.
        self.broken: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._engine, name)
        return partial(self._call, method) if name in ("append", "read", "extents") else method

    def _call(self, method: Callable[..., Deferred[Any]], *arguments: Any) -> Deferred[Any]:
        if self.broken is not None:
            return fail(self.broken)
        result = method(*arguments)
        if not self.slow:
            return result
        answer: Deferred[Any] = Deferred(lambda _: None)

        def come() -> None:
            if answer.called:
                result.addErrback(lambda _: None)
            else:
                result.chainDeferred(answer)

        self.answers.append(come)
        return answer

    def answer(self, most: int = 1000) -> None:
        """Let some answers come, and those that they bring."""
        while self.answers and most:
            self.answers.popleft()()
            most -= 1


def topics_on(engine: Any, clock: IReactorTime, wall: Callable[[], float]) -> Topics:
    """Return topics on an engine; nothing of them runs in a thread."""
    return Topics(
        engine,
        clock,
        wall,
        lambda call: maybeDeferred(call),
        random=Random(1),
        limits=TopicLimits(),
    )


def new(data: Any, **fields: Any) -> NewPublication:
    """Return a publication of some data."""
    return NewPublication(data=json.dumps(data).encode(), **fields)


def offsets(records: Sequence[PublishedRecord]) -> list[int]:
    """Return the offsets of publications."""
    return [record.offset for record in records]


__all__ = [
    "FakeSubscriber",
    "JsonEncoding",
    "LiveWorld",
    "SlowEngine",
    "new",
    "offsets",
    "topics_on",
]
