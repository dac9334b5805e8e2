"""Topics in RabbitMQ that are moved away, read while their daemon writes to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from kupool.migration.topic_source import GroupState, SourceTopic
from kupool.topics.errors import UnknownTopic
from kupool.topics.interfaces import Append, PartitionExtent, StoredBatch
from kupool.topics.partition import Partition
from kupool.topics.rabbit import statements
from kupool.topics.rabbit.statements import StatementCursor
from kupool.topics.records import Stamp


class RabbitTopicSource:
    """A ``RabbitTopics`` and its store, an ``ITopicStore``; nothing is written to either."""

    def __init__(self, engine: Any, store: Any) -> None:
        self._engine = engine
        self._store = store
        self._keys: dict[str, int] = {}

    async def open(self) -> None:
        """Connect to the broker and the store."""
        await self._engine.open()

    async def topics(self) -> Mapping[str, SourceTopic]:
        """Return the topics that there are now."""
        found = await self._store.run(statements.topics)
        self._keys = {topic.name: topic.key for topic in found}
        return {topic.name: SourceTopic(str(topic.key), topic.settings) for topic in found}

    async def extents(self, topic: str) -> Sequence[PartitionExtent]:
        """Return what each partition holds."""
        found: Sequence[PartitionExtent] = await self._engine.extents(topic)
        return found

    async def read(
        self, partition: Partition, offset: int, max_bytes: int
    ) -> Sequence[StoredBatch]:
        """Return the batch that holds an offset, and those behind it."""
        found: Sequence[StoredBatch] = await self._engine.read(partition, offset, max_bytes)
        return found

    async def stamps(self, partition: Partition) -> Mapping[int, Stamp]:
        """Return the newest marks of each producer."""
        rows = await self._store.run(partial(_stamps, place=(self._key(partition), partition[1])))
        return {base: Stamp(producer, sequence) for base, producer, sequence in rows}

    async def delayed(self, topic: str) -> Sequence[tuple[int, Append]]:
        """Return the batches that are appended later."""
        rows = await self._store.run(partial(_delayed, key=self._key(Partition(topic, 0))))
        return [
            (due, Append(Partition(topic, number), records, bytes(body)))
            for due, number, records, body in rows
        ]

    async def groups(self) -> Mapping[str, GroupState]:
        """Return the consumer groups."""
        generations = dict(await self._store.run(_generations))
        names = {*generations, *await self._engine.groups()}
        return {
            name: GroupState(generations.get(name, 0), await self._engine.committed(name))
            for name in names
        }

    async def close(self) -> None:
        """Disconnect."""
        await self._engine.close()

    def _key(self, partition: Partition) -> int:
        if partition.topic not in self._keys:
            raise UnknownTopic(partition.topic)
        return self._keys[partition.topic]


async def _stamps(cursor: StatementCursor, place: tuple[int, int]) -> list[Any]:
    await cursor.execute(
        "SELECT base, producer, sequence FROM log_once WHERE topic_key = %s AND number = %s "
        "AND producer IS NOT NULL AND base IS NOT NULL",
        place,
    )
    return cursor.fetchall()


async def _delayed(cursor: StatementCursor, key: int) -> list[Any]:
    await cursor.execute(
        "SELECT due, number, records, body FROM log_delays WHERE topic_key = %s "
        "ORDER BY due, delay_id",
        (key,),
    )
    return cursor.fetchall()


async def _generations(cursor: StatementCursor) -> list[Any]:
    await cursor.execute("SELECT name, generation FROM log_groups")
    return cursor.fetchall()


__all__ = ["RabbitTopicSource"]
