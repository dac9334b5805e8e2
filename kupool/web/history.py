"""The routes of what users and workers did over time.

Times are RFC 3339 in UTC. Who has the role ``worker`` sees their own user alone, which is also
the default of ``user`` and ``username`` then.

- ``GET /api/history?username=alice`` or ``alice.rig1``, with ``step`` (``minute``, ``hour`` or
  ``day``), ``from`` and ``to``: ``username``, ``step``, the range ``from`` and ``to`` in whole
  steps, ``points`` [{``at``, ``accepted``}] without steps that have none, ``rejections`` {error
  text: count} as long as they are kept, and ``rolled_up_before``: before that time there are points
  of longer steps only.
- ``GET /api/workers``, with ``user``, ``search``, ``sort``, ``order``, ``limit``, ``offset``,
  ``from`` and ``to``: ``from`` and ``to`` in whole days of UTC, ``total``, and ``workers``
  [{``user``, ``worker``, ``accepted``, ``rejected``, ``last``, ``online``}]: those with counts in
  the range, and, if it holds the current day, those that are connected. ``left_out`` says whether
  some that are connected without counts are missing.
- ``GET /api/rank?user=alice``, with ``from`` and ``to``: the same days, ``user``, ``rank`` (null
  without submissions), ``of``, ``accepted``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from twisted.web.server import Request

from kupool.permissions.roles import WORKER
from kupool.pool.online import OnlineWorkers
from kupool.pool.session import valid_username
from kupool.stats import IStatsStore
from kupool.stats.fold import DAY
from kupool.stats.history import STEPS, Order, WorkerQuery
from kupool.web.access import NOBODY
from kupool.web.answers import ApiError
from kupool.web.queries import (
    DEFAULT_LIMIT,
    FOREVER,
    MAX_LIMIT,
    MINUTE,
    parse_number,
    parse_time,
    show_time,
    single,
)
from kupool.web.statistics import by_text
from kupool.wire.messages import split_username

#: Seconds of a history without ``from``, and of the longest one, by step.
DEFAULT_SPANS = {"minute": DAY, "hour": 30 * DAY, "day": 365 * DAY}
LONGEST_SPANS = {"minute": 7 * DAY, "hour": 366 * DAY, "day": 3660 * DAY}

#: The longest range of a list of workers and of a rank, in seconds; that of one user's workers is
#: as long as a history by day.
LONGEST_LIST = 31 * DAY

#: The most workers without counts that are added to a list because they are connected.
MOST_IDLE = 1000

#: The highest number of rows that a list skips.
MAX_OFFSET = 999_999_999


class HistoryPages:
    """Answers the routes; ``wall`` returns seconds since the epoch."""

    def __init__(
        self, stats: IStatsStore, online: OnlineWorkers, wall: Callable[[], float]
    ) -> None:
        self._history: Any = stats.history
        self._online = online
        self._wall = wall

    async def history(self, request: Request) -> object:
        """``GET /api/history``: the counts of a user or a worker over time."""
        given = single(request.args or {}, ("username", "from", "to", "step"))
        username = own_name(request, given, "username")
        step = given.get("step", "hour")
        if step not in STEPS:
            raise ApiError(400, f"step: must be one of {', '.join(STEPS)}")
        start, end = self._range(given, STEPS[step], DEFAULT_SPANS[step])
        _require_span("to", start, end, LONGEST_SPANS[step])
        user, worker = split_username(username)
        points = await self._history.series(user, worker, step, (start, end))
        codes = await self._history.rejection_codes(user, worker, start, end)
        before = (await self._history.rolled_up()).before(step)
        return {
            "username": username,
            "step": step,
            "from": show_time(start),
            "to": show_time(end),
            "points": [{"at": show_time(at), "accepted": count} for at, count in points],
            "rejections": by_text(codes),
            "rolled_up_before": show_time(before) if before > start else None,
        }

    async def workers(self, request: Request) -> object:
        """``GET /api/workers``: the workers of some days, and those that are connected."""
        known = ("user", "search", "sort", "order", "limit", "offset", "from", "to")
        given = single(request.args or {}, known)
        user = own_user(request, given.get("user", ""))
        start, end = self._range(given, DAY, DAY)
        _require_span("to", start, end, LONGEST_SPANS["day"] if user else LONGEST_LIST)
        sort, order = given.get("sort", "accepted"), given.get("order", "")
        if sort not in get_args(Order):
            raise ApiError(400, f"sort: must be one of {', '.join(get_args(Order))}")
        if order not in ("", "asc", "desc"):
            raise ApiError(400, "order: must be asc or desc")
        query = WorkerQuery(
            start,
            end,
            user,
            given.get("search", ""),
            sort,  # type: ignore[arg-type]
            order == "desc" or (not order and sort in ("accepted", "last")),
            parse_number("limit", given.get("limit"), DEFAULT_LIMIT, MAX_LIMIT),
            parse_number("offset", given.get("offset"), 0, MAX_OFFSET, least=0),
        )
        more, now = False, self._wall()
        if start <= now < end:
            idle = await self._online.idle_for(now - start, user=user, most=MOST_IDLE)
            query, more = query._replace(present=idle.names), idle.more
        page = await self._history.workers(query)
        return {
            "from": show_time(start),
            "to": show_time(end),
            "total": page.total,
            "left_out": more,
            "workers": [
                {
                    "user": row.username,
                    "worker": row.worker,
                    "accepted": row.accepted,
                    "rejected": row.rejected,
                    "last": None if row.last is None else show_time(row.last),
                    "online": _full_name(row.username, row.worker) in self._online,
                }
                for row in page.rows
            ],
        }

    async def rank(self, request: Request) -> object:
        """``GET /api/rank``: the place of a user among all."""
        given = single(request.args or {}, ("user", "from", "to"))
        user = own_name(request, given, "user")
        start, end = self._range(given, DAY, DAY)
        _require_span("to", start, end, LONGEST_LIST)
        found = await self._history.rank(user, start, end)
        return {
            "user": user,
            "from": show_time(start),
            "to": show_time(end),
            "rank": found.rank or None,
            "of": found.of,
            "accepted": found.accepted,
        }

    def _range(self, given: Mapping[str, str], step: int, span: int) -> tuple[int, int]:
        """Return the range in whole steps; by default the last ``span`` seconds until now."""
        return parse_range(given, self._wall(), step, span)


def parse_range(given: Mapping[str, str], now: float, step: int, span: int) -> tuple[int, int]:
    """Return the range of ``from`` and ``to`` in whole steps; raises :class:`ApiError`.

    Without ``to`` it ends with the current step, without ``from`` it has ``span`` seconds.
    """
    end = int(now) // step * step + step
    if "to" in given:
        at, whole = parse_time("to", given["to"])
        end = -(-(at if whole else at + MINUTE) // step) * step
    start = end - span
    if "from" in given:
        start = parse_time("from", given["from"])[0] // step * step
    if start >= end:
        raise ApiError(400, "from: must be before to")
    return max(0, start), min(end, FOREVER)


def _require_span(name: str, start: int, end: int, most: int) -> None:
    if end - start > most:
        raise ApiError(400, f"{name}: the range must not be longer than {most // DAY} days")


def own_user(request: Any, user: str) -> str:
    """Return the user that somebody may see; empty for all; raises :class:`ApiError`.

    Who has the role ``worker`` sees only their own.
    """
    if user and not valid_username(user):
        raise ApiError(400, "user: must be 1 to 255 characters, none of them control ones")
    identity = getattr(request, "identity", NOBODY)
    if identity.role != WORKER:
        return user
    if user not in ("", identity.user):
        raise ApiError(403, f"forbidden: {identity.user} sees the counts of {identity.user} alone")
    return str(identity.user)


def own_name(request: Any, given: Mapping[str, str], name: str) -> str:
    """Return a name that must be given, or is that of who asks; raises :class:`ApiError`.

    It may have a worker, unless it is that of the parameter ``user``.
    """
    text = given.get(name, "")
    if text and not valid_username(text):
        raise ApiError(400, f"{name}: must be 1 to 255 characters, none of them control ones")
    user = split_username(text)[0] if name == "username" else text
    mine = own_user(request, user)
    if not mine:
        raise ApiError(400, f"{name}: missing")
    return text or mine


def _full_name(user: str, worker: str) -> str:
    return f"{user}.{worker}" if worker else user


__all__ = ["HistoryPages", "own_name", "own_user", "parse_range"]
