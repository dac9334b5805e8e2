"""Moves what belongs to topics besides their batches: groups, and delayed records.

This is done once nobody writes to the source any more. It can be repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import gatherResults

from kupool.migration import CannotMove
from kupool.migration.topic_progress import TopicMoveProgress
from kupool.migration.topic_source import GroupState, TopicSource
from kupool.topics.batches import MOST_RECORDS
from kupool.topics.interfaces import StoredBatch
from kupool.topics.partition import Partition

#: Generations and delayed batches that are written at once.
_AT_ONCE = 256

#: Bytes of bodies that are read at once to find a batch.
_PIECE = 32 * 1024

_Read = Callable[[int], Coroutine[Any, Any, Sequence[StoredBatch]]]


class GroupMover:
    """Moves the groups of topics that are copied. ``target`` is an ``ITopicEngine``.

    ``log_position`` returns where an entry of the submission log is now, by its old position.
    """

    def __init__(
        self,
        source: TopicSource,
        target: Any,
        progress: TopicMoveProgress,
        log_position: Callable[[int], int],
    ) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._log_position = log_position

    async def move(self) -> int:
        """Move generations, positions and delayed batches; returns how many positions.

        Raises :class:`CannotMove` if a position is not in the target afterwards.
        """
        groups = await self._source.groups()
        for name in await self._target.groups():
            if name not in groups:
                await self._target.forget_group(name)
        positions = 0
        for name, state in groups.items():
            await self._move_group(name, state)
            positions += len(state.positions)
        for topic in self._progress.topics():
            await self._move_delayed(topic)
        return positions

    async def _move_group(self, group: str, state: GroupState) -> None:
        positions = {
            place: await self.position_of(place, offset)
            for place, offset in state.positions.items()
        }
        if positions:
            await self._target.commit(group, positions)
        if await self._target.committed(group) != positions:
            raise CannotMove(f"the positions of group {group} did not arrive; try again")
        # A member from before the move must not be taken for one of after it.
        reached = 0
        while reached < state.generation:
            wanted = min(_AT_ONCE, state.generation - reached)
            reached = max(
                await gatherResults(
                    [self._target.next_generation(group) for _ in range(wanted)],
                    consumeErrors=True,
                )
            )

    async def position_of(self, partition: Partition, offset: int) -> int:
        """Return the offset in the target of the record that has this offset in the source.

        Of an offset that no record has, it is that of the next one.
        """
        copy = self._progress.partition(partition)
        extent = (await self._source.extents(partition.topic))[partition.number]
        if offset > extent.high:  # its records are in the submission log
            position, index = divmod(offset, MOST_RECORDS + 1)
            return self._log_position(position) * (MOST_RECORDS + 1) + index
        if copy is None:
            return offset
        if offset >= copy.source_next:
            return copy.target_next
        offset = max(offset, extent.low)
        mark = self._progress.mark_before(partition, offset) or (0, 0)
        sources = _batches(
            lambda start: self._read_source(partition, start), max(mark[0], extent.low)
        )
        targets = _batches(lambda start: self._read_target(partition, start), mark[1])
        async for batch in sources:
            # The source may have dropped some, which the target still has.
            base = await _base_of(targets, batch)
            if base is None:
                break
            if batch.base + batch.records > offset:
                return base + max(0, offset - batch.base)
        return copy.target_next

    async def _read_source(self, partition: Partition, offset: int) -> Sequence[StoredBatch]:
        return await self._source.read(partition, offset, _PIECE)

    async def _read_target(self, partition: Partition, offset: int) -> Sequence[StoredBatch]:
        extent = (await self._target.extents(partition.topic))[partition.number]
        found: Sequence[StoredBatch]
        found = await self._target.read(partition, max(offset, extent.low), _PIECE)
        return found

    async def _move_delayed(self, topic: str) -> None:
        """Copy the batches that are appended later; those of an attempt before are removed."""
        for old in await self._target.delayed(topic):
            await self._target.cancel(topic, old.delay_id)
        found = await self._source.delayed(topic)
        for first in range(0, len(found), _AT_ONCE):
            piece = found[first : first + _AT_ONCE]
            await gatherResults(
                [self._target.delay([append], due) for due, append in piece], consumeErrors=True
            )
        there = await self._target.delayed(topic)
        if sorted(each.due for each in there) != sorted(due for due, _ in found):
            raise CannotMove(f"delayed records of topic {topic} did not arrive; try again")


async def _batches(read: _Read, offset: int) -> AsyncIterator[StoredBatch]:
    """Yield the batches from an offset on."""
    while found := await read(offset):
        for batch in found:
            yield batch
        offset = found[-1].base + found[-1].records


async def _base_of(targets: AsyncIterator[StoredBatch], batch: StoredBatch) -> int | None:
    """Advance to a batch in the target; returns its offset, None if it is not there."""
    async for found in targets:
        if found.body == batch.body:
            return found.base
    return None


__all__ = ["GroupMover"]
