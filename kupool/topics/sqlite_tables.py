"""The statements of topics in SQLite. All block: they run in the threads of the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from kupool.topics.errors import (
    OffsetOutOfRange,
    PartitionFull,
    SequenceTooOld,
    TopicError,
    UnknownTopic,
)
from kupool.topics.interfaces import (
    REMEMBERED,
    Append,
    CompactionKey,
    Content,
    DelayedBatch,
    DelayPlace,
    PartitionExtent,
    StoredBatch,
)
from kupool.topics.partition import Partition
from kupool.topics.settings import TopicSettings

#: The bits of a position that are the offset, below the id of the partition.
OFFSET_BITS = 43

#: The offsets of a partition.
MOST_OFFSETS = 1 << OFFSET_BITS

#: Batches that one transaction removes, or delayed ones that it appends: those who append meanwhile
#: wait for it.
AT_ONCE = 20

#: A batch that its partition cannot take stays delayed by so many milliseconds more.
POSTPONED = 24 * 3600 * 1000

_settings = msgspec.json.Decoder(TopicSettings).decode


def positions_of(key: int) -> tuple[int, int]:
    """Return the first position of a partition, and the one behind its last."""
    return key << OFFSET_BITS, (key + 1) << OFFSET_BITS


class TopicRow(NamedTuple):
    """A topic as it is in the file: its id, and those of its partitions by their number.

    ``created`` is in milliseconds since the epoch.
    """

    key: int
    name: str
    settings: TopicSettings
    partitions: tuple[int, ...]
    created: int


def topics(connection: sqlite3.Connection) -> list[TopicRow]:
    """Return all topics."""
    keys: dict[int, list[int]] = {}
    for topic, key in connection.execute(
        "SELECT topic, id FROM partitions ORDER BY topic, number"
    ).fetchall():
        keys.setdefault(topic, []).append(key)
    rows = connection.execute(
        "SELECT id, name, settings, created_at FROM topics ORDER BY name"
    ).fetchall()
    return [
        TopicRow(key, name, _settings(text), tuple(keys[key]), created)
        for key, name, text, created in rows
    ]


def create(
    connection: sqlite3.Connection, name: str, settings: TopicSettings, now: int
) -> TopicRow:
    """Make a topic, which there must not be."""
    cursor = connection.execute(
        "INSERT INTO topics (name, settings, created_at) VALUES (?, ?, ?)",
        (name, msgspec.json.encode(settings).decode(), now),
    )
    assert cursor.lastrowid is not None
    return _with_partitions(connection, TopicRow(cursor.lastrowid, name, settings, (), now))


def change(connection: sqlite3.Connection, topic: TopicRow, settings: TopicSettings) -> TopicRow:
    """Change the settings of a topic, and add the partitions that it lacks."""
    changed = connection.execute(
        "UPDATE topics SET settings = ? WHERE id = ?",
        (msgspec.json.encode(settings).decode(), topic.key),
    ).rowcount
    if not changed:
        raise UnknownTopic(topic.name)
    return _with_partitions(connection, topic._replace(settings=settings))


def _with_partitions(connection: sqlite3.Connection, topic: TopicRow) -> TopicRow:
    """Return the topic with as many partitions as it should have; the ids are the lowest free."""
    keys = list(topic.partitions)
    for number in range(len(keys), topic.settings.partitions):
        (key,) = connection.execute(
            "SELECT min(free) FROM (SELECT 1 AS free UNION ALL "
            "SELECT id + 1 FROM partitions UNION ALL SELECT id + 1 FROM deleted_partitions) "
            "WHERE free NOT IN (SELECT id FROM partitions UNION ALL "
            "SELECT id FROM deleted_partitions)"
        ).fetchone()
        connection.execute(
            "INSERT INTO partitions (id, topic, number) VALUES (?, ?, ?)", (key, topic.key, number)
        )
        keys.append(key)
    return topic._replace(partitions=tuple(keys))


def delete(connection: sqlite3.Connection, topic: TopicRow) -> None:
    """Delete a topic; its batches are left to :func:`remove_deleted`."""
    for key in topic.partitions:
        connection.execute("INSERT INTO deleted_partitions (id) VALUES (?)", (key,))
        connection.execute("DELETE FROM producer_batches WHERE partition = ?", (key,))
        connection.execute("DELETE FROM group_positions WHERE partition = ?", (key,))
        connection.execute("DELETE FROM delayed_batches WHERE partition = ?", (key,))
        connection.execute("DELETE FROM contents WHERE partition = ?", (key,))
        connection.execute("DELETE FROM offset_gaps WHERE partition = ?", (key,))
    connection.execute("DELETE FROM partitions WHERE topic = ?", (topic.key,))
    connection.execute("DELETE FROM topics WHERE id = ?", (topic.key,))


def remove_deleted(connection: sqlite3.Connection) -> bool:
    """Remove some batches of a deleted topic; returns whether there may be more."""
    (key,) = connection.execute("SELECT min(id) FROM deleted_partitions").fetchone()
    if key is None:
        return False
    first, end = positions_of(key)
    for table in ("batches", "replaced_batches", "ages"):
        removed = connection.execute(
            f"DELETE FROM {table} WHERE position IN (SELECT position FROM {table} "
            "WHERE position >= ? AND position < ? ORDER BY position LIMIT ?)",
            (first, end, AT_ONCE),
        ).rowcount
        if removed == AT_ONCE:
            return True
    removed = connection.execute(
        "DELETE FROM newest_of_keys WHERE partition = ? AND hash IN "
        "(SELECT hash FROM newest_of_keys WHERE partition = ? LIMIT ?)",
        (key, key, AT_ONCE),
    ).rowcount
    if removed < AT_ONCE:
        connection.execute("DELETE FROM deleted_partitions WHERE id = ?", (key,))
    return True


class _Ends:
    """Where partitions end, while batches are appended: read once, and written once."""

    def __init__(self, connection: sqlite3.Connection, now: int) -> None:
        self._connection = connection
        self._now = now
        #: Partition's id -> the next offset, the bytes of new batches, the time of the newest one.
        self._ends: dict[int, tuple[int, int, int]] = {}
        self._batches: list[tuple[int, int, int, bytes]] = []

    def append(self, key: int, append: Append) -> int:
        """Return the offset that a batch gets; raises :class:`TopicError` if it gets none."""
        partition, records, body, *_, at = append
        base, size, newest_at = self._ends.get(key) or self._read(key, partition)
        at = max(newest_at, self._now if at is None else at)
        following = base + records
        if following > MOST_OFFSETS:
            raise PartitionFull(*partition)
        self._ends[key] = (following, size + len(body), at)
        self._batches.append(((key << OFFSET_BITS) + base, records, at, body))
        return base

    def _read(self, key: int, partition: Partition) -> tuple[int, int, int]:
        row = self._connection.execute(
            "SELECT next, newest_at FROM partitions WHERE id = ?", (key,)
        ).fetchone()
        if row is None:
            raise UnknownTopic(partition.topic)
        return row[0], 0, row[1]

    def end(self, key: int, partition: Partition) -> tuple[int, int]:
        """Return the next offset of a partition, and the time that a batch there gets now."""
        following, _, newest_at = self._ends.get(key) or self._read(key, partition)
        return following, max(newest_at, self._now)

    def mark(self) -> tuple[dict[int, tuple[int, int, int]], int]:
        """Return the state, for :meth:`back_to`."""
        return dict(self._ends), len(self._batches)

    def back_to(self, mark: tuple[dict[int, tuple[int, int, int]], int]) -> None:
        """Undo what was appended since a mark."""
        self._ends = mark[0]
        del self._batches[mark[1] :]

    def write(self) -> None:
        """Write the batches and the ends."""
        self._connection.executemany(
            "INSERT INTO batches (position, count, appended_at, body) VALUES (?, ?, ?, ?)",
            self._batches,
        )
        self._connection.executemany(
            "UPDATE partitions SET next = ?, bytes = bytes + ?, newest_at = ? WHERE id = ?",
            [(*end, key) for key, end in self._ends.items()],
        )


def append(
    connection: sqlite3.Connection, orders: Sequence[Sequence[tuple[int, Append]]], now: int
) -> list[list[int] | TopicError]:
    """Append the batches of some orders, each all or none.

    Returns, for each order, the offset of the first record of each batch, or why nothing of it was
    appended.
    """
    ends = _Ends(connection, now)
    outcomes: list[list[int] | TopicError] = []
    for rows in orders:
        try:
            outcomes.append(_append_order(connection, ends, rows))
        except TopicError as error:
            outcomes.append(error)
    ends.write()
    return outcomes


def _append_order(
    connection: sqlite3.Connection, ends: _Ends, rows: Sequence[tuple[int, Append]]
) -> list[int]:
    if len(rows) == 1:
        key, one = rows[0]
        if one.stamp is None and one.content is None and one.key is None:
            return [ends.append(key, one)]
    mark = ends.mark()
    connection.execute("SAVEPOINT one")
    try:
        bases = [_append_once(connection, ends, key, each) for key, each in rows]
    except TopicError:
        connection.execute("ROLLBACK TO one")
        ends.back_to(mark)
        raise
    finally:
        connection.execute("RELEASE one")
    return bases


def _append_once(connection: sqlite3.Connection, ends: _Ends, key: int, append: Append) -> int:
    """Append a batch, unless it was before; returns its offset."""
    known = None
    if append.stamp is not None:
        known = _appended_before(connection, key, append)
    if known is None and append.content is not None:
        known = _with_content(connection, ends, key, append)
    base = ends.append(key, append) if known is None else known
    if append.stamp is not None:
        _remember(connection, key, append, base)
    if known is None and append.content is not None:
        _remember_content(connection, ends, key, append)
    if known is None and append.key is not None:
        _replace_key(connection, key, append.key, base)
    return base


def _replace_key(
    connection: sqlite3.Connection, key: int, compaction: CompactionKey, base: int
) -> None:
    """Note that a batch that was just appended is the last one of its key."""
    connection.execute(
        "INSERT OR IGNORE INTO replaced_batches (position) SELECT (partition << ?) + base "
        "FROM newest_of_keys WHERE partition = ? AND hash = ?",
        (OFFSET_BITS, key, compaction.hash),
    )
    connection.execute(
        "INSERT OR REPLACE INTO newest_of_keys (partition, hash, base, passing) "
        "VALUES (?, ?, ?, ?)",
        (key, compaction.hash, base, compaction.passing),
    )


def _with_content(
    connection: sqlite3.Connection, ends: _Ends, key: int, append: Append
) -> int | None:
    """Return the offset of a batch with the same content that is new enough; None without one."""
    assert append.content is not None
    row = connection.execute(
        "SELECT base, appended_at FROM contents WHERE partition = ? AND hash = ?",
        (key, append.content.hash),
    ).fetchone()
    if row is None or _is_old(append.content, row, ends.end(key, append.partition)):
        return None
    return int(row[0])


def _is_old(content: Content, row: tuple[int, int], end: tuple[int, int]) -> bool:
    """Return whether a batch (offset, time) is too old, at the end of a partition."""
    (base, at), (following, now) = row, end
    too_many = bool(content.window) and following - base > content.window
    return too_many or (bool(content.seconds) and now - at > content.seconds * 1000)


def _remember_content(
    connection: sqlite3.Connection, ends: _Ends, key: int, append: Append
) -> None:
    """Remember the content of a batch that was just appended, and forget two that are too old."""
    assert append.content is not None
    following, now = end = ends.end(key, append.partition)
    connection.execute(
        "INSERT OR REPLACE INTO contents (partition, base, appended_at, hash) VALUES (?, ?, ?, ?)",
        (key, following - append.records, now, append.content.hash),
    )
    oldest = connection.execute(
        "SELECT base, appended_at FROM contents WHERE partition = ? ORDER BY base LIMIT 2", (key,)
    ).fetchall()
    for row in oldest:
        if _is_old(append.content, row, end):
            connection.execute(
                "DELETE FROM contents WHERE partition = ? AND base = ?", (key, row[0])
            )


def _appended_before(connection: sqlite3.Connection, key: int, append: Append) -> int | None:
    """Return the offset of a batch that a producer sent before; None if it is new."""
    assert append.stamp is not None
    producer, sequence = append.stamp
    row = connection.execute(
        "SELECT base FROM producer_batches WHERE partition = ? AND producer = ? AND sequence = ?",
        (key, producer, sequence),
    ).fetchone()
    if row is not None:
        return int(row[0])
    oldest, count = connection.execute(
        "SELECT min(sequence), count(*) FROM producer_batches WHERE partition = ? AND producer = ?",
        (key, producer),
    ).fetchone()
    if count >= REMEMBERED and sequence < oldest:
        raise SequenceTooOld(producer, sequence, oldest)
    return None


def _remember(connection: sqlite3.Connection, key: int, append: Append, base: int) -> None:
    assert append.stamp is not None
    producer, sequence = append.stamp
    connection.execute(
        "INSERT OR IGNORE INTO producer_batches (partition, producer, sequence, base) "
        "VALUES (?, ?, ?, ?)",
        (key, producer, sequence, base),
    )
    connection.execute(
        "DELETE FROM producer_batches WHERE partition = ? AND producer = ? AND sequence < "
        "(SELECT min(sequence) FROM (SELECT sequence FROM producer_batches "
        "WHERE partition = ? AND producer = ? ORDER BY sequence DESC LIMIT ?))",
        (key, producer, key, producer, REMEMBERED),
    )


def delay(
    connection: sqlite3.Connection, rows: Sequence[tuple[int, Append]], due: int
) -> list[int]:
    """Keep batches until they are due; returns their ids."""
    found = []
    for key, append in rows:
        compaction = append.key or (None, None)
        cursor = connection.execute(
            "INSERT INTO delayed_batches (due, partition, count, body, hash, passing) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (due, key, append.records, append.body, *compaction),
        )
        assert cursor.lastrowid is not None
        found.append(cursor.lastrowid)
    return found


class Due(NamedTuple):
    """Delayed batches that were due: the partition and the records of each that was appended, and
    of each that its partition cannot take. Without any, nothing was due.
    """

    appended: list[tuple[Partition, int]]
    postponed: list[tuple[Partition, int]]


def append_due(connection: sqlite3.Connection, now: int) -> Due:
    """Append some of the batches that are due; one that cannot be appended keeps no other away."""
    rows = connection.execute(
        "SELECT delayed_batches.id, partitions.id, topics.name, partitions.number, count, body, "
        "hash, passing FROM delayed_batches "
        "JOIN partitions ON partitions.id = delayed_batches.partition "
        "JOIN topics ON topics.id = partitions.topic WHERE due <= ? "
        "ORDER BY due, delayed_batches.id LIMIT ?",
        (now, AT_ONCE),
    ).fetchall()
    ends = _Ends(connection, now)
    due = Due([], [])
    done, postponed = [], []
    for delay_id, key, name, number, records, body, digest, passing in rows:
        partition = Partition(name, number)
        compaction = None if digest is None else CompactionKey(digest, bool(passing))
        try:
            _append_once(connection, ends, key, Append(partition, records, body, key=compaction))
        except PartitionFull:
            due.postponed.append((partition, records))
            postponed.append((now + POSTPONED, delay_id))
            continue
        due.appended.append((partition, records))
        done.append((delay_id,))
    ends.write()
    connection.executemany("DELETE FROM delayed_batches WHERE id = ?", done)
    connection.executemany("UPDATE delayed_batches SET due = ? WHERE id = ?", postponed)
    return due


def delayed(
    connection: sqlite3.Connection, topic: TopicRow, start: DelayPlace, limit: int | None
) -> list[DelayedBatch]:
    """Return the batches of a topic that wait, those due first first, from a place on."""
    rows = connection.execute(
        "SELECT delayed_batches.id, due, number, count FROM delayed_batches "
        "JOIN partitions ON partitions.id = delayed_batches.partition WHERE topic = ? "
        "AND (due, delayed_batches.id) >= (?, ?) ORDER BY due, delayed_batches.id LIMIT ?",
        (topic.key, *start, -1 if limit is None else limit),
    )
    return [
        DelayedBatch(delay_id, due, Partition(topic.name, number), records)
        for delay_id, due, number, records in rows.fetchall()
    ]


def next_due(connection: sqlite3.Connection) -> int | None:
    """Return when the next delayed batch is due; None if there is none."""
    (due,) = connection.execute("SELECT min(due) FROM delayed_batches").fetchone()
    return None if due is None else int(due)


def cancel(connection: sqlite3.Connection, topic: TopicRow, delay_id: int) -> bool:
    """Forget a delayed batch of a topic; returns whether it was there."""
    gone = connection.execute(
        "DELETE FROM delayed_batches WHERE id = ? "
        "AND partition IN (SELECT id FROM partitions WHERE topic = ?)",
        (delay_id, topic.key),
    )
    return gone.rowcount > 0


def read(
    connection: sqlite3.Connection, partition: Partition, key: int, *, offset: int, max_bytes: int
) -> list[StoredBatch]:
    """Return the batch that holds an offset, and those behind it; see the interface."""
    first, end = positions_of(key)
    found: list[StoredBatch] = []
    connection.execute("BEGIN")
    try:
        (low, following) = _extent(connection, partition.topic, key)
        if offset < low:
            raise OffsetOutOfRange(*partition, offset, low=low, high=following)
        if offset >= following:
            return []
        (start,) = connection.execute(
            "SELECT max(position) FROM batches WHERE position >= ? AND position <= ?",
            (first, first + offset),
        ).fetchone()
        # Compaction may have dropped the batch of the offset: then the one before it ends below.
        rows = connection.execute(
            "SELECT position - ?, count, appended_at, body FROM batches "
            "WHERE position >= ? AND position < ? AND position + count > ? ORDER BY position",
            (first, first + offset if start is None else start, end, first + offset),
        )
        for row in rows:
            max_bytes -= len(row[3])
            if max_bytes < 0 and found:
                break
            found.append(StoredBatch._make(row))
        return found
    finally:
        connection.execute("COMMIT")


def _extent(connection: sqlite3.Connection, topic: str, key: int) -> tuple[int, int]:
    row = connection.execute("SELECT low, next FROM partitions WHERE id = ?", (key,)).fetchone()
    if row is None:
        raise UnknownTopic(topic)
    low, following = row
    return low, following


def find(connection: sqlite3.Connection, partition: Partition, key: int, *, at: int) -> int:
    """Return the offset of the first batch appended at a time or later.

    Times never go back in a partition, so that halving finds it without an index.
    """
    first, end = positions_of(key)
    low, high = _extent(connection, partition.topic, key)
    while low < high:
        middle = (low + high) // 2
        batch = connection.execute(
            "SELECT position, count, appended_at FROM batches WHERE position >= ? AND position < ? "
            "ORDER BY position LIMIT 1",
            (first + middle, end),
        ).fetchone()
        if batch is None or batch[2] >= at:
            high = middle
        else:
            low = batch[0] - first + batch[1]
    (position,) = connection.execute(
        "SELECT min(position) FROM batches WHERE position >= ? AND position < ?",
        (first + low, end),
    ).fetchone()
    return int(low if position is None else position - first)


def extents(connection: sqlite3.Connection, topic: TopicRow) -> list[PartitionExtent]:
    """Return what each partition of a topic holds."""
    rows = connection.execute(
        "SELECT low, next, bytes FROM partitions WHERE topic = ? ORDER BY number", (topic.key,)
    ).fetchall()
    if not rows:
        raise UnknownTopic(topic.name)
    return [PartitionExtent(*row) for row in rows]


def commit(connection: sqlite3.Connection, rows: Sequence[tuple[str, int, int]]) -> None:
    """Save the offsets that groups read next: (group, partition's id, offset)."""
    connection.executemany(
        "INSERT INTO group_positions (group_name, partition, next) VALUES (?, ?, ?) "
        "ON CONFLICT (group_name, partition) DO UPDATE SET next = excluded.next",
        rows,
    )


def committed(connection: sqlite3.Connection, group: str) -> Mapping[Partition, int]:
    """Return the offsets that a group has saved."""
    rows = connection.execute(
        "SELECT topics.name, partitions.number, group_positions.next FROM group_positions "
        "JOIN partitions ON partitions.id = group_positions.partition "
        "JOIN topics ON topics.id = partitions.topic WHERE group_name = ?",
        (group,),
    )
    return {Partition(name, number): offset for name, number, offset in rows.fetchall()}


def next_generation(connection: sqlite3.Connection, group: str) -> int:
    """Return a number above all that a group had."""
    row = connection.execute(
        "INSERT INTO topic_groups (name, generation) VALUES (?, 1) ON CONFLICT (name) "
        "DO UPDATE SET generation = generation + 1 RETURNING generation",
        (group,),
    ).fetchone()
    return int(row[0])


def groups(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the groups that have saved anything."""
    rows = connection.execute("SELECT DISTINCT group_name FROM group_positions ORDER BY 1")
    return [name for (name,) in rows.fetchall()]


def forget_group(connection: sqlite3.Connection, group: str) -> None:
    """Forget the offsets that a group has saved."""
    connection.execute("DELETE FROM group_positions WHERE group_name = ?", (group,))
