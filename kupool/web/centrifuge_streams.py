r"""The Centrifuge protocol over HTTP: one response that does not end, and commands by POST.

::

    GET  /connection/sse?cf_connect=COMMAND    -> events, each with one reply or push
    POST /connection/http_stream  COMMAND      -> lines, each with one reply or push
    POST /emulation  {"session", "node", "data": "COMMAND\nCOMMAND"}   -> 204

The reply to the connect command has the session and the node. The response ends with the
connection, so its bytes are those of the framing, and a publication is encoded once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from twisted.web.server import NOT_DONE_YET, Request

from kupool.live.centrifuge.client import CentrifugeClient
from kupool.net.manager import ConnectionManager
from kupool.net.transport.protocols import FramedProtocol, prepare, refuse
from kupool.session.connection import Connection
from kupool.web.answers import NO_CONTENT, ApiError, ApiResource, JsonAnswer
from kupool.web.centrifuge_clients import CentrifugeClients, Visit
from kupool.web.centrifuge_socket import IdentityOf, asks_for
from kupool.web.control import KnownHosts
from kupool.web.cors import CrossOrigin
from kupool.web.upgrade import HandsOver, stream_head
from kupool.wire.framing import LINE, Discarding, Framing

SSE_PATH = "/connection/sse"
HTTP_STREAM_PATH = "/connection/http_stream"
EMULATION_PATH = "/emulation"


def encode_event(payload: bytes) -> bytes:
    """Return a payload of one line as a server-sent event."""
    return b"data: " + payload + b"\n\n"


def _join_events(payloads: Sequence[bytes]) -> bytes:
    return b"".join(map(encode_event, payloads))


#: Server-sent events. Nothing is read from the peer.
EVENTS = Framing("sse", Discarding, encode_event, _join_events)

#: Lines, of which nothing is read from the peer either.
LINES = Framing("http-stream", Discarding, LINE.encode, LINE.join)


class StreamKind(NamedTuple):
    """A kind of streams: its framing, its content type, and what comes first in the body."""

    framing: Framing
    content_type: bytes
    methods: tuple[bytes, ...]
    first: bytes = b""


#: Some clients take the first bytes as a sign that the stream is open. The npm package eventsource
#: 2 loses the first event behind a CR LF in the same read.
SSE = StreamKind(EVENTS, b"text/event-stream; charset=utf-8", (b"GET", b"POST"), b"\n")
HTTP_STREAM = StreamKind(LINES, b"text/plain; charset=utf-8", (b"POST",))


class CentrifugeStream(FramedProtocol):
    """The peer of a stream, from the head of the response on; ``host`` is its address."""

    def __init__(
        self,
        manager: ConnectionManager,
        kind: StreamKind,
        host: str,
        begin: Callable[[Connection], object],
    ) -> None:
        super().__init__(manager)
        self.framing = kind.framing
        self._kind = kind
        self._admitting = manager
        self._host = host
        self._begin = begin

    def connectionMade(self) -> None:
        """Admit the peer, or tell it why it is refused."""
        transport, _ = prepare(self)
        refusal = self._admitting.refusal(self._host)
        transport.write(self._kind.first)
        if refusal is not None:
            refuse(self._admitting, transport, self.framing, refusal)
            return
        self.connection = self._admitting.admit(transport, self._host, self.framing)
        if self.connection is not None:
            self._begin(self.connection)


class StreamVisits(NamedTuple):
    """What the streams of a site share.

    ``peer`` returns the address of a request, ``identity_of`` who it is from.
    """

    clients: CentrifugeClients
    hosts: KnownHosts
    pages: CrossOrigin
    peer: Callable[[Request], str]
    identity_of: IdentityOf


class CentrifugeStreams(HandsOver):
    """Hands the connection of a request to a stream of one kind."""

    def __init__(self, kind: StreamKind, visits: StreamVisits) -> None:
        super().__init__({**dict.fromkeys(kind.methods, self._refuse), b"OPTIONS": self._allow})
        self._kind = kind
        self._visits = visits

    def render(self, request: Any) -> int:
        """Begin a stream, if the request is right."""
        self._visits.pages.admit(request)
        if request.method in self._kind.methods:
            try:
                command = self._command(request)
            except ApiError:
                pass  # an error is answered like that of any route
            else:
                self._stream(request, command)
                return int(NOT_DONE_YET)
        return super().render(request)

    async def _allow(self, request: Request) -> JsonAnswer:
        return self._visits.pages.preflight(request, self._kind.methods)

    async def _refuse(self, request: Request) -> JsonAnswer:
        if request.method == b"HEAD":
            raise ApiError(405, "method HEAD is not allowed here")
        self._command(request)
        raise AssertionError("a request for a stream has not begun one")

    def _command(self, request: Request) -> bytes:
        """Return the connect command of a request; raises :class:`ApiError`."""
        self._visits.hosts.require(request)
        self._visits.pages.origins.require(request)
        content_type = request.getHeader(b"content-type") or b""
        if asks_for(request, b"cf_protocol", b"protobuf") or b"octet-stream" in content_type:
            raise ApiError(400, "cf_protocol: Protobuf is not spoken here, only JSON")
        if request.method == b"POST":
            content: Any = request.content
            content.seek(0)
            command: bytes = content.read()
            if not command:
                raise ApiError(400, "body: must be a connect command")
            return command
        arguments: dict[bytes, list[bytes]] = request.args or {}
        command = arguments.get(b"cf_connect", [b""])[-1]
        if not command:
            raise ApiError(400, "cf_connect: must be a connect command")
        return command

    def _stream(self, request: Any, command: bytes) -> None:
        visits = self._visits
        visit = Visit(visits.identity_of(request), emulated=True)

        def begin(connection: Connection) -> None:
            client = visits.clients.begin(connection, visit)
            if client is not None:
                client.receive(command)

        stream = CentrifugeStream(visits.clients.manager, self._kind, visits.peer(request), begin)
        self.hand_over(request, stream_head(request, self._kind.content_type), stream)


class _EmulatedCommands(msgspec.Struct):
    """The body of a request with commands of a stream's client."""

    data: str
    session: str = ""
    node: str = ""


class CentrifugeCommands(ApiResource):
    """Takes commands of clients that read a stream; their replies go down the stream."""

    def __init__(self, visits: StreamVisits) -> None:
        super().__init__({b"POST": self._take, b"OPTIONS": self._allow})
        self._visits = visits

    def render(self, request: Any) -> int:
        """Answer a request, which may come from a page of another site."""
        self._visits.pages.admit(request)
        return super().render(request)

    async def _allow(self, request: Request) -> JsonAnswer:
        return self._visits.pages.preflight(request, [b"POST"])

    async def _take(self, request: Request) -> JsonAnswer:
        self._visits.hosts.require(request)
        self._visits.pages.origins.require(request)
        content: Any = request.content
        try:
            asked = msgspec.json.decode(content.read(), type=_EmulatedCommands)
        except (ValueError, RecursionError):
            text = 'body: must be {"session": TEXT, "node": TEXT, "data": TEXT}'
            raise ApiError(400, text) from None
        self._client(asked).receive(asked.data.encode())
        return JsonAnswer(NO_CONTENT, None)

    def _client(self, asked: _EmulatedCommands) -> CentrifugeClient:
        clients = self._visits.clients
        if asked.node != clients.node:
            raise ApiError(404, "node: not known here, connect again")
        client = clients.emulated(asked.session)
        if client is None:
            # The protocol has 204 for it, too, but clients then wait for a reply.
            raise ApiError(404, "session: it has ended, connect again")
        return client


def stream_routes(visits: StreamVisits) -> dict[str, ApiResource]:
    """Return the routes of streams, and of the commands of their clients, by their paths."""
    kinds = {SSE_PATH: SSE, HTTP_STREAM_PATH: HTTP_STREAM}
    make = partial(CentrifugeStreams, visits=visits)
    return {
        **{path: make(kind) for path, kind in kinds.items()},
        EMULATION_PATH: CentrifugeCommands(visits),
    }


__all__ = [
    "EMULATION_PATH",
    "EVENTS",
    "HTTP_STREAM",
    "HTTP_STREAM_PATH",
    "LINES",
    "SSE",
    "SSE_PATH",
    "CentrifugeCommands",
    "CentrifugeStream",
    "CentrifugeStreams",
    "StreamKind",
    "StreamVisits",
    "encode_event",
    "stream_routes",
]
