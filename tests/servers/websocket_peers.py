"""A pool with all its ports in this process, and a client for each form of the wire.

The clients know nothing of the code under test: they take the bytes apart themselves.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections import deque
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.accounts.authenticator import Authenticator
from kupool.accounts.login_guard import LoginSettings
from kupool.accounts.logins import Logins
from kupool.accounts.web_tokens import WebIdentity
from kupool.live.hub import Hub
from kupool.log.memory import MemoryLog
from kupool.net.manager import ServerSettings
from kupool.net.server import Server
from kupool.pool.acceptance import Acceptance, BatchSettings
from kupool.pool.coordinator import Coordinator
from kupool.pool.events import NoEvents
from kupool.pool.handlers import AttemptSettings, Handlers
from kupool.pool.jobs import JobBook
from kupool.pool.jobstore import MemoryJobStore
from kupool.pool.judge import Rules
from kupool.pool.notes import JobNotes
from kupool.pool.pool import Pool, SessionSettings
from kupool.stats.consumer import ConsumerSettings, StatsConsumer
from kupool.stats.memory import MemoryStats
from kupool.storage.clocks import this_boot
from kupool.web import IStatusSource, Overview, ShutdownStatus
from kupool.web.access import WebAccess
from kupool.web.control import KnownHosts
from kupool.web.site import HttpLimits, make_site
from tests.fakes.web_site import SECRET

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class HoldingLog(MemoryLog):
    """A log that may be slow to say that something is durable."""

    held: list[Deferred[None]] | None = None

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        done = super().append(entry_id, body)
        if self.held is not None:
            done.pause()
            self.held.append(done)
        return done

    def let_go(self) -> None:
        held, self.held = self.held or [], None
        for done in held:
            done.unpause()


@implementer(IStatusSource)
class House:
    """The parts of a daemon that clients see, on ports that the system chooses."""

    def __init__(
        self,
        reactor: Any,
        *,
        settings: ServerSettings | None = None,
        limits: HttpLimits | None = None,
        password: str = "",
        ws_origins: tuple[str, ...] = (),
        hosts: tuple[str, ...] = (),
    ) -> None:
        wall = time.time
        self.reactor = reactor
        self.log = HoldingLog(reactor, wall)
        self.stats = MemoryStats()
        self.book = JobBook(600.0, 100, 1_000_000)
        self.acceptance = Acceptance(
            reactor, wall, self.log, BatchSettings(), instance="test", events=NoEvents()
        )
        attempts = AttemptSettings(rate=0, burst=0)
        self.handlers = Handlers(
            self.book, self.acceptance, Rules(submit_interval=0.0), attempts=attempts
        )
        logins = None
        if password:
            checker = InMemoryUsernamePasswordDatabaseDontUse()
            checker.addUser(b"alice", password.encode())
            authenticator = Authenticator(reactor, [checker])
            logins = Logins(reactor, authenticator, LoginSettings(delay=0.0))
        self.pool = Pool(
            reactor,
            self.book,
            self.acceptance,
            self.handlers,
            channel=Hub(reactor).latest("job"),
            events=NoEvents(),
            settings=SessionSettings(),
            logins=logins,
        )
        self.server = Server(reactor, self.pool, settings or ServerSettings())
        self.manager = self.server.manager
        self.coordinator = Coordinator(
            reactor,
            wall,
            self.book,
            MemoryJobStore(wall),
            publish=self.pool.publish,
            interval=30.0,
            notes=JobNotes(self.log, wall, "test"),
            boot=this_boot(),
        )
        self.consumer = StatsConsumer(
            reactor, self.stats, self.acceptance.rejections.take, ConsumerSettings(interval=0.02)
        )
        self.site = make_site(
            reactor,
            self,
            self.stats,
            wall,
            manager=self.manager,
            ws_origins=ws_origins,
            access=WebAccess(KnownHosts(hosts), secrets={SECRET: WebIdentity("local", "admin")}),
            limits=limits,
        )
        self.http: Any = None
        self.clients: list[Client] = []

    async def start(self) -> None:
        await self.consumer.start(self.log)
        await self.coordinator.start()
        await self.server.listen(["127.0.0.1:0"])
        self.http = self.reactor.listenTCP(0, self.site, interface="127.0.0.1")

    async def stop(self) -> None:
        self.log.let_go()
        for client in self.clients:
            client.transport.abortConnection()
        for client in self.clients:
            await client.gone
        await self.server.stop(timeout=1.0)
        await self.http.stopListening()
        await self.coordinator.stop()
        await self.consumer.drain(self.reactor.seconds() + 5.0)
        await self.consumer.stop()
        await self.log.close()

    # IStatusSource

    def ready(self) -> list[str]:
        return []

    def concerns(self) -> list[str]:
        return []

    def overview(self) -> Overview:
        job = self.book.current
        return Overview(self.pool.sessions, len(self.pool.users), job and job.job_id)

    def shutdown(self) -> ShutdownStatus:
        depth = self.log.status().depth
        in_flight = self.acceptance.batches_in_flight
        return ShutdownStatus("running", 0.0, len(self.manager), in_flight, depth)

    def rotate(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self._rotate())

    async def _rotate(self) -> int:
        return (await self.coordinator.rotate()).job_id

    def set_interval(self, seconds: float) -> None:
        self.coordinator.set_interval(seconds)

    # for tests

    async def connect(self, client: Client) -> Client:
        """Connect a client to the port that is for it."""
        port = self.http.getHost().port if client.http else self.server.addresses[0].port
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
        client.host = f"localhost:{port}"
        await connectProtocol(endpoint, client)
        self.clients.append(client)
        return client

    async def until(self, holds: Any) -> None:
        """Wait until a condition holds; the test's own timeout ends a vain wait."""
        while not holds():
            await deferLater(self.reactor, 0.01)


class Client(Protocol):
    """What the clients have in common: requests, and what comes back, in order."""

    http = False
    host = ""
    transport: Any

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()
        self.ended: tuple[int | None, str] | None = None
        self._messages: deque[dict[str, Any]] = deque()
        self._waiting: Deferred[None] | None = None
        self.buffer = b""

    # what a client of each form does

    def encode(self, payload: bytes) -> bytes:
        raise NotImplementedError

    def parse(self) -> None:
        """Take what is whole out of the buffer."""
        raise NotImplementedError

    # for tests

    def send(self, *messages: dict[str, Any] | bytes) -> None:
        """Send messages, or payloads as they are, in one write."""
        payloads = [m if isinstance(m, bytes) else json.dumps(m).encode() for m in messages]
        self.transport.write(b"".join(map(self.encode, payloads)))

    async def receive(self) -> dict[str, Any]:
        """Return the next message; fails when the connection ended without one."""
        while not self._messages:
            if self.gone.called:
                raise EOFError(f"the connection ended: {self.ended}")
            await self.woken()
        return self._messages.popleft()

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and return its reply, passing over notifications."""
        self.send({"id": 7, "method": method, "params": params})
        while (message := await self.receive())["id"] is None:
            pass
        return message

    async def authorize(self, username: str = "alice") -> dict[str, Any]:
        """Authorize and return the first job's params."""
        self.send({"id": 1, "method": "authorize", "params": {"username": username}})
        assert await self.receive() == {"id": 1, "result": True}
        job = await self.receive()
        assert (job["id"], job["method"]) == (None, "job")
        params: dict[str, Any] = job["params"]
        return params

    async def woken(self) -> None:
        """Wait until something comes, or the connection ends."""
        self._waiting = Deferred()
        await self._waiting

    async def ending(self) -> tuple[int | None, str]:
        """Wait for the end of the connection; returns the code, if any, and the reason."""
        while not self.gone.called:
            await self.woken()
        assert self.ended is not None, "the connection ended without a close"
        return self.ended

    # for the forms

    def got(self, payload: bytes) -> None:
        message = json.loads(payload)
        if message.get("method") == "close":
            self.ended = (message["params"]["code"], message["params"]["reason"])
        else:
            self._messages.append(message)

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        self.parse()
        self._wake()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.gone.callback(None)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)


class FrameClient(Client):
    """Opcode, little-endian length, payload."""

    def encode(self, payload: bytes) -> bytes:
        return b"\x02" + len(payload).to_bytes(4, "little") + payload

    def parse(self) -> None:
        while len(self.buffer) >= 5:
            end = 5 + int.from_bytes(self.buffer[1:5], "little")
            if len(self.buffer) < end:
                return
            opcode, payload = self.buffer[0], self.buffer[5:end]
            self.buffer = self.buffer[end:]
            if opcode == 8:
                self.ended = (None, payload.decode())
            else:
                self.got(payload)


class Int32Client(Client):
    """Big-endian length, payload."""

    def encode(self, payload: bytes) -> bytes:
        return len(payload).to_bytes(4, "big") + payload

    def parse(self) -> None:
        while len(self.buffer) >= 4:
            end = 4 + int.from_bytes(self.buffer[:4], "big")
            if len(self.buffer) < end:
                return
            payload, self.buffer = self.buffer[4:end], self.buffer[end:]
            self.got(payload)


class LineClient(Client):
    """Payload, LF."""

    def encode(self, payload: bytes) -> bytes:
        return payload + b"\n"

    def parse(self) -> None:
        while b"\n" in self.buffer:
            payload, _, self.buffer = self.buffer.partition(b"\n")
            self.got(payload)


class WebSocketClient(Client):
    """RFC 6455, with text messages, or binary ones; answers pings and closes."""

    http = True
    opcode = 0x1

    def __init__(
        self,
        origin: str = "",
        host: str = "",
        polite: bool = True,
        *,
        path: str = "/ws",
        headers: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self._path = path
        self._headers = headers
        self.head = b""
        self._origin = origin
        self._named = host
        self.polite = polite
        self.opened: Deferred[None] = Deferred()
        self.refusal = b""
        self.kinds: list[int] = []
        self.pings = 0
        self.pongs: list[bytes] = []
        self._key = base64.b64encode(os.urandom(16))
        self._upgraded = False

    async def authorize(self, username: str = "alice") -> dict[str, Any]:
        await self.opened  # what is sent before is not for the WebSocket
        return await super().authorize(username)

    def connectionMade(self) -> None:
        lines = [
            f"GET {self._path} HTTP/1.1",
            f"Host: {self._named or self.host}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {self._key.decode()}",
            *self._headers,
        ]
        if self._origin:
            lines.append(f"Origin: {self._origin}")
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n")

    def frame(self, first: int, payload: bytes, length: int | None = None) -> bytes:
        """Return a masked frame; with ``length`` given, a header that announces that."""
        size = len(payload) if length is None else length
        if size < 126:
            head = bytes((first, 0x80 | size))
        elif size < 65536:
            head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        return head + mask + masked

    def encode(self, payload: bytes) -> bytes:
        return self.frame(0x80 | self.opcode, payload)

    def parse(self) -> None:
        if not self._upgraded and not self._upgrade():
            return
        while len(self.buffer) >= 2:
            first, size = self.buffer[0], self.buffer[1]
            assert not size & 0x80, "a server does not mask"
            start = 2
            if size == 126:
                size, start = int.from_bytes(self.buffer[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(self.buffer[2:10], "big"), 10
            if len(self.buffer) < start + size:
                return
            payload, self.buffer = self.buffer[start : start + size], self.buffer[start + size :]
            self._frame_received(first, payload)

    def _upgrade(self) -> bool:
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 101 "):
            self.refusal = self.buffer
            return False
        accept = base64.b64encode(hashlib.sha1(self._key + _MAGIC).digest())
        assert b"Sec-WebSocket-Accept: " + accept in head, head
        self._upgraded, self.buffer, self.head = True, rest, head
        self.opened.callback(None)
        return True

    def _frame_received(self, first: int, payload: bytes) -> None:
        assert first & 0x80, "the server sends whole messages"
        opcode = first & 0x0F
        if opcode in (1, 2):
            assert self.ended is None, "nothing follows a close"
            self.kinds.append(opcode)
            self.got(payload)
        elif opcode == 8:
            self.ended = (int.from_bytes(payload[:2], "big"), payload[2:].decode())
            if self.polite:
                self.transport.write(self.frame(0x88, payload[:2]))
        elif opcode == 9:
            self.pings += 1
            if self.polite:
                self.transport.write(self.frame(0x8A, payload))
        elif opcode == 10:
            self.pongs.append(payload)


class BinaryWebSocketClient(WebSocketClient):
    """The same with binary messages."""

    opcode = 0x2


def solution(job: dict[str, Any], nonce: str) -> dict[str, Any]:
    """Return the params of a right submission for a job."""
    result = hashlib.sha256((job["server_nonce"] + nonce).encode()).hexdigest()
    return {"job_id": job["job_id"], "client_nonce": nonce, "result": result}
