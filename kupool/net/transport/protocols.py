"""The protocols and factories, one pair for each framing.

Each protocol subclasses the Twisted receiver of its framing, if there is one, and replaces
its ``dataReceived`` by the batch splitter of :mod:`kupool.wire.framing`: one pass over the
bytes of a read, one write for its answers. :mod:`kupool.net.transport.detecting` has the
pair that detects the framing.
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

#: Seconds that a refused connection has to show its framing and to read why
#: it is refused, before it is aborted.
REFUSAL_GRACE = 2.0

#: Most refused connections that get these seconds at the same time.
MAX_REFUSALS = 1000

#: The server's limit applies.
TLV = framing_of(TlvCodec(max_payload=0))._replace(
    encode=encode_tlv, join=lambda parts: b"".join(map(encode_tlv, parts))
)


def prepare(protocol: Protocol) -> tuple[Any, str]:
    """Configure the transport of a new connection; returns it and the peer's host."""
    transport: Any = protocol.transport
    if ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
    return transport, host_of(transport.getPeer())


def host_of(address: object) -> str:
    """Return the host of an address; empty if it has none, as a Unix socket."""
    return getattr(address, "host", None) or ""


@implementer(IHalfCloseableProtocol)
class FramedProtocol(Protocol):
    """The base of the protocols of all framings: feeds a connection."""

    framing: Framing

    def __init__(self, manager: ConnectionManager, connection: Connection | None = None) -> None:
        self._manager = manager
        self.connection = connection
        if connection is not None:
            self._feed_directly(connection)

    def connectionMade(self) -> None:
        """Admit the peer, or tell it why it is refused and close."""
        transport, host = prepare(self)
        refusal = self._manager.refusal(host)
        if refusal is None:
            self.connection = self._manager.admit(transport, host, self.framing)
            if self.connection is not None:
                self._feed_directly(self.connection)
        else:
            refuse(self._manager, transport, self.framing, refusal)

    def _feed_directly(self, connection: Connection) -> None:
        """Bind ``dataReceived`` to the connection, unless a subclass overrides it: saves a call."""
        if type(self).dataReceived is FramedProtocol.dataReceived:
            self.dataReceived = connection.feed  # type: ignore[method-assign]

    def dataReceived(self, data: bytes) -> None:
        """Feed the connection; data of a refused peer is dropped."""
        if self.connection is not None:
            self.connection.feed(data)

    def readConnectionLost(self) -> None:
        """Handle the end of the peer's data; the peer may still read its answers."""
        if self.connection is not None:
            self.connection.finished()
        elif self.transport is not None:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Handle the end of this side's data: everything has been sent."""
        if self.connection is not None:
            self.connection.flushed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Notify the connection, which notifies its manager and observer."""
        connection, self.connection = self.connection, None
        self.__dict__.pop("dataReceived", None)
        if connection is not None:
            connection.lost(reason)
        else:
            self._manager.end_grace(self.transport)


class FrameProtocol(FramedProtocol):
    """The framing ``frame``: opcode, length, payload."""

    framing = FRAME


class Int32Protocol(FramedProtocol, Int32StringReceiver):
    """The framing ``int32``: messages with a big-endian 32-bit length, as in Twisted."""

    framing = INT32

    def stringReceived(self, string: bytes) -> None:
        """Handle one payload, if a subclass uses the stock receiver."""
        if self.connection is not None:
            self.connection.receive([string])


class LineProtocol(FramedProtocol, LineOnlyReceiver):
    """The framing ``line``: messages that end with LF."""

    framing = LINE
    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        """Handle one payload, if a subclass uses the stock receiver."""
        payload = line.removesuffix(b"\r")
        if self.connection is not None:
            if payload != line:
                self.connection.answer_with_crlf()
            if payload:
                self.connection.receive([payload])


class TlvProtocol(FramedProtocol):
    """The framing ``tlv``: messages with a little-endian length and id."""

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
    """Tell a refused peer the reason, and end its connection.

    ``refusal`` is the reason, and the seconds until the peer may try again, if known.
    """
    reason, retry_after = refusal
    manager.refused += 1
    manager.count_close(reason)
    transport.write(manager.last_word(framing, reason, retry_after))
    halves = ends_by_halves(transport)
    graced = manager.grant_grace(transport, REFUSAL_GRACE, MAX_REFUSALS)
    if graced and halves:
        # A socket that is closed with unread bytes is reset, and the peer may not get the
        # reason. So only this side ends; further data is dropped, for a short time.
        transport.loseWriteConnection()
    elif graced or halves:
        transport.loseConnection()
    else:
        # TLS waits without limit for a handshake, and for the peer's close.
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
        self.manager = self.gate = manager

    def buildProtocol(self, addr: IAddress | None) -> FramedProtocol | None:
        """Return the protocol of a new connection; None for one that is unwanted."""
        if self.manager.unwanted(host_of(addr)):
            return None
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

    def buildProtocol(self, addr: IAddress | None) -> FramedProtocol | None:
        """Return the protocol of a new connection; None for one that is unwanted."""
        protocol = super().buildProtocol(addr)
        if protocol is not None:
            protocol.framing = self._framing
        return protocol


#: The factory for each value of the setting ``framing`` except ``auto``.
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
