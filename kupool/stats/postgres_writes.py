"""Writes to the counts in PostgreSQL; each function uses its caller's transaction.

Several processes may count into the same database. To avoid deadlocks, all of them lock rows in the
same order: the ids of batches, then minutes, users, workers, rejections and days, each sorted.
Maintenance beside them skips rows that are locked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from kupool.stats import BatchCounts, MinuteCount, Rejection

T = TypeVar("T")


#: Rows in one statement; this limits how long the reactor is blocked.
CHUNK = 2000

#: Rows rolled up or deleted in one transaction.
ROLL_CHUNK = 5000

#: The lock for rolling up and correcting rows: "kupool" in ASCII, and a number.
TIDY_LOCK = 0x6B75706F6F6C << 8 | 1

#: A TIMESTAMP of seconds since the epoch, and back.
AT = "to_timestamp(%s) AT TIME ZONE 'UTC'"
SECONDS = "extract(epoch FROM timestamp)::bigint"

KEYS = {"submissions": "username", "worker_submissions": "username, worker"}

#: The latest time of a store: a second before the year 10000.
_LAST = 253_402_300_799


def within(seconds: int) -> int:
    """Return the nearest time that can be stored: not before the epoch or after 9999."""
    return min(max(seconds, 0), _LAST)


def chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Divide rows into chunks for one statement each."""
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


async def remember(cursor: Any, batches: Sequence[BatchCounts], marked: int) -> set[str]:
    """Record that batches are counted, each with another id; returns the ids that were new.

    For a batch without a known position, ``marked`` is recorded: the mark that it is above.
    """
    new: set[str] = set()
    for chunk in chunks(sorted(batches)):
        await cursor.execute(
            "INSERT INTO applied_batches (batch_id, digest, minute, position) "
            "SELECT id, digest, to_timestamp(minute) AT TIME ZONE 'UTC', at "
            "FROM unnest(%s::text[], %s::bytea[], %s::bigint[], %s::bigint[]) "
            "AS given (id, digest, minute, at) "
            "ON CONFLICT (batch_id) DO NOTHING RETURNING batch_id",
            (
                [batch.batch_id for batch in chunk],
                [batch.digest for batch in chunk],
                [within(batch.minute) for batch in chunk],
                [batch.position or marked for batch in chunk],
            ),
        )
        new.update(batch_id for (batch_id,) in cursor.fetchall())
    return new


async def digests(cursor: Any, batch_ids: Sequence[str]) -> dict[str, bytes]:
    """Return the digests of the counted batches among some ids."""
    found: dict[str, bytes] = {}
    for chunk in chunks(batch_ids):
        await cursor.execute(
            "SELECT batch_id, digest FROM applied_batches WHERE batch_id = ANY(%s::text[])",
            (list(chunk),),
        )
        found.update((batch_id, bytes(digest)) for batch_id, digest in cursor.fetchall())
    return found


async def add(cursor: Any, rows: Sequence[MinuteCount]) -> None:
    """Add counts to the per-minute rows; the counts are sorted, each for another row."""
    for chunk in chunks([row for row in rows if not row.worker]):
        await cursor.execute(
            "INSERT INTO submissions AS kept (username, timestamp, submission_count) "
            "SELECT username, to_timestamp(minute) AT TIME ZONE 'UTC', count "
            "FROM unnest(%s::text[], %s::bigint[], %s::int[]) AS given (username, minute, count) "
            "ON CONFLICT (username, timestamp) DO UPDATE SET "
            "submission_count = kept.submission_count + excluded.submission_count",
            columns((row.username, within(row.minute), row.submissions) for row in chunk),
        )
    for chunk in chunks([row for row in rows if row.worker]):
        await cursor.execute(
            "INSERT INTO worker_submissions AS kept "
            "(username, worker, timestamp, submission_count) "
            "SELECT username, worker, to_timestamp(minute) AT TIME ZONE 'UTC', count "
            "FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::int[]) "
            "AS given (username, worker, minute, count) "
            "ON CONFLICT (username, worker, timestamp) DO UPDATE SET "
            "submission_count = kept.submission_count + excluded.submission_count",
            columns(
                (row.username, row.worker, within(row.minute), row.submissions) for row in chunk
            ),
        )


async def add_rejections(cursor: Any, rejections: Mapping[Rejection, int]) -> None:
    """Add counts of rejections, of users and of those workers that have a name."""
    users: Counter[Rejection] = Counter()
    for rejection, count in rejections.items():
        users[rejection._replace(worker="")] += count
    workers = [(r, count) for r, count in rejections.items() if r.worker]
    for table, key, rows in (
        ("rejections", "username, code, timestamp", sorted(users.items())),
        ("worker_rejections", "username, code, timestamp, worker", sorted(workers)),
    ):
        for chunk in chunks(rows):
            await cursor.execute(
                f"INSERT INTO {table} AS kept ({key}, rejection_count) SELECT {key}, count "
                "FROM (SELECT username, code, to_timestamp(minute) AT TIME ZONE 'UTC' "
                "AS timestamp, worker, count "
                "FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::text[], %s::bigint[]) "
                "AS listed (username, code, minute, worker, count)) AS given "
                f"ON CONFLICT ({key}) DO UPDATE SET "
                "rejection_count = kept.rejection_count + excluded.rejection_count",
                columns(
                    (r.username, r.code, within(r.minute), r.worker, count) for r, count in chunk
                ),
            )


async def last_flush(cursor: Any, process: str) -> int:
    """Return the serial number of the last flush of rejections that a process committed.

    Waits for a running transaction of the process, if the process has lost its connection.
    Transaction numbers cannot be used: after a crash PostgreSQL reuses those of transactions that
    it lost.
    """
    await cursor.execute(
        "INSERT INTO rejection_flushes AS kept (process, serial, flushed_at) "
        "VALUES (%s, 0, now() AT TIME ZONE 'UTC') "
        "ON CONFLICT (process) DO UPDATE SET serial = kept.serial RETURNING serial",
        (process,),
    )
    return int(cursor.fetchone()[0])


async def note_flush(cursor: Any, process: str, serial: int) -> None:
    """Record that a process has flushed its rejections, in the transaction of the flush."""
    await cursor.execute(
        "INSERT INTO rejection_flushes (process, serial, flushed_at) "
        "VALUES (%s, %s, now() AT TIME ZONE 'UTC') ON CONFLICT (process) "
        "DO UPDATE SET serial = excluded.serial, flushed_at = excluded.flushed_at",
        (process, serial),
    )


async def forget_flushes(cursor: Any) -> int:
    """Delete processes that have not flushed for a month: nobody needs them any more."""
    await cursor.execute(
        "DELETE FROM rejection_flushes WHERE process IN (SELECT process FROM rejection_flushes "
        "WHERE flushed_at < now() AT TIME ZONE 'UTC' - interval '30 days' "
        "FOR UPDATE SKIP LOCKED)"
    )
    return int(cursor.rowcount)


def columns(rows: Iterator[tuple[object, ...]]) -> list[list[object]]:
    """Return rows, at least one, as the lists that ``unnest`` takes."""
    return [list(column) for column in zip(*rows, strict=True)]


async def hold_off(cursor: Any) -> None:
    """Keep all daemons from counting, rolling up and correcting until the transaction ends."""
    await cursor.execute("SELECT pg_advisory_xact_lock(%s)", (TIDY_LOCK,))
    # The first table before the others: a counting transaction locks it before them.
    for table in ("applied_batches", *KEYS):
        await cursor.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")


async def rolled_up_before(cursor: Any) -> int:
    """Return the minute before which the per-minute rows have been rolled up."""
    await cursor.execute(
        "SELECT extract(epoch FROM before)::bigint FROM rollups WHERE grain = 'minute'"
    )
    row = cursor.fetchone()
    return 0 if row is None else int(row[0])


async def roll(cursor: Any, table: str, grain: str, into: str, *, before: int) -> int:
    """Roll up one chunk of rows, oldest first; returns how many."""
    key = KEYS[table]
    unit = into.removeprefix("_")
    await cursor.execute("SELECT pg_advisory_xact_lock(%s)", (TIDY_LOCK,))
    await cursor.execute(
        f"INSERT INTO rollups AS kept (grain, before) VALUES (%s, {AT}) "
        "ON CONFLICT (grain) DO UPDATE SET before = greatest(kept.before, excluded.before)",
        ("hour" if grain else "minute", within(before)),
    )
    await cursor.execute(
        f"WITH old AS (SELECT {key}, timestamp FROM {table}{grain} WHERE timestamp < {AT} "
        f"ORDER BY timestamp, {key} LIMIT %s FOR UPDATE SKIP LOCKED), "
        f"moved AS (DELETE FROM {table}{grain} WHERE ({key}, timestamp) IN (SELECT * FROM old) "
        f"RETURNING {key}, timestamp, submission_count), "
        f"added AS (INSERT INTO {table}{into} AS kept ({key}, timestamp, submission_count) "
        f"SELECT {key}, date_trunc('{unit}', timestamp) AS at, sum(submission_count) FROM moved "
        f"GROUP BY {key}, at ON CONFLICT ({key}, timestamp) DO UPDATE SET "
        "submission_count = kept.submission_count + excluded.submission_count) "
        "SELECT count(*) FROM moved",
        (within(before), ROLL_CHUNK),
    )
    return int(cursor.fetchone()[0])


async def forget(cursor: Any, table: str, key: str, column: str, *, before: int) -> int:
    """Delete one chunk of the rows before a time, except locked ones."""
    await cursor.execute(
        f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} "
        f"WHERE {column} < {AT} LIMIT %s FOR UPDATE SKIP LOCKED)",
        (within(before), ROLL_CHUNK),
    )
    return int(cursor.rowcount)
