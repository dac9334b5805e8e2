"""Who is connected and what they did, and the totals of users since the start.

The figures of a session are counted where it happens: by its connection and its session. This only
reads them, when it is asked to, a part in each reactor turn. What a session did is added to the
totals of its user after it has ended.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from math import inf
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.activity.figures import SESSION_ORDERS, USER_ORDERS, SessionFigures, UserTotals
from kupool.activity.selection import Page, Selection
from kupool.errors import CloseReason
from kupool.net.interfaces import IClosingObserver
from kupool.pool.session import Session
from kupool.session.connection import Connection
from kupool.timing.chunks import in_chunks
from kupool.wire.messages import split_username

#: Seconds after which a session that has ended is added to the totals of its user even if
#: some of its submissions may still be undecided.
PATIENCE = 10.0

#: The longest text of why a session was closed, in characters.
LONGEST_REASON = 500


class _Left(NamedTuple):
    """A session that has ended; its submissions may still be undecided."""

    at: float
    session: Session
    traffic: UserTotals


@implementer(IClosingObserver)
class SessionBook:
    """Knows the sessions, and the totals of users.

    ``connections`` returns those of the server. ``settled`` says whether no submission waits for
    the log. ``wall`` returns seconds since the epoch. The totals of ``most`` users are kept after
    their last session; of more, the user who left first is forgotten, and counted in
    ``forgotten``.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        connections: Callable[[], Iterable[Connection]],
        settled: Callable[[], bool],
        *,
        most: int,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._connections = connections
        self._settled = settled
        self._most = most
        self._left: deque[_Left] = deque()
        #: The totals of sessions that have ended, the user who left last at the end.
        self._users: OrderedDict[str, UserTotals] = OrderedDict()
        self.forgotten = 0

    # IClosingObserver

    def opened(self, connection: Connection) -> None:
        """Do nothing: a connection becomes a session later."""

    def closing(self, connection: Connection, reason: CloseReason | None) -> None:
        """Note why the server closes a session."""
        session: Session | None = connection.context
        if session is not None and reason is not None:
            text = f"{reason.reason}: {reason.detail}" if reason.detail else reason.reason
            session.end = text[:LONGEST_REASON]

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Note what a session did."""
        session: Session | None = connection.context
        if session is not None:
            traffic = self._traffic(connection)
            self._left.append(_Left(self._clock.seconds(), session, traffic))
            self.look()

    def settle(self, connection: Connection) -> None:
        """Return nothing to wait for."""

    # totals

    def look(self) -> None:
        """Add the sessions that have ended to the totals of their users, once all of their
        submissions are decided.
        """
        until = inf if self._settled() else self._clock.seconds() - PATIENCE
        while self._left and self._left[0].at <= until:
            self._add(self._left.popleft())

    def _add(self, left: _Left) -> None:
        totals, before = UserTotals(), self._users.pop(left.session.user, None)
        if before is not None:  # a reader may have it
            totals.add(before)
        _count(totals, left)
        self._users[left.session.user] = totals
        while len(self._users) > self._most:
            self._users.popitem(last=False)
            self.forgotten += 1

    def _traffic(self, connection: Connection) -> UserTotals:
        totals = UserTotals()
        totals.messages_in, totals.messages_out = connection.messages_in, connection.messages_out
        totals.bytes_in, totals.bytes_out = connection.bytes_in, connection.bytes_out
        totals.last_seen = self._wall() - (self._clock.seconds() - connection.last_seen)
        return totals

    # reading

    async def sessions(
        self,
        wanted: Callable[[Session], bool] = lambda session: True,
        *,
        order: str = "since",
        page: Page | None = None,
    ) -> tuple[int, list[SessionFigures]]:
        """Return how many sessions are ``wanted``, and the figures of those on a page.

        ``order`` is one of :data:`SESSION_ORDERS`.
        """
        selected: Selection[tuple[Connection, Session]] = Selection(page or Page())
        key = SESSION_ORDERS[order]

        def look(connection: Connection) -> None:
            session: Session | None = connection.context
            if session is not None and wanted(session):
                selected.add(key(connection), (connection, session))

        await in_chunks(self._clock, self._connections(), look)
        ahead = self._wall() - self._clock.seconds()
        return selected.total, [_shown(*item, ahead) for item in selected.items()]

    async def users(
        self,
        wanted: Callable[[str], bool] = lambda user: True,
        *,
        order: str = "sessions",
        page: Page | None = None,
    ) -> tuple[int, list[tuple[str, UserTotals]]]:
        """Return how many users are ``wanted``, and the totals of those on a page.

        ``order`` is one of :data:`USER_ORDERS`.
        """
        self.look()
        found: dict[str, UserTotals] = {}
        # All at one moment: a session that ends meanwhile is counted once.
        connected = [each for each in self._connections() if each.context is not None]
        pending, ended = list(self._left), list(self._users.items())

        def read(connection: Connection) -> None:
            session: Session = connection.context
            if wanted(session.user):
                totals = found.setdefault(session.user, UserTotals())
                _count(totals, _Left(0.0, session, self._traffic(connection)))
                totals.sessions += 1
                totals.names = totals.names or set()
                totals.names.add(session.username)

        def add(left: _Left) -> None:
            if wanted(left.session.user):
                _count(found.setdefault(left.session.user, UserTotals()), left)

        def merge(item: tuple[str, UserTotals]) -> None:
            user, totals = item
            if wanted(user):
                found.setdefault(user, UserTotals()).add(totals)

        await in_chunks(self._clock, connected, read)
        await in_chunks(self._clock, pending, add)
        await in_chunks(self._clock, ended, merge)
        selected: Selection[tuple[str, UserTotals]] = Selection(page or Page())
        key = USER_ORDERS[order]
        await in_chunks(self._clock, found.items(), lambda item: selected.add(key(*item), item))
        return selected.total, selected.items()

    # ending

    async def close(
        self,
        wanted: Callable[[Connection], bool],
        reason: CloseReason,
        *,
        retry_after: float | None = None,
    ) -> int:
        """Close the sessions that are ``wanted``; returns how many.

        A ``retry_after`` in seconds tells their clients when they may come again.
        """
        closed = 0

        def look(connection: Connection) -> None:
            nonlocal closed
            if connection.context is not None and connection.sends and wanted(connection):
                connection.close(reason, retry_after)
                closed += 1

        await in_chunks(self._clock, self._connections(), look)
        return closed


def _count(totals: UserTotals, left: _Left) -> None:
    totals.add(left.traffic)
    totals.accepted += left.session.accepted
    totals.rejected += left.session.rejected


def _shown(connection: Connection, session: Session, ahead: float) -> SessionFigures:
    """Return the figures of a session; ``ahead`` is what the wall clock is ahead of the other."""
    user, worker = split_username(session.username)
    last = max(session.last_accepted, session.last_rejected)
    return SessionFigures(
        session.session_id.hex(),
        session.username,
        user,
        worker,
        session.peer,
        connection.framing.name,
        session.since or None,
        None if last == -inf else last + ahead,
        session.accepted,
        session.rejected,
        connection.messages_in,
        connection.messages_out,
        connection.bytes_in,
        connection.bytes_out,
    )


__all__ = ["LONGEST_REASON", "PATIENCE", "SessionBook"]
