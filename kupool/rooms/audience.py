"""The members of a room, and the queue of broadcasts to them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, NamedTuple, Protocol, TypeVar

from twisted.logger import Logger

from kupool.net.fan_out import FanOut
from kupool.rooms.peers import Peer
from kupool.session.publication import Publication
from kupool.timing.chunks import CHUNK


class Presence(NamedTuple):
    """A member as others see them; times are in seconds since the epoch."""

    user: str
    online: bool
    joined_at: float
    last_seen: float


class AudienceMember(Protocol):
    """A member who receives broadcasts on all of their connections."""

    user: str
    connections: list[Peer]


M = TypeVar("M", bound=AudienceMember)


class Audience(Generic[M]):
    """The ``members`` of one room by user, and the broadcasts that wait to be sent.

    At most ``limit`` broadcasts wait. ``code`` is the room's.
    """

    __slots__ = ("_code", "_limit", "_outgoing", "_work", "members")

    def __init__(self, code: str, limit: int) -> None:
        self.members: dict[str, M] = {}
        self._code = code
        self._limit = limit
        # Most rooms are idle: parts that only a busy room needs are made later.
        self._outgoing: FanOut[Peer] | None = None
        self._work = 0

    @property
    def dropped(self) -> int:
        """The number of messages dropped because members read slowly."""
        return 0 if self._outgoing is None else self._outgoing.dropped

    @property
    def pending(self) -> bool:
        """Whether broadcasts wait."""
        return self._outgoing is not None and self._outgoing.pending

    def send(
        self, publication: Publication, connections: list[Peer], *, later: bool = False
    ) -> bool:
        """Send to some connections, at once if they are few and ``later`` is False.

        Returns whether something waits for :meth:`run`.
        """
        if not connections:
            return False
        if self._outgoing is None:
            self._outgoing = FanOut(self._limit, failed=self._failed)
        budget = 0 if later or len(connections) > CHUNK else CHUNK
        self._work += self._outgoing.send(publication, connections, budget=budget)
        return self._outgoing.pending

    def connections(self, without: Collection[object] = ()) -> list[Peer]:
        """Return every connection of every member, except those of the users, members and
        connections in ``without``.
        """
        return [
            connection
            for member in self.members.values()
            if not without or (member.user not in without and member not in without)
            for connection in member.connections
            if not without or connection not in without
        ]

    def run(self, budget: int) -> int:
        """Send what waits, up to ``budget`` sends; returns the number of sends."""
        return 0 if self._outgoing is None else self._outgoing.run(budget)

    def _failed(self, connection: Peer) -> None:
        # Not with a logger of ours, and without the connection: a stored event would keep both
        # alive.
        Logger(__name__).failure("A message of room {code} could not be sent", code=self._code)

    def work_done(self) -> int:
        """Return the number of immediate sends since the last call."""
        work, self._work = self._work, 0
        return work


__all__ = ["Audience", "AudienceMember", "Presence"]
