"""The places of a server: who has one, and who gets no more. Pure.

One address, with IPv6 one /64 network, cannot have all places. Fewer are for connections that
have not authorized yet, so that silent ones leave places to others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

from kupool.net.networks import network_of

#: Connections without authorization that every address may have, however many others have.
FEW = 16


class Places:
    """Counts the connections of a server by their addresses."""

    def __init__(self) -> None:
        self._networks: Counter[str] = Counter()
        #: The connections that have not authorized, with their networks.
        self._strangers: dict[int, str] = {}
        self._strange: Counter[str] = Counter()
        self._taken = 0

    def __len__(self) -> int:
        return self._taken

    def enter(self, connection_id: int, host: str) -> None:
        """Give a connection a place; it counts as one that has not authorized."""
        network = network_of(host)
        self._taken += 1
        self._networks[network] += 1
        self._strangers[connection_id] = network
        self._strange[network] += 1

    def welcome(self, connection_id: int) -> None:
        """A connection has authorized."""
        network = self._strangers.pop(connection_id, None)
        if network is not None:
            _take(self._strange, network)

    def strangers(self, host: str) -> int:
        """Return how many connections of an address have not authorized."""
        return self._strange[network_of(host)]

    def leave(self, connection_id: int, host: str) -> None:
        """Free the place of a connection that has ended."""
        self.welcome(connection_id)
        self._taken -= 1
        _take(self._networks, network_of(host))

    def why_none(
        self,
        host: str,
        *,
        most: int,
        per_address: int,
        unauthorized: int,
        unauthorized_per_address: int,
        shared: Container[str],
    ) -> str:
        """Return why a connection from ``host`` gets no place; empty if it gets one.

        0 turns a limit off. Hosts in ``shared``, and an empty one, are never limited as one
        address, because many peers may be behind them. Once ``unauthorized`` connections have
        not authorized, an address gets a place only while it has fewer than :data:`FEW` of them.
        """
        if most and self._taken >= most:
            return "too many at once"
        if not host or host in shared:
            return ""
        network = network_of(host)
        if per_address and self._networks[network] >= per_address:
            return "too many of one address"
        strange = self._strange[network]
        if unauthorized_per_address and strange >= unauthorized_per_address:
            return "too many unauthorized of one address"
        if unauthorized and len(self._strangers) >= unauthorized and strange >= FEW:
            return "too many unauthorized at once"
        return ""


def _take(counts: Counter[str], network: str) -> None:
    counts[network] -= 1
    if not counts[network]:
        del counts[network]


__all__ = ["FEW", "Places"]
