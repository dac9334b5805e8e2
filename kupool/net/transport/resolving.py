"""Resolve a host name to the addresses to listen on, without blocking the reactor."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from kupool.net.transport.endpoints import Address, parse_address


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects the addresses of one name."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.done: Deferred[list[Any]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Do nothing."""

    def addressResolved(self, address: IAddress) -> None:
        """Add an address."""
        self.found.append(address)

    def resolutionComplete(self) -> None:
        """Finish: all addresses are known."""
        self.done.callback(self.found)


async def resolved(reactor: Any, text: str) -> list[Address]:
    """Return the addresses of the host in ``text``, an address to listen on.

    ``name:port`` gives all addresses, IPv4 first; ``tcp:`` or ``tcp6:`` gives those of that
    kind. The list is empty if there is no name to resolve. Raises ``CannotListenError`` for
    a name without an address, and :class:`ValueError` as ``parse_address`` does.
    """
    address = parse_address(text)
    if address is None or not address.host:
        return []
    try:
        ip_address(address.host.partition("%")[0])
    except ValueError:
        pass
    else:
        return []
    addresses = _Addresses()
    reactor.nameResolver.resolveHostName(addresses, address.host, address.port)
    kind = text.partition(":")[0]
    wanted = {"tcp": (False,), "tcp6": (True,)}.get(kind, (False, True))
    found = {a.host: ":" in a.host for a in await addresses.done}
    hosts = [host for six in wanted for host in found if found[host] is six]
    if not hosts:
        which = f"{kind} address" if len(wanted) == 1 else "address"
        cause = DNSLookupError(f"no {which} for {address.host!r}")
        raise CannotListenError(address.host, address.port, cause)
    return [address._replace(host=host) for host in hosts]


__all__ = ["resolved"]
