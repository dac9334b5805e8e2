"""The log position of the counts in SQLite; each function uses its caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from kupool.log import Epoch, Gap, Identity, Mark, Plan, StoreState
from kupool.stats.positions import MARK_SPACING, NOWHERE, Span


def state(connection: sqlite3.Connection) -> StoreState:
    """Return up to which position the store has counted, and of which log."""
    row = connection.execute("SELECT pool_id FROM pool_identity").fetchone()
    identity = None
    if row is not None:
        epochs = connection.execute("SELECT epoch, begins_after FROM log_epochs ORDER BY number")
        identity = Identity(row[0], tuple(Epoch(*epoch) for epoch in epochs))
    mark = newest_mark(connection)
    return StoreState(identity, mark, _forgotten(connection), _holds_data(connection))


def _holds_data(connection: sqlite3.Connection) -> bool:
    """Return whether anything was counted here, or a job made; rows of others do not count."""
    (holds,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM applied_batches) OR EXISTS (SELECT 1 FROM job_history)"
    ).fetchone()
    return bool(holds)


def _forgotten(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT position FROM log_forgotten").fetchone()
    return 0 if row is None else int(row[0])


def newest_mark(connection: sqlite3.Connection) -> Mark:
    """Return the position in the log up to which everything is counted."""
    row = connection.execute(
        "SELECT position, entry_id FROM log_marks ORDER BY position DESC LIMIT 1"
    ).fetchone()
    return Mark(0) if row is None else Mark(*row)


def identify(connection: sqlite3.Connection, plan: Plan, found_at: int) -> None:
    """Take over the identity of a plan; ``found_at`` is in seconds since the epoch."""
    before = state(connection)
    taken_over = 0
    if before.identity is None and not before.holds_data:
        (newest,) = connection.execute(
            "SELECT CAST(strftime('%s', max(timestamp)) AS INTEGER) FROM submissions"
        ).fetchone()
        taken_over = 0 if newest is None else newest // 60 * 60 + 60
    connection.execute(
        "INSERT INTO pool_identity (only_row, pool_id, taken_over_before) VALUES (1, ?, ?) "
        "ON CONFLICT (only_row) DO UPDATE SET pool_id = excluded.pool_id",
        (plan.identity.pool_id, taken_over),
    )
    connection.execute("DELETE FROM log_epochs")
    connection.executemany(
        "INSERT INTO log_epochs (number, epoch, begins_after) VALUES (?, ?, ?)",
        [(number, *epoch) for number, epoch in enumerate(plan.identity.epochs)],
    )
    # If the log is another one, batches counted above the mark are not in it either.
    if before.identity not in (None, plan.identity):
        connection.execute(
            "UPDATE counted_minutes SET after_position = ? WHERE to_position > ?",
            (NOWHERE, plan.fork),
        )
    if plan.resume != before.mark.position:
        connection.execute("DELETE FROM log_marks WHERE position > ?", (plan.resume,))
        connection.execute(
            "INSERT OR IGNORE INTO log_marks (position, entry_id) VALUES (?, '')", (plan.resume,)
        )
    if plan.gap is not None:
        connection.execute(
            "INSERT OR IGNORE INTO log_gaps (first_position, last_position, found_at, reason) "
            "VALUES (?, ?, ?, ?)",
            (*plan.gap, found_at, plan.text),
        )


def gaps(connection: sqlite3.Connection) -> Sequence[tuple[Gap, str]]:
    """Return the positions that were lost, each with the reason, oldest first."""
    rows = connection.execute(
        "SELECT first_position, last_position, reason FROM log_gaps ORDER BY first_position"
    )
    return [(Gap(first, last), reason) for first, last, reason in rows]


def cover(connection: sqlite3.Connection, minutes: Mapping[int, int]) -> None:
    """Save a position that every batch of a minute is above, for minutes without one."""
    mark = newest_mark(connection).position
    connection.executemany(
        "INSERT OR IGNORE INTO counted_minutes (minute, after_position, to_position) "
        "VALUES (?, ?, ?)",
        [(minute, after, max(after, mark)) for minute, after in minutes.items()],
    )


def add_spans(connection: sqlite3.Connection, found: Mapping[int, Span]) -> None:
    """Save the positions of newly counted batches."""
    connection.executemany(
        "INSERT INTO counted_minutes (minute, after_position, to_position) VALUES (?, ?, ?) "
        "ON CONFLICT (minute) DO UPDATE SET "
        "after_position = min(after_position, excluded.after_position), "
        "to_position = max(to_position, excluded.to_position)",
        [(minute, *span) for minute, span in found.items()],
    )


def move_mark(connection: sqlite3.Connection, mark: Mark) -> None:
    """Move the mark forward, unless it is further already; one mark in :data:`MARK_SPACING` is
    kept.
    """
    newest = connection.execute(
        "SELECT position FROM log_marks ORDER BY position DESC LIMIT 2"
    ).fetchall()
    if newest and newest[0][0] >= mark.position:
        return
    if len(newest) == 2 and newest[0][0] < newest[1][0] + MARK_SPACING:
        connection.execute("DELETE FROM log_marks WHERE position = ?", newest[0])
    connection.execute("INSERT INTO log_marks (position, entry_id) VALUES (?, ?)", mark)


def forget_before(connection: sqlite3.Connection, first: int) -> int:
    """Record that ids of batches no longer in a log may be deleted; returns up to which mark.

    ``first`` is the position of the log's first entry. Ids are deleted up to the second newest mark
    below it: a batch from a queue is recorded under the mark that it is above.
    """
    row = connection.execute(
        "SELECT position FROM log_marks WHERE position < ? ORDER BY position DESC LIMIT 1 OFFSET 1",
        (first,),
    ).fetchone()
    if row is None:
        return 0
    (boundary,) = row
    connection.execute(
        "INSERT INTO log_forgotten (only_row, position) VALUES (1, ?) ON CONFLICT (only_row) "
        "DO UPDATE SET position = max(position, excluded.position)",
        (boundary,),
    )
    connection.execute("DELETE FROM log_marks WHERE position < ?", (boundary,))
    return int(boundary)


def forget_chunk(connection: sqlite3.Connection, boundary: int, limit: int) -> int:
    """Delete some ids up to a boundary; returns how many.

    The previous release saved no positions: what it counted is below every mark.
    """
    return connection.execute(
        "DELETE FROM applied_batches WHERE batch_id IN (SELECT batch_id FROM applied_batches "
        "WHERE position <= ? OR position IS NULL LIMIT ?)",
        (boundary, limit),
    ).rowcount


def retention_time(connection: sqlite3.Connection) -> float | None:
    """Return the last saved time of the retention clock."""
    row = connection.execute("SELECT seconds FROM retention_clock").fetchone()
    return None if row is None else float(row[0])


def keep_retention_time(connection: sqlite3.Connection, seconds: float) -> None:
    """Save a time of the retention clock."""
    connection.execute(
        "INSERT INTO retention_clock (only_row, seconds) VALUES (1, ?) "
        "ON CONFLICT (only_row) DO UPDATE SET seconds = excluded.seconds",
        (seconds,),
    )
