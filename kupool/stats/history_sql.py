"""The SQL of questions about days and months, for both engines. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kupool.stats.fold import DAY
from kupool.stats.history import Order, WorkerQuery, split_days

#: The suffixes of the tables of minutes, hours and days.
GRAINS = ("", "_hour", "_day")


@dataclass(frozen=True)
class Dialect:
    """What differs between the engines.

    ``mark`` stands for a value, ``at`` for a time as ``time`` returns it, and ``seconds`` makes
    seconds since the epoch of a column. ``day_of`` and ``hour_of`` make the start of the day and of
    the hour. ``is_day`` is a condition that the day is one of those that ``days`` returns.
    ``names`` is a table of (user, worker) of the values that ``pairs`` returns. ``find`` is the
    function for the place of a text in another, ``lower`` makes small letters of ASCII, and
    ``by_bytes`` is the order of texts.
    """

    mark: str
    at: str
    time: Callable[[int], object]
    seconds: str
    hour_of: str
    is_day: str
    days: Callable[[Sequence[int]], object]
    names: str
    pairs: Callable[[Sequence[tuple[str, str]]], tuple[object, ...]]
    find: str
    lower: str
    by_bytes: str
    no_time: str = "NULL"


class Statement(NamedTuple):
    """A statement and its values."""

    sql: str
    values: tuple[object, ...] = ()


def _joined(parts: Sequence[Statement]) -> Statement:
    return Statement(
        " UNION ALL ".join(part.sql for part in parts),
        tuple(value for part in parts for value in part.values),
    )


class HistorySql:
    """Makes the statements in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._sql = dialect

    def _within(self, start: int, end: int) -> Statement:
        """Return the condition that a timestamp is in a range."""
        at, time = self._sql.at, self._sql.time
        return Statement(f"timestamp >= {at} AND timestamp < {at}", (time(start), time(end)))

    def _of(self, username: str, worker: str, *, daily: bool = False) -> tuple[str, Statement]:
        """Return the table of a user or of a worker, and the condition that it is theirs."""
        mark = self._sql.mark
        users, workers = ("daily_users", "daily_workers") if daily else (_USERS, _WORKERS)
        if worker:
            where = f"username = {mark} AND worker = {mark}"
            return workers, Statement(where, (username, worker))
        return users, Statement(f"username = {mark}", (username,))

    def series(self, username: str, worker: str, step: str, start: int, end: int) -> Statement:
        """Return the statement for (time, count), oldest first."""
        sql = self._sql
        if step == "day":
            table, where = self._of(username, worker, daily=True)
            return Statement(
                f"SELECT {sql.seconds.format('day')}, accepted FROM {table} "
                f"WHERE {sql.is_day} AND {where.sql} AND accepted > 0 ORDER BY day",
                (sql.days(range(start, end, DAY)), *where.values),
            )
        table, where = self._of(username, worker)
        within = self._within(start, end)
        values = (*where.values, *within.values)
        if step == "minute":
            return Statement(
                f"SELECT {sql.seconds.format('timestamp')}, submission_count FROM {table} "
                f"WHERE {where.sql} AND {within.sql} ORDER BY timestamp",
                values,
            )
        hour = sql.hour_of.format("timestamp")
        return Statement(
            f"SELECT {sql.seconds.format('at')}, CAST(sum(n) AS BIGINT) FROM ("
            f"SELECT {hour} AS at, submission_count AS n FROM {table} "
            f"WHERE {where.sql} AND {within.sql} "
            f"UNION ALL SELECT timestamp, submission_count FROM {table}_hour "
            f"WHERE {where.sql} AND {within.sql}) AS counts GROUP BY at ORDER BY at",
            values * 2,
        )

    def rejection_codes(self, username: str, worker: str, start: int, end: int) -> Statement:
        """Return the statement for (code, count), highest first."""
        _, where = self._of(username, worker)
        within = self._within(start, end)
        return Statement(
            "SELECT code, CAST(sum(rejection_count) AS BIGINT) "
            f"FROM {'worker_rejections' if worker else 'rejections'} "
            f"WHERE {where.sql} AND {within.sql} GROUP BY code ORDER BY 2 DESC, 1",
            (*where.values, *within.values),
        )

    # -- the rank

    def rank(self, username: str, start: int, end: int) -> Statement:
        """Return the statement for one row: the user's count, how many have more, and how many
        have any.
        """
        sql = self._sql
        days, edges = split_days(start, end)
        parts = []
        if days:
            parts.append(
                Statement(
                    "SELECT username, accepted AS n FROM daily_users "
                    f"WHERE day >= {sql.at} AND day < {sql.at} AND accepted > 0",
                    (sql.time(days.start), sql.time(days.stop)),
                )
            )
        for edge in edges:
            within = self._within(*edge)
            parts += [
                Statement(
                    "SELECT username, submission_count AS n "
                    f"FROM {_USERS}{grain} WHERE {within.sql}",
                    within.values,
                )
                for grain in GRAINS
            ]
        counts = _joined(parts)
        if len(days) != 1 or edges:  # else there is one row for each user
            counts = counts._replace(
                sql=f"SELECT username, sum(n) AS n FROM ({counts.sql}) AS counts GROUP BY username"
            )
        return Statement(
            f"WITH totals AS MATERIALIZED ({counts.sql}), mine AS (SELECT "
            f"coalesce((SELECT n FROM totals WHERE username = {sql.mark}), 0) AS n) "
            "SELECT CAST(n AS BIGINT), "
            "(SELECT count(*) FROM totals WHERE totals.n > mine.n), "
            "(SELECT count(*) FROM totals WHERE totals.n > 0) FROM mine",
            (*counts.values, username),
        )

    # -- workers

    def workers(self, query: WorkerQuery) -> tuple[Statement, Statement]:
        """Return the statements for the number of workers, and for the rows of a page."""
        sql = self._sql
        found, where = self._found(query)
        last = sql.seconds.format("last")
        page = Statement(
            f"SELECT username, worker, accepted, rejected, {last} FROM ({found.sql}) AS found "
            f"{where.sql} ORDER BY {self._order(query.sort, query.descending)} "
            f"LIMIT {sql.mark} OFFSET {sql.mark}",
            (*found.values, *where.values, query.limit, query.offset),
        )
        number = Statement(
            f"SELECT count(*) FROM ({found.sql}) AS found {where.sql}",
            (*found.values, *where.values),
        )
        return number, page

    def _order(self, sort: Order, descending: bool) -> str:
        way = "DESC" if descending else "ASC"
        user, worker = f"username{self._sql.by_bytes}", f"worker{self._sql.by_bytes}"
        return {
            "accepted": f"accepted {way}, {user}, {worker}",
            "worker": f"{worker} {way}, {user}",
            "last": f"(last IS NULL), last {way}, {user}, {worker}",
            "user": f"{user} {way}, {worker} {way}",
        }[sort]

    def _found(self, query: WorkerQuery) -> tuple[Statement, Statement]:
        """Return the workers with their sums, and the condition that they match the search."""
        sql = self._sql
        where = Statement("")
        if query.search:
            name = "CASE WHEN worker = '' THEN username ELSE username || '.' || worker END"
            where = Statement(
                f"WHERE {sql.find}({sql.lower.format(name)}, {sql.mark}) > 0",
                (lowered(query.search),),
            )
        parts = list(self._parts(query))
        joined = _joined(parts)
        if len(parts) == 1 and len(split_days(query.start, query.end)[0]) == 1:
            return joined, where
        return joined._replace(
            sql="SELECT username, worker, CAST(sum(accepted) AS BIGINT) AS accepted, "
            "CAST(sum(rejected) AS BIGINT) AS rejected, max(last) AS last "
            f"FROM ({joined.sql}) AS parts GROUP BY username, worker"
        ), where

    def _parts(self, query: WorkerQuery) -> Iterator[Statement]:
        sql = self._sql
        mine = f" AND username = {sql.mark}" if query.user else ""
        who = (query.user,) if query.user else ()
        days, edges = split_days(query.start, query.end)
        if days:
            condition, values = (
                f"day >= {sql.at} AND day < {sql.at}",
                (
                    sql.time(days.start),
                    sql.time(days.stop),
                ),
            )
            if query.user:  # a few rows of each day, found by the key
                condition, values = sql.is_day, (sql.days(days),)  # type: ignore[assignment]
            yield Statement(
                "SELECT username, worker, accepted, rejected, last_minute AS last "
                f"FROM daily_workers WHERE {condition}{mine}",
                (*values, *who),
            )
        for edge in edges:
            yield from self._edge(edge, mine, who)
        if query.present:
            yield Statement(
                f"SELECT username, worker, 0, 0, {sql.no_time} FROM {sql.names} WHERE true{mine}",
                (*sql.pairs(query.present), *who),
            )

    def _edge(self, edge: tuple[int, int], mine: str, who: tuple[str, ...]) -> Iterator[Statement]:
        """Yield the workers of a part of a day."""
        within = self._within(*edge)
        values = (*within.values, *who)
        for grain in GRAINS:
            yield Statement(
                "SELECT username, worker, submission_count AS accepted, 0 AS rejected, "
                f"timestamp AS last FROM {_WORKERS}{grain} WHERE {within.sql}{mine}",
                values,
            )
            yield self._unnamed(
                ("submission_count", f"{_USERS}{grain}", f"{_WORKERS}{grain}"),
                "sum(n), 0, timestamp",
                Statement(f"{within.sql}{mine}", values),
            )
        yield Statement(
            f"SELECT username, worker, 0, rejection_count, {self._sql.no_time} "
            f"FROM worker_rejections WHERE {within.sql}{mine}",
            values,
        )
        yield self._unnamed(
            ("rejection_count", "rejections", "worker_rejections"),
            f"0, sum(n), {self._sql.no_time}",
            Statement(f"username <> '' AND {within.sql}{mine}", values),
        )

    def _unnamed(self, of: tuple[str, str, str], columns: str, where: Statement) -> Statement:
        """Return what users did without the name of a worker."""
        column, users, workers = of
        return Statement(
            f"SELECT username, '', {columns} FROM ("
            f"SELECT username, timestamp, {column} AS n FROM {users} WHERE {where.sql} UNION ALL "
            f"SELECT username, timestamp, -{column} FROM {workers} WHERE {where.sql}) AS counts "
            "GROUP BY username, timestamp HAVING sum(n) > 0",
            where.values * 2,
        )


_USERS = "submissions"
_WORKERS = "worker_submissions"


def lowered(text: str) -> str:
    """Return a text with small letters for the large ones of ASCII."""
    return "".join(c.lower() if c.isascii() else c for c in text)


__all__ = ["GRAINS", "Dialect", "HistorySql", "Statement", "lowered"]
