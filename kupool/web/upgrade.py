"""The route ``/ws``: from an HTTP request to a WebSocket, and whose pages may ask."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.resource import WebSocketResource
from twisted.web.server import Request

from kupool.web.answers import Answer, ApiError, Route
from kupool.web.control import Hosts
from kupool.web.websocket import PoolWebSocketFactory


class Origins:
    """The pages that may open a WebSocket.

    A client that is no browser sends no ``Origin`` and is let in. A page is let in from
    this server's own host, under a name that ``hosts`` knows, and from the origins
    given, such as ``https://pool.example.com``; ``*`` lets every page in. Raises
    :class:`ValueError` for a text that is no origin.
    """

    def __init__(self, origins: Collection[str], hosts: Hosts) -> None:
        self._allowed = {normal_origin(origin) for origin in origins}
        self._hosts = hosts

    def allows(self, request: Request) -> bool:
        """Say whether the page that a request comes from is let in."""
        origin = request.getHeader("origin")
        if origin is None or "*" in self._allowed:
            return True
        try:
            origin = normal_origin(origin)
        except ValueError:
            return False
        if origin in self._allowed:
            return True
        host = request.getHeader("host") or ""
        scheme = "https" if request.isSecure() else "http"
        return self._hosts.knows(host) and _is_origin(f"{scheme}://{host}", origin)


def _is_origin(text: str, origin: str) -> bool:
    try:
        return normal_origin(text) == origin
    except ValueError:
        return False


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


class Upgrade(Route):
    """Hands the connection of a request to a WebSocket."""

    def __init__(self, factory: PoolWebSocketFactory, origins: Origins) -> None:
        super().__init__({b"GET": self._refuse})
        self._origins = origins
        self._websocket: Any = WebSocketResource(factory)  # type: ignore[no-untyped-call]

    def render(self, request: Any) -> int:
        """Upgrade, where that is what the request is for."""
        wanted = (request.getHeader("upgrade") or "").lower() == "websocket"
        if request.method == b"GET" and wanted and self._origins.allows(request):
            return int(self._websocket.render(request))
        return super().render(request)

    async def _refuse(self, request: Request) -> Answer:
        if self._origins.allows(request):
            raise ApiError(426, "Upgrade: this path is for WebSocket", {b"Upgrade": b"websocket"})
        raise ApiError(403, "Origin: pages of that site may not open this WebSocket")


__all__ = ["Origins", "Upgrade", "normal_origin"]
