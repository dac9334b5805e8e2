"""Snapshots of a store in PostgreSQL, and corrections of its per-minute rows.

Each function uses its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kupool.stats import MinuteCount
from kupool.stats import postgres_marks as marks
from kupool.stats import postgres_writes as writes
from kupool.stats.postgres_history import count_days_again
from kupool.stats.postgres_writes import AT, SECONDS, within
from kupool.stats.snapshot import ROWS_AT_ONCE, IVisitor, MinuteSpan, Snapshot, Superseded

#: The tables of per-minute rows, and the column or value of the worker in each.
_WORKERS = {"submissions": "''", "worker_submissions": "worker"}

#: The rows to correct, in the form that a statement gets them.
_GIVEN = (
    "(SELECT username, worker, to_timestamp(minute) AT TIME ZONE 'UTC' AS timestamp, count "
    "FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[]) "
    "AS listed (username, worker, minute, count)) AS given"
)


async def show(cursor: Any, visitor: IVisitor, start: int, end: int) -> None:
    """Show a visitor the store, with the per-minute rows in a range.

    It must be the first use of the transaction, which then sees the store at one moment.
    """
    await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    visitor.begin(await _snapshot(cursor))
    await _show(
        cursor,
        lambda rows: visitor.spans([MinuteSpan(*row) for row in rows]),
        "SELECT minute, after_position, to_position FROM counted_minutes ORDER BY minute",
    )
    await _show(
        cursor,
        lambda rows: visitor.batches([batch_id for (batch_id,) in rows]),
        "SELECT batch_id FROM applied_batches WHERE position >= coalesce("
        "(SELECT position FROM log_marks ORDER BY position DESC LIMIT 1 OFFSET 1), 0)",
    )
    within_range, values = _range(start, end)
    for table, worker in _WORKERS.items():
        # In the order of the index on the time, which is also the visitor's order.
        await _show(
            cursor,
            lambda rows: visitor.counts([MinuteCount(*row) for row in rows]),
            f"SELECT username, {worker}, {SECONDS}, coalesce(submission_count, 0) FROM {table} "
            f"WHERE {within_range} ORDER BY timestamp",
            values,
        )


def _range(start: int, end: int) -> tuple[str, list[int]]:
    """Return a condition and its values; an open range includes all rows on its open side."""
    conditions, values = ["isfinite(timestamp)"], []
    if start > 0:
        conditions.append(f"timestamp >= {AT}")
        values.append(within(start))
    if end == within(end):
        conditions.append(f"timestamp < {AT}")
        values.append(end)
    return " AND ".join(conditions), values


async def _show(
    cursor: Any, shown: Callable[[Any], None], query: str, values: Sequence[object] = ()
) -> None:
    await cursor.execute(f"DECLARE shown NO SCROLL CURSOR FOR {query}", values)
    while True:
        await cursor.execute("FETCH %s FROM shown", (ROWS_AT_ONCE,))
        rows = cursor.fetchall()
        if not rows:
            break
        shown(rows)
    await cursor.execute("CLOSE shown")


async def _snapshot(cursor: Any) -> Snapshot:
    state = await marks.state(cursor)
    await cursor.execute("SELECT taken_over_before FROM pool_identity")
    row = cursor.fetchone()
    return Snapshot(
        state.identity,
        state.mark,
        state.forgotten,
        await writes.rolled_up_before(cursor),
        0 if row is None else int(row[0]),
        await marks.gaps(cursor),
        await _serial(cursor),
    )


async def _serial(cursor: Any) -> int:
    await cursor.execute("SELECT serial FROM rebuilds")
    row = cursor.fetchone()
    return 0 if row is None else int(row[0])


async def correct(cursor: Any, rows: Sequence[MinuteCount], serial: int) -> int:
    """Add to per-minute rows; returns the new serial number.

    Raises :class:`kupool.stats.snapshot.Superseded`.
    """
    # Rows are added to and subtracted from, in another order than counting transactions use.
    await writes.hold_off(cursor)
    if await _serial(cursor) != serial:
        raise Superseded(serial)
    await cursor.execute(
        "INSERT INTO rebuilds (only_row, serial) VALUES (1, %s) "
        "ON CONFLICT (only_row) DO UPDATE SET serial = excluded.serial",
        (serial + 1,),
    )
    least = await writes.rolled_up_before(cursor)
    chosen = [row for row in rows if row.minute >= least]
    for table, key in writes.KEYS.items():
        of_table = [row for row in chosen if bool(row.worker) == ("worker" in key)]
        if of_table:
            await _correct(cursor, table, f"{key}, timestamp", of_table)
    await count_days_again(cursor, chosen)
    return serial + 1


async def _correct(cursor: Any, table: str, key: str, rows: Sequence[MinuteCount]) -> None:
    listed = [
        [row.username for row in rows],
        [row.worker for row in rows],
        [within(row.minute) for row in rows],
        [row.submissions for row in rows],
    ]
    same = " AND ".join(f"kept.{name} = given.{name}" for name in key.split(", "))
    await cursor.execute(
        f"INSERT INTO {table} AS kept ({key}, submission_count) "
        f"SELECT {key}, count FROM {_GIVEN} WHERE count > 0 ON CONFLICT ({key}) DO UPDATE SET "
        "submission_count = kept.submission_count + excluded.submission_count",
        listed,
    )
    await cursor.execute(
        f"UPDATE {table} AS kept SET submission_count = kept.submission_count + given.count "
        f"FROM {_GIVEN} WHERE given.count < 0 AND {same}",
        listed,
    )
    await cursor.execute(
        f"DELETE FROM {table} AS kept USING {_GIVEN} WHERE {same} AND kept.submission_count = 0",
        listed,
    )


__all__ = ["correct", "show"]
