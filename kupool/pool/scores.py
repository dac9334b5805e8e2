"""Scores of addresses for too many rejected submissions. Pure: time is given as ``now``.

The score belongs to the address, over all of its sessions, and outlives them: a peer that
reconnects still has it. At a tenth of the limit a session is slowed down; at the limit the address
is banned.
"""

from __future__ import annotations

from collections.abc import Container
from enum import Enum, auto

from kupool.net.networks import network_of
from kupool.session.connection import Connection
from kupool.timing.buckets import Bucket
from kupool.timing.shared_buckets import SharedBuckets

#: The part of the limit from which on a session is slowed down.
THROTTLED_FROM = 0.1


class AddressStanding(Enum):
    """What to do with a session after a rejected submission."""

    FINE = auto()
    THROTTLED = auto()
    BANNED = auto()


class AddressScores:
    """The scores of all addresses; a score of ``most`` points decays to 0 in ``seconds``.

    A session through a proxy in ``proxies`` that does not name its peer has its own score, because
    other peers share the proxy's address.
    """

    def __init__(self, most: float, seconds: float, proxies: Container[str] = ()) -> None:
        self._most = most
        self._proxies = proxies
        self._scores = SharedBuckets(most / seconds, most) if most and seconds else None

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return 0 if self._scores is None else len(self._scores)

    def add(self, connection: Connection, now: float) -> AddressStanding:
        """Add a point to the score of a connection's address."""
        if self._scores is None:
            return AddressStanding.FINE
        bucket = self._bucket(connection, now)
        if not bucket.spend(now):
            return AddressStanding.BANNED
        return (
            AddressStanding.THROTTLED
            if bucket.level(now) < self._most * (1.0 - THROTTLED_FROM)
            else AddressStanding.FINE
        )

    def _bucket(self, connection: Connection, now: float) -> Bucket:
        assert self._scores is not None
        host = connection.host
        # A connection on a Unix socket has no address.
        key = network_of(host) if host and host not in self._proxies else connection.id
        bucket = self._scores.hold(key, now)
        bucket.holders -= 1
        return bucket


__all__ = ["THROTTLED_FROM", "AddressScores", "AddressStanding"]
