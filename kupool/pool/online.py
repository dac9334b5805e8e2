"""The workers that are connected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from kupool.pool.session import Session
from kupool.session.connection import Connection
from kupool.timing.chunks import Breaks
from kupool.wire.messages import split_username


class Idle(NamedTuple):
    """Connected workers, as (user, worker), each once, and whether there are more."""

    names: list[tuple[str, str]]
    more: bool


class OnlineWorkers:
    """Looks workers up among the sessions.

    ``usernames`` counts the sessions of each full name, ``connections`` are all there are.
    """

    def __init__(
        self,
        clock: IReactorTime,
        usernames: Mapping[str, int],
        connections: Iterable[Connection],
    ) -> None:
        self._clock = clock
        self._usernames = usernames
        self._connections = connections

    def __contains__(self, username: str) -> bool:
        return username in self._usernames

    async def idle_for(self, seconds: float, *, user: str = "", most: int) -> Idle:
        """Return workers of one user, or of all, that had nothing accepted for so many seconds.

        Reading many sessions takes several turns of the reactor.
        """
        found: dict[tuple[str, str], None] = {}
        before = self._clock.seconds() - seconds
        breaks = Breaks(self._clock)
        for number, connection in enumerate(list(self._connections)):
            if not number % 100:
                await breaks.take()
            session = connection.context
            if not isinstance(session, Session) or session.last_accepted >= before:
                continue
            if user in ("", session.user):
                found[split_username(session.username)] = None
                if len(found) > most:
                    found.popitem()
                    return Idle(list(found), True)
        return Idle(list(found), False)


__all__ = ["Idle", "OnlineWorkers"]
