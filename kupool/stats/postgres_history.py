"""Counts of days and months in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kupool.stats import MinuteCount
from kupool.stats.daily import DayCount, DayCounts
from kupool.stats.fold import DAY
from kupool.stats.history import (
    CountedBatch,
    IHistory,
    Rank,
    RolledUp,
    WorkerPage,
    WorkerQuery,
    WorkerRow,
)
from kupool.stats.history_sql import GRAINS, Dialect, HistorySql, Statement
from kupool.stats.positions import Span
from kupool.stats.postgres_writes import AT, chunks, columns, within
from kupool.storage.postgres import PostgresDatabase

_SQL = HistorySql(
    Dialect(
        mark="%s",
        at=f"({AT})",
        time=within,
        seconds="extract(epoch FROM {})::bigint",
        hour_of="date_trunc('hour', {})",
        is_day="day = ANY(ARRAY(SELECT to_timestamp(given) AT TIME ZONE 'UTC' "
        "FROM unnest(%s::bigint[]) AS given))",
        days=lambda days: [within(day) for day in days],
        names="unnest(%s::text[], %s::text[]) AS names (username, worker)",
        pairs=lambda pairs: ([user for user, _ in pairs], [worker for _, worker in pairs]),
        find="strpos",
        lower='lower(({}) COLLATE "C")',
        by_bytes=' COLLATE "C"',
        no_time="NULL::timestamp",
    )
)


@implementer(IHistory)
class PostgresStatsHistory:
    """Answers from the tables of ``storage/sql/postgres``."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    def series(
        self, username: str, worker: str, step: str, between: tuple[int, int]
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (time, count) of a user, or of one worker, oldest first."""
        return self._rows(_SQL.series(username, worker, step, between))

    def rejection_codes(
        self, username: str, worker: str, start: int, end: int
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (code, count) of the rejections of a user, or of one worker."""
        return self._rows(_SQL.rejection_codes(username, worker, start, end))

    def workers(self, query: WorkerQuery) -> Deferred[WorkerPage]:
        """Return workers with their counts in a range."""
        number, page = _SQL.workers(query)

        async def ask(cursor: Any) -> WorkerPage:
            await cursor.execute(*number)
            total = cursor.fetchone()[0]
            await cursor.execute(*page)
            return WorkerPage(total, [WorkerRow(*row) for row in cursor.fetchall()])

        return self._database.read(ask)

    def rank(self, username: str, start: int, end: int) -> Deferred[Rank]:
        """Return the place of a user by accepted submissions."""

        def ranked(rows: Sequence[tuple[int, int, int]]) -> Rank:
            accepted, more, number = rows[0]
            return Rank(more + 1 if accepted else 0, number, accepted)

        return self._rows(_SQL.rank(username, start, end)).addCallback(ranked)

    def rolled_up(self) -> Deferred[RolledUp]:
        """Return what has been rolled up."""
        rows = self._rows(
            Statement("SELECT grain, extract(epoch FROM before)::bigint FROM rollups")
        )
        return rows.addCallback(
            lambda found: RolledUp(dict(found).get("minute", 0), dict(found).get("hour", 0))
        )

    def batch(self, batch_id: str) -> Deferred[CountedBatch | None]:
        """Return a counted batch."""
        rows = self._rows(
            Statement(
                "SELECT extract(epoch FROM minute)::bigint, coalesce(position, 0), "
                "extract(epoch FROM applied_at)::bigint "
                "FROM applied_batches WHERE batch_id = %s",
                (batch_id,),
            )
        )
        return rows.addCallback(lambda found: CountedBatch(*found[0]) if found else None)

    def span(self, start: int, end: int) -> Deferred[Span | None]:
        """Return between which positions the batches of a range are."""
        rows = self._rows(
            Statement(
                "SELECT min(after_position), max(to_position) FROM counted_minutes "
                "WHERE minute >= %s AND minute < %s",
                (within(start), within(end)),
            )
        )
        return rows.addCallback(lambda found: None if found[0][0] is None else Span(*found[0]))

    def _rows(self, statement: Statement) -> Deferred[Any]:
        return self._database.query(*statement)


# -- writing, in the transaction of the caller


async def add_days(cursor: Any, counts: DayCounts) -> None:
    """Add to the days of users and of workers, which are sorted."""
    await _add(cursor, "daily_users", "day, username", counts.users)
    await _add(cursor, "daily_workers", "day, username, worker", counts.workers)


async def _add(cursor: Any, table: str, key: str, counts: Sequence[DayCount]) -> None:
    for chunk in chunks(counts):
        await cursor.execute(
            f"INSERT INTO {table} AS kept ({key}, accepted, rejected, last_minute) "
            f"SELECT {key}, accepted, rejected, last FROM (SELECT "
            "to_timestamp(at) AT TIME ZONE 'UTC' AS day, username, worker, accepted, rejected, "
            "CASE WHEN minute > 0 THEN to_timestamp(minute) AT TIME ZONE 'UTC' END AS last "
            "FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], "
            "%s::bigint[]) AS listed (at, username, worker, accepted, rejected, minute)) AS given "
            f"ON CONFLICT ({key}) DO UPDATE SET accepted = kept.accepted + excluded.accepted, "
            "rejected = kept.rejected + excluded.rejected, "
            "last_minute = greatest(kept.last_minute, excluded.last_minute)",
            columns(
                (within(c.day), c.username, c.worker, c.accepted, c.rejected, within(c.last))
                for c in chunk
            ),
        )


async def count_days_again(cursor: Any, rows: Sequence[MinuteCount]) -> None:
    """Make the days of some corrected rows again from the minutes, hours and days there are."""
    users = sorted({(within(row.minute // DAY * DAY), row.username, "") for row in rows})
    workers = sorted(
        {(within(row.minute // DAY * DAY), row.username, row.worker) for row in rows if row.worker}
    )
    for chunk in chunks(users):
        await _set(cursor, "daily_users", "day, username", (_USERS, chunk))
    for chunk in chunks(workers):
        await _set(cursor, "daily_workers", "day, username, worker", (_WORKERS, chunk))
    for chunk in chunks(users):
        await _set(cursor, "daily_workers", "day, username, worker", (_UNNAMED, chunk))


#: The keys of the days to count again.
_GIVEN = (
    "(SELECT to_timestamp(at) AT TIME ZONE 'UTC' AS day, username, worker "
    "FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS listed (at, username, worker)) AS given"
)


def _counted(table: str, same: str, sign: str = "") -> str:
    """Return the rows of the days that are given, with their counts."""
    return " UNION ALL ".join(
        f"SELECT day, given.username, given.worker, {sign}submission_count AS n, timestamp AS at "
        f"FROM given JOIN {table}{grain} AS counts ON counts.username = given.username {same} "
        "AND timestamp >= day AND timestamp < day + interval '1 day'"
        for grain in GRAINS
    )


_USERS = _counted("submissions", "")
_WORKERS = _counted("worker_submissions", "AND counts.worker = given.worker")
_UNNAMED = f"{_USERS} UNION ALL {_counted('worker_submissions', '', '-')}"


async def _set(cursor: Any, table: str, key: str, of: tuple[str, Sequence[Any]]) -> None:
    """Replace what was accepted on some days; rows without anything are deleted."""
    counted, keys = of
    listed = columns(iter(keys))
    given = f"WITH given AS (SELECT * FROM {_GIVEN})"
    await cursor.execute(
        f"{given} INSERT INTO {table} AS kept ({key}, accepted, rejected, last_minute) "
        f"SELECT {key}, sum(n)::bigint, 0, max(at) FROM ({counted}) AS counts "
        f"GROUP BY {key} HAVING sum(n) > 0 "
        f"ON CONFLICT ({key}) DO UPDATE SET accepted = excluded.accepted, "
        "last_minute = coalesce(kept.last_minute, excluded.last_minute)",
        listed,
    )
    same = " AND ".join(f"kept.{name} = given.{name}" for name in key.split(", "))
    sums = f"SELECT 1 FROM ({counted}) AS counts WHERE " + " AND ".join(
        f"counts.{name} = kept.{name}" for name in key.split(", ")
    )
    none = f"NOT EXISTS ({sums} HAVING sum(n) > 0)"
    await cursor.execute(
        f"{given} UPDATE {table} AS kept SET accepted = 0, last_minute = NULL FROM given "
        f"WHERE {same} AND {none}",
        listed,
    )
    await cursor.execute(
        f"{given} DELETE FROM {table} AS kept USING given "
        f"WHERE {same} AND kept.accepted = 0 AND kept.rejected = 0",
        listed,
    )


__all__ = ["PostgresStatsHistory", "add_days", "count_days_again"]
