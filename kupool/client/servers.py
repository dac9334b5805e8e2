"""Parse the server addresses of users, and make endpoints that connect to them."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.interfaces import IStreamClientEndpoint

from kupool.net.dialling.dialler import Place
from kupool.net.dialling.tls import client_endpoint

_SHORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]=]*):(?P<port>\d+)")
_KIND = re.compile(r"[a-z][a-z0-9+]*:.")

#: Kinds of endpoint whose short form looks like ``host:port``.
_KINDS = frozenset(("tcp", "tcp6", "ssl", "tls", "unix"))


def parse_server(reactor: Any, text: str, timeout: float = 10.0) -> Place:
    """Return the place of a server address.

    ``text`` is ``host:8080``, ``:8080`` for this machine, ``[::1]:8080``, or a Twisted
    client endpoint string such as ``tcp:host=a.example:port=8080``, ``tls:...`` or
    ``unix:/run/kupool.sock``. ``timeout``, in seconds, limits one attempt to connect.
    Raises :class:`ValueError`, which says what is wrong.
    """
    short = _SHORT.fullmatch(text)
    if short is not None and short["host"] not in _KINDS:
        port = int(short["port"])
        if not 0 < port < 65536:
            raise ValueError(f"{text!r}: a port is a number from 1 to 65535")
        host = short["host"].strip("[]") or "localhost"
        try:
            host.encode("idna")
        except UnicodeError:
            raise ValueError(f"{text!r} has no valid host name") from None
        return Place(text, _tcp(reactor, host, port, timeout))
    if not _KIND.match(text):
        raise ValueError(f"{text!r} is neither host:port nor an endpoint such as tls:host:8080")
    return Place(text, client_endpoint(reactor, text, timeout))


def _tcp(reactor: Any, host: str, port: int, timeout: float) -> IStreamClientEndpoint:
    kind: Any = HostnameEndpoint
    if isIPAddress(host):
        kind = TCP4ClientEndpoint
    elif isIPv6Address(host):
        kind = TCP6ClientEndpoint
    endpoint: IStreamClientEndpoint = kind(reactor, host, port, timeout=timeout)
    return endpoint
