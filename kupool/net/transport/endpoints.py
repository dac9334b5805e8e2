"""Parse the addresses of settings and make endpoints that listen there."""

from __future__ import annotations

import os
import re
import socket
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.posixbase import PosixReactorBase
from zope.interface import implementer

from kupool.net.endpoint_strings import is_port, parse_endpoint_string
from kupool.net.pem import NEEDS_TLS
from kupool.net.transport.certificates import (
    Certificates,
    ServerCertificate,
    parse_tls_address,
)
from kupool.net.transport.descriptors import DescriptorGroup
from kupool.net.transport.direct import DirectEndpoint
from kupool.net.transport.ports import RestingListeners
from kupool.net.transport.proxied import ProxiedFactory, ProxySettings

_SHORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]=]*):(?P<port>\d+)")

#: Kinds of endpoint whose short form looks like ``host:port``.
_KINDS = frozenset(("tcp", "tcp6", "ssl", "tls", "unix", "fd"))


class Address(NamedTuple):
    """A TCP address to listen on; an empty host means every IPv4 interface."""

    host: str
    port: int
    backlog: int = 1024

    def __str__(self) -> str:
        """Return the endpoint string."""
        kind = "tcp6" if ":" in self.host else "tcp"
        host = self.host.replace(":", "\\:")
        return f"{kind}:{self.port}:interface={host}:backlog={self.backlog}"


def parse_address(text: str) -> Address | None:
    """Parse a TCP address; returns None for another kind of endpoint.

    ``text`` is ``:8080``, ``host:8080``, ``[::1]:8080``, or a Twisted endpoint string such
    as ``tcp:8080:interface=127.0.0.1``. Raises :class:`ValueError`, which says what is
    wrong with it.
    """
    short = _SHORT.fullmatch(text)
    if short is not None and short["host"] not in _KINDS:
        return Address(short["host"].strip("[]"), _port(short["port"], text))
    if not re.match(r"[a-z0-9]+:", text):
        raise ValueError(f"{text!r} is neither host:port nor an endpoint such as tcp:8080")
    kind, plain, named = parse_endpoint_string(text)
    if kind not in ("tcp", "tcp6"):
        return None
    port = named.pop("port", plain[0] if plain else "")
    host = named.pop("interface", "::" if kind == "tcp6" else "")
    backlog = named.pop("backlog", "1024")
    if named or len(plain) > 1 or not re.fullmatch("[0-9]{1,9}", backlog):
        raise ValueError(f"{text!r}: expected {kind}:PORT[:interface=HOST][:backlog=N]")
    return Address(host, _port(port, text), int(backlog))


def _port(text: str, whole: str) -> int:
    if not is_port(text):
        raise ValueError(f"{whole!r}: a port is a number from 0 to 65535")
    return int(text)


#: Permissions of a Unix socket to which every user of the machine may connect.
EVERYBODY = 0o666

#: The prefix of an endpoint behind a proxy; the address to listen on follows.
_PROXIED = "haproxy:"


@implementer(IStreamServerEndpoint)
class ProxiedEndpoint:
    """An endpoint that accepts connections of proxies with a PROXY header."""

    def __init__(self, clock: Any, inner: IStreamServerEndpoint, settings: ProxySettings) -> None:
        self._clock = clock
        self._inner = inner
        self._settings = settings

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Start listening; fails as the inner endpoint does."""
        factory = ProxiedFactory(self._clock, protocolFactory, self._settings)
        return self._inner.listen(factory)


def endpoint_for(
    reactor: Any,
    text: str,
    group: DescriptorGroup | None = None,
    proxies: ProxySettings | None = None,
    *,
    certificates: Certificates | None = None,
    unix_mode: int = EVERYBODY,
) -> IStreamServerEndpoint:
    """Return the endpoint of an address or endpoint string; see :func:`parse_address`.

    TCP addresses use the direct transport if its ``group`` is given. An endpoint with
    ``haproxy:`` trusts the given ``proxies``. Certificates of ``ssl:`` endpoints are added
    to ``certificates``, if that is given. ``unix_mode`` are the permissions of a Unix socket whose
    address has no ``mode=``. Raises :class:`ValueError` for an invalid
    endpoint.
    """
    if text.startswith(_PROXIED):
        inner = endpoint_for(
            reactor,
            text.removeprefix(_PROXIED),
            group,
            certificates=certificates,
            unix_mode=unix_mode,
        )
        return ProxiedEndpoint(reactor, inner, proxies or ProxySettings())
    address = parse_address(text)
    if address is not None and group is not None:
        return DirectEndpoint(group, address.port, address.host, address.backlog)
    if address is not None:
        text = str(address)
    if isinstance(reactor, PosixReactorBase):
        reactor = RestingListeners(reactor)
    try:
        secure = parse_tls_address(text)
        if secure is not None:
            keep = certificates.get if certificates is not None else ServerCertificate
            return SSL4ServerEndpoint(
                reactor, secure.port, keep(secure.files), secure.backlog, secure.interface
            )
        full = _with_mode(text, unix_mode)
        endpoint: IStreamServerEndpoint = serverFromString(reactor, full)
    except (ValueError, TypeError, KeyError, IndexError, ImportError, OSError) as error:
        # Parsers raise different exceptions, and none of them contains the whole text.
        raise ValueError(f"{text!r}: {_explained(text, error)}") from error
    return endpoint


def _with_mode(text: str, mode: int) -> str:
    kind, _, named = parse_endpoint_string(text)
    return f"{text}:mode={mode:o}" if kind == "unix" and "mode" not in named else text


def _explained(text: str, error: Exception) -> str:
    if isinstance(error, ImportError) and text.startswith(("ssl:", "tls:")):
        return NEEDS_TLS
    if isinstance(error, OSError) and error.strerror:
        file = error.filename or ""
        return f"{os.fsdecode(file)}: {error.strerror}" if file else error.strerror
    return str(error)


def probe(text: str) -> None:
    """Check whether a TCP address can be listened on, and release it again.

    Other endpoints, and ports chosen by the system, are not checked. Raises
    :class:`twisted.internet.error.CannotListenError`.
    """
    text = text.removeprefix(_PROXIED)
    address = parse_address(text) if text else None
    if address is None or not address.port:
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address.host, address.port))
            sock.listen(1)
        except OSError as error:
            raise CannotListenError(address.host, address.port, error) from None
