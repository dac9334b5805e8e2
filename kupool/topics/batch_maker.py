"""Makes batches of the records that are written: checks them, chooses partitions, encodes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import NamedTuple

from kupool.topics.batches import MOST_RECORDS, Compression, RecordCodec
from kupool.topics.compression import PLAIN
from kupool.topics.errors import BatchTooLarge, RecordTooLarge, UnknownPartition
from kupool.topics.interfaces import Append, CompactionKey, Content
from kupool.topics.partition import Partition
from kupool.topics.partitioners import KeyHashes, Partitioner
from kupool.topics.records import NewRecord, Stamp, content_hash, key_hash, sizes_of
from kupool.topics.settings import TopicSettings

#: Bytes from which a batch is encoded and decoded in a thread, if that compresses it.
IN_THREAD = 16 * 1024

#: Batches of one call from which they are encoded in a thread.
MANY_BATCHES = 100


class Writing(NamedTuple):
    """Records to write to a topic; see :meth:`Topics.produce` for the rest."""

    topic: str
    records: Sequence[NewRecord]
    partition: int | None = None
    stamp: Stamp | None = None


class Prepared(NamedTuple):
    """What was checked: the batches of a topic, each a partition and the indices of its records.

    ``slow`` says that ``encode`` should run in a thread.
    """

    topic: str
    batches: Sequence[tuple[int, Sequence[int]]]
    encode: Callable[[], list[Append]]
    slow: bool


class PlainWrite(NamedTuple):
    """Records for one partition, encoded, of which nothing is left to check.

    Together with others of the partition they can be one batch, of ``room`` bytes at most. It is
    compressed as the topic was to compress when the first of them was made.
    """

    partition: Partition
    records: int
    payload: bytes
    room: int
    compression: Compression


class _TopicWriter:
    """How records are written to a topic, as long as its settings are these."""

    def __init__(
        self, name: str, settings: TopicSettings, batch_bytes: int, *, partitioner: Partitioner
    ) -> None:
        self.settings = settings
        #: Whether a batch is made of any records.
        self.plain = not (settings.dedups or settings.compacts)
        #: The bytes of a batch that is encoded at once.
        self.at_once = batch_bytes
        if settings.compression != PLAIN:
            self.at_once = min(batch_bytes, IN_THREAD - 1)
        #: Encoded records of so many bytes are small enough, together and each.
        self.one_batch = min(settings.max_record, batch_bytes)
        self.partitioner = partitioner
        self.compression = Compression(settings.compression, settings.compression_threshold)
        self.partitions = [Partition(name, number) for number in range(settings.partitions)]

    def numbers(self, job: Writing) -> list[int]:
        """Return the partition of each record; raises :class:`UnknownPartition`."""
        count, partitioner = self.settings.partitions, self.partitioner
        if job.partition is not None:
            if not 0 <= job.partition < count:
                raise UnknownPartition(job.topic, job.partition, count)
            return [job.partition] * len(job.records)
        if self.settings.dedups:  # the same content has to go to the same partition
            return [
                partitioner.choose(record.key, count)
                if record.key is not None and partitioner.by_key
                else int.from_bytes(content_hash(record)) % count
                for record in job.records
            ]
        if job.stamp is None:
            return [partitioner.choose(record.key, count) for record in job.records]
        # Sent again, each has to go to the same partition.
        other = job.stamp.sequence % count
        return [
            other
            if record.key is None or not partitioner.by_key
            else partitioner.choose(record.key, count)
            for record in job.records
        ]


class BatchMaker:
    """Makes batches for topics.

    ``wall`` returns seconds since the epoch. ``random`` is the source of ids of batches and of
    random partitions. A batch has at most ``most_records`` of together ``most_bytes``.
    """

    def __init__(
        self, wall: Callable[[], float], random: Random, *, most_records: int, most_bytes: int
    ) -> None:
        self._wall = wall
        self._random = random
        #: The most records of a batch.
        self.most_records = min(most_records, MOST_RECORDS)
        self._most_bytes = most_bytes
        self._codec = RecordCodec()
        self._hashes = KeyHashes()
        self._writers: dict[str, _TopicWriter] = {}

    def forget(self, topic: str) -> None:
        """Forget a topic that was deleted, or has other settings."""
        self._writers.pop(topic, None)

    def plain(
        self,
        topic: str,
        settings: TopicSettings,
        records: Sequence[NewRecord],
        *,
        partition: int | None,
    ) -> PlainWrite | None:
        """Return what records make, if nothing but their size has to be checked; else None.

        Most calls are of this kind, and this is several times as fast as :meth:`prepare`.
        """
        writer, count = self._writer(topic, settings), len(records)
        if not writer.plain:
            return None
        if partition is None:
            if count > 1:
                return None
        elif not 0 <= partition < len(writer.partitions):
            return None
        payload = self._codec.payload(records)
        if len(payload) > min(writer.one_batch, writer.at_once) or count > self.most_records:
            return None
        if partition is None:
            partition = writer.partitioner.choose(records[0].key, len(writer.partitions))
        return PlainWrite(
            writer.partitions[partition], count, payload, writer.at_once, writer.compression
        )

    def join(self, writes: Sequence[PlainWrite]) -> Append:
        """Return the batch of writes to one partition, of together ``room`` bytes at most."""
        partition, count, payload, _, compression = writes[0]
        if len(writes) > 1:
            count = sum(write.records for write in writes)
            payload = self._codec.join([(write.records, write.payload) for write in writes])
        made = f"{self._random.getrandbits(96):024x}", int(self._wall() * 1000)
        body = self._codec.encode_payload(payload, count, made, compression=compression)
        return Append(partition, count, body)

    def prepare(self, writing: Writing, settings: TopicSettings) -> Prepared:
        """Check what is to be written, and choose the partitions; writes nothing.

        Raises :class:`UnknownPartition`, :class:`RecordTooLarge` and :class:`BatchTooLarge`.
        """
        topic, records = self._writer(writing.topic, settings), writing.records
        payload = self._codec.payload(records)
        sizes: list[int] | None = None
        if len(payload) > topic.one_batch:
            sizes = sizes_of(records)
            if max(sizes) > settings.max_record:
                raise RecordTooLarge(writing.topic, max(sizes), settings.max_record)
        batches = self._batches(writing, topic, sizes)
        compresses = settings.compression != PLAIN and len(payload) >= IN_THREAD
        slow = compresses or len(batches) >= MANY_BATCHES
        encode = partial(self._encode, writing, topic, batches, payload)
        return Prepared(writing.topic, batches, encode, slow)

    def _writer(self, name: str, settings: TopicSettings) -> _TopicWriter:
        """Return how records are written to a topic, by its settings now."""
        writer = self._writers.get(name)
        if writer is None or writer.settings is not settings:
            partitioner = Partitioner(settings.partitioner, self._random, self._hashes)
            writer = self._writers[name] = _TopicWriter(
                name, settings, self._most_bytes, partitioner=partitioner
            )
        return writer

    def _batches(
        self, job: Writing, topic: _TopicWriter, sizes: Sequence[int] | None
    ) -> list[tuple[int, Sequence[int]]]:
        """Return the batches to make: the partition of each, and the indices of its records.

        ``sizes`` are those of the records, None if all of them are small enough for one batch.
        """
        settings = topic.settings
        # What is compacted is dropped record by record.
        most_records = 1 if settings.compacts else self.most_records
        most_bytes = self._most_bytes
        numbers = topic.numbers(job)
        if settings.dedups:  # each by itself may be a repeated one
            return [(number, (index,)) for index, number in enumerate(numbers)]
        count = len(numbers)
        if sizes is None:
            sizes, small = [0] * count, count <= most_records
        else:
            small = count <= most_records and sum(sizes) <= most_bytes
        if small and numbers.count(numbers[0]) == count:
            return [(numbers[0], range(count))]
        batches: list[tuple[int, Sequence[int]]] = []
        newest: dict[int, list[int]] = {}
        filled: dict[int, int] = {}
        for index, number in enumerate(numbers):
            full = number in newest and (
                len(newest[number]) >= most_records or filled[number] + sizes[index] > most_bytes
            )
            if full and job.stamp is not None:
                raise BatchTooLarge(job.topic, number, records=most_records, size=most_bytes)
            if full or number not in newest:
                newest[number], filled[number] = [], 0
                batches.append((number, newest[number]))
            newest[number].append(index)
            filled[number] += sizes[index]
        return batches

    def _encode(
        self,
        job: Writing,
        topic: _TopicWriter,
        batches: Sequence[tuple[int, Sequence[int]]],
        payload: bytes,
    ) -> list[Append]:
        """Return the batches; ``payload`` is that of all records."""
        settings, records = topic.settings, job.records
        now = int(self._wall() * 1000)
        appends = []
        for number, members in batches:
            if len(batches) > 1:
                records = [job.records[index] for index in members]
                payload = self._codec.payload(records)
            made = f"{self._random.getrandbits(96):024x}", now
            body = self._codec.encode_payload(
                payload, len(records), made, compression=topic.compression
            )
            place = topic.partitions[number]
            if settings.dedups:  # which makes a stamp needless: what is sent again has its content
                digest = content_hash(records[0])
                content = Content(digest, settings.dedup_window, settings.dedup_time)
                appends.append(Append(place, 1, body, content=content))
            elif settings.compacts:
                appends.append(Append(place, 1, body, job.stamp, key=self._key_of(records[0])))
            else:
                appends.append(Append(place, len(members), body, job.stamp))
        return appends

    def _key_of(self, record: NewRecord) -> CompactionKey:
        """Return what compaction goes by: a record without a key replaces no other."""
        if record.key is None:
            return CompactionKey(self._random.randbytes(16), passing=True)
        return CompactionKey(key_hash(record.key), passing=not record.value)


__all__ = ["IN_THREAD", "MANY_BATCHES", "BatchMaker", "PlainWrite", "Prepared", "Writing"]
