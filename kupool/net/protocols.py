"""Protocol and Factory pairs, one for each framing, and the pair that detects.

Each protocol belongs to the Twisted receiver of its framing, where there is one, and
puts the batch splitter of :mod:`kupool.wire.framing` in place of its ``dataReceived``:
one pass over the bytes of a read, one write for its answers.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.basic import Int32StringReceiver, LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.errors import CLOSE_MALFORMED, CloseReason
from kupool.net.connection import Connection
from kupool.net.manager import ConnectionManager
from kupool.wire.framing import FRAME, INT32, LINE, Framing, Tlv, TlvSplitter, detect, encode_tlv
from kupool.wire.messages import close_message

#: Seconds that a connection over the limit has to show its framing before the cut.
REFUSAL_GRACE = 2.0

#: Connections over the limit that get that grace at the same time.
MAX_REFUSALS = 1000

TLV = Framing("tlv", TlvSplitter, encode_tlv, lambda parts: b"".join(map(encode_tlv, parts)))

_HTTP_REQUEST = re.compile(rb"[A-Z]{3,7} ")
_HTTP_PREFIX = re.compile(rb"[A-Z]{1,7}")


def _arrived(protocol: Protocol) -> tuple[Any, str]:
    """Return the transport of a new connection, made ready, and the peer's host."""
    transport: Any = protocol.transport
    if ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
    return transport, getattr(transport.getPeer(), "host", None) or ""


@implementer(IHalfCloseableProtocol)
class _Framed(Protocol):
    """What the protocols of all framings share: they feed a connection."""

    framing: ClassVar[Framing]

    def __init__(self, manager: ConnectionManager, connection: Connection | None = None) -> None:
        self._manager = manager
        self.connection = connection

    def connectionMade(self) -> None:
        """Admit the peer, or tell it why not and close."""
        transport, host = _arrived(self)
        refusal = self._manager.refusal(host)
        if refusal is None:
            self.connection = self._manager.admit(transport, host, self.framing)
        else:
            refuse(self._manager, transport, self.framing, *refusal)

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
        """Nothing to do: this side ends whole connections only."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the connection; its manager and observer hear of it from there."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.lost(reason)


class FrameProtocol(_Framed):
    """The original framing: opcode, length, payload."""

    framing = FRAME


class Int32Protocol(_Framed, Int32StringReceiver):
    """Messages with a big-endian 32-bit length, as Twisted peers send them."""

    framing = INT32

    def stringReceived(self, string: bytes) -> None:
        """Handle one payload, where a subclass went back to the stock receiver."""
        if self.connection is not None and string:
            self.connection.receive([string])


class LineProtocol(_Framed, LineOnlyReceiver):
    """Messages that end with LF."""

    framing = LINE
    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        """Handle one payload, where a subclass went back to the stock receiver."""
        payload = line.removesuffix(b"\r")
        if self.connection is not None and payload:
            self.connection.receive([payload])


class TlvProtocol(_Framed):
    """Messages with a little-endian length and id."""

    framing = TLV

    def send_message(self, message_id: int, data: bytes) -> None:
        """Send one message under an id."""
        if self.connection is not None:
            self.connection.send_encoded(encode_tlv(data, message_id))

    def received(self, message: Tlv) -> None:
        """Handle one message as if the peer had sent it."""
        if self.connection is not None:
            self.connection.receive([message])


@implementer(IHalfCloseableProtocol)
class DetectingProtocol(Protocol):
    """Waits for the first byte, and gives way to the protocol of its framing.

    The connection exists from the start, so that limits and timeouts hold for a peer
    that says nothing at all.
    """

    def __init__(self, manager: ConnectionManager, http_port: str) -> None:
        self._manager = manager
        self._http_port = http_port
        self._begun = b""
        self._inner: _Framed | None = None
        self.connection: Connection | None = None
        self._refused: tuple[CloseReason, float | None] | None = None

    def connectionMade(self) -> None:
        """Admit the peer; one over the limit gets the time to show its framing."""
        transport, host = _arrived(self)
        self._refused = self._manager.refusal(host)
        if self._refused is None:
            self.connection = self._manager.admit(transport, host, LINE)
        elif not self._manager.grant_grace(transport, REFUSAL_GRACE, MAX_REFUSALS):
            transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Decide by the first byte, then hand everything on."""
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        framing = detect(data[0]) if not self._begun else None
        if self._refused is not None:
            refuse(self._manager, self.transport, framing or LINE, *self._refused)
        elif framing is not None:
            self._become(framing, data)
        elif self.connection is not None:
            self._stranger(data)

    def _become(self, framing: Framing, data: bytes) -> None:
        connection, transport = self.connection, self.transport
        assert connection is not None
        connection.use_framing(framing)
        self._inner = inner = _PROTOCOLS[framing.name](self._manager, connection)
        inner.transport = transport
        inner.connected = 1
        if getattr(transport, "protocol", None) is self:
            # A plain transport is told, so that reads do not pass through here;
            # one that is wrapped, as under TLS, goes on calling this object.
            transport.protocol = inner  # type: ignore[union-attr]
        inner.dataReceived(data)

    def _stranger(self, data: bytes) -> None:
        """Answer a peer that speaks no framing of ours: perhaps HTTP."""
        assert self.connection is not None
        self._begun += data[:16]
        if _HTTP_REQUEST.match(self._begun):
            self.connection.end_with(_http_answer(self._http_port))
        elif not _HTTP_PREFIX.fullmatch(self._begun):
            self.connection.close(CLOSE_MALFORMED)

    def readConnectionLost(self) -> None:
        """The peer has sent all it will."""
        if self._inner is not None:
            self._inner.readConnectionLost()
        elif self.connection is not None:
            self.connection.close(None)
        elif self.transport is not None:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do: this side ends whole connections only."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the connection."""
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif self.connection is not None:
            self.connection.lost(reason)


def refuse(
    manager: ConnectionManager,
    transport: Any,
    framing: Framing,
    reason: CloseReason,
    retry_after: float | None,
) -> None:
    """Tell a peer over the limit why it may not come in, and end it."""
    manager.refused += 1
    manager.count_close(reason)
    transport.write(close_message(framing, reason, retry_after))
    transport.loseConnection()


def _http_answer(port: str) -> bytes:
    where = f"HTTP is served on {port}." if port else "HTTP is turned off on this server."
    body = f"This port speaks KuPool's wire protocol. {where}\n".encode()
    return (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )


_PROTOCOLS: dict[str, type[_Framed]] = {
    p.framing.name: p for p in (FrameProtocol, Int32Protocol, LineProtocol, TlvProtocol)
}


class _FramedFactory(Factory):
    """Builds the protocols of one framing."""

    noisy = False
    protocol: type[_Framed]

    def __init__(self, manager: ConnectionManager) -> None:
        self.manager = manager

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """Return the protocol of a new connection."""
        protocol = self.protocol(self.manager)
        protocol.factory = self
        return protocol


class FrameFactory(_FramedFactory):
    """Builds :class:`FrameProtocol`."""

    protocol = FrameProtocol


class Int32Factory(_FramedFactory):
    """Builds :class:`Int32Protocol`."""

    protocol = Int32Protocol


class LineFactory(_FramedFactory):
    """Builds :class:`LineProtocol`."""

    protocol = LineProtocol


class TlvFactory(_FramedFactory):
    """Builds :class:`TlvProtocol`."""

    protocol = TlvProtocol


class DetectingFactory(Factory):
    """Builds :class:`DetectingProtocol`; ``http_port`` is named to HTTP clients."""

    noisy = False

    def __init__(self, manager: ConnectionManager, http_port: str = "") -> None:
        self.manager = manager
        self.http_port = http_port

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """Return the protocol of a new connection."""
        return DetectingProtocol(self.manager, self.http_port)


#: The factory of each value of the setting ``framing`` but ``auto``.
FACTORIES: dict[str, type[_FramedFactory]] = {
    f.protocol.framing.name: f for f in (FrameFactory, Int32Factory, LineFactory, TlvFactory)
}

__all__ = [
    "FACTORIES",
    "DetectingFactory",
    "DetectingProtocol",
    "FrameFactory",
    "FrameProtocol",
    "Int32Factory",
    "Int32Protocol",
    "LineFactory",
    "LineProtocol",
    "TlvFactory",
    "TlvProtocol",
]
