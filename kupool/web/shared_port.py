"""One port for the frames of a codec, over TCP and over WebSocket."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from kupool.net.manager import ConnectionManager
from kupool.net.refusals import Refusals
from kupool.net.transport.protocols import FramedProtocol
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.web.access import WebAccess
from kupool.web.control import KnownHosts
from kupool.web.crowd import Crowd, HttpLimits
from kupool.web.site import ApiSite
from kupool.web.upgrade import Origins, UpgradeAnywhere, read_by
from kupool.web.websocket import PoolWebSocketFactory
from kupool.wire.framing import Framing

#: The first bytes of HTTP requests, which no frame may begin with.
_METHODS = frozenset(range(ord("A"), ord("Z") + 1))


class SharedPortProtocol(FramedProtocol):
    """Reads frames, or hands the peer over to HTTP: the first byte decides.

    There is a connection from the start, so that limits and timeouts apply to a silent peer. The
    connection of a WebSocket replaces it.
    """

    factory: SharedPortFactory

    def connectionMade(self) -> None:
        """Admit the peer, or close it."""
        super().connectionMade()
        if self.connection is None:
            self.factory.refused()

    def dataReceived(self, data: bytes) -> None:
        """Decide by the first byte, then pass on all data."""
        connection = self.connection
        if connection is None:
            return  # refused
        if data[0] in _METHODS and connection.state is OPEN:
            self._give_way(connection, data)
        else:
            self.dataReceived = connection.feed  # type: ignore[method-assign]
            connection.feed(data)

    def _give_way(self, connection: Connection, data: bytes) -> None:
        transport: Any = self.transport
        transport.unregisterProducer()
        self.connection = None
        connection.lost(Failure(ConnectionDone()))  # for all that it knows
        channel = self.factory.http(transport.getPeer())
        if channel is None:
            transport.abortConnection()
            return
        read_by(transport, channel)
        channel.makeConnection(transport)
        channel.dataReceived(data)


class SharedPortFactory(Factory):
    """Builds the protocols of a port for one framing, over TCP and over WebSocket.

    Over WebSocket each frame is one message, at any path. ``origins`` are the sites whose pages may
    open one, ``hosts`` the names of this server; see :class:`~kupool.web.upgrade.Origins` and
    :class:`~kupool.web.control.KnownHosts`, which raise :class:`ValueError` for invalid ones.
    ``name`` identifies the port in the log of refused connections.
    """

    noisy = False

    def __init__(
        self,
        manager: ConnectionManager,
        framing: Framing,
        *,
        name: str,
        limits: HttpLimits,
        origins: Collection[str],
        hosts: Collection[str],
        refusals: Refusals,
    ) -> None:
        clock: Any = manager.clock
        crowd = Crowd(clock, limits, refusals)
        websockets = PoolWebSocketFactory(
            manager,
            ping_interval=limits.ping_interval,
            most=limits.max_websockets,
            crowd=crowd,
            refusals=refusals,
        )
        self._manager = manager
        self._framing = framing
        self._name = name
        self._refusals = refusals
        self._site = ApiSite(
            clock,
            UpgradeAnywhere(
                websockets,
                Origins(origins, KnownHosts(hosts), setting="--ws-origins", refusals=refusals),
            ),
            request_timeout=limits.request_timeout,
            crowd=crowd,
            refusals=refusals,
            access=WebAccess(KnownHosts(hosts), local=False),
            websocket=True,
        )

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> SharedPortProtocol:
        """Return the protocol of a new connection."""
        protocol = SharedPortProtocol(self._manager)
        protocol.framing = self._framing
        protocol.factory = self
        return protocol

    def http(self, address: IAddress) -> Any:
        """Return the HTTP protocol for a peer; None if there are too many."""
        return self._site.buildProtocol(address)

    def refused(self) -> None:
        """Count a refused connection."""
        self._refusals.note(f"{self._name}, connections over the limit")


__all__ = ["SharedPortFactory", "SharedPortProtocol"]
