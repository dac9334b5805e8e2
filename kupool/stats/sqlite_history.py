"""Counts of days and months in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
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
from kupool.stats.sqlite_times import stamp

#: Does some reading with a connection.
Read = Callable[[Callable[[sqlite3.Connection], Any]], Deferred[Any]]

_SQL = HistorySql(
    Dialect(
        mark="?",
        at="?",
        time=stamp,
        seconds="CAST(strftime('%s', {}) AS INTEGER)",
        hour_of="strftime('%Y-%m-%d %H:00:00', {})",
        is_day="day IN (SELECT value FROM json_each(?))",
        days=lambda days: json.dumps([stamp(day) for day in days]),
        names="(SELECT json_extract(value, '$[0]') AS username, "
        "json_extract(value, '$[1]') AS worker FROM json_each(?)) AS names",
        pairs=lambda pairs: (json.dumps(list(pairs)),),
        find="instr",
        lower="lower({})",
        by_bytes="",
    )
)


@implementer(IHistory)
class SqliteStatsHistory:
    """Answers from the tables of ``storage/sql/store``; ``read`` runs a query."""

    def __init__(self, read: Read) -> None:
        self._read = read

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

        def ask(connection: sqlite3.Connection) -> WorkerPage:
            (total,) = connection.execute(*number).fetchone()
            rows = connection.execute(*page).fetchall()
            return WorkerPage(total, [WorkerRow(*row) for row in rows])

        return self._read(ask)

    def rank(self, username: str, start: int, end: int) -> Deferred[Rank]:
        """Return the place of a user by accepted submissions."""

        def ranked(rows: Sequence[tuple[int, int, int]]) -> Rank:
            accepted, more, number = rows[0]
            return Rank(more + 1 if accepted else 0, number, accepted)

        return self._rows(_SQL.rank(username, start, end)).addCallback(ranked)

    def rolled_up(self) -> Deferred[RolledUp]:
        """Return what has been rolled up."""
        rows = self._rows(
            Statement("SELECT grain, CAST(strftime('%s', before) AS INTEGER) FROM rollups")
        )
        return rows.addCallback(
            lambda found: RolledUp(dict(found).get("minute", 0), dict(found).get("hour", 0))
        )

    def batch(self, batch_id: str) -> Deferred[CountedBatch | None]:
        """Return a counted batch."""
        rows = self._rows(
            Statement(
                "SELECT CAST(strftime('%s', minute) AS INTEGER), coalesce(position, 0), "
                "CAST(strftime('%s', applied_at) AS INTEGER) "
                "FROM applied_batches WHERE batch_id = ?",
                (batch_id,),
            )
        )
        return rows.addCallback(lambda found: CountedBatch(*found[0]) if found else None)

    def span(self, start: int, end: int) -> Deferred[Span | None]:
        """Return between which positions the batches of a range are."""
        rows = self._rows(
            Statement(
                "SELECT min(after_position), max(to_position) FROM counted_minutes "
                "WHERE minute >= ? AND minute < ?",
                (start, end),
            )
        )
        return rows.addCallback(lambda found: None if found[0][0] is None else Span(*found[0]))

    def _rows(self, statement: Statement) -> Deferred[Any]:
        return self._read(lambda connection: connection.execute(*statement).fetchall())


# -- writing, in the transaction of the caller


def add_days(connection: sqlite3.Connection, counts: DayCounts) -> None:
    """Add to the days of users and of workers."""
    _add(connection, "daily_users", "day, username", _rows_of(counts.users, named=False))
    _add(connection, "daily_workers", "day, username, worker", _rows_of(counts.workers, named=True))


def _add(
    connection: sqlite3.Connection, table: str, key: str, rows: Iterable[tuple[object, ...]]
) -> None:
    marks = ", ".join("?" * (len(key.split(",")) + 3))
    connection.executemany(
        f"INSERT INTO {table} ({key}, accepted, rejected, last_minute) VALUES ({marks}) "
        f"ON CONFLICT ({key}) DO UPDATE SET accepted = accepted + excluded.accepted, "
        "rejected = rejected + excluded.rejected, last_minute = "
        "max(coalesce(last_minute, excluded.last_minute), "
        "coalesce(excluded.last_minute, last_minute))",
        rows,
    )


def _rows_of(counts: Sequence[DayCount], *, named: bool) -> Iterable[tuple[object, ...]]:
    for day, username, worker, accepted, rejected, last in counts:
        key = (stamp(day), username, worker) if named else (stamp(day), username)
        yield (*key, accepted, rejected, stamp(last) if last else None)


def count_days_again(connection: sqlite3.Connection, rows: Iterable[MinuteCount]) -> None:
    """Make the days of some corrected rows again from the minutes, hours and days there are."""
    workers: dict[tuple[int, str], set[str]] = {}
    for row in rows:
        workers.setdefault((row.minute // DAY * DAY, row.username), set()).add(row.worker)
    for (day, username), names in workers.items():
        total, last = _counted(connection, "submissions", day, {"username": username})
        _set(connection, "daily_users", day, {"username": username}, counted=(total, last))
        for worker in names - {""}:
            of = {"username": username, "worker": worker}
            found = _counted(connection, "worker_submissions", day, of)
            _set(connection, "daily_workers", day, of, counted=found)
        named, _ = _counted(connection, "worker_submissions", day, {"username": username})
        unnamed = (max(0, total - named), last)
        _set(
            connection, "daily_workers", day, {"username": username, "worker": ""}, counted=unnamed
        )


def _counted(
    connection: sqlite3.Connection, table: str, day: int, of: dict[str, str]
) -> tuple[int, str | None]:
    """Return the submissions of a day, and the time of the newest."""
    same = " AND ".join(f"{name} = ?" for name in of)
    parts = " UNION ALL ".join(
        f"SELECT submission_count AS n, timestamp AS at FROM {table}{grain} "
        f"WHERE {same} AND timestamp >= ? AND timestamp < ?"
        for grain in GRAINS
    )
    values = (*of.values(), stamp(day), stamp(day + DAY)) * len(GRAINS)
    found: tuple[int, str | None] = connection.execute(
        f"SELECT coalesce(sum(n), 0), max(at) FROM ({parts})", values
    ).fetchone()
    return found


def _set(
    connection: sqlite3.Connection,
    table: str,
    day: int,
    of: dict[str, str],
    *,
    counted: tuple[int, str | None],
) -> None:
    """Replace what was accepted on a day; a row without anything is deleted."""
    key = ", ".join(("day", *of))
    values = (stamp(day), *of.values())
    accepted, last = counted
    if accepted:
        marks = ", ".join("?" * (len(values) + 2))
        connection.execute(
            f"INSERT INTO {table} ({key}, accepted, last_minute, rejected) VALUES ({marks}, 0) "
            f"ON CONFLICT ({key}) DO UPDATE SET accepted = excluded.accepted, "
            "last_minute = coalesce(last_minute, excluded.last_minute)",
            (*values, accepted, last),
        )
        return
    same = " AND ".join(f"{name} = ?" for name in ("day", *of))
    connection.execute(f"UPDATE {table} SET accepted = 0, last_minute = NULL WHERE {same}", values)
    connection.execute(f"DELETE FROM {table} WHERE {same} AND rejected = 0", values)


__all__ = ["SqliteStatsHistory", "add_days", "count_days_again"]
