"""Topics in a SQLite file: durable on one machine, with dense offsets.

One thread writes, in group commits; readers have a connection of their own. The statements are in
:mod:`kupool.topics.sqlite_tables` and :mod:`kupool.topics.sqlite_retention`.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.storage.database import Database, DatabaseClosed, DatabaseUnusable, touch
from kupool.storage.probing import WriteProbe
from kupool.storage.reading import ReadOnlyDatabase
from kupool.timing.waiting import uncut
from kupool.topics import sqlite_retention as retention
from kupool.topics import sqlite_tables as tables
from kupool.topics.errors import (
    TopicError,
    TopicExists,
    TopicsUnavailable,
    UnknownPartition,
    UnknownTopic,
)
from kupool.topics.interfaces import (
    FIRST_DELAY,
    Append,
    Capabilities,
    DelayedBatch,
    DelayPlace,
    ITopicEngine,
    PartitionExtent,
    StoredBatch,
    without_stamp,
)
from kupool.topics.partition import Partition
from kupool.topics.settings import TopicSettings, check_change

T = TypeVar("T")

#: The default of ``flush_interval``, in seconds.
FLUSH_INTERVAL = 5.0

#: The most seconds between two parts of what is dropped.
LONGEST_PAUSE = 0.1


class _KnownPartition(NamedTuple):
    """The id of a partition, and the durability of its topic."""

    key: int
    durability: str


@implementer(ITopicEngine)
class SqliteTopics:
    """Batches in a table, appended by group commit.

    ``wall`` returns seconds since the epoch. ``database`` has the schema ``topics``. Records of
    topics with the durability ``interval`` are on the disk after ``flush_interval`` seconds.
    """

    name = "sqlite"
    capabilities = Capabilities(dense=True, atomic=True, persistent=True)

    _log = Logger()

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        wall: Callable[[], float],
        *,
        flush_interval: float = FLUSH_INTERVAL,
    ) -> None:
        self._database = database
        self._reader = ReadOnlyDatabase(database.reactor, database.path, "topics")
        self._clock = clock
        self._wall = wall
        self._topics: dict[str, tables.TopicRow] = {}
        #: Where partitions are that were written to; forgotten when a topic changes.
        self._places: dict[Partition, _KnownPartition] = {}
        #: Names that are being created.
        self._coming: set[str] = set()
        #: Appends that wait for the transaction under way, and whether they have to be durable.
        self._gathered: list[tuple[list[tuple[int, Append]], Deferred[list[int]]]] = []
        self._durable = False
        self._appending = False
        self._flush_interval = flush_interval
        self._flushing: IDelayedCall | None = None
        #: The time of the retention clock at the last trim of this process.
        self._trimmed_at: float | None = None
        self._probe = WriteProbe(clock, lambda: database.run(touch))

    def open(self) -> Deferred[None]:
        """Open the file and make its tables."""
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        await self._database.open()
        await self._reader.open()
        for topic in await self._database.run(tables.topics):
            self._topics[topic.name] = topic
        self._remove_deleted()

    def watch(self, told: Callable[[Partition], object]) -> None:
        """Do nothing: there are no other nodes."""

    def topics(self) -> Mapping[str, TopicSettings]:
        """Return the topics by name."""
        return {name: topic.settings for name, topic in self._topics.items()}

    def topic(self, name: str) -> TopicSettings | None:
        """Return the settings of a topic; None if there is no such topic."""
        topic = self._topics.get(name)
        return None if topic is None else topic.settings

    def identity(self, name: str) -> str:
        """Return the id of a topic, which another one may get later, and when it was created."""
        topic = self._topics.get(name)
        return "" if topic is None else f"{topic.key}-{topic.created}"

    def create(self, name: str, settings: TopicSettings) -> Deferred[None]:
        """Create a topic; fails with :class:`TopicExists`."""
        if name in self._topics or name in self._coming:
            return fail(TopicExists(name))
        self._coming.add(name)

        def created(result: Any) -> None:
            self._coming.discard(name)
            if isinstance(result, Failure):
                return result  # type: ignore[return-value]
            self._topics[name] = result
            return None

        now = int(self._wall() * 1000)
        create = partial(tables.create, name=name, settings=settings, now=now)
        return uncut(self._write(create).addBoth(created))

    def change(self, name: str, settings: TopicSettings) -> Deferred[None]:
        """Change the settings of a topic; partitions may be added."""
        topic = self._topics.get(name)
        if topic is None:
            return fail(UnknownTopic(name))
        try:
            check_change(topic.settings, settings)
        except Exception as error:
            return fail(error)

        def changed(found: tables.TopicRow) -> None:
            if self._topics.get(name) is topic:  # it was not deleted meanwhile
                self._topics[name] = found
                self._places.clear()

        change = partial(tables.change, topic=topic, settings=settings)
        return uncut(self._write(change).addCallback(changed))

    def delete(self, name: str) -> Deferred[None]:
        """Delete a topic; its name is free at once, its storage when the Deferred fires."""
        topic = self._topics.pop(name, None)
        if topic is None:
            return fail(UnknownTopic(name))
        self._places.clear()

        def failed(failure: Failure) -> Failure:
            self._topics.setdefault(name, topic)
            return failure

        gone = self._write(partial(tables.delete, topic=topic))
        return uncut(gone.addCallbacks(lambda _: self._remove_deleted(), failed))

    def _remove_deleted(self) -> Deferred[None]:
        """Remove the batches of deleted topics, a part at a time."""
        done = Deferred.fromCoroutine(self._remove_all_deleted())
        return done.addErrback(self._not_removed)

    async def _remove_all_deleted(self) -> None:
        while await self._database.run(tables.remove_deleted, durable=False):
            pass

    def _not_removed(self, failure: Failure) -> None:
        failure.trap(DatabaseUnusable, DatabaseClosed, sqlite3.Error)
        self._log.warn(
            "Records of deleted topics are removed at the next start: {reason}",
            reason=failure.getErrorMessage(),
        )

    def append(self, appends: Sequence[Append]) -> Deferred[list[int]]:
        """Append batches in one transaction."""
        rows = []
        for append in appends:
            place = self._places.get(append.partition)
            if place is None:
                try:
                    place = self._place(append.partition)
                except TopicError as error:
                    return fail(error)
            rows.append((place.key, append))
            if place.durability == "always":
                self._durable = True
            elif place.durability == "interval":
                self._flush_later()
        done: Deferred[list[int]] = Deferred()
        self._gathered.append((rows, done))
        if not self._appending:
            self._append_gathered()
        return done

    def _place(self, partition: Partition) -> _KnownPartition:
        """Return where a partition is, and remember it until a topic changes."""
        key = self._key(partition)
        durability = self._topics[partition.topic].settings.durability
        place = self._places[partition] = _KnownPartition(key, durability)
        return place

    def _append_gathered(self) -> None:
        """Append all that was gathered while the last appends were written, in one transaction."""
        gathered, self._gathered = self._gathered, []
        durable, self._durable = self._durable, False
        self._appending = True
        now = int(self._wall() * 1000)
        orders = [rows for rows, _ in gathered]
        done = self._write(partial(tables.append, orders=orders, now=now), durable=durable)
        done.addBoth(self._appended, [each for _, each in gathered])

    def _appended(
        self, outcomes: Sequence[Any] | Failure, waiting: Sequence[Deferred[list[int]]]
    ) -> None:
        self._appending = False
        if self._gathered:
            self._append_gathered()
        if isinstance(outcomes, Failure):
            for each in waiting:
                each.errback(outcomes)
            return
        for outcome, each in zip(outcomes, waiting, strict=True):
            if type(outcome) is list:
                each.callback(outcome)
            else:
                each.errback(outcome)

    def _write(self, call: Callable[[sqlite3.Connection], T], durable: bool = True) -> Deferred[T]:
        """Do some work in a transaction; a file that takes nothing is named as the problem."""
        return self._database.run(call, durable=durable).addCallbacks(
            self._wrote, self._not_written
        )

    def _wrote(self, result: T) -> T:
        self._probe.wrote()
        return result

    def _not_written(self, failure: Failure) -> Failure:
        if failure.check(DatabaseUnusable, DatabaseClosed, sqlite3.Error) is None:
            return failure
        self._probe.failed(failure)
        raise TopicsUnavailable(self._probe.problem) from failure.value

    def _flush_later(self) -> None:
        if self._flushing is None:
            self._flushing = self._clock.callLater(self._flush_interval, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        self._write(touch).addErrback(
            lambda failure: self._log.warn(
                "Records of topics may not be on the disk yet: {reason}",
                reason=failure.getErrorMessage(),
            )
        )

    def read(
        self, partition: Partition, offset: int, max_bytes: int
    ) -> Deferred[list[StoredBatch]]:
        """Return the batch that holds an offset, and those behind it."""
        return self._in_partition(
            partition,
            lambda connection, key: tables.read(
                connection, partition, key, offset=offset, max_bytes=max_bytes
            ),
        )

    def find(self, partition: Partition, at: int) -> Deferred[int]:
        """Return the offset of the first batch appended at a time or later."""
        return self._in_partition(
            partition, lambda connection, key: tables.find(connection, partition, key, at=at)
        )

    def _in_partition(
        self, partition: Partition, read: Callable[[sqlite3.Connection, int], T]
    ) -> Deferred[T]:
        try:
            key = self._key(partition)
        except TopicError as error:
            return fail(error)
        return self._read(lambda connection: read(connection, key))

    def _key(self, partition: Partition) -> int:
        """Return the id of a partition; raises if it does not exist."""
        topic = self._topics.get(partition.topic)
        if topic is None:
            raise UnknownTopic(partition.topic)
        if not 0 <= partition.number < len(topic.partitions):
            raise UnknownPartition(*partition, len(topic.partitions))
        return topic.partitions[partition.number]

    def _read(self, call: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        return self._reader.run(call).addErrback(self._not_read)

    def _not_read(self, failure: Failure) -> Failure:
        if failure.check(DatabaseUnusable, DatabaseClosed, sqlite3.Error) is None:
            return failure
        raise TopicsUnavailable(failure.getErrorMessage()) from failure.value

    def extents(self, name: str) -> Deferred[list[PartitionExtent]]:
        """Return what each partition of a topic holds."""
        topic = self._topics.get(name)
        if topic is None:
            return fail(UnknownTopic(name))
        return self._read(lambda connection: tables.extents(connection, topic))

    def trim(self, now: float) -> Deferred[int]:
        """Drop what is older or larger than the topics keep."""
        return Deferred.fromCoroutine(self._trim(now))

    async def _trim(self, now: float) -> int:
        advance = 0.0 if self._trimmed_at is None else max(0.0, now - self._trimmed_at)
        self._trimmed_at = now
        age = await self._write(partial(retention.note_age, advance=advance))
        dropped = 0
        for topic in list(self._topics.values()):
            for key in topic.partitions:
                dropped += await self._in_parts(
                    partial(retention.trim_part, key=key, settings=topic.settings, age=age)
                )
        return dropped

    async def _in_parts(self, part: Callable[[sqlite3.Connection], int | None]) -> int:
        """Drop batches a part at a time, until ``part`` returns None; returns how many records.

        After each part it waits as long as that took: those who append have at least half of the
        writer's time. Nothing of it is durable at once: what comes back is dropped again.
        """
        dropped = 0
        while True:
            began = self._clock.seconds()
            count = await self._write(part, durable=False)
            if count is None:
                return dropped
            dropped += count
            pause = min(LONGEST_PAUSE, self._clock.seconds() - began)
            if pause > 0:
                await deferLater(self._clock, pause)

    def drop_below(self, partition: Partition, offset: int) -> Deferred[int]:
        """Drop the batches that end below an offset, or at it, a part at a time."""
        try:
            key = self._key(partition)
        except TopicError as error:
            return fail(error)
        part = partial(retention.drop_part, key=key, offset=offset)
        return Deferred.fromCoroutine(self._in_parts(part))

    def delay(self, appends: Sequence[Append], due: int) -> Deferred[list[int]]:
        """Keep batches, and append them at a time or later."""
        try:
            rows = [(self._key(append.partition), without_stamp(append)) for append in appends]
        except (TopicError, ValueError) as error:
            return fail(error)
        return self._write(partial(tables.delay, rows=rows, due=due))

    def append_due(self, now: int) -> Deferred[Mapping[Partition, int]]:
        """Append the batches that are due, a part at a time."""
        return Deferred.fromCoroutine(self._append_due(now))

    async def _append_due(self, now: int) -> Mapping[Partition, int]:
        found: Counter[Partition] = Counter()
        while any(due := await self._write(partial(tables.append_due, now=now))):
            for partition, records in due.appended:
                found[partition] += records
            for partition, records in due.postponed:
                self._log.error(
                    "{records} delayed records stay delayed by another day: partition {partition} "
                    "has used all its offsets",
                    records=records,
                    partition=str(partition),
                )
        return found

    def delayed(
        self, topic: str, start: DelayPlace = FIRST_DELAY, limit: int | None = None
    ) -> Deferred[Sequence[DelayedBatch]]:
        """Return the batches of a topic that are not due yet."""
        row = self._topics.get(topic)
        if row is None:
            return fail(UnknownTopic(topic))
        return self._read(lambda connection: tables.delayed(connection, row, start, limit))

    def next_due(self) -> Deferred[int | None]:
        """Return when the next batch is due."""
        return self._read(tables.next_due)

    def cancel(self, topic: str, delay_id: int) -> Deferred[bool]:
        """Forget a delayed batch of a topic."""
        row = self._topics.get(topic)
        if row is None:
            return fail(UnknownTopic(topic))
        return self._write(partial(tables.cancel, topic=row, delay_id=delay_id))

    def commit(self, group: str, positions: Mapping[Partition, int]) -> Deferred[None]:
        """Save the offsets that a group reads next, all or none."""
        try:
            rows = [(group, self._key(each), offset) for each, offset in positions.items()]
        except TopicError as error:
            return fail(error)
        return self._write(partial(tables.commit, rows=rows)) if rows else succeed(None)

    def committed(self, group: str) -> Deferred[Mapping[Partition, int]]:
        """Return the offsets that a group has saved."""
        return self._read(lambda connection: tables.committed(connection, group))

    def next_generation(self, group: str) -> Deferred[int]:
        """Return a number above all that the group had."""
        return self._write(partial(tables.next_generation, group=group))

    def groups(self) -> Deferred[Sequence[str]]:
        """Return the names of the groups that have saved anything."""
        return self._read(tables.groups)

    def forget_group(self, group: str) -> Deferred[None]:
        """Forget the offsets that a group has saved."""
        return self._write(partial(tables.forget_group, group=group))

    def problem(self) -> str:
        """Return why nothing can be stored now; empty if it can."""
        return self._probe.problem or self._database.problem

    def close(self) -> Deferred[None]:
        """Finish running work and close the file."""
        self._probe.close()
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()
        return self._reader.close().addBoth(lambda _: self._database.close())


__all__ = ["FLUSH_INTERVAL", "SqliteTopics"]
