"""The clients of the Centrifuge protocol on connections, whatever the transport."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.errors import (
    CLOSE_MALFORMED,
    FRAME_TOO_LARGE,
    GOING_DOWN,
    IDLE_TIMEOUT,
    RESTARTING,
    SLOW_READER,
    TRY_AGAIN,
    CloseReason,
)
from kupool.live.centrifuge.client import (
    UNKNOWN_CLIENT,
    CentrifugeClient,
    CentrifugeState,
    ClientIdentity,
    Emulation,
)
from kupool.live.centrifuge.codes import (
    CLOSE_BAD_REQUEST,
    FORCE_RECONNECT,
    INAPPROPRIATE_PROTOCOL,
    NO_PONG,
    SHUTDOWN,
    SLOW,
    Disconnect,
)
from kupool.live.centrifuge.encoding import CentrifugeEncoding
from kupool.live.centrifuge.messages import encode_disconnect
from kupool.live.centrifuge.world import CentrifugeWorld
from kupool.live.sweep import SweptIndex
from kupool.net.interfaces import IClosingObserver
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.session.connection import Connection
from kupool.web.leftovers import swept_connections
from kupool.wire.framing import Framing, Item
from kupool.wire.websocket import (
    MESSAGE_TOO_BIG,
    WEBSOCKET,
    WEBSOCKET_BINARY,
    encode_websocket_close,
)

#: The most bytes of replies that wait for a client that reads slowly.
MOST_REPLIES = 1024 * 1024

#: What the protocol calls the closes of a manager. Others keep their codes, which the protocol
#: leaves to applications. An application may use a code of ours with a reason of its own.
_AS_DISCONNECT: dict[tuple[int, str], Disconnect] = {
    (reason.code, reason.reason): disconnect
    for reason, disconnect in (
        (GOING_DOWN, SHUTDOWN),
        (RESTARTING, SHUTDOWN),
        (SLOW_READER, SLOW),
        (IDLE_TIMEOUT, NO_PONG),
        (TRY_AGAIN, FORCE_RECONNECT),
        (CLOSE_MALFORMED, CLOSE_BAD_REQUEST),
        (FRAME_TOO_LARGE, Disconnect(MESSAGE_TOO_BIG, "message too big")),
    )
}

_WEBSOCKETS = (WEBSOCKET.name, WEBSOCKET_BINARY.name)


def client_limits(most: int, per_address: int = 0) -> ServerSettings:
    """Return the limits of the connections: the most of them, and those of one address; 0: none.

    Their silence is noticed by the pings of the protocol.
    """
    return ServerSettings(
        max_connections=most,
        max_connections_per_ip=per_address,
        idle_timeout=0.0,
        outbox_limit=MOST_REPLIES,
    )


def end_of_client(framing: Framing, reason: CloseReason, retry_after: float | None = None) -> bytes:
    """Return what tells a client the end: a close frame, or a push where there is none."""
    told = _AS_DISCONNECT.get((reason.code, reason.reason))
    told = told or Disconnect(reason.code, reason.reason)
    if framing.name in _WEBSOCKETS:
        return encode_websocket_close(told.code, told.reason)
    return framing.encode(encode_disconnect(told))


class Visit(NamedTuple):
    """How a client came.

    With ``emulated``, it sends its commands by requests of their own. With ``pings`` of False the
    transport has pings of its own. A client that speaks only Protobuf is not ``understood``.
    """

    identity: ClientIdentity = UNKNOWN_CLIENT
    emulated: bool = False
    pings: bool = True
    understood: bool = True


class _FrameRouter:
    """Gives the frames of a connection to its client."""

    __slots__ = ("_client",)

    def __init__(self, client: CentrifugeClient) -> None:
        self._client = client

    def dispatch(self, connection: Connection, item: Item) -> None:
        """Give a frame to the client."""
        self._client.receive(item if isinstance(item, bytes) else b"")


class _Unheard:
    """Hears nothing: the connection is about to be closed."""

    def dispatch(self, connection: Connection, item: Item) -> None:
        """Drop a frame."""


@implementer(IClosingObserver)
class CentrifugeClients:
    """The clients of one world; their connections are those of ``manager``.

    ``node`` names this process to clients that send their commands by requests of their own.
    """

    def __init__(self, world: CentrifugeWorld, limits: ServerSettings) -> None:
        self.world = world
        self.node = world.new_id()
        self.manager = ConnectionManager(world.clock, self, limits)
        self.manager.close_message = end_of_client
        self._encoding = CentrifugeEncoding()
        #: The clients that send by requests of their own, by their secrets.
        self._emulated: dict[str, CentrifugeClient] = {}

    def __len__(self) -> int:
        """Return the number of connections."""
        return len(self.manager)

    def start(self) -> None:
        """Start to check the timeouts."""
        self.manager.start()

    def stop(self) -> Deferred[None]:
        """Close all connections; fires when the closes are sent."""
        self.manager.stop()
        return self.manager.close_all(GOING_DOWN)

    def begin(self, connection: Connection, visit: Visit) -> CentrifugeClient | None:
        """Serve a connection that was admitted; returns its client, unless it was refused."""
        if not visit.understood:
            connection.router = _Unheard()
            _close(connection, INAPPROPRIATE_PROTOCOL)
            return None
        connection.expect_within(self.world.settings.lifetime, TRY_AGAIN)
        emulation = None
        if visit.emulated:
            emulation = Emulation(self.world.new_id(), self.node)
        client = CentrifugeClient(
            self.world,
            connection,
            self._encoding,
            lambda reason: _close(connection, reason),
            identity=visit.identity,
            emulation=emulation,
            pings=visit.pings,
        )
        connection.router = _FrameRouter(client)
        connection.context = _ServedClient(client, emulation.session if emulation else "")
        if emulation is not None:
            self._emulated[emulation.session] = client
        return client

    def emulated(self, session: str) -> CentrifugeClient | None:
        """Return the client with a secret that sends by requests of their own; None if gone.

        One that does not read what it is sent is closed here, since it cannot be stopped from
        sending.
        """
        client = self._emulated.get(session)
        if client is None or client.state is CentrifugeState.CLOSED:
            return None
        connection = client.peer
        if isinstance(connection, Connection) and connection.outbound > MOST_REPLIES:
            client.close(SLOW)
            return None
        return client

    def swept(self) -> Sequence[SweptIndex]:
        """Return where something could be left of clients."""
        return (
            swept_connections("connections of clients", self.manager),
            SweptIndex("silent clients", lambda: [self.manager], _silent, _cut_off),
            SweptIndex(
                "emulated clients", lambda: [self._emulated.items()], _emulated_left, self._forget
            ),
        )

    def _forget(self, entry: tuple[str, CentrifugeClient]) -> None:
        self._emulated.pop(entry[0], None)

    # -- the observer of the connections

    def opened(self, connection: Connection) -> None:
        """Do nothing: :meth:`begin` follows."""

    def closing(self, connection: Connection, reason: CloseReason | None) -> None:
        """End the client with the close: its place in channels is free at once."""
        self._lost(connection)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """End the client of a connection that has ended."""
        self._lost(connection)

    def settle(self, connection: Connection) -> None:
        """Do nothing: nobody waits for an answer after the end."""

    def _lost(self, connection: Connection) -> None:
        served, connection.context = connection.context, None
        if isinstance(served, _ServedClient):
            self._emulated.pop(served.session, None)
            served.client.lost()


class _ServedClient(NamedTuple):
    """The client of a connection, and its secret if it sends by requests of its own."""

    client: CentrifugeClient
    session: str


def _silent(connection: Connection) -> Hashable | None:
    served = connection.context
    since = served.client.silent_since() if isinstance(served, _ServedClient) else None
    return None if since is None else (connection.id, since)


def _cut_off(connection: Connection) -> None:
    if isinstance(connection.context, _ServedClient):
        connection.context.client.close(NO_PONG)


def _emulated_left(entry: tuple[str, CentrifugeClient]) -> Hashable | None:
    return entry[0] if entry[1].state is CentrifugeState.CLOSED else None


def _close(connection: Connection, reason: Disconnect) -> None:
    if reason == SLOW:
        # What waits for it is dropped: it would not read it.
        connection.close(SLOW_READER)
    else:
        connection.close(CloseReason(reason.code, reason.reason, reason.reconnects))


__all__ = ["MOST_REPLIES", "CentrifugeClients", "Visit", "client_limits", "end_of_client"]
