"""One connection to a pool: messages out, messages in. It knows nothing of retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IDelayedCall,
    INegotiated,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.client.answers import (
    Closing,
    Incoming,
    close_by_params,
    close_by_text,
    decode_incoming,
)
from kupool.errors import UNKNOWN_METHOD
from kupool.wire.framing import (
    FRAME,
    OP_CLOSE,
    OP_PING,
    OP_PONG,
    Control,
    Framing,
    Item,
    encode_frame,
)
from kupool.wire.messages import encode_error, encode_success

#: Messages that are none before the connection is given up.
MAX_MALFORMED = 10

#: Seconds from the end of a connection's writing to its being cut off.
CUT_AFTER = 0.3


class Receiver(Protocol):
    """What is told of what happens on a connection."""

    def opened(self, connection: ClientConnection) -> None:
        """The connection stands."""

    def replied(self, connection: ClientConnection, reply: Incoming) -> None:
        """A reply came."""

    def notified(self, connection: ClientConnection, message: Incoming) -> None:
        """A notification came, which is not about the end of the connection."""

    def ended(self, connection: ClientConnection, reason: str) -> None:
        """The connection is gone; ``connection.closing`` is what was announced."""


@implementer(IPushProducer)
class ClientConnection(StreamProtocol):
    """Speaks ``framing`` over a transport.

    What is sent while a read is handled leaves in one write when that is done.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        framing: Framing,
        receiver: Receiver,
        max_frame: int = 65536,
    ) -> None:
        self._clock = clock
        self._now = clock.seconds
        self._framing = framing
        self._receiver = receiver
        self._splitter = framing.splitter(max_frame)
        self._corked: list[bytes] | None = None
        self._writable = True
        self._ending: IDelayedCall | None = None
        self._over = False
        self._why = ""
        self.malformed = 0
        #: When something was last heard of the server, in seconds of the clock.
        self.last_heard = self._now()
        #: The close that the server announced.
        self.closing: Closing | None = None

    # -- the transport's side

    def connectionMade(self) -> None:
        """Get ready, and say that the connection stands."""
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        transport.registerProducer(self, True)
        self.last_heard = self._now()
        self._receiver.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Handle what came."""
        self.last_heard = self._now()
        corked: list[bytes] = []
        self._corked = corked
        try:
            for item in self._splitter.feed(data):
                if self._over:
                    break
                self._handle(item)
        finally:
            self._corked = None
            if corked and not self._over:
                self._write(self._framing.join(corked))
        if self._splitter.too_large:
            self.abort("the server sent a message that is too large")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say that the connection is gone, and why."""
        self._over = True
        if self._ending is not None and self._ending.active():
            self._ending.cancel()
        self._ending = None
        announced = self.closing.reason if self.closing is not None else ""
        why = announced or self._why or _describe(reason)
        self._receiver.ended(self, why)

    def pauseProducing(self) -> None:
        """The server reads slowly: what need not be sent is not."""
        self._writable = False

    def resumeProducing(self) -> None:
        """The server reads again."""
        self._writable = True

    def stopProducing(self) -> None:
        """The transport has ended; :meth:`connectionLost` follows."""

    # -- coming in

    def _handle(self, item: Item) -> None:
        if isinstance(item, bytes):
            try:
                message = decode_incoming(item)
            except (ValueError, RecursionError) as error:
                self._complain(str(error))
                return
            if message.method is None:
                self._receiver.replied(self, message)
            else:
                self._called(message)
        elif isinstance(item, Control):
            self._controlled(item)

    def _controlled(self, item: Control) -> None:
        if item.opcode == OP_CLOSE:
            self._announced(close_by_text(item.payload))
        elif item.opcode == OP_PING:
            self._answer(encode_frame(item.payload, OP_PONG))
        elif item.opcode != OP_PONG:
            self._complain(f"unknown opcode {item.opcode}")

    def _called(self, message: Incoming) -> None:
        if message.method == "close" and message.id is None:
            try:
                self._announced(close_by_params(message.params))
            except ValueError as error:
                self._complain(str(error))
        elif message.id is None:
            self._receiver.notified(self, message)
        elif message.method == "ping":
            self._answer(self._framing.encode(encode_success(message.id)))
        else:
            self._answer(self._framing.encode(encode_error(message.id, UNKNOWN_METHOD)))

    def _announced(self, closing: Closing) -> None:
        self.closing = closing
        self.lose(closing.reason)

    def _complain(self, what: str) -> None:
        self.malformed += 1
        self._log.warn("The server sent what is no message: {what}", what=what)
        if self.malformed >= MAX_MALFORMED:
            self.abort("the server sent too much that is no message")

    def _answer(self, data: bytes) -> None:
        """Write an answer, unless the server does not read those before it."""
        if self._writable:
            self._write(data)

    # -- going out

    def send(self, payload: bytes) -> None:
        """Send one message; does nothing on a connection that is over."""
        if self._over:
            return
        if self._corked is not None:
            self._corked.append(payload)
        else:
            self._write(self._framing.encode(payload))

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life: by opcode in ``frame``, elsewhere with ``payload``."""
        if self._over:
            return
        if self._framing is FRAME:
            self._answer(encode_frame(b"", OP_PING))
        else:
            self._answer(self._framing.encode(payload))

    def _write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    # -- the end

    def finish(self, timeout: float) -> None:
        """Say that this is the end, and let the server send its last answers.

        A server that has not ended the connection after ``timeout`` seconds is left.
        """
        if self._over or self._ending is not None:
            return
        transport: Any = self.transport
        self._flush()
        self._why = "closed"
        self._ending = self._clock.callLater(timeout, self._leave)
        if self._framing is FRAME:
            transport.write(encode_frame(b"", OP_CLOSE))
            transport.unregisterProducer()
            return
        transport.unregisterProducer()
        if INegotiated.providedBy(transport) or not hasattr(transport, "loseWriteConnection"):
            transport.loseConnection()  # TLS knows no half-closed connection
        else:
            transport.loseWriteConnection()

    def lose(self, why: str) -> None:
        """End the connection: what has been sent still leaves."""
        if self._over:
            return
        self._flush()
        self._over = True
        self._why = self._why or why
        transport: Any = self.transport
        transport.unregisterProducer()
        self._leave()

    def abort(self, why: str) -> None:
        """Cut the connection off, whatever waits to be sent."""
        if self._over:
            return
        self._over = True
        self._why = self._why or why
        transport: Any = self.transport
        transport.abortConnection()

    def _flush(self) -> None:
        if self._corked:
            self._write(self._framing.join(self._corked))
            self._corked.clear()

    def _leave(self) -> None:
        if self._ending is not None and self._ending.active():
            self._ending.cancel()
        self._ending = self._clock.callLater(CUT_AFTER, self._cut)
        transport: Any = self.transport
        transport.loseConnection()

    def _cut(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


class ConnectionFactory(Factory):
    """Builds the protocol of one connection."""

    noisy = False

    def __init__(self, make: Callable[[], ClientConnection]) -> None:
        self._make = make

    def buildProtocol(self, addr: object) -> ClientConnection:
        """Return the protocol."""
        return self._make()


def _describe(reason: Failure) -> str:
    if reason.check(ConnectionDone):
        return "the server ended the connection"
    if reason.check(ConnectionLost):
        return "the connection was lost"
    return reason.getErrorMessage()
