"""The usage of a bus by users and addresses, over all of their connections. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kupool.bus.buffer import BufferOwner
from kupool.bus.settings import PeerLimits


class Share:
    """The usage of a user or an address: calls, their bytes of data, and topics with keys."""

    __slots__ = ("calls", "connections", "is_user", "name", "owner", "size", "topics")

    def __init__(self, is_user: bool, name: str) -> None:
        self.is_user = is_user
        self.name = name
        #: The owner of buffered messages, which may outlive all connections.
        self.owner = BufferOwner(is_user, name)
        self.connections = 0
        self.calls = self.size = self.topics = 0

    def refuses_topics(self, limits: PeerLimits, more: int) -> str:
        """Return which limit this many more topics and keys would exceed; empty if none."""
        most = limits.user_topics if self.is_user else limits.address_topics
        if most and self.topics + more > most:
            return f"topics of one {self.kind}"
        return ""

    @property
    def kind(self) -> str:
        """Whose share it is: a ``user`` or an ``address``."""
        return "user" if self.is_user else "address"


class Shares:
    """The shares of all users and addresses that have a connection."""

    def __init__(self) -> None:
        self._shares: dict[tuple[bool, str], Share] = {}

    def __len__(self) -> int:
        return len(self._shares)

    def join(self, user: str, address: str) -> tuple[Share, ...]:
        """Return the shares of a new connection; empty if it has neither user nor address."""
        found = []
        for key in ((True, user), (False, address)):
            if key[1]:
                share = self._shares.get(key)
                if share is None:
                    share = self._shares[key] = Share(*key)
                share.connections += 1
                found.append(share)
        return tuple(found)

    def leave(self, shares: Iterable[Share]) -> None:
        """Remove a connection, which has ended and uses nothing any more."""
        for share in shares:
            share.connections -= 1
            if not share.connections:
                del self._shares[share.is_user, share.name]


__all__ = ["Share", "Shares"]
