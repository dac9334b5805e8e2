"""The route ``/ws``: upgrades an HTTP request to a WebSocket, for pages that may open one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.web.server import NOT_DONE_YET, Request

from kupool.net.refusals import SHOWN, Refusals
from kupool.web.answers import ApiError, ApiResource, JsonAnswer, NotFound, header, tokens
from kupool.web.control import KnownHosts
from kupool.web.websocket import PoolWebSocket, PoolWebSocketFactory
from kupool.wire.websocket import VERSION, accept_key, choose_subprotocol

#: The path of the WebSocket.
PATH = "/ws"

_UPGRADE = {
    b"Upgrade": b"websocket",
    b"Connection": b"Upgrade",
    b"Sec-WebSocket-Version": VERSION,
}


class Origins:
    """The pages that may open a WebSocket, or ask for something.

    A client that is not a browser sends no ``Origin`` and is accepted. A page is accepted from this
    server's own host, under a name that ``hosts`` knows, and from the given origins, such as
    ``https://pool.example.com``; ``*`` accepts every page. With ``any_port`` the pages of every
    known host are accepted, whatever their scheme and port. ``setting`` is the one that ``origins``
    come from, for those who are refused; ``refusals`` counts and logs them. Raises
    :class:`ValueError` for a text that is not an origin.
    """

    _log = Logger()

    def __init__(
        self,
        origins: Collection[str],
        hosts: KnownHosts,
        *,
        any_port: bool = False,
        setting: str = "",
        refusals: Refusals | None = None,
    ) -> None:
        self._any_port = any_port
        self._setting = setting
        self._refusals = refusals
        self._allowed = {normal_origin(origin) for origin in origins}
        self._hosts = hosts

    def names(self, origin: str) -> bool:
        """Say whether an origin is one of those given, beside this server's own."""
        try:
            return normal_origin(origin) in self._allowed
        except ValueError:
            return False

    def require(self, request: Request) -> None:
        """Refuse what another page asks for, and log it; raises :class:`ApiError`."""
        if self.allows(request):
            return
        origin = (header(request, b"origin") or "")[:SHOWN]
        answer = f"Origin: pages of {origin!r} may not use this"
        if origin == "null":
            answer += ": it is a file; serve it with a web server"
        elif self._setting:
            answer += f": add {origin} to {self._setting}"
        # The page itself cannot read the answer: who writes it finds the reason in the log.
        if self._refusals is not None and self._refusals.note("pages of other sites"):
            self._log.warn("Refused a page: {answer}", answer=answer)
        raise ApiError(403, answer)

    def allows(self, request: Request) -> bool:
        """Say whether the page that sends a request is accepted."""
        origin = header(request, b"origin")
        if origin is None or "*" in self._allowed:
            return True
        try:
            origin = normal_origin(origin)
        except ValueError:
            return False
        if origin in self._allowed:
            return True
        if self._any_port:
            return self._hosts.knows(origin.partition("://")[2])
        host = header(request, b"host") or ""
        scheme = "https" if request.isSecure() else "http"
        return self._hosts.knows(host) and normal_origin(f"{scheme}://{host}") == origin


def normal_origin(origin: str) -> str:
    """Return an origin in lower case, with its port; ``*`` unchanged.

    Raises :class:`ValueError` for a text that is not an origin.
    """
    if origin == "*":
        return origin
    parts = urlsplit(origin.lower())
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    rest = parts.path or parts.query or parts.fragment or "@" in parts.netloc
    if not parts.scheme or not parts.hostname or port is None or rest:
        raise ValueError(f"{origin!r} is not an origin such as https://pool.example.com")
    return f"{parts.scheme}://{parts.hostname}:{port}"


def peer_of(request: Any) -> str:
    """Return the address of the connection of a request."""
    return str(getattr(request.client, "host", None) or "")


def wants_websocket(request: Request) -> bool:
    """Say whether a request is for a WebSocket."""
    return request.method == b"GET" and "websocket" in tokens(request, b"upgrade")


class HandsOver(ApiResource):
    """A route that hands the connection of a request to another protocol.

    From then on it is no connection of the HTTP server any more.
    """

    def hand_over(self, request: Any, lines: Sequence[bytes], protocol: IProtocol) -> None:
        """Answer with the lines of a head, and pass the transport to a protocol."""
        channel = request.channel
        transport, channel.transport = channel.transport, None
        channel.left(protocol)
        read_by(transport, protocol)
        transport.unregisterProducer()  # the channel's
        transport.resumeProducing()
        transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        protocol.makeConnection(transport)


def stream_head(request: Any, content_type: bytes) -> list[bytes]:
    """Return the lines of the head of an answer without an end, for :meth:`HandsOver.hand_over`.

    What the request's answer already says to pages of other sites is in it.
    """
    lines = [
        b"HTTP/1.1 200 OK",
        b"Content-Type: " + content_type,
        # Proxies may neither keep nor change it, nor wait for more.
        b"Cache-Control: no-store, no-transform",
        b"X-Accel-Buffering: no",
        b"X-Content-Type-Options: nosniff",
        b"Connection: close",
    ]
    for name, values in request.responseHeaders.getAllRawHeaders():
        if name.lower().startswith((b"access-control-", b"vary")):
            lines += [b"%b: %b" % (name, value) for value in values]
    return lines


class Upgrade(HandsOver):
    """Hands the connection of a request to a WebSocket."""

    def __init__(
        self,
        factory: PoolWebSocketFactory,
        origins: Origins,
        peer: Callable[[Any], str] = peer_of,
    ) -> None:
        """``peer`` returns the address of a request."""
        super().__init__({b"GET": self._refuse})
        self.peer = peer
        self._origins = origins
        self.factory = factory

    def render(self, request: Any) -> int:
        """Upgrade, if the request asks for that."""
        if request.method == b"GET" and self._origins.allows(request):
            try:
                self._check(request)
            except ApiError:
                pass  # an error is answered like that of any route
            else:
                self._upgrade(request)
                return int(NOT_DONE_YET)
        return super().render(request)

    async def _refuse(self, request: Request) -> JsonAnswer:
        self._check(request)
        raise AssertionError("a request that is to be upgraded was not")

    def _check(self, request: Request) -> None:
        """Refuse a request that cannot be upgraded; raises :class:`ApiError`."""
        self._origins.require(request)
        if not wants_websocket(request):
            raise ApiError(426, "Upgrade: this path is for WebSocket", _UPGRADE)
        if request.clientproto != b"HTTP/1.1":
            raise ApiError(400, "WebSocket: needs HTTP/1.1")
        if "upgrade" not in tokens(request, b"connection"):
            raise ApiError(400, "Connection: must be Upgrade")
        if tokens(request, b"sec-websocket-version") != [VERSION.decode()]:
            text = f"Sec-WebSocket-Version: must be {VERSION.decode()}"
            raise ApiError(426, text, _UPGRADE)
        try:
            _accepted(request)
        except ValueError as error:
            raise ApiError(400, f"Sec-WebSocket-Key: {error}") from None

    def choose(self, offers: Sequence[str]) -> str:
        """Return the subprotocol to use, of the values of a header; empty for none."""
        return choose_subprotocol(offers)

    def socket_for(self, request: Request, subprotocol: str) -> PoolWebSocket:
        """Return the WebSocket that a request opens."""
        return self.factory.made_for(self.peer(request))

    def _upgrade(self, request: Any) -> None:
        """Answer the handshake, and pass the transport to a WebSocket."""
        offers = request.requestHeaders.getRawHeaders(b"sec-websocket-protocol") or ()
        subprotocol = self.choose([offer.decode(errors="replace") for offer in offers])
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + _accepted(request),
        ]
        if subprotocol:
            lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode())
        self.hand_over(request, lines, self.socket_for(request, subprotocol))


def read_by(transport: Any, protocol: Any) -> None:
    """Let a protocol read from a transport instead of the one before."""
    # Tell what reads from the transport, or from the TLS around it, about the new protocol.
    if isinstance(transport, ProtocolWrapper):
        transport.wrappedProtocol = protocol
    elif isinstance(transport.protocol, ProtocolWrapper):
        transport.protocol.wrappedProtocol = protocol
    else:
        transport.protocol = protocol


def _accepted(request: Request) -> bytes:
    keys = request.requestHeaders.getRawHeaders(b"sec-websocket-key") or ()
    if len(keys) != 1:
        raise ValueError("has to be there, once")
    return accept_key(keys[0].strip())


class UpgradeAnywhere(Upgrade):
    """The same for any path of the request."""

    isLeaf = True


class Elsewhere(NotFound):
    """Tells clients that look for the WebSocket at another path where it is."""

    async def _answer(self, request: Request) -> JsonAnswer:
        path = request.path.decode(errors="replace")
        return JsonAnswer(404, {"error": f"not found: a WebSocket at {path}; it is at {PATH}"})


__all__ = [
    "PATH",
    "Elsewhere",
    "HandsOver",
    "Origins",
    "Upgrade",
    "UpgradeAnywhere",
    "normal_origin",
    "read_by",
    "stream_head",
    "wants_websocket",
]
