"""The SQL of questions about days and months, for both engines. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kupool.stats.fold import DAY
from kupool.stats.history import Order, WorkerQuery

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

    def series(self, username: str, worker: str, step: str, between: tuple[int, int]) -> Statement:
        """Return the statement for (time, count), oldest first."""
        sql, (start, end) = self._sql, between
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
        within, values = self._days(start, end)
        counts = f"SELECT username, accepted AS n FROM daily_users WHERE {within} AND accepted > 0"
        if end - start > DAY:  # else there is one row for each user
            counts = f"SELECT username, sum(n) AS n FROM ({counts}) AS counts GROUP BY username"
        return Statement(
            f"WITH totals AS MATERIALIZED ({counts}), mine AS (SELECT "
            f"coalesce((SELECT n FROM totals WHERE username = {self._sql.mark}), 0) AS n) "
            "SELECT CAST(n AS BIGINT), "
            "(SELECT count(*) FROM totals WHERE totals.n > mine.n), "
            "(SELECT count(*) FROM totals) FROM mine",
            (*values, username),
        )

    def _days(self, start: int, end: int) -> Statement:
        """Return the condition that a day is in a range."""
        at, time = self._sql.at, self._sql.time
        return Statement(f"day >= {at} AND day < {at}", (time(start), time(end)))

    # -- workers

    def workers(self, query: WorkerQuery) -> tuple[Statement, Statement]:
        """Return the statements for the number of workers, and for the rows of a page."""
        sql = self._sql
        found = self._searched(self._found(query), query.search)
        last = sql.seconds.format("last")
        page = Statement(
            f"SELECT username, worker, accepted, rejected, {last} FROM ({found.sql}) AS found "
            f"ORDER BY {self._order(query.sort, query.descending)} "
            f"LIMIT {sql.mark} OFFSET {sql.mark}",
            (*found.values, query.limit, query.offset),
        )
        return Statement(f"SELECT count(*) FROM ({found.sql}) AS found", found.values), page

    def _order(self, sort: Order, descending: bool) -> str:
        way = "DESC" if descending else "ASC"
        user, worker = f"username{self._sql.by_bytes}", f"worker{self._sql.by_bytes}"
        return {
            "accepted": f"accepted {way}, {user}, {worker}",
            "worker": f"{worker} {way}, {user}",
            "last": f"(last IS NULL), last {way}, {user}, {worker}",
            "user": f"{user} {way}, {worker} {way}",
        }[sort]

    def _searched(self, found: Statement, search: str) -> Statement:
        """Return those of some workers whose full name contains a text."""
        if not search:
            return found
        name = self._sql.lower.format("username || '.' || worker")
        return Statement(
            f"SELECT * FROM ({found.sql}) AS every "
            f"WHERE {self._sql.find}({name}, {self._sql.mark}) > 0",
            (*found.values, lowered(search)),
        )

    def _found(self, query: WorkerQuery) -> Statement:
        """Return the workers of some days with their sums, and those that are present."""
        sql = self._sql
        within = self._days(query.start, query.end)
        # The day as one of a list: then a name is found by the key, on each of the days.
        each = Statement(sql.is_day, (sql.days(range(query.start, query.end, DAY)),))
        mine: str = ""
        who: tuple[object, ...] = ()
        if query.user:
            mine, who, within = f" AND username = {sql.mark}", (query.user,), each
        columns = "accepted, rejected, last_minute AS last"
        if query.end - query.start > DAY:
            columns = (
                "CAST(sum(accepted) AS BIGINT) AS accepted, "
                "CAST(sum(rejected) AS BIGINT) AS rejected, max(last_minute) AS last"
            )
            group = " GROUP BY username, worker"
        else:
            group = ""
        counted = Statement(
            f"SELECT username, worker, {columns} FROM daily_workers "
            f"WHERE {within.sql}{mine}{group}",
            (*within.values, *who),
        )
        if not query.present:
            return counted
        same = "days.username = names.username AND days.worker = names.worker"
        return Statement(
            f"{counted.sql} UNION ALL SELECT username, worker, 0, 0, {sql.no_time} "
            f"FROM {sql.names} WHERE NOT EXISTS (SELECT 1 FROM daily_workers AS days "
            f"WHERE {each.sql} AND {same}){mine}",
            (*counted.values, *sql.pairs(query.present), *each.values, *who),
        )


_USERS = "submissions"
_WORKERS = "worker_submissions"


def lowered(text: str) -> str:
    """Return a text with small letters for the large ones of ASCII."""
    return "".join(c.lower() if c.isascii() else c for c in text)


__all__ = ["GRAINS", "Dialect", "HistorySql", "Statement", "lowered"]
