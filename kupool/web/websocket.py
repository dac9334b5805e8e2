"""The pool's protocol over WebSocket: one text or binary message, one payload.

Reading is autobahn's: the handshake, unmasking, fragments, control frames. What is sent
are the frames of :mod:`kupool.wire.websocket`, written by the same
:class:`~kupool.session.connection.Connection` that every other framing has, so that limits,
outbox, timeouts and broadcasts are the same ones too. Nothing of autobahn's that needs
a timer is used, as those run on the global reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import txaio
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.interfaces import IDelayedCall, ITCPTransport
from twisted.python.failure import Failure

from kupool.errors import FRAME_TOO_LARGE, IDLE_TIMEOUT
from kupool.net.manager import ConnectionManager
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.wire.messages import close_message
from kupool.wire.websocket import (
    CLOSE,
    PING,
    PONG,
    WEBSOCKET,
    WEBSOCKET_BINARY,
    encode_websocket,
)

#: Seconds that a peer has to answer a close before its connection is ended.
CLOSE_GRACE = 2.0

NORMAL_CLOSE = 1000


class _MessageTransport:
    """The transport that a connection sees: it takes whole frames, a close among them."""

    def __init__(self, protocol: PoolWebSocket) -> None:
        self._protocol = protocol

    def getPeer(self) -> Any:
        """Return the address of the peer."""
        return self._protocol.transport.getPeer()

    def write(self, data: bytes) -> None:
        """Send frames; a close is left to the protocol, which has to know of it."""
        if data[0] == CLOSE:
            self._protocol.begin_close(int.from_bytes(data[2:4], "big"), data[4:])
        elif self._protocol.is_open_for_writing:
            self._protocol.transport.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let the connection hold back what a slow reader does not take."""
        self._protocol.transport.unregisterProducer()  # the HTTP channel's
        self._protocol.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """The connection holds nothing back any more."""
        self._protocol.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Read no more, and handle nothing of what has been read."""
        self._protocol.pause_reading()

    def resumeProducing(self) -> None:
        """Read on, with what was left over first."""
        self._protocol.resume_reading()

    def loseConnection(self) -> None:
        """End once everything is sent and the peer has answered the close."""
        self._protocol.end()

    def abortConnection(self) -> None:
        """Cut the connection off."""
        self._protocol.transport.abortConnection()


class PoolWebSocket(WebSocketServerProtocol):
    """One WebSocket of the pool."""

    # Its warnings are about what strangers send, one for each of them.
    log = txaio.make_logger(level="error")  # type: ignore[attr-defined]

    factory: PoolWebSocketFactory
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self.connection: Connection | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._binary = False
        self._paused = False
        self._consuming = False
        self._peer_close: tuple[Any, Any] | None = None
        self._holds_slot = True
        self._timer: IDelayedCall | None = None
        self._heard = self._pinged = 0.0

    # -- coming and going

    def onOpen(self) -> None:
        """Admit the peer, or tell it why not."""
        manager = self.factory.manager
        transport = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        host = getattr(transport.getPeer(), "host", None) or ""
        adapter = _MessageTransport(self)
        refusal = manager.refusal(host)
        if refusal is not None:
            manager.refused += 1
            manager.count_close(refusal[0])
            adapter.write(close_message(WEBSOCKET, *refusal))
            self.end()
            return
        self._release_slot()  # from here on it counts as a connection of the pool
        self._heard = manager.now()
        self.connection = manager.admit(adapter, host, WEBSOCKET)
        if self.factory.ping_interval:
            self._timer = manager.clock.callLater(self.factory.ping_interval, self._beat)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Tell the connection."""
        super().connectionLost(reason)
        self._cancel_timer()
        self._release_slot()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.lost(reason)

    def _release_slot(self) -> None:
        if self._holds_slot:
            self._holds_slot = False
            self.factory.release_slot()

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # -- messages

    def dataReceived(self, data: bytes) -> None:
        """Take bytes; autobahn calls the methods below with what they mean."""
        self._heard = self.factory.manager.now()
        super().dataReceived(data)
        if self.failedByMe and self.connection is not None:
            # Autobahn has sent a close of its own, for what is no WebSocket.
            self.connection.close(None)

    def consumeData(self) -> None:
        """Handle what has been read, but not while that is going on further up."""
        if self._consuming:
            return
        self._consuming = self.state in (self.STATE_OPEN, self.STATE_CLOSING)
        try:
            super().consumeData()
        finally:
            self._consuming = False

    def processData(self) -> bool:
        """Handle the next piece of what has been read, unless reading is paused."""
        return not self._paused and bool(super().processData())

    def pause_reading(self) -> None:
        """Read no more."""
        self._paused = True
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read on."""
        self._paused = False
        self._pinged = 0.0  # the answer may not have been read yet
        self.transport.resumeProducing()
        if self.data:
            self.consumeData()

    def onMessageBegin(self, isBinary: bool) -> None:
        """A message begins."""
        self._binary = isBinary
        self._pieces = []
        self._size = 0

    def onMessageFrameBegin(self, length: int) -> None:
        """Refuse a message that is too large from a frame's header alone."""
        self._size += length
        connection = self.connection
        if connection is not None and self._size > connection.max_frame:
            connection.close(FRAME_TOO_LARGE)

    def onMessageFrameData(self, payload: bytes) -> None:
        """Keep a piece of a message; of a connection that has ended, nothing."""
        # Empty pieces would be a way to fill memory that no size limit sees.
        if payload and self._is_heard():
            self._pieces.append(payload)

    def onMessageFrameEnd(self) -> None:
        """Nothing to do: a frame means nothing by itself."""

    def onMessageEnd(self) -> None:
        """Hand a whole message to the connection, which answers in the same kind."""
        payload = b"".join(self._pieces)
        self._pieces = []
        connection = self.connection
        if connection is None or not self._is_heard():
            return
        framing = WEBSOCKET_BINARY if self._binary else WEBSOCKET
        if connection.framing is not framing:
            connection.use_framing(framing)
        connection.feed(payload)

    def _is_heard(self) -> bool:
        """Whether neither side has begun to close."""
        connection = self.connection
        return connection is not None and connection.state is OPEN and self.is_open_for_writing

    def onPing(self, payload: bytes) -> None:
        """Answer a ping like a request: a peer that does not read is not answered on."""
        connection = self.connection
        if connection is not None:
            connection.last_seen = self._heard
            connection.send_encoded(encode_websocket(payload, PONG))

    def onPong(self, payload: bytes) -> None:
        """The peer is there."""
        if self.connection is not None:
            self.connection.last_seen = self._heard

    def _beat(self) -> None:
        """Ping the peer, and give up one that said nothing since the last ping."""
        self._timer = None
        connection = self.connection
        if connection is None or connection.state is not OPEN:
            return
        manager, interval = self.factory.manager, self.factory.ping_interval
        if not self._paused:  # else the silence is ours
            if self._heard < self._pinged:
                manager.count_close(IDLE_TIMEOUT)
                connection.abort()
                return
            self._pinged = manager.now()
            connection.send_encoded(encode_websocket(b"", PING))
        self._timer = manager.clock.callLater(interval, self._beat)

    # -- the end

    @property
    def is_open_for_writing(self) -> bool:
        """Whether no close has been sent yet."""
        return bool(self.state == self.STATE_OPEN)

    def begin_close(self, code: int, reason: bytes) -> None:
        """Send a close; nothing may follow it."""
        self.sendCloseFrame(code, reason)

    def end(self) -> None:
        """End the connection, after a close and the peer's answer to it."""
        self._cancel_timer()
        if self.state == self.STATE_OPEN and self._peer_close is not None:
            super().onCloseFrame(*self._peer_close)  # answers it, and ends
            return
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(NORMAL_CLOSE)
        if self.state == self.STATE_CLOSING:
            self._timer = self.factory.manager.clock.callLater(CLOSE_GRACE, self._give_up)
            self.resume_reading()

    def _give_up(self) -> None:
        """The peer did not answer the close: end when what was sent has left."""
        self._timer = None
        self.dropConnection(abort=False)

    def onCloseFrame(self, code: Any, reasonRaw: Any) -> bool | None:
        """The peer closes: its answers that are on their way come first."""
        if self.connection is None or self.state != self.STATE_OPEN:
            return bool(super().onCloseFrame(code, reasonRaw))
        if self._peer_close is None:
            self._peer_close = (code, reasonRaw)
            self.connection.finished()
        return False


class PoolWebSocketFactory(WebSocketServerFactory):
    """Builds :class:`PoolWebSocket` for the connections of a manager.

    ``ping_interval`` is in seconds; a peer that says nothing from one ping to the next
    is cut off, and 0 turns pings off. ``release_slot`` is called once for each
    protocol built, when the connection no longer counts as one of HTTP.
    """

    protocol = PoolWebSocket  # type: ignore[assignment]

    def __init__(
        self,
        reactor: Any,
        manager: ConnectionManager,
        ping_interval: float,
        release_slot: Callable[[], object],
    ) -> None:
        super().__init__(server="", reactor=reactor)  # type: ignore[no-untyped-call]
        self.manager = manager
        self.ping_interval = ping_interval
        self.release_slot = release_slot
        # The handshake is read and answered at once, and the end is timed in end(). The
        # resource in front of this has looked at the origin.
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            webStatus=False,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            failByDrop=False,
            allowedOrigins=["*"],
            allowNullOrigin=True,
        )


__all__ = ["CLOSE_GRACE", "PoolWebSocket", "PoolWebSocketFactory"]
