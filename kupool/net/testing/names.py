"""Name resolution in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

#: The addresses of a name that is not in the mapping.
HERE = ("127.0.0.1",)


@implementer(IHostResolution)
class _Resolution:
    """A name resolution, which is complete as soon as it has begun."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Do nothing: it is already complete."""


@implementer(IHostnameResolver)
class MemoryNames:
    """Resolves names at once, by a mapping of names to IPv4 or IPv6 addresses."""

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self._names = names

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[Any] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Pass the addresses of a name to the receiver."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        for host in self._names.get(hostName, HERE):
            kind: Any = IPv6Address if ":" in host else IPv4Address
            if addressTypes is None or kind in addressTypes:
                resolutionReceiver.addressResolved(kind("TCP", host, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


__all__ = ["HERE", "MemoryNames"]
