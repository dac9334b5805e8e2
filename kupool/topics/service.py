"""Topics for those who write and read: checks, batches, partitions, long polls.

An engine stores batches; this makes them of records, and records of them. It refuses what is not
valid before anything is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred, DeferredLock, fail, succeed
from twisted.internet.interfaces import IReactorTime

from kupool.timing.waiting import Waiters
from kupool.topics.batches import MOST_RECORDS, Compression, RecordCodec
from kupool.topics.compression import PLAIN
from kupool.topics.errors import (
    BatchTooLarge,
    CorruptBatch,
    RecordTooLarge,
    TooManyTopics,
    TopicError,
    UnknownPartition,
    UnknownTopic,
)
from kupool.topics.interfaces import Append, Content, PartitionExtent, StoredBatch
from kupool.topics.partition import Partition
from kupool.topics.partitioners import Partitioner
from kupool.topics.records import NewRecord, Record, Stamp, content_hash, sizes_of
from kupool.topics.settings import TopicSettings, check_name

#: Bytes from which a batch is encoded and decoded in a thread, if that compresses it.
IN_THREAD = 16 * 1024

#: Runs a function in a thread; returns a Deferred of its result.
RunInThread = Callable[[Callable[[], Any]], Deferred[Any]]


@dataclass(frozen=True)
class TopicLimits:
    """The most topics, and the most records and bytes of one batch.

    More records that are written together become several batches.
    """

    topics: int = 1000
    batch_records: int = 10_000
    batch_bytes: int = 1024 * 1024


class Written(msgspec.Struct, frozen=True, gc=False):
    """Where a record was written."""

    partition: int
    offset: int


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


class Fetched(NamedTuple):
    """Records that were read, in order, and the offset to read next."""

    records: list[Record]
    next_offset: int


class TopicDescription(NamedTuple):
    """A topic: its settings, and what each of its partitions holds."""

    name: str
    settings: TopicSettings
    partitions: Sequence[PartitionExtent]


class Topics:
    """The topics of an engine.

    ``wall`` returns seconds since the epoch. ``random`` is the source of ids of batches and of
    random partitions.
    """

    def __init__(
        self,
        engine: Any,
        clock: IReactorTime,
        wall: Callable[[], float],
        run_in_thread: RunInThread,
        *,
        random: Random,
        limits: TopicLimits,
    ) -> None:
        self.engine = engine
        self._clock = clock
        self._wall = wall
        self._run_in_thread = run_in_thread
        self._random = random
        self._limits = limits
        self._codec = RecordCodec()
        self._partitioners: dict[str, Partitioner] = {}
        #: While batches of a topic are encoded in a thread, later ones wait behind them.
        self._turns: dict[str, DeferredLock] = {}
        #: Those who wait for new records of a partition.
        self._waiting: dict[Partition, Waiters[None]] = {}
        #: Topics that are being created.
        self._coming = 0
        engine.watch(self.tell)

    # -- topics

    def create(self, name: str, settings: TopicSettings) -> Deferred[None]:
        """Create a topic.

        Fails with :class:`InvalidTopic`, :class:`TopicExists` or :class:`TooManyTopics`.
        """
        return Deferred.fromCoroutine(self._create(name, settings))

    async def _create(self, name: str, settings: TopicSettings) -> None:
        check_name(name)
        settings.check()
        known = self.engine.topics()
        if name not in known and len(known) + self._coming >= self._limits.topics:
            raise TooManyTopics(self._limits.topics)
        self._coming += 1
        try:
            await self.engine.create(name, settings)
        finally:
            self._coming -= 1

    def change(self, name: str, settings: TopicSettings) -> Deferred[None]:
        """Change the settings of a topic; records written before stay as they are.

        With more partitions, keys go to other partitions than before. Fails with
        :class:`UnknownTopic` or :class:`InvalidTopic`.
        """
        return Deferred.fromCoroutine(self._change(name, settings))

    async def _change(self, name: str, settings: TopicSettings) -> None:
        settings.check()
        await self.engine.change(name, settings)
        self._partitioners.pop(name, None)

    def delete(self, name: str) -> Deferred[None]:
        """Delete a topic with all its records; those who wait for some fail.

        Fires when its storage is free. Fails with :class:`UnknownTopic`.
        """
        gone: Deferred[None] = self.engine.delete(name)
        if self.engine.topic(name) is None:
            self._partitioners.pop(name, None)
            for place in [each for each in self._waiting if each.topic == name]:
                self.tell(place)
        return gone

    def names(self) -> list[str]:
        """Return the names of all topics, sorted."""
        return sorted(self.engine.topics())

    def describe(self, name: str) -> Deferred[TopicDescription]:
        """Return a topic's settings and what its partitions hold; fails with
        :class:`UnknownTopic`.
        """
        return Deferred.fromCoroutine(self._describe(name))

    async def _describe(self, name: str) -> TopicDescription:
        settings = self._settings(name)
        return TopicDescription(name, settings, await self.engine.extents(name))

    def _settings(self, name: str) -> TopicSettings:
        settings: TopicSettings | None = self.engine.topic(name)
        if settings is None:
            raise UnknownTopic(name)
        return settings

    # -- writing

    def produce(
        self,
        topic: str,
        records: Sequence[NewRecord],
        *,
        partition: int | None = None,
        stamp: Stamp | None = None,
    ) -> Deferred[list[Written]]:
        """Write records; fires with the place of each, in their order, once they are durable.

        Without a ``partition`` the partitioner of the topic chooses one for each record. With a
        ``stamp``, sending the same records again writes nothing, and returns the places of the
        first time; records without a key then go to the partition ``sequence`` modulo the number of
        partitions. In a topic that drops repeated records a stamp has no effect. What is written
        together by several calls keeps the order of the calls.

        Fails with :class:`UnknownTopic`, :class:`UnknownPartition`, :class:`RecordTooLarge`, and
        with what the engine raises; then nothing was written if the engine is atomic.
        """
        if not records:
            known = self.engine.topic(topic) is not None
            return succeed([]) if known else fail(UnknownTopic(topic))
        writing = Writing(topic, tuple(records), partition, stamp)
        return self.produce_all([writing]).addCallback(lambda written: written[0])

    def produce_all(self, writings: Sequence[Writing]) -> Deferred[list[list[Written]]]:
        """Write records to several topics, all or none if the engine is atomic.

        Each :class:`Writing` has at least one record. Fires with the places of the records of each,
        and fails as :meth:`produce` does.
        """
        try:
            prepared = [self.prepare(writing) for writing in writings]
        except TopicError as error:
            return fail(error)
        turns = sorted({each.topic for each in prepared})
        if any(each.slow for each in prepared) or any(topic in self._turns for topic in turns):
            appended = Deferred.fromCoroutine(self._append_in_turn(turns, prepared))
        else:
            appended = self.engine.append(_encoded(prepared))
        return appended.addCallback(self._written, prepared)

    def prepare(self, writing: Writing) -> Prepared:
        """Check what is to be written, and choose the partitions; writes nothing.

        Raises :class:`UnknownTopic`, :class:`UnknownPartition`, :class:`RecordTooLarge` and
        :class:`BatchTooLarge`.
        """
        settings = self._settings(writing.topic)
        sizes = sizes_of(writing.records)
        if max(sizes) > settings.max_record:
            raise RecordTooLarge(writing.topic, max(sizes), settings.max_record)
        batches = self._batches(writing, settings, sizes)
        slow = settings.compression != PLAIN and sum(sizes) >= IN_THREAD
        encode = partial(self._encode, writing, settings, batches)
        return Prepared(writing.topic, batches, encode, slow)

    def _written(self, bases: Sequence[int], prepared: Sequence[Prepared]) -> list[list[Written]]:
        """Return the place of each record, and tell those who wait for some."""
        left = iter(bases)
        written = []
        for topic, batches, *_ in prepared:
            places: dict[int, Written] = {}
            for (number, members), base in zip(batches, left, strict=False):
                for offset, member in enumerate(members, base):
                    places[member] = Written(number, offset)
                self.tell(Partition(topic, number))
            # With one batch they are in order already.
            written.append(
                list(places.values())
                if len(batches) == 1
                else [places[index] for index in range(len(places))]
            )
        return written

    async def _append_in_turn(
        self, topics: Sequence[str], prepared: Sequence[Prepared]
    ) -> list[int]:
        """Encode batches in a thread, and append them behind those of earlier calls.

        ``topics`` are sorted: so two calls never wait for each other.
        """
        turns = [self._turns.setdefault(topic, DeferredLock()) for topic in topics]
        for turn in turns:
            await turn.acquire()
        try:
            # Only until it has begun: the next one may be in the same commit.
            encoded = await self._run_in_thread(partial(_encoded, prepared))
            appended: Deferred[list[int]] = self.engine.append(encoded)
        finally:
            for topic, turn in zip(topics, turns, strict=True):
                turn.release()
                if not turn.locked:
                    self._turns.pop(topic, None)
        return await appended

    def _batches(
        self, job: Writing, settings: TopicSettings, sizes: Sequence[int]
    ) -> list[tuple[int, Sequence[int]]]:
        """Return the batches to make: the partition of each, and the indices of its records."""
        most_records = min(self._limits.batch_records, MOST_RECORDS)
        most_bytes = self._limits.batch_bytes
        numbers = self._numbers(job, settings)
        if settings.dedups:  # each by itself may be a repeated one
            return [(number, (index,)) for index, number in enumerate(numbers)]
        small = len(sizes) <= most_records and sum(sizes) <= most_bytes
        if small and numbers.count(numbers[0]) == len(numbers):
            return [(numbers[0], range(len(numbers)))]
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

    def _numbers(self, job: Writing, settings: TopicSettings) -> list[int]:
        """Return the partition of each record."""
        count = settings.partitions
        if job.partition is not None:
            if not 0 <= job.partition < count:
                raise UnknownPartition(job.topic, job.partition, count)
            return [job.partition] * len(job.records)
        partitioner = self._partitioners.get(job.topic)
        if partitioner is None:
            partitioner = Partitioner(settings.partitioner, self._random)
            self._partitioners[job.topic] = partitioner
        if settings.dedups:  # the same content has to go to the same partition
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

    def _encode(
        self, job: Writing, settings: TopicSettings, batches: Sequence[tuple[int, Sequence[int]]]
    ) -> list[Append]:
        now = int(self._wall() * 1000)
        compression = Compression(settings.compression, settings.compression_threshold)
        appends = []
        for number, members in batches:
            records = [job.records[index] for index in members]
            batch_id = f"{self._random.getrandbits(96):024x}"
            body = self._codec.encode(records, batch_id, now, compression)
            place = Partition(job.topic, number)
            if settings.dedups:  # which makes a stamp needless: what is sent again has its content
                digest = content_hash(records[0])
                content = Content(digest, settings.dedup_window, settings.dedup_time)
                appends.append(Append(place, 1, body, content=content))
            else:
                appends.append(Append(place, len(members), body, job.stamp))
        return appends

    def tell(self, partition: Partition) -> None:
        """Tell those who wait for records of a partition that there are some."""
        waiters = self._waiting.pop(partition, None)
        if waiters is not None:
            waiters.tell(None)

    # -- reading

    def fetch(
        self, partition: Partition, offset: int, *, max_bytes: int = 1024 * 1024, wait: float = 0.0
    ) -> Deferred[Fetched]:
        """Return the records from an offset on, in batches of together ``max_bytes``.

        The first batch is returned whatever its size. At the end of the partition it waits up to
        ``wait`` seconds for new records, and returns none if none come. Fails with
        :class:`UnknownTopic`, :class:`UnknownPartition`, :class:`OffsetOutOfRange`, and
        :class:`CorruptBatch`, which says where reading can go on.
        """
        return Deferred.fromCoroutine(self._fetch(partition, offset, max_bytes, wait))

    async def _fetch(
        self, partition: Partition, offset: int, max_bytes: int, wait: float
    ) -> Fetched:
        until = self._clock.seconds() + wait
        while True:
            # Ask to be told before reading: what is written in between is not missed.
            told = self._waiting.setdefault(partition, Waiters()).wait() if wait > 0 else None
            try:
                batches = await self.engine.read(partition, offset, max_bytes)
            except BaseException:
                self._stop_waiting(partition, told)
                raise
            left = until - self._clock.seconds()
            if batches or told is None or left <= 0:
                self._stop_waiting(partition, told)
                return await self._decoded(partition, offset, batches)
            await told.addTimeout(left, self._clock, lambda *_: None)
            self._stop_waiting(partition, told)
            wait = until - self._clock.seconds()

    def _stop_waiting(self, partition: Partition, told: Deferred[None] | None) -> None:
        if told is not None:
            told.addErrback(lambda failure: None)
            told.cancel()
            waiters = self._waiting.get(partition)
            if waiters is not None and not len(waiters):
                del self._waiting[partition]

    async def _decoded(
        self, partition: Partition, offset: int, batches: Sequence[StoredBatch]
    ) -> Fetched:
        decode = partial(self._decode, partition, offset, batches)
        if sum(len(batch.body) for batch in batches) >= IN_THREAD:
            fetched: Fetched = await self._run_in_thread(decode)
            return fetched
        return decode()

    def _decode(self, partition: Partition, offset: int, batches: Sequence[StoredBatch]) -> Fetched:
        records: list[Record] = []
        for batch in batches:
            try:
                _, found = self._codec.decode(batch.body, batch.base)
            except CorruptBatch as error:
                if records:
                    break  # it is named when it is the first
                raise CorruptBatch(
                    f"partition {partition.number} of topic {partition.topic}, batch at offset "
                    f"{batch.base}: {error}; read on from {batch.base + batch.records}"
                ) from None
            records += found if batch.base >= offset else found[offset - batch.base :]
        return Fetched(records, records[-1].offset + 1 if records else offset)

    def earliest(self, partition: Partition) -> Deferred[int]:
        """Return the offset of the oldest record."""
        return self._extent(partition).addCallback(lambda extent: extent.low)

    def latest(self, partition: Partition) -> Deferred[int]:
        """Return the offset that the next record will get."""
        return self._extent(partition).addCallback(lambda extent: extent.high)

    def at_time(self, partition: Partition, at: float) -> Deferred[int]:
        """Return the offset of the first batch written at a time or later; ``at`` is in seconds
        since the epoch.
        """
        found: Deferred[int] = self.engine.find(partition, int(at * 1000))
        return found

    def _extent(self, partition: Partition) -> Deferred[PartitionExtent]:
        def one(extents: Sequence[PartitionExtent]) -> PartitionExtent:
            if not 0 <= partition.number < len(extents):
                raise UnknownPartition(*partition, len(extents))
            return extents[partition.number]

        found: Deferred[Sequence[PartitionExtent]] = self.engine.extents(partition.topic)
        return found.addCallback(one)


def _encoded(prepared: Sequence[Prepared]) -> list[Append]:
    return [append for each in prepared for append in each.encode()]


__all__ = [
    "Fetched",
    "Prepared",
    "TopicDescription",
    "TopicLimits",
    "Topics",
    "Writing",
    "Written",
]
