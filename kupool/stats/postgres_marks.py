"""The log position of the counts in PostgreSQL; each function uses its caller's transaction.

A counting transaction locks the ids of batches before any row here, and locks the rows of minutes
in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kupool.log import Epoch, Gap, Identity, Mark, Plan, StoreState
from kupool.stats.positions import MARK_SPACING, NOWHERE, Span
from kupool.stats.postgres_writes import chunks, within

#: The ``log_position`` of jobs whose nonces cannot be known any more: no log goes back that far.
UNKNOWABLE = -1

_LONGEST_REASON = 255


async def state(cursor: Any) -> StoreState:
    """Return up to which position the store has counted, and of which log."""
    await cursor.execute("SELECT pool_id FROM pool_identity")
    row = cursor.fetchone()
    identity = None
    if row is not None:
        await cursor.execute("SELECT epoch, begins_after FROM log_epochs ORDER BY number")
        identity = Identity(row[0], tuple(Epoch(*epoch) for epoch in cursor.fetchall()))
    await cursor.execute("SELECT position FROM log_forgotten")
    (forgotten,) = cursor.fetchone() or (0,)
    # Rows of others in an existing table do not count.
    await cursor.execute(
        "SELECT EXISTS (SELECT FROM applied_batches) OR EXISTS (SELECT FROM job_history)"
    )
    (holds_data,) = cursor.fetchone()
    return StoreState(identity, await newest(cursor), forgotten, holds_data)


async def newest(cursor: Any) -> Mark:
    """Return the mark: everything in the log up to that position is counted."""
    await cursor.execute("SELECT position, entry_id FROM log_marks ORDER BY position DESC LIMIT 1")
    row = cursor.fetchone()
    return Mark(0) if row is None else Mark(*row)


async def identify(cursor: Any, plan: Plan) -> None:
    """Take over the identity of a plan, and its other changes of the store."""
    before = await state(cursor)
    taken_over = 0
    if before.identity is None and not before.holds_data:
        taken_over = await _end_of_rows(cursor)
    await cursor.execute(
        "INSERT INTO pool_identity (only_row, pool_id, taken_over_before) VALUES (1, %s, %s) "
        "ON CONFLICT (only_row) DO UPDATE SET pool_id = excluded.pool_id",
        (plan.identity.pool_id, taken_over),
    )
    await cursor.execute("DELETE FROM log_epochs")
    epochs = plan.identity.epochs
    await cursor.execute(
        "INSERT INTO log_epochs (number, epoch, begins_after) "
        "SELECT * FROM unnest(%s::int[], %s::text[], %s::bigint[])",
        (
            list(range(len(epochs))),
            [epoch.epoch for epoch in epochs],
            [epoch.begins_after for epoch in epochs],
        ),
    )
    # If the log is another one, batches counted above the mark are not in it either.
    if before.identity not in (None, plan.identity):
        await cursor.execute(
            "UPDATE counted_minutes SET after_position = %s WHERE to_position > %s",
            (NOWHERE, plan.fork),
        )
    if plan.resume != before.mark.position:
        # The mark may move back, too: after another crash the missing batches are counted as well.
        await cursor.execute("DELETE FROM log_marks WHERE position > %s", (plan.resume,))
        await _insert(cursor, Mark(plan.resume))
    if plan.gap is not None:
        await cursor.execute(
            "INSERT INTO log_gaps AS kept (first_position, last_position, found_at, reason) "
            "VALUES (%s, %s, extract(epoch FROM now())::bigint, %s) ON CONFLICT (first_position) "
            "DO UPDATE SET last_position = greatest(kept.last_position, excluded.last_position)",
            (*plan.gap, plan.text[:_LONGEST_REASON]),
        )
    if not plan.keep_jobs:
        # The next start must not restore them either.
        await cursor.execute("UPDATE job_history SET log_position = %s", (UNKNOWABLE,))


async def _end_of_rows(cursor: Any) -> int:
    """Return the end of the newest minute in the table; 0 where it is empty."""
    await cursor.execute("SELECT extract(epoch FROM max(timestamp))::bigint FROM submissions")
    (newest_row,) = cursor.fetchone()
    return 0 if newest_row is None else int(newest_row) // 60 * 60 + 60


async def gaps(cursor: Any) -> Sequence[tuple[Gap, str]]:
    """Return the positions that were lost, each with the reason, oldest first."""
    await cursor.execute(
        "SELECT first_position, last_position, reason FROM log_gaps ORDER BY first_position"
    )
    return [(Gap(first, last), reason) for first, last, reason in cursor.fetchall()]


async def forget_gaps(cursor: Any) -> int:
    """Delete the gaps; returns how many."""
    await cursor.execute("DELETE FROM log_gaps")
    return int(cursor.rowcount)


async def move(cursor: Any, mark: Mark) -> None:
    """Move the mark forward, unless it is further already; one mark in :data:`MARK_SPACING` is
    kept.
    """
    await cursor.execute("SELECT position FROM log_marks ORDER BY position DESC LIMIT 2")
    kept = [position for (position,) in cursor.fetchall()]
    if kept and kept[0] >= mark.position:
        return
    if len(kept) == 2 and kept[0] < kept[1] + MARK_SPACING:
        await cursor.execute("DELETE FROM log_marks WHERE position = %s", (kept[0],))
    await _insert(cursor, mark)


async def _insert(cursor: Any, mark: Mark) -> None:
    await cursor.execute(
        "INSERT INTO log_marks (position, entry_id) VALUES (%s, %s) "
        "ON CONFLICT (position) DO NOTHING",
        mark,
    )


async def cover(cursor: Any, minutes: Mapping[int, int]) -> None:
    """Save, for minutes, a position that every batch of the minute is above."""
    mark = (await newest(cursor)).position
    await place(cursor, {at: Span(after, max(after, mark)) for at, after in minutes.items()})


async def place(cursor: Any, spans: Mapping[int, Span]) -> None:
    """Save the positions of the counted batches of some minutes."""
    places: dict[int, Span] = {}
    for minute, span in spans.items():  # of which some may become the same here
        known = places.get(within(minute), span)
        places[within(minute)] = Span(min(known.after, span.after), max(known.to, span.to))
    for chunk in chunks(sorted(places.items())):
        await cursor.execute(
            "INSERT INTO counted_minutes AS kept (minute, after_position, to_position) "
            "SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) "
            "ON CONFLICT (minute) DO UPDATE SET "
            "after_position = least(kept.after_position, excluded.after_position), "
            "to_position = greatest(kept.to_position, excluded.to_position) "
            "WHERE excluded.after_position < kept.after_position "
            "OR excluded.to_position > kept.to_position",
            (
                [minute for minute, _ in chunk],
                [span.after for _, span in chunk],
                [span.to for _, span in chunk],
            ),
        )


async def forget_before(cursor: Any, first: int) -> int:
    """Record that ids of batches no longer in a log may be deleted; returns up to which mark.

    ``first`` is the position of the log's first entry. Ids are deleted up to the second newest mark
    below it: a batch from a queue is recorded under the mark that it is above.
    """
    await cursor.execute(
        "SELECT position FROM log_marks WHERE position < %s "
        "ORDER BY position DESC LIMIT 1 OFFSET 1",
        (first,),
    )
    row = cursor.fetchone()
    if row is None:
        return 0
    await cursor.execute(
        "INSERT INTO log_forgotten AS kept (only_row, position) VALUES (1, %s) "
        "ON CONFLICT (only_row) DO UPDATE SET "
        "position = greatest(kept.position, excluded.position)",
        row,
    )
    await cursor.execute("DELETE FROM log_marks WHERE position < %s", row)
    return int(row[0])


async def forget(cursor: Any, boundary: int, limit: int) -> int:
    """Delete some ids of batches up to a boundary, except locked ones.

    The previous release saved no positions: what it counted is below every mark.
    """
    await cursor.execute(
        "DELETE FROM applied_batches WHERE batch_id IN (SELECT batch_id FROM applied_batches "
        "WHERE position <= %s OR position IS NULL LIMIT %s FOR UPDATE SKIP LOCKED)",
        (boundary, limit),
    )
    return int(cursor.rowcount)


async def forget_minutes(cursor: Any, before: int) -> int:
    """Delete the positions of minutes before a time; returns how many."""
    await cursor.execute(
        "DELETE FROM counted_minutes WHERE minute IN (SELECT minute FROM counted_minutes "
        "WHERE minute < %s FOR UPDATE SKIP LOCKED)",
        (within(before),),
    )
    return int(cursor.rowcount)


async def retention_time(cursor: Any) -> float | None:
    """Return the last saved time of the retention clock; None if there is none."""
    await cursor.execute("SELECT seconds FROM retention_clock")
    row = cursor.fetchone()
    return None if row is None else float(row[0])


async def keep_retention_time(cursor: Any, seconds: float) -> None:
    """Save a time of the retention clock."""
    await cursor.execute(
        "INSERT INTO retention_clock (only_row, seconds) VALUES (1, %s) "
        "ON CONFLICT (only_row) DO UPDATE SET seconds = excluded.seconds",
        (seconds,),
    )
