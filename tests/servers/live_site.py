"""Live channels on a port of their own, and clients of the Centrifuge protocol that are not ours.

The clients know nothing of the code under test: they take the bytes apart themselves.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote

from joserfc import jwk, jwt
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from kupool.accounts.web_tokens import WebIdentity
from kupool.live.centrifuge.tokens import CentrifugeTokens
from kupool.live.centrifuge.world import CentrifugeSettings, CentrifugeWorld
from kupool.live.hub import Hub
from kupool.live.rules import ChannelRule, ChannelRules
from kupool.live.service import LiveService
from kupool.live.session import LiveLimits
from kupool.live.table import ChannelSources
from kupool.net.admission import ServerSettings
from kupool.net.refusals import Refusals
from kupool.stats.memory import MemoryStats
from kupool.web.access import WebAccess
from kupool.web.centrifuge_clients import CentrifugeClients, client_limits
from kupool.web.control import KnownHosts
from kupool.web.site import HttpLimits, make_site
from tests.fakes.web_site import Source
from tests.servers.websocket_peers import WebSocketClient

SECRET = "a secret of more than thirty-two characters"

#: The bearer token of the user alice.
BEARER = "b" * 40

#: Every channel keeps a history, and tells who is there.
OPEN = ChannelRule(
    pattern="*",
    history_size=100,
    history_time=300.0,
    forced_recovery=True,
    presence=True,
    publish_by_clients=True,
)


def token(**claims: Any) -> str:
    """Return a token with these claims."""
    key = jwk.OctKey.import_key(SECRET.encode())
    return jwt.encode({"alg": "HS256"}, claims, key)


class LiveSite:
    """A site with clients of the protocol, and the service that they use."""

    def __init__(
        self,
        reactor: Any,
        *rules: ChannelRule,
        limits: ServerSettings | None = None,
        origins: tuple[str, ...] = (),
        http: HttpLimits | None = None,
        channels: LiveLimits | None = None,
        **settings: Any,
    ) -> None:
        self.reactor = reactor
        self.service = LiveService(
            ChannelSources(reactor, Hub(reactor), time.time, lambda: secrets.token_hex(4)),
            ChannelRules(rules or [OPEN]),
            may=lambda *_: True,
            limits=channels or LiveLimits(),
        )
        self.world = CentrifugeWorld(
            live=self.service,
            clock=reactor,
            wall=time.time,
            random=Random(1),
            new_id=lambda: secrets.token_hex(16),
            call=self._call,
            tokens=CentrifugeTokens(SECRET, time.time),
            role_of=lambda user: "user" if user else "anonymous",
            refusals=Refusals(reactor),
            settings=CentrifugeSettings(**settings),
        )
        self.clients = CentrifugeClients(self.world, limits or client_limits(10_000))
        self.site = make_site(
            reactor,
            Source(),
            MemoryStats(),
            time.time,
            ws_origins=origins,
            access=WebAccess(KnownHosts(), secrets={BEARER: WebIdentity("alice", "worker")}),
            limits=http,
            centrifuge=self.clients,
        )
        self.port: Any = None
        #: Calls by RPC that were not answered yet, and all methods that were called.
        self.results: dict[str, Deferred[bytes | None]] = {}

    def _call(self, caller: Any, method: str, data: bytes) -> Deferred[bytes | None]:
        return self.results.get(method) or succeed(None)

    @property
    def number(self) -> int:
        """The number of the port."""
        return int(self.port.getHost().port)

    def start(self, port: int = 0) -> None:
        """Listen."""
        self.clients.start()
        self.port = self.reactor.listenTCP(port, self.site, interface="127.0.0.1")

    async def stop(self) -> None:
        """Close everything."""
        await self.port.stopListening()
        await self.clients.stop()
        self.service.stop()
        await self.clients.manager.when_empty()


class LiveSiteCase(TestCase):
    """A test with a site, whose settings a subclass gives."""

    timeout = 20
    rules: tuple[ChannelRule, ...] = ()
    named: dict[str, Any] = {}

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.live = LiveSite(reactor, *self.rules, **self.named)
        self.live.start()
        self.addCleanup(self.live.stop)

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until a condition holds; the test's own timeout ends a vain wait."""
        while not holds():
            await deferLater(self.reactor, 0.01)

    async def dial(self, client: Any) -> Any:
        """Connect a client to the port."""
        port = self.live.number
        client.host = f"localhost:{port}"
        await connectProtocol(TCP4ClientEndpoint(self.reactor, "127.0.0.1", port), client)
        self.addCleanup(client.transport.abortConnection)
        return client

    async def socket(self, *commands: Any, **options: Any) -> CentrifugeSocket:
        """Open a WebSocket, and send commands."""
        client: CentrifugeSocket = await self.dial(CentrifugeSocket(**options))
        await client.opened
        if commands:
            client.say(*commands)
        return client

    async def ask(self, method: str, path: str, body: object = b"", **headers: str) -> HttpAnswer:
        """Send a request; returns what has come when the connection ends."""
        answer: HttpAnswer = await self.dial(HttpAnswer(method, path, body, headers))
        await answer.gone
        return answer

    async def stream(self, kind: str, *commands: Any, **headers: str) -> HttpAnswer:
        """Open a stream with commands, and wait for its head."""
        text = "\n".join(json.dumps(each) for each in commands)
        if kind == "sse":
            request = HttpAnswer("GET", f"/connection/sse?cf_connect={quote(text)}", b"", headers)
        else:
            request = HttpAnswer("POST", "/connection/http_stream", text.encode(), headers)
        await self.dial(request)
        await self.until(lambda: request.status)
        return request

    async def emulate(self, stream: HttpAnswer, *commands: Any, **changes: Any) -> int:
        """Send commands of a stream's client; returns the status."""
        assert stream.connect_result is not None, "the stream has no reply to its connect command"
        text = "\n".join(json.dumps(each) for each in commands)
        asked = {"session": stream.connect_result["session"], "node": stream.connect_result["node"]}
        answer = await self.ask("POST", "/emulation", {**asked, "data": text, **changes})
        return answer.status


class CentrifugeSocket(WebSocketClient):
    """A WebSocket of the protocol; ``messages`` has what came and was not taken."""

    def __init__(
        self, query: str = "", headers: tuple[str, ...] = (), origin: str = "", polite: bool = True
    ) -> None:
        super().__init__(
            origin, path=f"/connection/websocket{query}", headers=headers, polite=polite
        )
        self.messages: list[Any] = []

    def say(self, *commands: Any) -> None:
        """Send commands in one frame."""
        self.send("\n".join(json.dumps(each) for each in commands).encode())

    def got(self, payload: bytes) -> None:
        self.messages.extend(json.loads(line) for line in payload.splitlines())

    async def next(self) -> Any:
        """Return the next message."""
        while not self.messages:
            if self.gone.called:
                raise EOFError(f"the connection ended: {self.ended}")
            await self.woken()
        return self.messages.pop(0)


class HttpAnswer(Protocol):
    """A request over a connection of its own, and its answer as it comes."""

    host = ""
    transport: Any

    def __init__(self, method: str, path: str, body: object, headers: dict[str, str]) -> None:
        self.gone: Deferred[None] = Deferred()
        self._line = f"{method} {path} HTTP/1.1"
        self._content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._headers = headers
        self._data = b""
        #: What the request names as the server, if it is not the one.
        self.named = ""

    def connectionMade(self) -> None:
        lines = [
            self._line,
            f"Host: {self.named or self.host}",
            f"Content-Length: {len(self._content)}",
            "Connection: close",
            *(f"{name.replace('_', '-')}: {value}" for name, value in self._headers.items()),
        ]
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + self._content)

    def dataReceived(self, data: bytes) -> None:
        self._data += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.gone.callback(None)

    @property
    def status(self) -> int:
        """The status code; 0 while there is no whole head."""
        return int(self._data.split(b" ")[1]) if b"\r\n\r\n" in self._data else 0

    def header(self, name: str) -> str | None:
        """A header of the answer."""
        for line in self._data.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name.lower():
                return value
        return None

    @property
    def body(self) -> bytes:
        """The body so far."""
        return self._data.partition(b"\r\n\r\n")[2]

    @property
    def messages(self) -> list[Any]:
        """The whole messages of a stream so far."""
        found = []
        for line in self.body.split(b"\n")[:-1]:
            text = line.removeprefix(b"data: ").strip()
            if text:
                found.append(json.loads(text))
        return found

    @property
    def connect_result(self) -> Any:
        """The result of the connect command; None if it has not come."""
        return next((each["connect"] for each in self.messages if "connect" in each), None)
