"""Accept connections through a proxy that sends the peer's address in a PROXY header.

The header comes first. The server sees the connection only when the header is complete, so
that limits and bans apply to the peer's address instead of the proxy's. Only headers from
trusted proxies are accepted, because anybody else could claim any address.

Twisted's own parsers read both versions of the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.refusals import Refusals
from kupool.ranges import check_fields, number, whole

#: The longest version 1 header, and the fixed part of a version 2 header, in bytes.
_LONGEST_V1 = 107
_FIXED_V2 = 16

#: The longest variable part of a version 2 header, in bytes.
_LONGEST_V2 = 4096

#: The name of Unix sockets among the trusted proxies.
UNIX = "unix"


def parse_networks(texts: Sequence[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Parse addresses and networks; ``unix`` is skipped.

    Raises :class:`ValueError` for a text that is neither an address nor a network.
    """
    found = []
    for text in texts:
        if text != UNIX:
            try:
                found.append(ip_network(text, strict=False))
            except ValueError:
                raise ValueError(
                    f"{text!r} is no address, no network such as 10.0.0.0/8, and not 'unix'"
                ) from None
    return tuple(found)


class TrustedProxies:
    """The trusted proxies: addresses, networks, and ``unix`` for a Unix socket.

    Raises :class:`ValueError` for a text that is none of these.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._unix = UNIX in texts
        self._networks = parse_networks(texts)

    def __contains__(self, host: object) -> bool:
        """Return whether a host is trusted; an empty host is a Unix socket."""
        if not host:
            return self._unix
        try:
            address = ip_address(str(host).partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


@dataclass(frozen=True)
class ProxySettings:
    """Which proxies are trusted, and how long they may take.

    ``trusted`` are addresses, networks, and ``unix`` for any Unix socket. A header must be
    complete within ``timeout`` seconds. At most ``most`` connections may wait for their
    headers. Raises :class:`ValueError` for a value that is out of its range.
    """

    trusted: tuple[str, ...] = ("127.0.0.0/8", "::1", UNIX)
    timeout: float = 10.0
    most: int = 1000

    def __post_init__(self) -> None:
        check_fields({"timeout": number(above=True), "most": whole()}, self)


class _NeedsMore(Exception):
    """The header is not complete yet."""


def read_header(data: bytes) -> tuple[IAddress | None, bytes]:
    """Return the address in a header, and the bytes after the header.

    The address is None if the header contains none, as in a health check of the proxy.
    Raises :class:`_NeedsMore`, and :class:`ValueError` for an invalid header.
    """
    try:
        if data[: len(V2Parser.PREFIX)] == V2Parser.PREFIX[: len(data)]:
            return _read_v2(data)
        if data[:6] == b"PROXY "[: len(data)]:
            return _read_v1(data)
    except InvalidProxyHeader as error:
        raise ValueError(str(error) or type(error).__name__) from None
    raise ValueError("it does not begin with a PROXY header")


def _read_v1(data: bytes) -> tuple[IAddress | None, bytes]:
    line, end, rest = data.partition(b"\r\n")
    if len(line) > _LONGEST_V1 - 2:
        raise ValueError("the PROXY header has no end")
    if not end:
        raise _NeedsMore
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return None, rest
    return _normalised(V1Parser.parse(line).source), rest


def _read_v2(data: bytes) -> tuple[IAddress | None, bytes]:
    if len(data) < _FIXED_V2:
        raise _NeedsMore
    length = int.from_bytes(data[14:16], "big")
    if length > _LONGEST_V2:
        raise ValueError("the PROXY header is too long")
    whole = _FIXED_V2 + length
    if len(data) < whole:
        raise _NeedsMore
    rest = data[whole:]
    command, family = data[12] & 0x0F, data[13] >> 4
    if data[12] >> 4 != 2 or command > 1:
        raise ValueError("the PROXY header is of an unknown version or command")
    if command == 0 or family == 0 or family == 3:
        return None, rest  # the proxy's own connection, an unknown family, or a Unix socket
    try:
        return _normalised(V2Parser.parse(data[:whole]).source), rest
    except LookupError:
        raise ValueError("the PROXY header is of an unknown protocol") from None


def _normalised(source: Any) -> IAddress | None:
    """Return an address in its canonical form, so that one peer has one address in all versions.

    Raises :class:`ValueError` for an invalid address, because the parsers accept any text.
    """
    if source is None:
        return None
    address = ip_address(source.host)
    kind = IPv4Address if address.version == 4 else IPv6Address
    return kind("TCP", str(address), source.port)


@implementer(IHalfCloseableProtocol)
class _Named(ProtocolWrapper):
    """Wraps a transport so that ``getPeer`` returns the address from the header."""

    def __init__(self, factory: Any, inner: Any, peer: IAddress) -> None:
        super().__init__(factory, inner)
        self._named = peer

    def getPeer(self) -> IAddress:
        """Return the address from the header."""
        return self._named

    def readConnectionLost(self) -> None:
        """Forward the event: the peer sends no more."""
        _half(self.wrappedProtocol, "readConnectionLost", self.transport)

    def writeConnectionLost(self) -> None:
        """Forward the event: everything has been sent."""
        _half(self.wrappedProtocol, "writeConnectionLost", self.transport)


def _half(protocol: Any, event: str, transport: Any) -> None:
    if IHalfCloseableProtocol.providedBy(protocol):
        getattr(protocol, event)()
    else:
        transport.loseConnection()


@implementer(IHalfCloseableProtocol)
class ProxiedProtocol(Protocol):
    """Waits for the header, then replaces itself by the protocol of the peer."""

    factory: ProxiedFactory

    def __init__(self) -> None:
        self._read = b""
        self._inner: IProtocol | None = None
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Wait for the header; refuse an untrusted proxy, or when too many connections wait."""
        why = self.factory.refusal(self.transport.getPeer())  # type: ignore[union-attr]
        if why:
            self._refuse(why)
        else:
            self.factory.waiting.add(self)
            self._timer = self.factory.clock.callLater(
                self.factory.settings.timeout, self._refuse, "no header came in time"
            )

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the header, or of the peer after it."""
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self not in self.factory.waiting:
            return  # refused
        self._read += data
        try:
            peer, rest = read_header(self._read)
        except _NeedsMore:
            return
        except ValueError as error:
            self._refuse(str(error))
            return
        self._stop_waiting()
        self._read = b""
        self._begin(peer)
        if rest and self._inner is not None:
            self._inner.dataReceived(rest)

    def _begin(self, peer: IAddress | None) -> None:
        transport: Any = self.transport
        address = transport.getPeer() if peer is None else peer
        protocol: Any = self.factory.inner.buildProtocol(address)
        if protocol is None:
            transport.abortConnection()
            return
        self._inner = protocol
        if peer is not None:
            self._inner = _Named(self.factory.wrapping, protocol, peer)
        self._inner.makeConnection(transport)

    def _refuse(self, why: str) -> None:
        transport: Any = self.transport
        self._stop_waiting()
        self.factory.refused(transport.getPeer(), why)
        transport.abortConnection()

    def _stop_waiting(self) -> None:
        self.factory.waiting.discard(self)
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def readConnectionLost(self) -> None:
        """Handle the end of the peer's data."""
        _half(self._inner, "readConnectionLost", self.transport)

    def writeConnectionLost(self) -> None:
        """Handle the end of this side's data."""
        _half(self._inner, "writeConnectionLost", self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Notify the protocol of the peer."""
        self._stop_waiting()
        if self._inner is not None:
            self._inner.connectionLost(reason)


class ProxiedFactory(Factory):
    """Builds the protocols of ``inner`` for peers behind trusted proxies.

    Raises :class:`ValueError` for settings that contain an invalid network.
    """

    noisy = False
    _log = Logger()

    def __init__(self, clock: Any, inner: Any, settings: ProxySettings) -> None:
        self.clock = clock
        self.inner = inner
        self.settings = settings
        self.wrapping = WrappingFactory(inner)
        #: Connections whose header is not complete.
        self.waiting: set[ProxiedProtocol] = set()
        #: Number of connections aborted because of a missing or invalid header.
        self.refusals = 0
        self._by_address = Refusals(clock)
        self._trusted = TrustedProxies(settings.trusted)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a protocol that waits for the header of a new connection."""
        protocol = ProxiedProtocol()
        protocol.factory = self
        return protocol

    def doStart(self) -> None:
        """Forward the call to ``inner``."""
        self.inner.doStart()

    def doStop(self) -> None:
        """Forward the call to ``inner``, and abort the connections that wait for their headers."""
        for protocol in list(self.waiting):
            transport: Any = protocol.transport
            transport.abortConnection()
        self._by_address.stop()
        self.inner.doStop()

    def refusal(self, peer: Any) -> str:
        """Return why the headers of this proxy are refused; empty if they are accepted."""
        if len(self.waiting) >= self.settings.most:
            return "too many connections wait for their headers"
        trusted = (getattr(peer, "host", None) or "") in self._trusted
        return "" if trusted else "it is not among the trusted proxies (proxy_trusted)"

    def refused(self, peer: Any, why: str) -> None:
        """Count a connection that is aborted, and log why for the first of an address."""
        self.refusals += 1
        host = getattr(peer, "host", None) or ""
        if self._by_address.note("connection, PROXY header", host):
            self._log.warn(
                "A connection from proxy {peer} was aborted: {why}",
                peer=host or "on a Unix socket",
                why=why,
            )


__all__ = [
    "UNIX",
    "ProxiedFactory",
    "ProxiedProtocol",
    "ProxySettings",
    "TrustedProxies",
    "parse_networks",
    "read_header",
]
