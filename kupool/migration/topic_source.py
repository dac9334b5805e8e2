"""Topics that are moved away: read while their daemon writes to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kupool.storage.reading import ReadOnlyDatabase
from kupool.topics import sqlite_tables as tables
from kupool.topics.errors import UnknownTopic
from kupool.topics.interfaces import Append, CompactionKey, PartitionExtent, StoredBatch
from kupool.topics.partition import Partition
from kupool.topics.records import Stamp
from kupool.topics.settings import TopicSettings


class SourceTopic(NamedTuple):
    """A topic of a source; another one of the same name has another ``identity``."""

    identity: str
    settings: TopicSettings


class GroupState(NamedTuple):
    """The newest generation of a group, and the offsets that it reads next."""

    generation: int
    positions: Mapping[Partition, int]


class TopicSource(Protocol):
    """Reads topics that another process may write to meanwhile."""

    async def open(self) -> None:
        """Open it; raises a clear error if that is impossible."""

    async def topics(self) -> Mapping[str, SourceTopic]:
        """Return the topics that there are now."""

    async def extents(self, topic: str) -> Sequence[PartitionExtent]:
        """Return what each partition of a topic holds; raises :class:`UnknownTopic`."""

    async def read(
        self, partition: Partition, offset: int, max_bytes: int
    ) -> Sequence[StoredBatch]:
        """Return batches, as :meth:`kupool.topics.interfaces.ITopicEngine.read` does."""

    async def stamps(self, partition: Partition) -> Mapping[int, Stamp]:
        """Return the marks of idempotent producers that are remembered, by offset."""

    async def delayed(self, topic: str) -> Sequence[tuple[int, Append]]:
        """Return the batches that are appended later, and when, in milliseconds since the epoch."""

    async def groups(self) -> Mapping[str, GroupState]:
        """Return the consumer groups."""

    async def close(self) -> None:
        """Close it; may be called again."""


class SqliteTopicSource:
    """The file ``topics.sqlite``, which stays as it is."""

    def __init__(self, reactor: Any, path: Path) -> None:
        self._database = ReadOnlyDatabase(reactor, path, "topics")
        self._rows: dict[str, tables.TopicRow] = {}

    async def open(self) -> None:
        """Open the file."""
        await self._database.open()

    async def topics(self) -> Mapping[str, SourceTopic]:
        """Return the topics that there are now."""

        def read(connection: sqlite3.Connection) -> tuple[list[tables.TopicRow], dict[int, int]]:
            made = connection.execute("SELECT id, created_at FROM topics").fetchall()
            return tables.topics(connection), dict(made)

        rows, made = await self._database.run(read)
        self._rows = {row.name: row for row in rows}
        return {
            row.name: SourceTopic(f"{row.key}/{made.get(row.key)}", row.settings) for row in rows
        }

    async def extents(self, topic: str) -> Sequence[PartitionExtent]:
        """Return what each partition holds."""
        row = self._row(topic)
        return await self._database.run(lambda connection: tables.extents(connection, row))

    async def read(
        self, partition: Partition, offset: int, max_bytes: int
    ) -> Sequence[StoredBatch]:
        """Return the batch that holds an offset, and those behind it."""
        key = self._key(partition)
        return await self._database.run(
            lambda connection: tables.read(
                connection, partition, key, offset=offset, max_bytes=max_bytes
            )
        )

    async def stamps(self, partition: Partition) -> Mapping[int, Stamp]:
        """Return the newest marks of each producer."""
        key = self._key(partition)
        rows = await self._database.run(
            lambda connection: connection.execute(
                "SELECT base, producer, sequence FROM producer_batches WHERE partition = ?", (key,)
            ).fetchall()
        )
        return {base: Stamp(producer, sequence) for base, producer, sequence in rows}

    async def delayed(self, topic: str) -> Sequence[tuple[int, Append]]:
        """Return the batches that are appended later."""
        row = self._row(topic)
        found = await self._database.run(
            lambda connection: connection.execute(
                "SELECT due, number, count, body, hash, passing FROM delayed_batches "
                "JOIN partitions ON partitions.id = delayed_batches.partition WHERE topic = ? "
                "ORDER BY due, delayed_batches.id",
                (row.key,),
            ).fetchall()
        )
        return [
            (
                due,
                Append(
                    Partition(topic, number),
                    records,
                    body,
                    key=None if digest is None else CompactionKey(digest, bool(passing)),
                ),
            )
            for due, number, records, body, digest, passing in found
        ]

    async def groups(self) -> Mapping[str, GroupState]:
        """Return the consumer groups."""

        def read(connection: sqlite3.Connection) -> dict[str, GroupState]:
            generations = dict(
                connection.execute("SELECT name, generation FROM topic_groups").fetchall()
            )
            names = {*generations, *tables.groups(connection)}
            return {
                name: GroupState(generations.get(name, 0), tables.committed(connection, name))
                for name in names
            }

        return await self._database.run(read)

    async def close(self) -> None:
        """Close the file."""
        await self._database.close()

    def _row(self, topic: str) -> tables.TopicRow:
        if topic not in self._rows:
            raise UnknownTopic(topic)
        return self._rows[topic]

    def _key(self, partition: Partition) -> int:
        return self._row(partition.topic).partitions[partition.number]


__all__ = ["GroupState", "SourceTopic", "SqliteTopicSource", "TopicSource"]
