"""Topics for those who write and read: produce, fetch, long polls.

An engine stores batches; this makes them of records, and records of them. It refuses what is not
valid before anything is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from random import Random
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock, fail, succeed
from twisted.internet.interfaces import IReactorTime

from kupool.timing.waiting import Waiters
from kupool.topics.batch_maker import IN_THREAD, BatchMaker, PlainWrite, Prepared, Writing
from kupool.topics.batches import RecordCodec
from kupool.topics.errors import (
    CorruptBatch,
    InvalidTopic,
    TooManyTopics,
    TopicError,
    UnknownCodec,
    UnknownPartition,
    UnknownRecord,
    UnknownTopic,
    UnreadableBatch,
)
from kupool.topics.gathering import GatheredWrites, Written, places
from kupool.topics.interfaces import Append, PartitionExtent, StoredBatch
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Record, Stamp
from kupool.topics.settings import MOST_PARTITIONS, TopicSettings, check_name

#: Runs a function in a thread; returns a Deferred of its result.
RunInThread = Callable[[Callable[[], Any]], Deferred[Any]]

#: Returns the id of a batch and its records, of its body and the offset of the first one.
DecodeBatch = Callable[[bytes, int], tuple[str, list[Record]]]


@dataclass(frozen=True)
class TopicLimits:
    """The most topics, partitions of one topic, and records and bytes of one batch.

    More records that are written together become several batches.
    """

    topics: int = 1000
    partitions: int = MOST_PARTITIONS
    batch_records: int = 10_000
    batch_bytes: int = 1024 * 1024


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
    random partitions. ``decoders`` decode the batches of topics that have another format. The limit
    of topics does not count those that are ``reserved``.
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
        decoders: Mapping[str, DecodeBatch] | None = None,
        reserved: frozenset[str] = frozenset(),
    ) -> None:
        self.engine = engine
        self._clock = clock
        self._wall = wall
        self._run_in_thread = run_in_thread
        self._limits = limits
        self._maker = BatchMaker(
            wall, random, most_records=limits.batch_records, most_bytes=limits.batch_bytes
        )
        #: None for an engine that appends at once: there is nothing to gain.
        self._gathered: GatheredWrites | None = None
        if engine.capabilities.persistent:
            self._gathered = GatheredWrites(
                clock,
                self._maker.join,
                engine.append,
                self.tell,
                most_records=self._maker.most_records,
            )
        self._codec = RecordCodec()
        self._decoders = dict(decoders or {})
        self._reserved = reserved
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
        if settings.compacts and not self.engine.capabilities.compacts:
            raise InvalidTopic("compaction: this engine has none, use none")
        self._check_partitions(settings)
        known = set(self.engine.topics())
        count = len(known - self._reserved) + self._coming
        if name not in known | self._reserved and count >= self._limits.topics:
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
        before: TopicSettings | None = self.engine.topic(name)
        if before is not None and settings.partitions != before.partitions:
            self._check_partitions(settings)
        self._store_gathered()
        await self.engine.change(name, settings)
        self._maker.forget(name)

    def _check_partitions(self, settings: TopicSettings) -> None:
        most = self._limits.partitions
        if settings.partitions > most:
            raise InvalidTopic(f"partitions: expected {most} at most, not {settings.partitions}")

    def delete(self, name: str) -> Deferred[None]:
        """Delete a topic with all its records; those who wait for some fail.

        Fires when its storage is free. Fails with :class:`UnknownTopic`.
        """
        self._store_gathered()
        gone: Deferred[None] = self.engine.delete(name)
        if self.engine.topic(name) is None:
            self._maker.forget(name)
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
    ) -> Deferred[Sequence[Written]]:
        """Write records; fires with the place of each, in their order, once they are durable.

        Without a ``partition`` the partitioner of the topic chooses one for each record. With a
        ``stamp``, sending the same records again writes nothing, and returns the places of the
        first time; records without a key then go to the partition ``sequence`` modulo the number of
        partitions. In a topic that drops repeated records a stamp has no effect. In one that
        compacts, a stamp is for one record of each partition. What is written together by several
        calls keeps the order of the calls.

        Fails with :class:`UnknownTopic`, :class:`UnknownPartition`, :class:`RecordTooLarge`, and
        with what the engine raises; then nothing was written if the engine is atomic.
        """
        if not records:
            known = self.engine.topic(topic) is not None
            return succeed([]) if known else fail(UnknownTopic(topic))
        try:
            settings = self._settings(topic)
            plain = None
            if stamp is None and topic not in self._turns:
                plain = self._maker.plain(topic, settings, records, partition=partition)
            if plain is not None:
                return self._write(plain)
            prepared = self.prepare(Writing(topic, tuple(records), partition, stamp))
        except TopicError as error:
            return fail(error)
        return self._append([prepared]).addCallback(self._written, prepared)

    def _write(self, write: PlainWrite) -> Deferred[Sequence[Written]]:
        if self._gathered is not None:
            return self._gathered.add(write)
        appended: Deferred[list[int]] = self.engine.append([self._maker.join([write])])
        return appended.addCallback(self._one_written, write)

    def _one_written(self, bases: Sequence[int], write: PlainWrite) -> Sequence[Written]:
        self.tell(write.partition)
        return places(write, bases[0])

    def _store_gathered(self) -> None:
        """Append what was written in this turn, before something that is not gathered."""
        if self._gathered is not None:
            self._gathered.store()

    def produce_all(self, writings: Sequence[Writing]) -> Deferred[list[list[Written]]]:
        """Write records to several topics, all or none if the engine is atomic.

        Each :class:`Writing` has at least one record. Fires with the places of the records of each,
        and fails as :meth:`produce` does.
        """
        try:
            prepared = [self.prepare(writing) for writing in writings]
        except TopicError as error:
            return fail(error)
        return self._append(prepared).addCallback(self._all_written, prepared)

    def _append(self, prepared: Sequence[Prepared]) -> Deferred[list[int]]:
        """Append batches; those that are encoded in a thread keep later ones of the topic back."""
        self._store_gathered()
        for each in prepared:
            if each.slow or each.topic in self._turns:
                turns = sorted({each.topic for each in prepared})
                return Deferred.fromCoroutine(self._append_in_turn(turns, prepared))
        appended: Deferred[list[int]] = self.engine.append(_encoded(prepared))
        return appended

    def _all_written(
        self, bases: Sequence[int], prepared: Sequence[Prepared]
    ) -> list[list[Written]]:
        """Return the place of each record of each call."""
        left = iter(bases)
        return [self._written(list(islice(left, len(each.batches))), each) for each in prepared]

    def _written(self, bases: Sequence[int], prepared: Prepared) -> list[Written]:
        """Return the place of each record, and tell those who wait for some."""
        topic, batches, *_ = prepared
        for number, _ in batches:
            self.tell(Partition(topic, number))
        places = {
            member: Written(number, offset)
            for (number, members), base in zip(batches, bases, strict=True)
            for offset, member in enumerate(members, base)
        }
        return [places[index] for index in range(len(places))]

    def prepare(self, writing: Writing) -> Prepared:
        """Check what is to be written, and choose the partitions; writes nothing.

        Raises :class:`UnknownTopic`, :class:`UnknownPartition`, :class:`RecordTooLarge` and
        :class:`BatchTooLarge`.
        """
        return self._maker.prepare(writing, self._settings(writing.topic))

    async def _append_in_turn(
        self, topics: Sequence[str], prepared: Sequence[Prepared]
    ) -> list[int]:
        """Encode batches in a thread, and append them behind those of earlier calls.

        ``topics`` are sorted: so two calls never wait for each other.
        """
        had: list[tuple[str, DeferredLock]] = []
        try:
            for topic in topics:
                turn = self._turns.setdefault(topic, DeferredLock())
                await turn.acquire()  # may be cancelled: then those before are given back
                had.append((topic, turn))
            # Only until it has begun: the next one may be in the same commit.
            encoded = await self._run_in_thread(partial(_encoded, prepared))
            appended: Deferred[list[int]] = self.engine.append(encoded)
        finally:
            for topic, turn in had:
                turn.release()
                if not turn.locked:
                    self._turns.pop(topic, None)
        return await appended

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

        That is their size after decompression. The first batch is returned whatever its size. At
        the end of the partition it waits up to
        ``wait`` seconds for new records, and returns none if none come. Fails with
        :class:`UnknownTopic`, :class:`UnknownPartition`, :class:`OffsetOutOfRange`, and
        :class:`UnreadableBatch`, which says where reading can go on.
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
            if batches:
                self._stop_waiting(partition, told)
                fetched = await self._decoded(partition, offset, batches, max_bytes)
                if fetched.records:
                    return fetched
                offset = fetched.next_offset  # there are none in these batches from there on
                continue
            if told is None or left <= 0:
                self._stop_waiting(partition, told)
                return Fetched([], offset)
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
        self, partition: Partition, offset: int, batches: Sequence[StoredBatch], max_bytes: int
    ) -> Fetched:
        decode = partial(self._decode, partition, offset, batches, max_bytes)
        if sum(len(batch.body) for batch in batches) >= IN_THREAD:
            fetched: Fetched = await self._run_in_thread(decode)
            return fetched
        return decode()

    def _decode(
        self, partition: Partition, offset: int, batches: Sequence[StoredBatch], max_bytes: int
    ) -> Fetched:
        records: list[Record] = []
        left = max_bytes
        decode = self._decoders.get(partition.topic, self._codec.decode)
        next_offset = offset
        for batch in batches:
            # The engine goes by the compressed size, which may be a hundredth of this.
            left -= self._codec.plain_size(batch.body)
            if left < 0 and records:
                break
            try:
                _, found = decode(batch.body, batch.base)
            except (CorruptBatch, UnknownCodec) as error:
                if records:
                    break  # it is named when it is the first
                following = batch.base + batch.records
                raise UnreadableBatch(partition, batch.base, following, str(error)) from None
            records += found if batch.base >= offset else found[offset - batch.base :]
            next_offset = batch.base + batch.records
        return Fetched(records, next_offset)

    def record(self, partition: Partition, offset: int) -> Deferred[Record]:
        """Return the record at an offset; fails with :class:`UnknownRecord`, and as :meth:`fetch`
        does.
        """

        def first(fetched: Fetched) -> Record:
            if not fetched.records or fetched.records[0].offset != offset:
                raise UnknownRecord(partition, offset)
            return fetched.records[0]

        return self.fetch(partition, offset, max_bytes=1).addCallback(first)

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
    "IN_THREAD",
    "DecodeBatch",
    "Fetched",
    "Prepared",
    "TopicDescription",
    "TopicLimits",
    "Topics",
    "Writing",
    "Written",
]
