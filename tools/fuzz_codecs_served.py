"""One fuzzed server: what it is set up with, its peers, and how it has to end."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from random import Random
from typing import Any

import msgspec
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from kupool.errors import CLOSE_REASONS
from kupool.net.hooks import HookedObserver
from kupool.net.manager import ServerSettings
from kupool.net.routing.interceptors import Intercepted
from kupool.net.routing.table import Unknown
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork
from kupool.net.workers.pool import CLOSE_UNAVAILABLE, WorkerPool
from kupool.net.workers.settings import WorkerSettings
from kupool.session.connection import Connection
from kupool.web.site import HttpLimits, make_site
from kupool.wire.codecs import CODECS, Codec
from kupool.wire.framing import FRAMINGS, Tlv
from tools.fuzz_codecs_cases import Deliberate, codec_case, cut, mutated, some_bytes
from tools.fuzz_codecs_handlers import IDS, Handlers
from tools.fuzz_codecs_peers import GoodPeer, HostilePeer
from tools.fuzz_codecs_splitters import Wrong, require

#: Seconds of a server's own timeouts: short, as real time passes with sockets.
IDLE, PART, SLOW = 4.0, 3.0, 2.0

#: Seconds within which everything must have ended after the last peer has gone.
PATIENCE = 20.0

_REASONS = {reason.reason for reason in (*CLOSE_REASONS, CLOSE_UNAVAILABLE)}

#: First bytes of WebSocket frames: whole messages mostly, parts, controls, reserved bits.
_FIRST = (0x81, 0x82, 0x81, 0x82, 0x01, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1)

_LOSSES = (ConnectionDone, ConnectionLost, ConnectionAborted)


def _faulty(item: Any) -> Any:
    """An interceptor that raises for some messages."""
    size = len(item if isinstance(item, bytes) else item.payload)
    if size % 11 == 3:
        raise Deliberate
    return item


class Served:
    """One server of a round, what is known of it, and its peers."""

    def __init__(self, reactor: Any, random: Random, *, stock: bool) -> None:
        self.reactor = reactor
        self.opened = self.closed = self.sent = self.answered = 0
        self.ends: Counter[str] = Counter()
        self.settings = ServerSettings(
            max_frame=random.choice((0, 40, 200, 1000, 65536)),
            max_connections=random.choice((0, 3, 100)),
            idle_timeout=IDLE,
            write_timeout=SLOW,
            max_errors=random.choice((0, 1, 10)),
            outbox_limit=random.choice((500, 20_000)),
            message_timeout=random.choice((0.0, PART)),
        )
        size = random.choice((0, 2))
        full = random.choice(("reject", "close", "drop"))
        workers = WorkerSettings(
            size=size, queue=4, concurrency=3, wait=0.02, timeout=0.1, full=full
        )
        self._pool = WorkerPool(reactor, workers)
        limit = self.settings.max_frame or 5000
        self._handlers = Handlers(reactor, self._pool, limit + 1)
        self._websocket: Any = None
        self.name, self.framing, self.peer_codec, ids = self._choose(random, limit)
        unknown = random.choice(list(Unknown))
        make = self._handlers.id_router if ids else self._handlers.router
        observer = HookedObserver(make(unknown), self._began, self._ended)
        self.ids = ids
        kind = "stock" if stock else "direct"
        self.server = Server(reactor, observer, self.settings, framing=self.framing, transport=kind)
        self._closed_before, observer.closed = observer.closed, self._closed  # type: ignore[method-assign]

    def _choose(self, random: Random, limit: int) -> tuple[str, Any, Codec, bool]:
        """Return a name, what a server is given as its framing, the peers' codec, and
        whether there are ids.
        """
        pick = random.randrange(8)
        if pick == 0:
            codec = CODECS[random.choice(sorted(FRAMINGS))](0)
            return f"auto({codec.name})", "auto", codec, False
        if pick == 1:
            return "websocket", "line", CODECS["line"](0), False
        if pick < 5:
            name = random.choice(sorted(CODECS))
            codec = CODECS[name](0)
            return name, name, codec, "tlv" in name or name in ("ltv", "tag-first")
        case = codec_case(random)
        ids = case.ids and not case.name.startswith("compat")
        if pick == 5:
            faulty = Intercepted(case.codec, decode=[_faulty], encode=[_faulty])
            return f"faulty({case.name})", faulty, case.codec, ids
        return case.name, case.codec, case.codec, ids

    def _began(self, connection: Connection) -> None:
        self.opened += 1

    def _ended(self, connection: Connection, reason: object) -> None:
        self.closed += 1

    def _closed(self, connection: Connection, reason: Failure) -> None:
        self.ends[type(reason.value).__name__] += 1
        if not reason.check(*_LOSSES):
            raise Wrong(f"a connection ended with {reason}")
        self._closed_before(connection, reason)

    async def start(self) -> None:
        """Listen."""
        await self.server.listen(["127.0.0.1:0"])
        self.port = self.server.addresses[0].port
        if self.name == "websocket":
            nothing: Any = None  # nobody asks it here
            limits = HttpLimits(request_timeout=IDLE, ping_interval=1.0)
            factory = make_site(
                self.reactor,
                nothing,
                nothing,
                self.reactor.seconds,
                manager=self.server.manager,
                limits=limits,
            )
            self._websocket = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
            self.port = self._websocket.getHost().port

    async def stop(self) -> None:
        """End it."""
        if self._websocket is not None:
            await self._websocket.stopListening()
        await self._pool.stop(0.2)
        await self.server.stop(timeout=1.0)
        # A pool forgets handlers that hang; a released connection may be due yet.
        await deferLater(self.reactor, 0.05, lambda: None)

    async def stopped(self, seconds: float) -> None:
        """Stop the server in so many seconds."""
        await deferLater(self.reactor, seconds, lambda: None)
        await self.server.stop(timeout=1.0)

    async def _connect(self, protocol: Any) -> Any:
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port)
        return await connectProtocol(endpoint, protocol)

    # -- peers

    async def hostile(self, random: Random) -> None:
        """Connect a peer that sends nonsense, and wait for its end."""
        codec = None if self.name.startswith(("auto", "websocket")) else self.peer_codec
        floods = random.random() < 0.1
        peer = HostilePeer(self.reactor, codec, stops_reading=floods or random.random() < 0.25)
        try:
            await self._connect(peer)
        except ConnectError:
            return
        pauses = 8
        for piece in cut(random, self._flood(random) if floods else self._bytes(random)):
            if peer.over or peer.refused:
                break
            peer.send(piece)
            if pauses and random.random() < 0.1:
                pauses -= 1
                await deferLater(self.reactor, random.choice((0.0, 0.0, 0.01, 0.1)), lambda: None)
        ways = ("stay", "finish", "close", "abort", "close", "close")
        peer.leave("stay" if floods else random.choice(ways))
        await peer.ended
        require(not peer.wrong, f"sent to a peer: {peer.wrong}")

    def _flood(self, random: Random) -> bytes:
        """Return more questions than answers that a peer is kept, which never reads."""
        self.sent += 400
        asked = msgspec.json.encode({"id": 1, "method": "echo", "params": "f" * 90})
        if self.name == "websocket":
            return self._handshake(random) + self._websocket_frame(random, 0x81, asked) * 400
        try:
            return self.peer_codec.pack(Tlv(1, bytes(100)) if self.ids else asked) * 400
        except ValueError:
            return b""

    def _bytes(self, random: Random) -> bytes:
        count = random.choice((1, 5, 30, 100))
        self.sent += count
        parts = [self._handshake(random)] if self.name == "websocket" else []
        for _ in range(count):
            if self.name == "websocket":
                made = self._websocket_frame(random, random.choice(_FIRST), self._json(random))
            else:
                made = self._packed(random)
            draw = random.random()
            if draw < 0.15:
                made = mutated(random, made)
            elif draw < 0.2:
                made += some_bytes(random, random.randint(1, 30))
            parts.append(made)
        return b"".join(parts)

    def _packed(self, random: Random) -> bytes:
        message: bytes | Tlv = self._json(random)
        if self.ids and random.random() < 0.9:
            data = some_bytes(random, random.choice((0, 3, 20, 100)))
            message = Tlv(random.choice((*IDS, 99, 2**32 - 1)), data)
        try:
            return self.peer_codec.pack(message)
        except ValueError:  # more, or less, than the codec takes
            return some_bytes(random, 30)

    def _json(self, random: Random) -> bytes:
        message = {
            "id": random.choice((1, 7, None, "abc", "x" * 70, -1, 2**70)),
            "method": random.choice((*IDS.values(), *IDS.values(), "unknown", "", None)),
            "params": random.choice((None, 1, "text", [1, {"a": "b"}], "y" * 100)),
        }
        if random.random() < 0.05:
            return some_bytes(random, 50)
        try:
            return msgspec.json.encode(message)
        except OverflowError:
            return b'{"id":9999999999999999999999999,"method":"echo"}'

    def _handshake(self, random: Random) -> bytes:
        key = b64encode(random.randbytes(16))
        return (
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: %b\r\n\r\n" % key
        )

    def _websocket_frame(self, random: Random, first: int, payload: bytes) -> bytes:
        size = len(payload)
        head = bytes((first, 0x80 | size)) if size < 126 else b""
        head = head or bytes((first, 0xFE)) + size.to_bytes(2, "big")
        mask = random.randbytes(4)
        return head + mask + bytes(b ^ mask[n % 4] for n, b in enumerate(payload))

    def good(self) -> Any:
        """Return what a peer does that only sends what is right, if that fits the server."""
        if self.settings.max_connections == 3 or self.name.startswith(("websocket", "faulty")):
            return None
        text = msgspec.json.encode({"id": 1, "method": "echo", "params": "hello"})
        message: Any = Tlv(1, b"hi") if self.ids else text
        size = 2 if self.ids else len(text)
        room = min(self.settings.max_frame or size, self.peer_codec.max_payload)
        try:
            packed = self.peer_codec.pack(message)
        except ValueError:
            return None
        arrived = list(self.peer_codec.splitter(2**60).feed(packed))
        if room < size or arrived != [message]:
            return None  # the handler would not see it as it is
        return self._talk(message)

    async def _talk(self, message: bytes | Tlv) -> None:
        peer = GoodPeer(self.peer_codec)
        await self._connect(peer)
        for _ in range(5):
            try:
                answer = await peer.ask(message)
            except _LOSSES:
                self._cut_off("its connection ended")
                return
            data = answer if isinstance(answer, bytes) else answer.payload
            if b'"method":"close"' in data:
                self._cut_off(f"it was told {data!r}")
                return
            fine = data == b"hi" if self.ids else msgspec.json.decode(data)["result"] == "hello"
            require(fine, f"the good peer was answered {answer!r}")
            self.answered += 1
            await deferLater(self.reactor, 0.01, lambda: None)
        peer.transport.loseConnection()
        await peer.ended

    def _cut_off(self, how: str) -> None:
        """A good peer was cut off: that may be where real time passed without our turn."""
        idle = self.server.manager.counters.closes["idle timeout"]
        require(idle and not isinstance(self.reactor, MemoryNetwork), f"the good peer: {how}")

    # -- the end

    async def empty(self) -> None:
        """Wait until every connection has ended by itself."""
        waited = 0.0
        while len(self.server.manager):
            require(waited < PATIENCE, f"{len(self.server.manager)} connections have not ended")
            await deferLater(self.reactor, 0.05, lambda: None)
            waited += 0.05

    def judge(self) -> None:
        """Raise what is wrong with how it ended."""
        manager = self.server.manager
        strange = set(manager.counters.closes) - _REASONS
        require(not strange, f"closed for {strange}")
        self.ends.update(manager.counters.closes)
        require(
            self.opened == self.closed == manager.accepted,
            f"{manager.accepted} accepted, {self.opened} began, {self.closed} ended",
        )


__all__ = ["Served"]
