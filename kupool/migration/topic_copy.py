"""Copies topics from one engine to another, batch by batch in order, and reads the copy again.

A pass copies what the source has when it begins, so that every pass ends, however much is written
meanwhile. What a pass leaves is copied by the next one. The bodies of batches stay as they are;
their offsets change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from kupool.migration import CannotMove
from kupool.migration.reports import Report
from kupool.migration.topic_progress import PartitionCopy, Tally, TopicMoveProgress
from kupool.migration.topic_source import SourceTopic, TopicSource
from kupool.topics.batches import RecordCodec
from kupool.topics.errors import CorruptBatch, OffsetOutOfRange, SequenceTooOld
from kupool.topics.interfaces import Append, CompactionKey, PartitionExtent, StoredBatch
from kupool.topics.partition import Partition
from kupool.topics.records import Stamp, key_hash

#: Bytes of bodies that are copied at once.
CHUNK = 512 * 1024

#: Of so many batches, the place of one is noted.
MARKED = 256

#: Batches that may have the marks of producers: no more are remembered, nor found.
_NO_STAMPS: Mapping[int, Stamp] = {}


class TopicCopier:
    """Copies topics. ``target`` is an ``ITopicEngine`` that nobody else uses.

    Every method raises :class:`CannotMove` for what a person has to put in order.
    """

    def __init__(
        self, source: TopicSource, target: Any, progress: TopicMoveProgress, report: Report
    ) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._report = report
        self._codec = RecordCodec()
        #: Partitions of which it is known that the target has nothing else.
        self._matched: set[Partition] = set()

    async def copy(self) -> int:
        """Copy what the source has and the target lacks; returns how many records that was."""
        topics = await self._source.topics()
        await self._settle(topics)
        work: list[tuple[Partition, PartitionExtent]] = []
        for name in topics:
            extents = await self._source.extents(name)
            work += [(Partition(name, number), each) for number, each in enumerate(extents)]
        done = {partition: self._copy_of(partition) for partition, _ in work}
        left = [max(0, extent.high - done[place].source_next) for place, extent in work]
        self._report.begin("Copying topics", sum(left))
        return sum(
            [
                await self._copy_partition(partition, extent, topics[partition.topic])
                for partition, extent in work
            ]
        )

    async def verify(self) -> int:
        """Read from the target what was copied since the last call, and compare; returns how many
        records that was.
        """
        places = [
            Partition(name, number)
            for name in self._progress.topics()
            for number in range(self._target.topic(name).partitions)
        ]
        copies = [self._copy_of(place) for place in places]
        left = sum(copy.copied.records - copy.verified.records for copy in copies)
        self._report.begin("Comparing topics", left)
        for place, copy in zip(places, copies, strict=True):
            await self._verify_partition(place, copy)
        return left

    def compared(self) -> Mapping[Partition, Tally]:
        """Return what is equal on both sides."""
        return {
            place: self._copy_of(place).verified
            for name in sorted(self._progress.topics())
            for place in (
                Partition(name, number) for number in range(self._target.topic(name).partitions)
            )
        }

    # -- topics

    async def _settle(self, topics: Mapping[str, SourceTopic]) -> None:
        """Make, change and delete topics of the target as they are in the source."""
        known = self._progress.topics()
        for name, identity in known.items():
            if name not in topics or topics[name].identity != identity:
                if self._target.topic(name) is not None:
                    await self._target.delete(name)
                self._progress.forget(name)
        for name, topic in topics.items():
            there = self._target.topic(name)
            if name not in self._progress.topics():
                if there is not None:
                    raise CannotMove(
                        f"the target has a topic {name} already: delete it there, or move the "
                        "file of its topics away"
                    )
                self._progress.begin(name, topic.identity)
            if there is None:
                await self._target.create(name, topic.settings)
            elif there != topic.settings:
                await self._target.change(name, topic.settings)

    def _copy_of(self, partition: Partition) -> PartitionCopy:
        return self._progress.partition(partition) or PartitionCopy(0, 0, Tally(), 0, Tally())

    # -- batches

    async def _copy_partition(
        self, partition: Partition, extent: PartitionExtent, topic: SourceTopic
    ) -> int:
        """Copy a partition up to its end when the pass began; returns how many records."""
        copy = self._copy_of(partition)
        before = copy.copied.records
        if partition not in self._matched:
            copy = await self._match(partition, copy)
            self._matched.add(partition)
        stamps = _NO_STAMPS
        if copy.source_next < extent.high:
            stamps = await self._source.stamps(partition)
        while copy.source_next < extent.high:
            found = await self._read_source(partition, copy.source_next)
            if not found:
                break  # no record has the offsets up to the end
            appends = [
                Append(
                    partition,
                    batch.records,
                    batch.body,
                    stamps.get(batch.base),
                    key=self._key_of(batch) if topic.settings.compacts else None,
                    at=batch.at,
                )
                for batch in found
            ]
            bases = await self._append(appends)
            copy = self._advance(partition, copy, found, bases)
        return copy.copied.records - before

    async def _read_source(self, partition: Partition, offset: int) -> Sequence[StoredBatch]:
        """Read on from an offset, or from the oldest record if the offset is gone by now."""
        try:
            return await self._source.read(partition, offset, CHUNK)
        except OffsetOutOfRange as error:
            return await self._source.read(partition, error.low, CHUNK)

    async def _append(self, appends: Sequence[Append]) -> Sequence[int]:
        try:
            bases: Sequence[int] = await self._target.append(appends)
        except SequenceTooOld:  # numbers of producers that were used in another order
            bases = await self._target.append([each._replace(stamp=None) for each in appends])
        return bases

    def _advance(
        self,
        partition: Partition,
        copy: PartitionCopy,
        found: Sequence[StoredBatch],
        bases: Sequence[int],
    ) -> PartitionCopy:
        """Save that batches are in the target, at these offsets."""
        last = found[-1]
        advanced = copy._replace(
            source_next=last.base + last.records,
            target_next=bases[-1] + last.records,
            copied=copy.copied.plus(found),
        )
        marked = range(0, len(found), MARKED)
        marks = [(found[place].base, bases[place]) for place in marked]
        self._progress.save(partition, advanced, marks)
        self._report.advance(sum(batch.records for batch in found))
        return advanced

    async def _match(self, partition: Partition, copy: PartitionCopy) -> PartitionCopy:
        """Find what is in the target and not in the progress: an interruption came between."""
        while True:
            landed = await self._read_target(partition, copy.target_next)
            if not landed:
                return copy
            expected = await self._read_source(partition, copy.source_next)
            count = min(len(landed), len(expected))
            if not count or any(
                ours.body != theirs.body
                for ours, theirs in zip(landed[:count], expected[:count], strict=True)
            ):
                raise CannotMove(
                    f"partition {partition.number} of topic {partition.topic} has other records "
                    f"in the target from offset {landed[0].base} on: somebody wrote to it; delete "
                    "the topic there, and the file of the move, and begin anew"
                )
            bases = [batch.base for batch in landed[:count]]
            copy = self._advance(partition, copy, expected[:count], bases)

    async def _read_target(self, partition: Partition, offset: int) -> Sequence[StoredBatch]:
        found: Sequence[StoredBatch]
        try:
            found = await self._target.read(partition, offset, CHUNK)
        except OffsetOutOfRange as error:
            if offset:
                raise
            found = await self._target.read(partition, error.low, CHUNK)
        return found

    def _key_of(self, batch: StoredBatch) -> CompactionKey:
        """Return what compaction goes by; a record without a key replaces no other."""
        try:
            batch_id, (record, *_) = self._codec.decode(batch.body, batch.base)
        except (CorruptBatch, ValueError):
            return CompactionKey(blake2b(batch.body, digest_size=16).digest(), passing=True)
        if record.key is None:
            name = batch_id.encode()
            return CompactionKey(blake2b(name, digest_size=16).digest(), passing=True)
        return CompactionKey(key_hash(record.key), passing=not record.value)

    # -- what was copied

    async def _verify_partition(self, partition: Partition, copy: PartitionCopy) -> None:
        while copy.read_next < copy.target_next:
            found = await self._read_target(partition, copy.read_next)
            if not found:
                break
            copy = copy._replace(
                read_next=found[-1].base + found[-1].records, verified=copy.verified.plus(found)
            )
            self._progress.save(partition, copy)
            self._report.advance(sum(batch.records for batch in found))
        if copy.verified != copy.copied:
            ours, theirs = copy.verified, copy.copied
            raise CannotMove(
                f"partition {partition.number} of topic {partition.topic}: the target has "
                f"{ours.records:,} records in {ours.batches:,} batches, and {theirs.records:,} in "
                f"{theirs.batches:,} were copied, or others; delete the topic there, and the file "
                "of the move, and begin anew"
            )


__all__ = ["CHUNK", "MARKED", "TopicCopier"]
