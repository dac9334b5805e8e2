"""The Centrifuge protocol over WebSocket: the route ``/connection/websocket``.

A message is a text, with one command or reply on each line. Clients that ask for Protobuf are
accepted and told that it is not spoken: they would repeat a handshake that is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from twisted.web.server import Request

from kupool.live.centrifuge.client import ClientIdentity
from kupool.web.centrifuge_clients import CentrifugeClients, Visit
from kupool.web.upgrade import Origins, Upgrade
from kupool.web.websocket import PoolWebSocket, PoolWebSocketFactory, SocketManner

#: The path of the WebSocket.
SOCKET_PATH = "/connection/websocket"

#: The subprotocols of the protocol's two encodings.
JSON_SUBPROTOCOL = "centrifuge-json"
PROTOBUF_SUBPROTOCOL = "centrifuge-protobuf"

#: Returns who a request is from.
IdentityOf = Callable[[Request], ClientIdentity]


class CentrifugeUpgrade(Upgrade):
    """Hands the connection of a request to a WebSocket of the protocol."""

    def __init__(
        self,
        clients: CentrifugeClients,
        factory: PoolWebSocketFactory,
        origins: Origins,
        peer: Callable[[Request], str],
        *,
        identity_of: IdentityOf,
    ) -> None:
        """``peer`` returns the address of a request."""
        super().__init__(factory, origins, peer)
        self._clients = clients
        self._identity_of = identity_of

    def choose(self, offers: Sequence[str]) -> str:
        """Return the subprotocol to use; none but those that a client has asked for."""
        names = [name.strip() for offer in offers for name in offer.split(",")]
        known = (JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL)
        return next((name for name in known if name in names), "")

    def socket_for(self, request: Request, subprotocol: str) -> PoolWebSocket:
        """Return the WebSocket that a request opens."""
        native_pings = asks_for(request, b"cf_ws_frame_ping_pong", b"true")
        protobuf = asks_for(request, b"cf_protocol", b"protobuf")
        visit = Visit(
            self._identity_of(request),
            pings=not native_pings,
            understood=not protobuf and subprotocol != PROTOBUF_SUBPROTOCOL,
        )
        manner = SocketManner(
            self._clients.world.settings.ping if native_pings else 0.0,
            partial(self._clients.begin, visit=visit),
            empty_messages=True,
        )
        return self.factory.made_for(self.peer(request), manner)


def asks_for(request: Request, name: bytes, value: bytes) -> bool:
    """Return whether a parameter of the query has a value."""
    arguments: dict[bytes, list[bytes]] = request.args or {}
    return value in arguments.get(name, ())


__all__ = [
    "JSON_SUBPROTOCOL",
    "PROTOBUF_SUBPROTOCOL",
    "SOCKET_PATH",
    "CentrifugeUpgrade",
    "IdentityOf",
    "asks_for",
]
