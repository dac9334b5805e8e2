"""The store of counts in a SQLite file: the default, durable on one machine."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kupool.log import Gap, Mark, Plan, StoreState
from kupool.stats import Applied, BatchCounts, IStatsStore, MinuteCount, Rejection
from kupool.stats import sqlite_positions as positions
from kupool.stats import sqlite_snapshot as snapshots
from kupool.stats.daily import fold_days
from kupool.stats.fold import as_rows, fold_rows, roll_ups
from kupool.stats.positions import spans
from kupool.stats.snapshot import IVisitor
from kupool.stats.sqlite_history import SqliteStatsHistory, add_days
from kupool.stats.sqlite_times import stamp
from kupool.storage.database import Database, SqliteConnection
from kupool.storage.reading import ReadOnlyDatabase

T = TypeVar("T")

#: Rows rolled up in one transaction.
ROLL_CHUNK = 5000

_SECONDS = "CAST(strftime('%s', timestamp) AS INTEGER)"
_KEYS = {"submissions": "username", "worker_submissions": "username, worker"}


@implementer(IStatsStore)
class SqliteStats:
    """Keeps the counts in the tables of ``storage/sql/store``.

    Queries use the ``reader``, a connection of their own with a thread of its own, so that they
    never wait for the counting, nor it for them. Without one they use the ``database``.
    """

    persistent = True

    def __init__(
        self, database: Database | ReadOnlyDatabase, reader: ReadOnlyDatabase | None = None
    ) -> None:
        self._database = database
        self._reader = reader
        self.history = SqliteStatsHistory(self._read)

    def open(self) -> Deferred[None]:
        """Open the file and make its tables."""
        opened = self._database.open()
        reader = self._reader
        return opened if reader is None else opened.addCallback(lambda _: reader.open())

    def state(self) -> Deferred[StoreState]:
        """Return up to which position the store has counted, and of which log."""
        return self._database.run(positions.state)

    def identify(self, plan: Plan) -> Deferred[None]:
        """Take over the identity of a plan, and its other changes of the store."""
        found_at = int(time.time())
        return self._database.run(
            lambda connection: positions.identify(connection, plan, found_at), alone=True
        )

    def gaps(self) -> Deferred[Sequence[tuple[Gap, str]]]:
        """Return the positions that were lost, oldest first."""
        return self._database.run(positions.gaps)

    def forget_gaps(self) -> Deferred[int]:
        """Delete the gaps; returns how many."""
        return self._database.run(lambda c: c.execute("DELETE FROM log_gaps").rowcount)

    def cover(self, minutes: Mapping[int, int]) -> Deferred[None]:
        """Save the positions of minutes that the previous release counted."""
        return self._database.run(lambda connection: positions.cover(connection, minutes))

    def retention_time(self) -> Deferred[float | None]:
        """Return the last saved time of the retention clock."""
        return self._database.run(positions.retention_time)

    def keep_retention_time(self, seconds: float) -> Deferred[None]:
        """Save a time of the retention clock."""
        return self._database.run(
            lambda connection: positions.keep_retention_time(connection, seconds)
        )

    def apply(
        self,
        batches: Sequence[BatchCounts],
        rejections: Mapping[Rejection, int],
        mark: Mark | None = None,
    ) -> Deferred[Applied]:
        """Count some batches in one transaction; each counts at most once ever."""
        rejected = dict(rejections)
        return self._database.run(
            lambda connection: _apply(connection, batches, rejected, mark), alone=True
        )

    def count(self, username: str, minute: int, worker: str = "") -> Deferred[int]:
        """Return the accepted submissions of a user, or one worker, in one minute."""
        table, where, values = _of(username, worker)
        return self._number(
            f"SELECT submission_count FROM {table} WHERE {where} AND timestamp = ?",
            (*values, stamp(minute)),
        )

    def counted(self, username: str, worker: str = "") -> Deferred[bool]:
        """Return whether there are counts of a user, or of one worker, at any time."""
        table, where, values = _of(username, worker)
        parts = " UNION ALL ".join(
            f"SELECT 1 FROM {table}{grain} WHERE {where}" for grain in ("", "_hour", "_day")
        )
        found = self._number(f"SELECT EXISTS ({parts})", values * 3)
        return found.addCallback(bool)

    def series(
        self, username: str, start: int, end: int, worker: str = ""
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (minute, count) of a user in a range, oldest first."""
        table, where, values = _of(username, worker)
        return self._rows(
            f"SELECT {_SECONDS}, submission_count FROM {table} "
            f"WHERE {where} AND timestamp >= ? AND timestamp < ? ORDER BY timestamp",
            (*values, stamp(start), stamp(end)),
        )

    def workers(
        self, username: str, start: int, end: int, limit: int = 0
    ) -> Deferred[Sequence[tuple[str, int]]]:
        """Return (worker, count) of a user in a range, highest first."""
        return self._rows(
            "SELECT worker, sum(submission_count) FROM worker_submissions "
            "WHERE username = ? AND timestamp >= ? AND timestamp < ? "
            "GROUP BY worker ORDER BY 2 DESC, 1 LIMIT ?",
            (username, stamp(start), stamp(end), limit or -1),
        )

    def names(self, start: int, end: int, username: str = "") -> Deferred[int]:
        """Return how many users have counts in a range, or how many workers of one user."""
        if username:
            table, column, user = "worker_submissions", "worker", "AND username = ?"
        else:
            table, column, user = "submissions", "username", ""
        return self._number(
            f"SELECT count(DISTINCT {column}) FROM {table} "
            f"WHERE timestamp >= ? AND timestamp < ? {user}",
            (stamp(start), stamp(end), *([username] if username else [])),
        )

    def top(self, limit: int, start: int, end: int) -> Deferred[Sequence[tuple[str, int]]]:
        """Return (username, count) of the users with the highest counts in a range."""
        return self._rows(
            "SELECT username, sum(submission_count) FROM submissions "
            "WHERE timestamp >= ? AND timestamp < ? GROUP BY username ORDER BY 2 DESC, 1 LIMIT ?",
            (stamp(start), stamp(end), limit),
        )

    def minutes(self, start: int, end: int) -> Deferred[Sequence[tuple[int, int, int]]]:
        """Return (minute, users, count) over all users in a range, oldest first."""
        return self._rows(
            f"SELECT {_SECONDS}, count(*), sum(submission_count) FROM submissions "
            "WHERE timestamp >= ? AND timestamp < ? GROUP BY timestamp ORDER BY timestamp",
            (stamp(start), stamp(end)),
        )

    def total(self, start: int, end: int, username: str = "") -> Deferred[int]:
        """Return the accepted submissions in a range, including rolled-up ones."""
        user = "AND username = ?" if username else ""
        values = (stamp(start), stamp(end), *([username] if username else []))
        part = (
            "SELECT coalesce(sum(submission_count), 0) AS n FROM submissions{grain} "
            f"WHERE timestamp >= ? AND timestamp < ? {user}"
        )
        parts = " UNION ALL ".join(part.format(grain=grain) for grain in ("", "_hour", "_day"))
        return self._number(f"SELECT sum(n) FROM ({parts})", values * 3)

    def worker_total(self, username: str, worker: str, start: int, end: int) -> Deferred[int]:
        """Return the accepted submissions of a worker in minutes that are not rolled up."""
        return self._number(
            "SELECT coalesce(sum(submission_count), 0) FROM worker_submissions "
            "WHERE username = ? AND worker = ? AND timestamp >= ? AND timestamp < ?",
            (username, worker, stamp(start), stamp(end)),
        )

    def rejection_codes(
        self, start: int, end: int, username: str = ""
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (code, count) of rejections in a range, highest first."""
        user = "AND username = ?" if username else ""
        return self._rows(
            "SELECT code, sum(rejection_count) FROM rejections "
            f"WHERE timestamp >= ? AND timestamp < ? {user} GROUP BY code ORDER BY 2 DESC, 1",
            (stamp(start), stamp(end), *([username] if username else [])),
        )

    def rejections(
        self, start: int, end: int, username: str = ""
    ) -> Deferred[Sequence[tuple[str, int, int]]]:
        """Return (username, code, count) of rejections in a range, highest first."""
        user = "AND username = ?" if username else ""
        return self._rows(
            "SELECT username, code, sum(rejection_count) FROM rejections "
            f"WHERE timestamp >= ? AND timestamp < ? {user} "
            "GROUP BY username, code ORDER BY 3 DESC, 1, 2",
            (stamp(start), stamp(end), *([username] if username else [])),
        )

    def rolled_up_before(self) -> Deferred[int]:
        """Return the minute before which the per-minute rows have been rolled up."""
        return self._read(snapshots.rolled_up_before)

    def snapshot(self, visitor: IVisitor, start: int, end: int) -> Deferred[None]:
        """Show a visitor the whole store as it is at one moment."""
        shown = snapshots.show(
            self._database.reactor, self._database.path, visitor, start=start, end=end
        )
        return Deferred.fromCoroutine(shown)

    def correct(self, rows: Sequence[MinuteCount], serial: int) -> Deferred[int]:
        """Add to per-minute rows, unless they were corrected since ``serial``."""
        return self._database.run(
            lambda connection: snapshots.correct(connection, rows, serial), alone=True
        )

    def revive(self) -> Deferred[None]:
        """Create tables again that were dropped."""
        return self._database.run(snapshots.revive, alone=True)

    def unapplied(self, batch_ids: Sequence[str]) -> Deferred[Sequence[str]]:
        """Return the given ids that have not been counted."""

        def query(connection: sqlite3.Connection) -> list[str]:
            return [
                batch_id
                for batch_id in batch_ids
                if not connection.execute(
                    "SELECT 1 FROM applied_batches WHERE batch_id = ?", (batch_id,)
                ).fetchone()
            ]

        return self._database.run(query)

    def roll_up(self, minutes_before: int, hours_before: int) -> Deferred[int]:
        """Roll up minutes before a time into hours, and hours into days."""
        return Deferred.fromCoroutine(self._roll_up(minutes_before, hours_before))

    async def _roll_up(self, minutes_before: int, hours_before: int) -> int:
        moved = 0
        for grain, into, before in roll_ups(minutes_before, hours_before):
            for table in _KEYS:
                count = ROLL_CHUNK
                while count >= ROLL_CHUNK:
                    count = await self._database.run(
                        partial(_roll, table=table, grain=grain, into=into, before=before),
                        alone=True,
                    )
                    moved += count
        return moved

    def forget_batches(self, first: int) -> Deferred[int]:
        """Delete the ids of counted batches that the log no longer contains."""
        return Deferred.fromCoroutine(self._forget_batches(first))

    async def _forget_batches(self, first: int) -> int:
        boundary = await self._database.run(
            lambda connection: positions.forget_before(connection, first), alone=True
        )
        forgotten, count = 0, ROLL_CHUNK if boundary else 0
        while count >= ROLL_CHUNK:
            count = await self._database.run(
                lambda connection: positions.forget_chunk(connection, boundary, ROLL_CHUNK),
                alone=True,
            )
            forgotten += count
        return forgotten

    def forget_rejections(self, before: int) -> Deferred[int]:
        """Delete the rejections of minutes before a time."""

        def delete(connection: sqlite3.Connection) -> int:
            statement = "DELETE FROM rejections WHERE timestamp < ?"
            connection.execute(
                "DELETE FROM worker_rejections WHERE timestamp < ?", (stamp(before),)
            )
            return connection.execute(statement, (stamp(before),)).rowcount

        return self._database.run(delete, alone=True)

    def close(self) -> Deferred[None]:
        """Finish running work and close the file."""
        if self._reader is None:
            return self._database.close()
        # The last connection tidies up: that has to be the one that writes.
        return self._reader.close().addCallback(lambda _: self._database.close())

    def _rows(self, query: str, values: tuple[object, ...]) -> Deferred[Any]:
        return self._read(lambda connection: connection.execute(query, values).fetchall())

    def _number(self, query: str, values: tuple[object, ...]) -> Deferred[int]:
        def ask(connection: sqlite3.Connection) -> int:
            row = connection.execute(query, values).fetchone()
            return int(row[0]) if row is not None else 0

        return self._read(ask)

    def _read(self, call: Callable[[SqliteConnection], T]) -> Deferred[T]:
        """Do some reading beside the counting."""
        if self._reader is None or self._database.problem:
            return self._database.run(call)  # which says what is wrong with the file
        return self._reader.run(call)


def _of(username: str, worker: str) -> tuple[str, str, tuple[str, ...]]:
    """Return table, condition and values for a user or one worker."""
    if worker:
        return "worker_submissions", "username = ? AND worker = ?", (username, worker)
    return "submissions", "username = ?", (username,)


def _apply(
    connection: sqlite3.Connection,
    batches: Sequence[BatchCounts],
    rejections: Mapping[Rejection, int],
    mark: Mark | None,
) -> Applied:
    new: list[BatchCounts] = []
    conflicts: list[tuple[str, bytes]] = []
    marked = positions.newest_mark(connection).position
    for batch in batches:
        if _remember(connection, batch, marked):
            new.append(batch)
        else:
            (digest,) = connection.execute(
                "SELECT digest FROM applied_batches WHERE batch_id = ?", (batch.batch_id,)
            ).fetchone()
            if digest != batch.digest:
                conflicts.append((batch.batch_id, batch.digest))
    rows = as_rows(fold_rows(new))
    _add(connection, rows)
    add_days(connection, fold_days(rows, rejections))
    positions.add_spans(connection, spans(new, marked))
    if mark is not None:
        positions.move_mark(connection, mark)
    _add_rejections(connection, rejections)
    return Applied(len(new), len(batches) - len(new) - len(conflicts), conflicts)


def _add_rejections(connection: sqlite3.Connection, rejections: Mapping[Rejection, int]) -> None:
    """Add to the rejections of users, and of those workers that have a name."""
    for table, key, rows in (
        (
            "rejections",
            "username, code, timestamp",
            [(r.username, r.code, stamp(r.minute), count) for r, count in rejections.items()],
        ),
        (
            "worker_rejections",
            "username, code, timestamp, worker",
            [
                (r.username, r.code, stamp(r.minute), r.worker, count)
                for r, count in rejections.items()
                if r.worker
            ],
        ),
    ):
        marks = ", ".join("?" * (len(key.split(", ")) + 1))
        connection.executemany(
            f"INSERT INTO {table} ({key}, rejection_count) VALUES ({marks}) "
            f"ON CONFLICT ({key}) DO UPDATE SET "
            "rejection_count = rejection_count + excluded.rejection_count",
            rows,
        )


def _remember(connection: sqlite3.Connection, batch: BatchCounts, marked: int) -> bool:
    """Record that a batch is counted; returns whether it was new."""
    cursor = connection.execute(
        "INSERT INTO applied_batches (batch_id, digest, minute, position) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (batch_id) DO NOTHING",
        (batch.batch_id, batch.digest, stamp(batch.minute), batch.position or marked),
    )
    return cursor.rowcount == 1


def _add(connection: sqlite3.Connection, rows: Iterable[MinuteCount]) -> None:
    """Add counts to the per-minute rows."""
    users, workers = [], []
    for row in rows:
        if row.worker:
            workers.append((row.username, row.worker, stamp(row.minute), row.submissions))
        else:
            users.append((row.username, stamp(row.minute), row.submissions))
    connection.executemany(
        "INSERT INTO submissions (username, timestamp, submission_count) VALUES (?, ?, ?) "
        "ON CONFLICT (username, timestamp) DO UPDATE SET "
        "submission_count = submission_count + excluded.submission_count",
        users,
    )
    connection.executemany(
        "INSERT INTO worker_submissions (username, worker, timestamp, submission_count) "
        "VALUES (?, ?, ?, ?) ON CONFLICT (username, worker, timestamp) DO UPDATE SET "
        "submission_count = submission_count + excluded.submission_count",
        workers,
    )


def _roll(connection: sqlite3.Connection, table: str, grain: str, into: str, *, before: int) -> int:
    """Roll up one chunk of rows, oldest first; returns how many."""
    key = _KEYS[table]
    unit = "%Y-%m-%d %H:00:00" if into == "_hour" else "%Y-%m-%d 00:00:00"
    chunk = (
        f"SELECT {key}, timestamp, submission_count FROM {table}{grain} "
        f"WHERE timestamp < ? ORDER BY timestamp, {key} LIMIT {ROLL_CHUNK}"
    )
    connection.execute(
        f"INSERT INTO {table}{into} ({key}, timestamp, submission_count) "
        f"SELECT {key}, strftime('{unit}', timestamp) AS at, sum(submission_count) "
        f"FROM ({chunk}) WHERE true GROUP BY {key}, at "
        f"ON CONFLICT ({key}, timestamp) DO UPDATE SET "
        "submission_count = submission_count + excluded.submission_count",
        (stamp(before),),
    )
    rolled: int = connection.execute(
        f"DELETE FROM {table}{grain} WHERE ({key}, timestamp) IN "
        f"(SELECT {key}, timestamp FROM ({chunk}))",
        (stamp(before),),
    ).rowcount
    connection.execute(
        "INSERT INTO rollups (grain, before) VALUES (?, ?) ON CONFLICT (grain) "
        "DO UPDATE SET before = max(before, excluded.before)",
        ("hour" if grain else "minute", stamp(before)),
    )
    if not grain:
        connection.execute("DELETE FROM counted_minutes WHERE minute < ?", (before,))
    return rolled
