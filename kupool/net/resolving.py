"""From the name of a host to the address to listen on, without holding up the reactor."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from kupool.net.endpoints import parse_address


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects the addresses of one name."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.done: Deferred[list[Any]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing is known yet."""

    def addressResolved(self, address: IAddress) -> None:
        """Keep one address."""
        self.found.append(address)

    def resolutionComplete(self) -> None:
        """All addresses are known."""
        self.done.callback(self.found)


async def resolved(reactor: Any, text: str) -> str:
    """Return ``text``, an address to listen on, with the host's name resolved.

    IPv4 comes first where a name has both. Raises ``CannotListenError`` for a name
    without an address, and :class:`ValueError` as ``parse_address`` does.
    """
    address = parse_address(text)
    if address is None or not address.host:
        return text
    try:
        ip_address(address.host.partition("%")[0])
    except ValueError:
        pass
    else:
        return text
    addresses = _Addresses()
    reactor.nameResolver.resolveHostName(addresses, address.host, address.port)
    found = [a.host for a in await addresses.done]
    if not found:
        cause = DNSLookupError(f"no address for {address.host!r}")
        raise CannotListenError(address.host, address.port, cause)
    host = min(found, key=lambda host: ":" in host).replace(":", "\\:")
    kind = "tcp6" if ":" in host else "tcp"
    return f"{kind}:{address.port}:interface={host}:backlog={address.backlog}"


__all__ = ["resolved"]
