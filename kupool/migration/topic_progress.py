"""How far a move of topics is: in a file in the data folder of the new side.

What was copied is known from the target alone. The file says where to go on, so that neither side
is read from its beginning after an interruption. Every call blocks for a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from kupool.migration.notes import INTO, SELECT_NOTES, MoveNote
from kupool.storage.database import Database, connect
from kupool.topics.interfaces import StoredBatch
from kupool.topics.partition import Partition

#: The number of records of a batch, and the bytes of its body.
_HEAD = Struct(">II")

_COLUMNS = (
    "source_next, target_next, batches, records, size, checksum, "
    "read_next, read_batches, read_records, read_size, read_checksum"
)


class Tally(NamedTuple):
    """How many batches and records there were, their bytes, and a checksum over all in order.

    The checksum is over the id, the number of records and the records of each batch.
    """

    batches: int = 0
    records: int = 0
    size: int = 0
    checksum: bytes = b""

    def plus(self, found: Iterable[StoredBatch]) -> Tally:
        """Return this with the batches that follow."""
        batches, records, size, checksum = self
        for batch in found:
            head = _HEAD.pack(batch.records, len(batch.body))
            checksum = sha256(checksum + head + batch.body).digest()
            batches, records, size = batches + 1, records + batch.records, size + len(batch.body)
        return Tally(batches, records, size, checksum)


class PartitionCopy(NamedTuple):
    """How far a partition is copied; the offsets are those that come next.

    ``copied`` was read from the source up to ``source_next``, and is in the target up to
    ``target_next``. ``verified`` was read from the target again, up to ``read_next``.
    """

    source_next: int
    target_next: int
    copied: Tally
    read_next: int
    verified: Tally


class TopicMoveProgress:
    """The file, opened; made if there is none."""

    def __init__(self, path: Path) -> None:
        Database(None, path, "topic_move").check()
        # Where to go on is found again, whatever a power cut takes.
        self._connection = connect(path, "NORMAL")

    def note(self) -> MoveNote | None:
        """Return the note about the move; None if there is none."""
        rows = self._connection.execute(SELECT_NOTES).fetchall()
        return next((note for note in map(MoveNote._make, rows) if note.direction == INTO), None)

    def save_note(self, note: MoveNote) -> None:
        """Write the note about the move, durably."""
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(
            "INSERT OR REPLACE INTO migration (direction, other, state, progress, changed_at) "
            "VALUES (?, ?, ?, ?, ?)",
            note,
        )
        self._connection.execute("PRAGMA synchronous=NORMAL")

    def topics(self) -> Mapping[str, str]:
        """Return the topics that are copied, and what they are in the source."""
        rows = self._connection.execute("SELECT topic, identity FROM copied_topics")
        return dict(rows.fetchall())

    def begin(self, topic: str, identity: str) -> None:
        """Note that a topic is being copied."""
        self._connection.execute("INSERT INTO copied_topics VALUES (?, ?)", (topic, identity))

    def forget(self, topic: str) -> None:
        """Forget a topic, which is in neither side."""
        self._connection.execute("BEGIN IMMEDIATE")
        for table in ("copied_topics", "copied_partitions", "copied_marks"):
            self._connection.execute(f"DELETE FROM {table} WHERE topic = ?", (topic,))
        self._connection.execute("COMMIT")

    def partition(self, partition: Partition) -> PartitionCopy | None:
        """Return how far a partition is; None if it was not begun."""
        row = self._connection.execute(
            f"SELECT {_COLUMNS} FROM copied_partitions WHERE topic = ? AND number = ?", partition
        ).fetchone()
        if row is None:
            return None
        return PartitionCopy(row[0], row[1], Tally(*row[2:6]), row[6], Tally(*row[7:]))

    def save(
        self, partition: Partition, copy: PartitionCopy, marks: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Write how far a partition is; a mark is the offset of a batch in source and target."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "INSERT OR REPLACE INTO copied_marks VALUES (?, ?, ?, ?)",
            [(*partition, *mark) for mark in marks],
        )
        self._connection.execute(
            f"INSERT OR REPLACE INTO copied_partitions (topic, number, {_COLUMNS}) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *partition,
                copy.source_next,
                copy.target_next,
                *copy.copied,
                copy.read_next,
                *copy.verified,
            ),
        )
        self._connection.execute("COMMIT")

    def mark_before(self, partition: Partition, offset: int) -> tuple[int, int] | None:
        """Return where the last batch at an offset of the source, or before it, is known to be."""
        row = self._connection.execute(
            "SELECT source_base, target_base FROM copied_marks "
            "WHERE topic = ? AND number = ? AND source_base <= ? "
            "ORDER BY source_base DESC LIMIT 1",
            (*partition, offset),
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


__all__ = ["PartitionCopy", "Tally", "TopicMoveProgress"]
