"""Snapshots of a store in SQLite, and corrections of its per-minute rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kupool.stats import MinuteCount
from kupool.stats import sqlite_positions as positions
from kupool.stats.fold import END_OF_TIME
from kupool.stats.snapshot import ROWS_AT_ONCE, IVisitor, MinuteSpan, Snapshot, Superseded
from kupool.stats.sqlite_history import count_days_again
from kupool.stats.sqlite_times import stamp
from kupool.storage.database import DatabaseUnusable
from kupool.storage.migrations import FILLS, available, statements
from kupool.storage.reading import ReadOnlyDatabase
from kupool.timing.waiting import and_then

#: A comparison sees every row: an invalid time becomes the earliest time.
_MINUTE = "coalesce(CAST(strftime('%s', timestamp) AS INTEGER), 0)"
_COUNT = "coalesce(CAST(submission_count AS INTEGER), 0)"

#: The tables of per-minute rows, and the column or value of the worker in each.
_TABLES = {"submissions": "''", "worker_submissions": "worker"}


async def show(reactor: Any, path: Path, visitor: IVisitor, *, start: int, end: int) -> None:
    """Show a visitor the store in a file, with the per-minute rows in a range.

    Everything is read in one transaction on a separate connection, so counting continues.
    """
    database = ReadOnlyDatabase(reactor, path, "store")
    await database.open()

    async def all_of_it() -> None:
        try:
            await _show_all(database, visitor, start, end)
        except sqlite3.OperationalError as error:
            if not str(error).startswith("no such table"):
                raise
            raise DatabaseUnusable(
                f"database {path}: {error}; 'kupool stats rebuild' makes it again"
            ) from None

    await and_then(all_of_it(), database.close)


async def _show_all(database: ReadOnlyDatabase, visitor: IVisitor, start: int, end: int) -> None:
    await database.run(lambda connection: connection.execute("BEGIN"))
    visitor.begin(await database.run(_snapshot))
    await _show(
        database,
        lambda rows: visitor.spans([MinuteSpan(*row) for row in rows]),
        "SELECT minute, after_position, to_position FROM counted_minutes ORDER BY minute",
    )
    await _show(
        database,
        lambda rows: visitor.batches([batch_id for (batch_id,) in rows]),
        "SELECT batch_id FROM applied_batches WHERE position >= coalesce("
        "(SELECT position FROM log_marks ORDER BY position DESC LIMIT 1 OFFSET 1), 0)",
    )
    within, values = _range(start, end)
    for table, worker in _TABLES.items():
        # In the order of the index on the time, which is also the visitor's order.
        await _show(
            database,
            lambda rows: visitor.counts([MinuteCount(*row) for row in rows]),
            f"SELECT username, {worker}, {_MINUTE}, {_COUNT} FROM {table} "
            f"WHERE {within} ORDER BY timestamp",
            values,
        )


def _range(start: int, end: int) -> tuple[str, list[str]]:
    """Return a condition and its values; an open range includes all rows on its open side."""
    conditions, values = ["true"], []
    if start > 0:
        conditions.append("timestamp >= ?")
        values.append(stamp(start))
    if end * 1000 < END_OF_TIME:
        conditions.append("timestamp < ?")
        values.append(stamp(end))
    return " AND ".join(conditions), values


async def _show(
    database: ReadOnlyDatabase,
    shown: Callable[[Any], None],
    query: str,
    values: Sequence[object] = (),
) -> None:
    cursor = await database.run(lambda connection: connection.cursor().execute(query, values))
    while rows := await database.run(lambda _: cursor.fetchmany(ROWS_AT_ONCE)):
        shown(rows)


def _snapshot(connection: sqlite3.Connection) -> Snapshot:
    state = positions.state(connection)
    taken_over = connection.execute("SELECT taken_over_before FROM pool_identity").fetchone()
    return Snapshot(
        state.identity,
        state.mark,
        state.forgotten,
        rolled_up_before(connection),
        0 if taken_over is None else int(taken_over[0]),
        positions.gaps(connection),
        _serial(connection),
    )


def _serial(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT serial FROM rebuilds").fetchone()
    return 0 if row is None else int(row[0])


def rolled_up_before(connection: sqlite3.Connection) -> int:
    """Return the minute before which the per-minute rows have been rolled up."""
    row = connection.execute(
        "SELECT CAST(strftime('%s', before) AS INTEGER) FROM rollups WHERE grain = 'minute'"
    ).fetchone()
    return 0 if row is None else int(row[0])


def correct(connection: sqlite3.Connection, rows: Sequence[MinuteCount], serial: int) -> int:
    """Add to per-minute rows, in the caller's transaction; returns the new serial number.

    Raises :class:`kupool.stats.snapshot.Superseded`.
    """
    if _serial(connection) != serial:
        raise Superseded(serial)
    connection.execute(
        "INSERT INTO rebuilds (only_row, serial) VALUES (1, ?) "
        "ON CONFLICT (only_row) DO UPDATE SET serial = excluded.serial",
        (serial + 1,),
    )
    least = rolled_up_before(connection)
    chosen = [row for row in rows if row.minute >= least]
    for table, key in (
        ("submissions", "username, timestamp"),
        ("worker_submissions", "username, worker, timestamp"),
    ):
        of_table = list(_of_table(chosen, table))
        names = key.split(", ")
        matches = " AND ".join(f"{name} = :{name}" for name in names)
        connection.executemany(
            f"INSERT INTO {table} ({key}, submission_count) "
            f"SELECT {', '.join(f':{name}' for name in names)}, 0 WHERE :count > 0 "
            f"ON CONFLICT ({key}) DO NOTHING",
            of_table,
        )
        connection.executemany(
            f"UPDATE {table} SET submission_count = submission_count + :count WHERE {matches}",
            of_table,
        )
        connection.executemany(
            f"DELETE FROM {table} WHERE {matches} AND submission_count = 0", of_table
        )
    count_days_again(connection, chosen)
    return serial + 1


def _of_table(rows: Sequence[MinuteCount], table: str) -> Iterator[dict[str, object]]:
    for row in rows:
        if bool(row.worker) == (table == "worker_submissions"):
            yield {
                "username": row.username,
                "worker": row.worker,
                "timestamp": stamp(row.minute),
                "count": row.submissions,
            }


def revive(connection: sqlite3.Connection) -> None:
    """Create tables again that were dropped, in the caller's transaction."""
    tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
    before = connection.execute(tables).fetchall()
    filling = []
    for _, sql in available("store"):
        for statement in statements(sql):
            if FILLS.search(statement):
                filling.append(statement)
                continue
            try:
                connection.execute(statement)
            except sqlite3.OperationalError as error:
                if "duplicate column name" not in str(error):
                    raise
    if connection.execute(tables).fetchall() != before:
        for statement in filling:
            connection.execute(statement)


__all__ = ["correct", "revive", "rolled_up_before", "show"]
