"""The pool's protocol over WebSocket: one text or binary message, one payload.

It uses a :class:`~kupool.session.connection.Connection` like every other framing, so limits,
outbox, timeouts and broadcasts are the same. The connection gets whole messages and sends frames.
This module only has what is special to WebSocket: kinds of messages, pings and the closing
handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from kupool.errors import IDLE_TIMEOUT, TOO_MANY_CONNECTIONS, CloseReason
from kupool.net.manager import ConnectionManager
from kupool.net.refusals import Refusals
from kupool.session.connection import BUDGET, Connection
from kupool.session.lifecycle import OPEN
from kupool.web.crowd import Crowd
from kupool.wire.framing import OP_BINARY, OP_CLOSE, OP_PING, OP_PONG
from kupool.wire.messages import close_message
from kupool.wire.websocket import (
    CLOSE,
    NORMAL,
    PING,
    PONG,
    WEBSOCKET,
    WEBSOCKET_BINARY,
    FrameReader,
    WebSocketEvent,
    WholeMessages,
    encode_websocket,
)

#: Seconds that a peer has to answer a close before its connection is cut.
CLOSE_GRACE = 2.0


@dataclass(frozen=True)
class SocketManner:
    """How a WebSocket is served.

    A peer that sends nothing from one ping to the next is cut off; ``ping_interval`` is in
    seconds, and 0 turns pings off. ``begin`` is called with the connection once it is admitted.
    Empty messages are dropped, unless ``empty_messages``.
    """

    ping_interval: float
    begin: Callable[[Connection], object] | None = None
    empty_messages: bool = False


class _FrameTransport:
    """The transport of a connection: it takes whole frames, including the close."""

    def __init__(self, protocol: PoolWebSocket) -> None:
        self._protocol = protocol

    def getPeer(self) -> Any:
        """Return the address of the peer."""
        return self._protocol.transport.getPeer()

    def write(self, data: bytes) -> None:
        """Send frames; the protocol sends the close itself, because it has to know of it."""
        if data[0] == CLOSE:
            self._protocol.send_close(data)
        elif self._protocol.may_send:
            self._protocol.transport.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let the connection buffer what a slow reader does not read."""
        self._protocol.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Note that the connection buffers nothing any more."""
        self._protocol.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Stop reading, and handling data that was read."""
        self._protocol.pause_reading()

    def resumeProducing(self) -> None:
        """Continue to read, with the data that was left over first."""
        self._protocol.resume_reading()

    def loseConnection(self) -> None:
        """Close once everything is sent and the peer has answered the close."""
        self._protocol.end()

    def abortConnection(self) -> None:
        """Cut the connection."""
        self._protocol.transport.abortConnection()


class PoolWebSocket(Protocol):
    """One WebSocket of the pool, from the end of its handshake on.

    ``host`` is the address of the peer, if a proxy has named it.
    """

    factory: PoolWebSocketFactory
    transport: Any

    def __init__(
        self, manager: ConnectionManager, manner: SocketManner, host: str | None = None
    ) -> None:
        self._host = host
        self.connection: Connection | None = None
        self._manager = manager
        self._manner = manner
        self._ping_interval = manner.ping_interval
        self._reader = FrameReader(manager.settings.max_frame)
        self._whole = WholeMessages(manager.settings.max_frame, empty=manner.empty_messages)
        self._kinds = {
            framing.name: framing._replace(splitter=lambda size: self._whole)
            for framing in (WEBSOCKET, WEBSOCKET_BINARY)
        }
        #: Whether a close has been sent, and whether one has been received.
        self._closed = self._peer_closed = self._gone = False
        self._paused = self._reading = False
        #: Whether it has used its share of this turn, and waits for the next.
        self._behind = False
        self._timer: IDelayedCall | None = None
        self._heard = self._pinged = 0.0

    # -- start and end of the connection

    def connectionMade(self) -> None:
        """Admit the peer, or tell it why it is refused."""
        manager, transport = self._manager, self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        host = self._host
        if host is None:
            host = getattr(transport.getPeer(), "host", None) or ""
        adapter = _FrameTransport(self)
        refusal = self.factory.enter(self, host)
        if refusal is not None:
            manager.refused += 1
            manager.count_close(refusal[0])
            adapter.write(close_message(WEBSOCKET, *refusal))
            self.end()
            return
        self._heard = manager.now()
        self.connection = manager.admit(adapter, host, self._kinds[WEBSOCKET.name])
        if self.connection is not None and self._manner.begin is not None:
            self._manner.begin(self.connection)
        if self._ping_interval and self.connection is not None and not self._closed:
            self._timer = manager.clock.callLater(self._ping_interval, self._beat)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the connection."""
        self._cancel_timer()
        self._closed = self._gone = True
        self.factory.leave(self)
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.lost(reason)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    # -- messages

    def dataReceived(self, data: bytes) -> None:
        """Take bytes, and handle as many complete frames in a turn as are its share."""
        if self._peer_closed:
            return
        self._heard = self._manager.now()
        self._reader.add(data)
        if not self._behind:
            self._read()

    def _read(self) -> None:
        if self._reading:
            return  # further up
        self._reading = True
        try:
            self._read_frames()
        finally:
            self._reading = False
        self._whole.buffered = self._reader.buffered

    def _read_frames(self) -> None:
        for _ in range(BUDGET):
            if self._paused or self._peer_closed or self._gone:
                return
            connection, reader = self.connection, self._reader
            if connection is not None:
                reader.max_payload = connection.max_frame
            event = reader.next()
            if event is not None:
                self._handle(event)
            elif reader.broken:
                self._give_up_on(reader.broken)
                return
            elif reader.too_large and connection is not None:
                connection.close(self._manager.settings.too_large)
                reader.discard()  # the close may be waited for, and its answer is behind all that
            else:
                return
        if self._gone:
            return
        self.transport.pauseProducing()
        self._behind = True
        self._manager.go_on_later(self)

    def go_on(self) -> None:
        """Handle the rest of the data that was read; called by the manager, in a later turn."""
        self._behind = False
        if self._paused or self._gone:
            return
        try:
            self.transport.resumeProducing()
            self._read()
        except BaseException:
            # As after a read: an error ends this connection, and no turn of the others.
            self._manager.failed(self.connection)
            self.transport.abortConnection()

    def pause_reading(self) -> None:
        """Stop reading."""
        self._paused = True
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Continue to read."""
        self._paused = False
        self._pinged = 0.0  # the answer may not have been read yet
        if not self._behind:
            self.transport.resumeProducing()
            self._read()

    def _handle(self, event: WebSocketEvent) -> None:
        opcode, payload = event
        connection = self.connection
        if opcode == OP_CLOSE:
            self._close_came()
        elif connection is None or connection.state is not OPEN or self._closed:
            pass  # it is not heard any more
        elif opcode == OP_PING:
            self._seen(connection)
            # Like an answer to a request: a peer that does not read gets only a limited number.
            connection.send_encoded(encode_websocket(payload, PONG))
        elif opcode == OP_PONG:
            self._seen(connection)
        elif opcode:
            kind = WEBSOCKET_BINARY if opcode == OP_BINARY else WEBSOCKET
            if connection.framing.name != kind.name:
                connection.use_framing(self._kinds[kind.name])
            connection.feed(payload)

    def _seen(self, connection: Connection) -> None:
        """Note activity of the peer; within a message, only its end counts."""
        if not self._reader.in_message:
            connection.last_seen = self._heard

    def _beat(self) -> None:
        """Ping the peer; cut it off if it has been silent since the last ping."""
        self._timer = None
        connection = self.connection
        if connection is None or connection.state is not OPEN:
            return
        clock = self._manager.clock
        if self._paused or self._behind:
            pass  # the silence is ours
        elif self._heard < self._pinged:
            # Its answer may have arrived while this process was paused. So read what has arrived
            # first, which the reactor does before the timers of the next turn.
            self._timer = clock.callLater(0, self._judge)
            return
        else:
            self._pinged = self._manager.now()
            connection.send_encoded(encode_websocket(b"", PING))
        self._timer = clock.callLater(self._ping_interval, self._beat)

    def _judge(self) -> None:
        """Cut off a peer that was silent, unless it has sent something by now."""
        self._timer = None
        connection = self.connection
        if connection is None or connection.state is not OPEN:
            return
        if self._heard < self._pinged and not self._paused:
            self._manager.count_close(IDLE_TIMEOUT)
            connection.abort()
        else:
            self._beat()

    # -- the end

    @property
    def may_send(self) -> bool:
        """Whether no close has been sent yet."""
        return not self._closed

    def send_close(self, frame: bytes) -> None:
        """Send a close, unless one has been sent; nothing may follow it."""
        if not self._closed:
            self._closed = True
            self.transport.write(frame)

    def end(self) -> None:
        """End the connection, after a close and the peer's answer to it."""
        self._cancel_timer()
        self.send_close(encode_websocket(NORMAL.to_bytes(2, "big"), CLOSE))
        if self._peer_closed:
            self.transport.loseConnection()
            return
        self._reader.discard()
        self._timer = self._manager.clock.callLater(CLOSE_GRACE, self._unanswered)
        self.resume_reading()

    def _unanswered(self) -> None:
        """The peer did not answer the close: end when the sent data has left, or is late."""
        self._timer = self._manager.clock.callLater(
            self._manager.settings.write_timeout, self._cut_off
        )
        self.transport.loseConnection()

    def _cut_off(self) -> None:
        self._timer = None
        self.transport.abortConnection()

    def _close_came(self) -> None:
        """The peer closes: send its pending answers first."""
        self._peer_closed = True
        if self._closed or self.connection is None:
            self.transport.loseConnection()
        else:
            self.connection.finished()

    def make_room(self) -> None:
        """Close at once; called for a refused peer."""
        self.transport.abortConnection()

    def _give_up_on(self, code: int) -> None:
        """The data is not WebSocket: say so, and end."""
        self.send_close(encode_websocket(code.to_bytes(2, "big"), CLOSE))
        if self.connection is not None:
            self.connection.close(None)


class PoolWebSocketFactory(Factory):
    """Builds :class:`PoolWebSocket` for the connections of a manager.

    ``most`` is how many there may be at once, 0 for as many as the manager accepts. ``refusals``
    counts the others, and they are in the ``crowd`` while they are told. ``ping_interval`` is that
    of those that are served in the usual manner.
    """

    noisy = False

    def __init__(
        self,
        manager: ConnectionManager,
        *,
        ping_interval: float,
        most: int,
        crowd: Crowd,
        refusals: Refusals,
    ) -> None:
        self._manager = manager
        self._usual = SocketManner(ping_interval)
        self._most = most
        self._refusals = refusals
        self._crowd = crowd
        self._admitted: set[PoolWebSocket] = set()

    def __len__(self) -> int:
        """Return how many there are that were not refused."""
        return len(self._admitted)

    def enter(self, protocol: PoolWebSocket, host: str) -> tuple[CloseReason, float | None] | None:
        """Count one more from ``host``; returns why it is refused, and for how long.

        A refused one is an HTTP connection until it is gone.
        """
        if self._most and len(self._admitted) >= self._most:
            refusal: tuple[CloseReason, float | None] | None = (TOO_MANY_CONNECTIONS, None)
        else:
            refusal = self._manager.refusal(host)
        if refusal is None:
            self._admitted.add(protocol)
        else:
            self._crowd.enter(protocol)
            self._refusals.note(f"WebSockets, {refusal[0].reason}")
        return refusal

    def leave(self, protocol: PoolWebSocket) -> None:
        """Remove one that has ended; it calls this itself."""
        self._admitted.discard(protocol)
        self._crowd.leave(protocol)

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> PoolWebSocket:
        """Return the protocol of a connection whose handshake is done."""
        return self.made_for(None)

    def made_for(self, host: str | None, manner: SocketManner | None = None) -> PoolWebSocket:
        """Return the protocol of a peer at an address, by default its transport's."""
        protocol = PoolWebSocket(self._manager, manner or self._usual, host)
        protocol.factory = self
        return protocol


__all__ = ["CLOSE_GRACE", "PoolWebSocket", "PoolWebSocketFactory", "SocketManner"]
