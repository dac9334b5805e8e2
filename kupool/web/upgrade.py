"""The route ``/ws``: from an HTTP request to a WebSocket, and whose pages may ask."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from twisted.protocols.policies import ProtocolWrapper
from twisted.web.server import NOT_DONE_YET, Request

from kupool.web.answers import ApiError, ApiResource, JsonAnswer, NotFound, header, tokens
from kupool.web.control import KnownHosts
from kupool.web.websocket import PoolWebSocketFactory
from kupool.wire.websocket import VERSION, accept_key, choose_subprotocol

#: Where the WebSocket is.
PATH = "/ws"

_UPGRADE = {
    b"Upgrade": b"websocket",
    b"Connection": b"Upgrade",
    b"Sec-WebSocket-Version": VERSION,
}


class Origins:
    """The pages that may open a WebSocket, or ask for something.

    A client that is no browser sends no ``Origin`` and is let in. A page is let in from
    this server's own host, under a name that ``hosts`` knows, and from the origins
    given, such as ``https://pool.example.com``; ``*`` lets every page in. With ``any_port`` the
    pages of every known host are let in, whatever their scheme and port. Raises
    :class:`ValueError` for a text that is no origin.
    """

    def __init__(
        self, origins: Collection[str], hosts: KnownHosts, *, any_port: bool = False
    ) -> None:
        self._any_port = any_port
        self._allowed = {normal_origin(origin) for origin in origins}
        self._hosts = hosts

    def names(self, origin: str) -> bool:
        """Say whether an origin is one of those given, beside this server's own."""
        try:
            return normal_origin(origin) in self._allowed
        except ValueError:
            return False

    def require(self, request: Request) -> None:
        """Refuse what another page asks for; raises :class:`ApiError`."""
        if not self.allows(request):
            raise ApiError(403, "Origin: pages of that site may not use this")

    def allows(self, request: Request) -> bool:
        """Say whether the page that a request comes from is let in."""
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
    """Return an origin in lower case, with its port; ``*`` as it is.

    Raises :class:`ValueError` for what is no origin.
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


class Upgrade(ApiResource):
    """Hands the connection of a request to a WebSocket."""

    def __init__(
        self,
        factory: PoolWebSocketFactory,
        origins: Origins,
        peer: Callable[[Any], str] = peer_of,
    ) -> None:
        """``peer`` returns the address that a request is from."""
        super().__init__({b"GET": self._refuse})
        self._peer = peer
        self._origins = origins
        self._factory = factory

    def render(self, request: Any) -> int:
        """Upgrade, where that is what the request is for."""
        if request.method == b"GET":
            try:
                self._check(request)
            except ApiError:
                pass  # it is answered as any other
            else:
                self._hand_over(request)
                return int(NOT_DONE_YET)
        return super().render(request)

    async def _refuse(self, request: Request) -> JsonAnswer:
        self._check(request)
        raise AssertionError("a request that is to be upgraded was not")

    def _check(self, request: Request) -> None:
        """Refuse what cannot be upgraded; raises :class:`ApiError`."""
        if not self._origins.allows(request):
            raise ApiError(403, "Origin: pages of that site may not open this WebSocket")
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

    def _hand_over(self, request: Any) -> None:
        """Answer the handshake, and give the transport to a WebSocket."""
        channel = request.channel
        transport, channel.transport = channel.transport, None
        offers = request.requestHeaders.getRawHeaders(b"sec-websocket-protocol") or ()
        subprotocol = choose_subprotocol(offer.decode(errors="replace") for offer in offers)
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + _accepted(request),
        ]
        if subprotocol:
            lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode())
        protocol: Any = self._factory.made_for(self._peer(request))
        channel.left(protocol)
        read_by(transport, protocol)
        transport.unregisterProducer()  # the channel's
        transport.resumeProducing()
        transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        protocol.makeConnection(transport)


def read_by(transport: Any, protocol: Any) -> None:
    """Have a protocol, in place of the one before, get what a transport reads."""
    # What reads from it, or from the TLS around it, is told of the new protocol.
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
    """The same, whatever the path of the request."""

    isLeaf = True


class Elsewhere(NotFound):
    """Every path but that of the WebSocket, for those who look for it there."""

    async def _answer(self, request: Request) -> JsonAnswer:
        path = request.path.decode(errors="replace")
        return JsonAnswer(404, {"error": f"not found: a WebSocket at {path}; it is at {PATH}"})


__all__ = [
    "PATH",
    "Elsewhere",
    "Origins",
    "Upgrade",
    "UpgradeAnywhere",
    "normal_origin",
    "read_by",
    "wants_websocket",
]
