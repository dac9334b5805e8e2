"""A source of a move of topics: an engine of the same process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kupool.migration.topic_source import GroupState, SourceTopic
from kupool.topics.interfaces import Append, PartitionExtent, StoredBatch
from kupool.topics.partition import Partition
from kupool.topics.records import Stamp


class EngineSource:
    """Reads an engine; what it does not give away is set by the test."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.identities: dict[str, str] = {}
        self.stamped: dict[Partition, dict[int, Stamp]] = {}
        self.waiting: dict[str, list[tuple[int, Append]]] = {}
        self.generations: dict[str, int] = {}

    def identity(self, topic: str) -> str:
        return self.identities.get(topic, "first")

    async def open(self) -> None:
        await self._engine.open()

    async def topics(self) -> Mapping[str, SourceTopic]:
        found = self._engine.topics().items()
        return {name: SourceTopic(self.identity(name), settings) for name, settings in found}

    async def extents(self, topic: str) -> Sequence[PartitionExtent]:
        found: Sequence[PartitionExtent] = await self._engine.extents(topic)
        return found

    async def read(
        self, partition: Partition, offset: int, max_bytes: int
    ) -> Sequence[StoredBatch]:
        found: Sequence[StoredBatch] = await self._engine.read(partition, offset, max_bytes)
        return found

    async def stamps(self, partition: Partition) -> Mapping[int, Stamp]:
        return self.stamped.get(partition, {})

    async def delayed(self, topic: str) -> Sequence[tuple[int, Append]]:
        return self.waiting.get(topic, [])

    async def groups(self) -> Mapping[str, GroupState]:
        return {
            name: GroupState(self.generations.get(name, 0), await self._engine.committed(name))
            for name in await self._engine.groups()
        }

    async def close(self) -> None:
        await self._engine.close()
