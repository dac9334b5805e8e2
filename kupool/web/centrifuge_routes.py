"""The routes of the Centrifuge protocol for its clients."""

from __future__ import annotations

from twisted.web.server import Request

from kupool.live.centrifuge.client import UNKNOWN_CLIENT, ClientIdentity
from kupool.web.access import NOBODY, WebAccess
from kupool.web.answers import ApiResource
from kupool.web.centrifuge_clients import CentrifugeClients
from kupool.web.centrifuge_socket import SOCKET_PATH, CentrifugeUpgrade
from kupool.web.centrifuge_streams import StreamVisits, stream_routes
from kupool.web.cors import CrossOrigin
from kupool.web.upgrade import Origins
from kupool.web.websocket import PoolWebSocketFactory


def centrifuge_routes(
    clients: CentrifugeClients,
    sockets: PoolWebSocketFactory,
    access: WebAccess,
    origins: Origins,
) -> dict[str, ApiResource]:
    """Return the routes by their paths.

    ``sockets`` builds the WebSockets on the manager of the ``clients``. Pages of ``origins`` may
    use the routes. Who a client is that has no token of the protocol, ``access`` says.
    """

    def identity_of(request: Request) -> ClientIdentity:
        known = access.known(request)
        return UNKNOWN_CLIENT if known is NOBODY else ClientIdentity(known.user, known.role)

    visits = StreamVisits(clients, access.hosts, CrossOrigin(origins), access.peer, identity_of)
    upgrade = CentrifugeUpgrade(clients, sockets, origins, access.peer, identity_of=identity_of)
    return {SOCKET_PATH: upgrade, **stream_routes(visits)}


__all__ = ["centrifuge_routes"]
