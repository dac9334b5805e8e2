"""The route ``/stats``: what was counted, by minute, by user, and in all.

Times are RFC 3339, and minutes those of UTC; minutes without any are left out. Without
``from`` and ``to`` a range is the last 15 minutes, the current one among them.

- ``/stats``, with any of ``from``, ``to``, ``top``: ``accepted_total`` (ever),
  ``sessions``, ``users``, ``job_id``, and of the range ``from``, ``to``, ``accepted``,
  ``per_minute`` [{``minute``, ``users``, ``count``}], ``top`` [{``username``,
  ``count``}], ``top_left_out`` (the users in the range that are not in ``top``),
  ``rejections`` {error text: count}.
- ``/stats?username=alice``, with or without a range, and with ``limit``, by default 100:
  ``username``, ``total`` (ever), and of the range ``from``, ``to``, ``accepted``,
  ``per_minute`` [{``minute``, ``count``}], ``workers`` [{``worker``, ``count``}], at most
  ``limit``, ``workers_left_out`` (how many more there are), ``rejections``. For a worker, as
  ``alice.rig1``, the last three are absent, and its numbers are those of the minutes
  that are not rolled up.
- ``/stats?minute=M``: ``minute``, ``users``, ``count``; with ``username``, of a user
  or a worker: ``username``, ``minute``, ``count``. A minute that has been rolled up
  is answered with 410.

``per_minute`` is null for ranges of more than a week. Where minutes of a range have
been rolled up, ``minutes_since`` says since when there are any: ``accepted`` and the
totals hold the older ones too, the rest does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from kupool.callbacks import called
from kupool.errors import ERRORS
from kupool.permissions.roles import WORKER
from kupool.stats import IStatsStore
from kupool.timing.waiting import Waiters
from kupool.web import IStatusSource
from kupool.web.access import NOBODY
from kupool.web.answers import ApiError
from kupool.web.queries import FOREVER, MAX_RANGE, MINUTE, Query, parse_query, show_time
from kupool.wire.messages import split_username

#: Seconds for which the total of all submissions is kept. The store adds up every row for it, and
#: its counts are committed about once a second anyway.
TOTAL_AGE = 1.0

_TEXTS = {error.code: error.text for error in ERRORS}


class Shared:
    """One result for all requests at the same time, and for a short time after."""

    def __init__(
        self, clock: IReactorTime, age: float, compute: Callable[[], Awaitable[int]]
    ) -> None:
        self._clock = clock
        self._age = age
        self._compute = compute
        self._known: tuple[float, int] | None = None
        self._computing = False
        self._waiting = Waiters[int]()

    async def get(self) -> int:
        """Return the result; fails if the computation fails, and then computes it again the next
        time.
        """
        if self._known is not None and self._clock.seconds() - self._known[0] < self._age:
            return self._known[1]
        if self._computing:
            return await self._waiting.wait()
        computed = self._waiting.wait()
        self._computing = True
        called(self._compute).addBoth(self._computed)
        return await computed

    def _computed(self, result: int | Failure) -> None:
        self._computing = False
        if not isinstance(result, Failure):
            self._known = (self._clock.seconds(), result)
        self._waiting.tell(result)


class Statistics:
    """Answers ``GET /stats``; ``wall`` returns seconds since the epoch."""

    def __init__(
        self,
        clock: IReactorTime,
        source: IStatusSource,
        stats: IStatsStore,
        wall: Callable[[], float],
    ) -> None:
        self._source: Any = source
        self._stats: Any = stats
        self._wall = wall
        self._accepted_total = Shared(clock, TOTAL_AGE, self._count_all)

    async def _count_all(self) -> int:
        return int(await self._stats.total(0, FOREVER))

    async def get(self, request: Request) -> object:
        """Answer a query."""
        query = _own(parse_query(request.args or {}, self._wall()), request)
        if query.minute is not None:
            return await self._minute(query, query.minute)
        if query.username:
            return await self._user(query)
        return await self._everyone(query)

    async def _minute(self, query: Query, minute: int) -> object:
        if minute < await self._stats.rolled_up_before():
            raise ApiError(
                410,
                f"minute: {show_time(minute)} has been rolled up; totals still hold it",
            )
        if query.username:
            user, worker = split_username(query.username)
            count = await self._stats.count(user, minute, worker)
            return {"username": query.username, "minute": show_time(minute), "count": count}
        rows = await self._stats.minutes(minute, minute + MINUTE)
        users, count = (rows[0][1], rows[0][2]) if rows else (0, 0)
        return {"minute": show_time(minute), "users": users, "count": count}

    async def _user(self, query: Query) -> object:
        stats, start, end = self._stats, query.start, query.end
        user, worker = split_username(query.username)
        answer = {"username": query.username, **await self._span(query)}
        if worker:
            # For workers, only the minutes that are not rolled up yet are available.
            answer["total"] = await stats.worker_total(user, worker, 0, FOREVER)
            answer["accepted"] = await stats.worker_total(user, worker, start, end)
        else:
            answer["total"] = await stats.total(0, FOREVER, user)
            answer["accepted"] = await stats.total(start, end, user)
        answer["per_minute"] = None
        if end - start <= MAX_RANGE:
            rows = await stats.series(user, start, end, worker)
            answer["per_minute"] = [{"minute": show_time(at), "count": n} for at, n in rows]
        if not worker:
            rows = await stats.workers(user, start, end, query.limit)
            answer["workers"] = [{"worker": name, "count": n} for name, n in rows]
            answer["workers_left_out"] = 0
            if len(rows) >= query.limit:
                answer["workers_left_out"] = await stats.names(start, end, user) - len(rows)
            answer["rejections"] = by_text(await stats.rejection_codes(start, end, user))
        return answer

    async def _everyone(self, query: Query) -> object:
        stats, start, end = self._stats, query.start, query.end
        now = self._source.overview()
        answer = {
            "accepted_total": await self._accepted_total.get(),
            "sessions": now.sessions,
            "users": now.users,
            "job_id": now.job_id,
            **(span := await self._span(query)),
            "accepted": None,
            "per_minute": None,
        }
        if end - start <= MAX_RANGE:
            rows = await stats.minutes(start, end)
            answer["accepted"] = sum(count for _, _, count in rows)
            answer["per_minute"] = [
                {"minute": show_time(at), "users": users, "count": count}
                for at, users, count in rows
            ]
        if answer["per_minute"] is None or "minutes_since" in span:
            answer["accepted"] = await stats.total(start, end)  # with what is rolled up
        top = await stats.top(query.top, start, end)
        answer["top"] = [{"username": name, "count": count} for name, count in top]
        answer["top_left_out"] = 0
        if len(top) >= query.top:
            answer["top_left_out"] = await stats.names(start, end) - len(top)
        answer["rejections"] = by_text(await stats.rejection_codes(start, end))
        return answer

    async def _span(self, query: Query) -> dict[str, object]:
        """Return the range, and the time from which it has minutes, if that is not its start."""
        span: dict[str, object] = {"from": show_time(query.start), "to": show_time(query.end)}
        since = await self._stats.rolled_up_before()
        if since > query.start:
            span["minutes_since"] = show_time(since)
        return span


def _own(query: Query, request: Any) -> Query:
    """Return the query that somebody may make: a worker sees only their own counts."""
    identity = getattr(request, "identity", NOBODY)
    if identity.role != WORKER:
        return query
    if not query.username:
        return query._replace(username=identity.user)
    if split_username(query.username)[0] != identity.user:
        raise ApiError(403, f"forbidden: {identity.user} sees the counts of {identity.user} alone")
    return query


def by_text(rows: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Add up rejections by the text of their error, the most frequent first."""
    found: Counter[str] = Counter()
    for code, count in rows:
        found[_TEXTS.get(code, str(code))] += count
    return dict(found.most_common())


__all__ = ["TOTAL_AGE", "Shared", "Statistics", "by_text"]
