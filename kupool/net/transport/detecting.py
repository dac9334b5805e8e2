"""Detect the framing of a peer by its first byte."""

from __future__ import annotations

import re

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.errors import CLOSE_MALFORMED, CloseReason
from kupool.net.manager import ConnectionManager
from kupool.net.transport.protocols import (
    MAX_REFUSALS,
    PROTOCOLS,
    REFUSAL_GRACE,
    FramedProtocol,
    host_of,
    prepare,
    refuse,
)
from kupool.session.connection import Connection
from kupool.wire.framing import LINE, Framing, detect

_HTTP_REQUEST = re.compile(rb"[A-Z]{3,7} ")
#: The first bytes of a TLS handshake: its type and the version.
_CLIENT_HELLO = b"\x16\x03"
_HTTP_PREFIX = re.compile(rb"[A-Z]{1,7}")


@implementer(IHalfCloseableProtocol)
class DetectingProtocol(Protocol):
    """Waits for the first byte, then replaces itself by the protocol of that framing.

    The connection exists from the start, so that limits and timeouts also apply to a peer
    that sends nothing.
    """

    def __init__(self, manager: ConnectionManager, http_port: str) -> None:
        self._manager = manager
        self._http_port = http_port
        self._begun = b""
        self._inner: FramedProtocol | None = None
        self.connection: Connection | None = None
        self._refused: tuple[CloseReason, float | None] | None = None

    def connectionMade(self) -> None:
        """Admit the peer; a refused peer gets time to show its framing."""
        transport, host = prepare(self)
        self._refused = self._manager.refusal(host)
        if self._refused is None:
            self.connection = self._manager.admit(transport, host, LINE)
        elif not self._manager.grant_grace(transport, REFUSAL_GRACE, MAX_REFUSALS):
            transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Detect the framing by the first byte, then forward all data."""
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        framing = detect(data[0]) if not self._begun else None
        if self._refused is not None:
            refusal, self._refused = self._refused, None
            refuse(self._manager, self.transport, framing or LINE, refusal)
        elif self.connection is None:
            pass  # already refused; a wrapped transport may still deliver data
        elif framing is not None:
            self._become(self.connection, framing, data)
        else:
            self._stranger(self.connection, data)

    def _become(self, connection: Connection, framing: Framing, data: bytes) -> None:
        transport = self.transport
        connection.use_framing(framing)
        self._inner = inner = PROTOCOLS[framing.name](self._manager, connection)
        inner.transport = transport
        inner.connected = 1
        if getattr(transport, "protocol", None) is self:
            # A plain transport gets the new protocol, so that reads bypass this object;
            # a wrapped one, such as TLS, keeps calling it.
            transport.protocol = inner  # type: ignore[union-attr]
        inner.dataReceived(data)

    def _stranger(self, connection: Connection, data: bytes) -> None:
        """Answer a peer that speaks none of our framings: it may speak HTTP."""
        self._begun += data[:16]
        if _HTTP_REQUEST.match(self._begun):
            connection.end_with(_http_answer(self._http_port))
        elif self._begun.startswith(_CLIENT_HELLO):
            connection.close(CLOSE_MALFORMED.about("this port does not speak TLS"))
        elif not _HTTP_PREFIX.fullmatch(self._begun):
            connection.close(CLOSE_MALFORMED)

    def readConnectionLost(self) -> None:
        """Handle the end of the peer's data."""
        if self._inner is not None:
            self._inner.readConnectionLost()
        elif self.connection is not None:
            self.connection.close(None)
            self.connection.finished()
        elif self.transport is not None:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Handle the end of this side's data: everything has been sent."""
        if self.connection is not None:
            self.connection.flushed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Notify the connection."""
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif self.connection is not None:
            self.connection.lost(reason)
        else:
            self._manager.end_grace(self.transport)


def _http_answer(port: str) -> bytes:
    where = (
        f"HTTP is served on {port}, WebSocket there at /ws."
        if port
        else "HTTP is turned off on this server."
    )
    body = f"This port speaks KuPool's wire protocol. {where}\n".encode(errors="replace")
    return (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )


class DetectingFactory(Factory):
    """Builds :class:`DetectingProtocol`; HTTP clients are told ``http_port``."""

    noisy = False

    def __init__(self, manager: ConnectionManager, http_port: str = "") -> None:
        self.manager = self.gate = manager
        self.http_port = http_port

    def buildProtocol(self, addr: IAddress | None) -> DetectingProtocol | None:
        """Return the protocol of a new connection; None for one that is unwanted."""
        if self.manager.unwanted(host_of(addr)):
            return None
        protocol = DetectingProtocol(self.manager, self.http_port)
        protocol.factory = self
        return protocol


__all__ = ["DetectingFactory", "DetectingProtocol"]
