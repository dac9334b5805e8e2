"""Checks the topics in a SQLite file, batch by batch. Blocks, and changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from kupool.storage.verify import is_damage
from kupool.topics import sqlite_tables as tables
from kupool.topics.batches import RecordCodec
from kupool.topics.errors import TopicError
from kupool.topics.partition import Partition


class TopicFault(NamedTuple):
    """What is wrong, and where: a partition and an offset, if they are known."""

    partition: Partition | None
    offset: int | None
    what: str


class VerifiedPartition(NamedTuple):
    """What was read of a partition: offsets from ``low`` up to, but without, ``high``.

    ``size`` is that of its batches, in bytes.
    """

    partition: Partition
    low: int
    high: int
    batches: int
    records: int
    size: int


class _Extent(NamedTuple):
    """What the table of partitions says of one."""

    low: int
    following: int
    size: int
    newest_at: int


class TopicsVerifier:
    """Checks the topics of a file; ``fault`` is called for each fault that is found.

    ``progress`` is called with the bytes of each batch that was read. ``connection`` only reads,
    and is in no transaction.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        fault: Callable[[TopicFault], object],
        progress: Callable[[int], object],
    ) -> None:
        self._connection = connection
        self._fault = fault
        self._progress = progress
        self._codec = RecordCodec()
        #: The topics whose records may be dropped one by one.
        self._compacting: set[str] = set()

    def verify(self) -> Iterator[VerifiedPartition]:
        """Check one partition after the other.

        A fault does not end the check, unless tables cannot be read: raises
        :class:`sqlite3.Error` then.
        """
        topics = tables.topics(self._connection)
        names = {
            key: Partition(topic.name, number)
            for topic in topics
            for number, key in enumerate(topic.partitions)
        }
        self._compacting = {topic.name for topic in topics if topic.settings.compacts}
        for key, partition in names.items():
            found = self._verify_partition(key, partition)
            if found is not None:
                yield found
        self._verify_owners()
        self._verify_groups(names)

    def _verify_partition(self, key: int, partition: Partition) -> VerifiedPartition | None:
        """Check a partition as of one moment; None if its topic was deleted meanwhile."""
        self._connection.execute("BEGIN")
        try:
            row = self._connection.execute(
                "SELECT low, next, bytes, newest_at FROM partitions WHERE id = ?", (key,)
            ).fetchone()
            return None if row is None else self._verify_batches(key, partition, _Extent(*row))
        finally:
            self._connection.execute("COMMIT")

    def _verify_batches(self, key: int, partition: Partition, extent: _Extent) -> VerifiedPartition:
        first, end = key << tables.OFFSET_BITS, (key + 1) << tables.OFFSET_BITS
        gaps = dict(
            self._connection.execute(
                "SELECT first_offset, end_offset FROM offset_gaps WHERE partition = ?", (key,)
            ).fetchall()
        )
        batches = records = size = newest_at = 0
        following = extent.low
        try:
            for position, count, at, body in self._connection.execute(
                "SELECT position, count, appended_at, body FROM batches "
                "WHERE position >= ? AND position < ? ORDER BY position",
                (first, end),
            ):
                base = position - first
                if base > following and partition.topic in self._compacting:
                    following = base
                what = _misplaced(base, following, gaps)
                if at < newest_at:
                    what = what or "it has an earlier time than the batch before it"
                what = what or self._unreadable(body, base, count)
                if what:
                    self._fault(TopicFault(partition, base, what))
                following, newest_at = base + count, max(newest_at, at)
                batches, records, size = batches + 1, records + count, size + len(body)
                self._progress(len(body))
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            what = f"batches from here on cannot be read: {error}"
            self._fault(TopicFault(partition, following, what))
        else:
            self._verify_end(partition, extent, gaps.get(following, following), size)
            if newest_at > extent.newest_at:
                what = "the newest batch is newer than the partition says"
                self._fault(TopicFault(partition, None, what))
        return VerifiedPartition(partition, extent.low, extent.following, batches, records, size)

    def _unreadable(self, body: bytes, base: int, count: int) -> str:
        """Say why a batch cannot be read; empty if it can."""
        try:
            _, records = self._codec.decode(body, base)
        except TopicError as error:
            return str(error)
        if len(records) != count:
            return f"it has {len(records)} records, and its row says {count}"
        return ""

    def _verify_end(self, partition: Partition, extent: _Extent, following: int, size: int) -> None:
        if following != extent.following:
            what = f"batches end at offset {following}, and the partition at {extent.following}"
            self._fault(TopicFault(partition, following, what))
        elif size != extent.size:
            what = f"its batches have {size} bytes, and the partition says {extent.size}"
            self._fault(TopicFault(partition, None, what))

    def _verify_owners(self) -> None:
        """Look for batches that are of no partition."""
        position = 0
        while True:
            # In one statement, since topics may come and go meanwhile.
            (found, known) = self._connection.execute(
                "SELECT position, position >> ? IN (SELECT id FROM partitions UNION ALL "
                "SELECT id FROM deleted_partitions) FROM (SELECT min(position) AS position "
                "FROM batches WHERE position >= ?)",
                (tables.OFFSET_BITS, position),
            ).fetchone()
            if found is None:
                return
            if not known:
                what = f"batches at position {found} are of no partition"
                self._fault(TopicFault(None, None, what))
            position = ((found >> tables.OFFSET_BITS) + 1) << tables.OFFSET_BITS

    def _verify_groups(self, names: Mapping[int, Partition]) -> None:
        """Look for positions behind the end; records of a partition without any may be elsewhere,
        as those of the submissions are.
        """
        rows = self._connection.execute(
            "SELECT group_name, partition, group_positions.next, partitions.next "
            "FROM group_positions LEFT JOIN partitions ON partitions.id = partition "
            "WHERE partitions.next IS NULL OR "
            "(group_positions.next > partitions.next AND partitions.next > 0)"
        ).fetchall()
        for group, key, offset, end in rows:
            where = "is of no partition" if end is None else f"is behind the end {end}"
            what = f"the position {offset} of group {group} {where}"
            self._fault(TopicFault(names.get(key), offset, what))


def _misplaced(base: int, following: int, gaps: Mapping[int, int]) -> str:
    """Say why a batch is not where the one before it ends; empty if it is."""
    if base < following:
        return f"it overlaps the batch before it, which ends at {following}"
    if base > following and gaps.get(following) != base:
        return f"records from {following} to {base - 1} before it are missing"
    return ""


__all__ = ["TopicFault", "TopicsVerifier", "VerifiedPartition"]
