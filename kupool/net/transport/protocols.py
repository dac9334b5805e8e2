"""Protocol and Factory pairs, one for each framing.

Each protocol belongs to the Twisted receiver of its framing, where there is one, and
puts the batch splitter of :mod:`kupool.wire.framing` in place of its ``dataReceived``:
one pass over the bytes of a read, one write for its answers. The pair that detects the
framing is in :mod:`kupool.net.transport.detecting`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.basic import Int32StringReceiver, LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.errors import CloseReason
from kupool.net.manager import ConnectionManager, ends_by_halves
from kupool.session.connection import Connection
from kupool.wire.codecs import Codec, TlvCodec, framing_of
from kupool.wire.framing import FRAME, INT32, LINE, Framing, Tlv, encode_tlv

#: Seconds that a connection over the limit has to show its framing, and to read why it
#: is refused, before the cut.
REFUSAL_GRACE = 2.0

#: Connections over the limit that get that grace at the same time.
MAX_REFUSALS = 1000

#: Its limit is that of the server.
TLV = framing_of(TlvCodec(max_payload=0))._replace(
    encode=encode_tlv, join=lambda parts: b"".join(map(encode_tlv, parts))
)


def prepare(protocol: Protocol) -> tuple[Any, str]:
    """Return the transport of a new connection, made ready, and the peer's host."""
    transport: Any = protocol.transport
    if ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
    return transport, getattr(transport.getPeer(), "host", None) or ""


@implementer(IHalfCloseableProtocol)
class FramedProtocol(Protocol):
    """What the protocols of all framings share: they feed a connection."""

    framing: Framing

    def __init__(self, manager: ConnectionManager, connection: Connection | None = None) -> None:
        self._manager = manager
        self.connection = connection
        if connection is not None:
            self._feed_directly(connection)

    def connectionMade(self) -> None:
        """Admit the peer, or tell it why not and close."""
        transport, host = prepare(self)
        refusal = self._manager.refusal(host)
        if refusal is None:
            self.connection = self._manager.admit(transport, host, self.framing)
            if self.connection is not None:
                self._feed_directly(self.connection)
        else:
            refuse(self._manager, transport, self.framing, refusal)

    def _feed_directly(self, connection: Connection) -> None:
        """Spare each read a call, where no subclass has a way of its own."""
        if type(self).dataReceived is FramedProtocol.dataReceived:
            self.dataReceived = connection.feed  # type: ignore[method-assign]

    def dataReceived(self, data: bytes) -> None:
        """Feed the connection; a peer that was refused is not heard."""
        if self.connection is not None:
            self.connection.feed(data)

    def readConnectionLost(self) -> None:
        """The peer has sent all it will; it may still read its answers."""
        if self.connection is not None:
            self.connection.finished()
        elif self.transport is not None:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The transport has sent everything, and told the peer that no more follows."""
        if self.connection is not None:
            self.connection.flushed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the connection; its manager and observer hear of it from there."""
        connection, self.connection = self.connection, None
        self.__dict__.pop("dataReceived", None)
        if connection is not None:
            connection.lost(reason)
        else:
            self._manager.end_grace(self.transport)


class FrameProtocol(FramedProtocol):
    """The original framing: opcode, length, payload."""

    framing = FRAME


class Int32Protocol(FramedProtocol, Int32StringReceiver):
    """Messages with a big-endian 32-bit length, as Twisted peers send them."""

    framing = INT32

    def stringReceived(self, string: bytes) -> None:
        """Handle one payload, where a subclass went back to the stock receiver."""
        if self.connection is not None:
            self.connection.receive([string])


class LineProtocol(FramedProtocol, LineOnlyReceiver):
    """Messages that end with LF."""

    framing = LINE
    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        """Handle one payload, where a subclass went back to the stock receiver."""
        payload = line.removesuffix(b"\r")
        if self.connection is not None:
            if payload != line:
                self.connection.answer_with_crlf()
            if payload:
                self.connection.receive([payload])


class TlvProtocol(FramedProtocol):
    """Messages with a little-endian length and id."""

    framing = TLV

    def send_message(self, message_id: int, data: bytes) -> None:
        """Send one message under an id."""
        if self.connection is not None:
            self.connection.send_message(message_id, data)

    def received(self, message: Tlv) -> None:
        """Handle one message as if the peer had sent it."""
        if self.connection is not None:
            self.connection.receive([message])


def refuse(
    manager: ConnectionManager,
    transport: Any,
    framing: Framing,
    refusal: tuple[CloseReason, float | None],
) -> None:
    """Tell a peer over the limit why it may not come in, and end it.

    ``refusal`` is the reason, and the seconds after which to come again, if that is known.
    """
    reason, retry_after = refusal
    manager.refused += 1
    manager.count_close(reason)
    transport.write(manager.last_word(framing, reason, retry_after))
    halves = ends_by_halves(transport)
    graced = manager.grant_grace(transport, REFUSAL_GRACE, MAX_REFUSALS)
    if graced and halves:
        # A socket that is closed with bytes unread is reset, and the peer may never see
        # why. So only this side ends; what still comes is dropped, and the grace is short.
        transport.loseWriteConnection()
    elif graced or halves:
        transport.loseConnection()
    else:
        # TLS waits without limit for a handshake, and for the peer's goodbye.
        transport.abortConnection()


#: The protocol of each framing, by the framing's name.
PROTOCOLS: dict[str, type[FramedProtocol]] = {
    p.framing.name: p for p in (FrameProtocol, Int32Protocol, LineProtocol, TlvProtocol)
}


class FramedFactory(Factory):
    """Builds the protocols of one framing."""

    noisy = False
    protocol: type[FramedProtocol]

    def __init__(self, manager: ConnectionManager) -> None:
        self.manager = manager

    def buildProtocol(self, addr: IAddress | None) -> FramedProtocol:
        """Return the protocol of a new connection."""
        protocol = self.protocol(self.manager)
        protocol.factory = self
        return protocol


class FrameFactory(FramedFactory):
    """Builds :class:`FrameProtocol`."""

    protocol = FrameProtocol


class Int32Factory(FramedFactory):
    """Builds :class:`Int32Protocol`."""

    protocol = Int32Protocol


class LineFactory(FramedFactory):
    """Builds :class:`LineProtocol`."""

    protocol = LineProtocol


class TlvFactory(FramedFactory):
    """Builds :class:`TlvProtocol`."""

    protocol = TlvProtocol


class CodecFactory(FramedFactory):
    """Builds the protocols of any codec."""

    protocol = FramedProtocol

    def __init__(self, manager: ConnectionManager, codec: Codec) -> None:
        super().__init__(manager)
        self._framing = framing_of(codec)

    def buildProtocol(self, addr: IAddress | None) -> FramedProtocol:
        """Return the protocol of a new connection."""
        protocol = super().buildProtocol(addr)
        protocol.framing = self._framing
        return protocol


#: The factory of each value of the setting ``framing`` but ``auto``.
FACTORIES: dict[str, type[FramedFactory]] = {
    f.protocol.framing.name: f for f in (FrameFactory, Int32Factory, LineFactory, TlvFactory)
}

__all__ = [
    "FACTORIES",
    "MAX_REFUSALS",
    "PROTOCOLS",
    "REFUSAL_GRACE",
    "TLV",
    "CodecFactory",
    "FrameFactory",
    "FrameProtocol",
    "FramedFactory",
    "FramedProtocol",
    "Int32Factory",
    "Int32Protocol",
    "LineFactory",
    "LineProtocol",
    "TlvFactory",
    "TlvProtocol",
    "prepare",
    "refuse",
]
