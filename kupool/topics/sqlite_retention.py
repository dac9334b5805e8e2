"""The statements that drop batches of topics in SQLite: by age, by size, by key, by offset.

All block: they run in the thread of the database. Each drops a part, so that those who append wait
for a moment only.
"""

from __future__ import annotations

import sqlite3

from kupool.topics.settings import TopicSettings
from kupool.topics.sqlite_tables import AT_ONCE, OFFSET_BITS, positions_of

#: Bytes from which a part is large enough.
BYTES_AT_ONCE = 64 * 1024


def note_age(connection: sqlite3.Connection, advance: float) -> float:
    """Advance the clock of ages, and note its time for the newest batches; returns the time."""
    connection.execute(
        "INSERT INTO age_clock (only_row, seconds) VALUES (1, ?) "
        "ON CONFLICT (only_row) DO UPDATE SET seconds = seconds + excluded.seconds",
        (advance,),
    )
    (seconds,) = connection.execute("SELECT seconds FROM age_clock").fetchone()
    connection.execute(
        "INSERT INTO ages (position, seconds) SELECT newest, ? FROM (SELECT (SELECT max(position) "
        "FROM batches WHERE position >= id << ? AND position < (id + 1) << ?) AS newest "
        "FROM partitions) WHERE newest IS NOT NULL ON CONFLICT (position) DO NOTHING",
        (seconds, OFFSET_BITS, OFFSET_BITS),
    )
    return float(seconds)


def trim_part(
    connection: sqlite3.Connection, key: int, settings: TopicSettings, age: float
) -> int | None:
    """Drop some of the batches of a partition that are due.

    Returns how many records, None if nothing was due. ``age`` is the time of the clock of ages. The
    newest batch stays.
    """
    row = connection.execute("SELECT bytes FROM partitions WHERE id = ?", (key,)).fetchone()
    if row is None:
        return None  # the topic was deleted meanwhile
    old = _newest_old(connection, key, settings, age)
    if settings.compacts:
        return _compact_part(connection, key, old)
    first, end = positions_of(key)
    excess = row[0] - settings.retention_bytes if settings.retention_bytes else 0
    oldest = connection.execute(
        "SELECT position, count, length(body) FROM batches WHERE position >= ? AND position < ? "
        "ORDER BY position LIMIT ?",
        (first, end, AT_ONCE + 1),
    ).fetchall()
    records = size = 0
    last = None
    for position, count, length in oldest[:-1]:
        due = size < excess or (old is not None and position <= old)
        if not due or size >= BYTES_AT_ONCE:
            break
        records, size, last = records + count, size + length, position
    if last is None:
        return None
    _drop(connection, key, upto=last, size=size)
    return records


def _newest_old(
    connection: sqlite3.Connection, key: int, settings: TopicSettings, age: float
) -> int | None:
    """Return the newest position of a partition that is as old as its topic keeps."""
    if not settings.retention_time:
        return None
    first, end = positions_of(key)
    (old,) = connection.execute(
        "SELECT max(position) FROM ages WHERE position >= ? AND position < ? AND seconds <= ?",
        (first, end, age - settings.retention_time),
    ).fetchone()
    return None if old is None else int(old)


def _compact_part(connection: sqlite3.Connection, key: int, old: int | None) -> int | None:
    """Drop some batches that later ones have replaced, and passing ones up to a position."""
    first, end = positions_of(key)
    replaced = connection.execute(
        "SELECT position FROM replaced_batches WHERE position >= ? AND position < ? LIMIT ?",
        (first, end, AT_ONCE),
    ).fetchall()
    passed = []
    if old is not None:
        passed = connection.execute(
            "SELECT ? + base FROM newest_of_keys WHERE partition = ? AND passing = 1 "
            "AND base <= ? AND ? + base < (SELECT max(position) FROM batches "
            "WHERE position >= ? AND position < ?) LIMIT ?",
            (first, key, old - first, first, first, end, AT_ONCE),
        ).fetchall()
        connection.execute("DELETE FROM ages WHERE position >= ? AND position < ?", (first, old))
    gone = replaced + passed
    if not gone:
        return None
    records = size = 0
    for position in gone:
        batch = connection.execute(
            "SELECT count, length(body) FROM batches WHERE position = ?", position
        ).fetchone()
        if batch is not None:  # not dropped by its offset before
            records, size = records + batch[0], size + batch[1]
    connection.executemany("DELETE FROM batches WHERE position = ?", gone)
    connection.executemany("DELETE FROM replaced_batches WHERE position = ?", replaced)
    connection.executemany(
        "DELETE FROM newest_of_keys WHERE partition = ? AND passing = 1 AND base = ?",
        [(key, position - first) for (position,) in passed],
    )
    connection.execute("UPDATE partitions SET bytes = bytes - ? WHERE id = ?", (size, key))
    return records


def drop_part(connection: sqlite3.Connection, key: int, offset: int) -> int | None:
    """Drop some of the batches that end below an offset, or at it.

    Returns how many records, None if there are none.
    """
    first, end = positions_of(key)
    due = connection.execute(
        "SELECT position, count, length(body) FROM batches WHERE position >= ? AND position < ? "
        "AND position + count <= ? ORDER BY position LIMIT ?",
        (first, min(end, first + offset), first + offset, AT_ONCE),
    ).fetchall()
    if not due:
        return None
    _drop(connection, key, upto=due[-1][0], size=sum(size for _, _, size in due))
    return sum(int(count) for _, count, _ in due)


def _drop(connection: sqlite3.Connection, key: int, *, upto: int, size: int) -> None:
    """Drop the batches of a partition up to a position, which are of this size."""
    first, end = positions_of(key)
    connection.execute("DELETE FROM batches WHERE position >= ? AND position <= ?", (first, upto))
    connection.execute("DELETE FROM ages WHERE position >= ? AND position < ?", (first, upto))
    connection.execute(
        "DELETE FROM replaced_batches WHERE position >= ? AND position <= ?", (first, upto)
    )
    connection.execute(
        "DELETE FROM newest_of_keys WHERE partition = ? AND passing IN (0, 1) AND base <= ?",
        (key, upto - first),
    )
    connection.execute(
        "UPDATE partitions SET bytes = bytes - ?, low = coalesce((SELECT min(position) - ? "
        "FROM batches WHERE position > ? AND position < ?), next) WHERE id = ?",
        (size, first, upto, end, key),
    )


__all__ = ["drop_part", "note_age", "trim_part"]
