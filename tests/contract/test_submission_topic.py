"""The topic of the submissions, on every log.

An engine is added by a subclass of :class:`SubmissionTopicContract` that makes logs.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from kupool.log.memory import MemoryLog
from kupool.log.rabbit.log import RabbitLog, RabbitSettings
from kupool.log.rabbit.topology import Topology
from kupool.log.sqlite import SqliteLog
from kupool.stats import MinuteCount
from kupool.stats.consumer import ConsumerSettings, StatsConsumer
from kupool.stats.memory import MemoryStats
from kupool.storage.database import Database
from kupool.topics.consumer import GroupConsumer, MemberSettings
from kupool.topics.errors import CorruptBatch, OffsetOutOfRange, ReservedTopic, UnknownPartition
from kupool.topics.groups import ConsumerGroups, GroupLimits
from kupool.topics.interfaces import ITopicEngine
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.local import LocalGroupClient
from kupool.topics.memory import MemoryTopics
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Record
from kupool.topics.routed import ITopicSource, RoutedTopics
from kupool.topics.service import TopicLimits, Topics, Writing
from kupool.topics.settings import TopicSettings
from kupool.topics.submissions import PER_ENTRY, SUBMISSIONS, SubmissionTopic
from kupool.wire.batches import VERSION, Batch, encode_batch
from kupool.wire.messages import split_username
from tests.servers.reactor import the_reactor
from tests.servers.running_daemon import ROOT
from tests.servers.services import rabbit

P = Partition(SUBMISSIONS, 0)
T = 1_800_000_000


def batch(batch_id: str, *usernames: str, at: float = T) -> bytes:
    """Return a batch with a submission of each user; without one it is a note."""
    count = len(usernames)
    nonces = [f"{batch_id}{place}" for place in range(count)]
    return encode_batch(
        Batch(VERSION, batch_id, int(at * 1000), list(usernames), [7] * count, nonces)
    )


class SubmissionTopicContract:
    """Issue 16, build 6, Q-38: the suite; mixed into a TestCase by each log."""

    def make_log(self) -> Any:
        raise NotImplementedError

    async def set_up(self) -> None:
        """Make a log with its topic, in topics whose other part is in memory."""
        self.now = float(T)
        self.log = self.make_log()
        await self.log.open()
        self.addCleanup(self.log.close)  # type: ignore[attr-defined]
        self.source = SubmissionTopic(self.log.reader(), TopicSettings(retention_time=77))
        self.main = MemoryTopics(self.wall)
        self.engine = RoutedTopics(self.main, {SUBMISSIONS: self.source}, kept={"events"})
        await self.engine.open()
        self.addCleanup(self.engine.close)  # type: ignore[attr-defined]
        self.topics = Topics(
            self.engine,
            the_reactor(),
            self.wall,
            deferToThread,
            random=Random(1),
            limits=TopicLimits(topics=1),
            decoders=self.engine.decoders,
            reserved=self.engine.reserved,
        )

    def wall(self) -> float:
        return self.now

    async def append(self, *bodies: bytes) -> None:
        for body in bodies:
            self.appended += 1
            await self.log.append(f"entry-{self.appended}", body)

    appended = 0

    async def all(self, offset: int | None = None, max_bytes: int = 1024 * 1024) -> list[Record]:
        """Return the records from an offset, by default the oldest, in parts of some bytes."""
        next_offset = await self.topics.earliest(P) if offset is None else offset
        found: list[Record] = []
        while True:
            fetched = await self.topics.fetch(P, next_offset, max_bytes=max_bytes)
            if not fetched.records:
                return found
            found += fetched.records
            next_offset = fetched.next_offset

    async def test_interfaces(self) -> None:
        await self.set_up()
        verifyObject(ITopicEngine, self.engine)
        verifyObject(ITopicSource, self.source)

    async def test_records(self) -> None:
        """Q-03: each submission is a record, with its key, its time, and where it was."""
        await self.set_up()
        await self.append(batch("a", "alice.rig1", "bob", at=T + 1.5), batch("b", "名", at=T + 2))
        first = await self.topics.earliest(P)
        self.assertEqual(first % PER_ENTRY, 0)
        records = await self.all()
        self.assertEqual(
            [record.offset for record in records], [first, first + 1, first + PER_ENTRY]
        )
        self.assertEqual([record.key for record in records], [b"alice.rig1", b"bob", "名".encode()])
        self.assertEqual(
            [record.timestamp for record in records],
            [T * 1000 + 1500, T * 1000 + 1500, T * 1000 + 2000],
        )
        self.assertEqual(
            json.loads(records[1].value),
            {
                "id": "a/1",
                "username": "bob",
                "job_id": 7,
                "client_nonce": "a1",
                "at": T * 1000 + 1500,
            },
        )

    async def test_from_any_offset(self) -> None:
        """Q-03: also from the middle of a batch, and in parts of any size."""
        await self.set_up()
        await self.append(batch("a", "u1", "u2", "u3"), batch("b", "u4"), batch("c", "u5", "u6"))
        records = await self.all()
        self.assertEqual([record.key for record in records], [b"u%d" % n for n in range(1, 7)])
        for place, record in enumerate(records):
            self.assertEqual(await self.all(record.offset), records[place:])
            self.assertEqual(await self.all(record.offset + 1, max_bytes=1), records[place + 1 :])
        high = await self.topics.latest(P)
        self.assertGreater(high, records[-1].offset)
        self.assertEqual(await self.all(high), [])
        fetched = await self.topics.fetch(P, records[-1].offset + 1)
        self.assertEqual(fetched.records, [])

    async def test_no_more_than_was_asked_for(self) -> None:
        """Q-03: the limit is for what a reader gets, which is larger than what the log has."""
        await self.set_up()
        for n in range(40):
            await self.append(batch(f"b{n}", *[f"user{n}.rig{place}" for place in range(20)]))
        low = await self.topics.earliest(P)
        records = (await self.topics.fetch(P, low, max_bytes=40_000)).records
        size = sum(len(record.value) + len(record.key or b"") for record in records)
        self.assertGreater(size, 20_000)
        self.assertLess(size, 40_000)
        self.assertEqual(len(await self.all(max_bytes=40_000)), 800)

    async def test_notes_are_passed(self) -> None:
        """A batch without submissions is no end of the topic, and nothing to wait for."""
        await self.set_up()
        await self.append(batch("n1"), batch("a", "u1"), batch("n2"), batch("n3"))
        await self.append(batch("b", "u2"), batch("n4"))
        low = await self.topics.earliest(P)
        found = []
        for offset in (low, low + PER_ENTRY + 1):
            fetched = await self.topics.fetch(P, offset, max_bytes=1, wait=60)
            found += [record.key for record in fetched.records]
        self.assertEqual(found, [b"u1", b"u2"])
        self.assertEqual([record.key for record in await self.all()], [b"u1", b"u2"])

    async def test_a_reader_waits(self) -> None:
        """Q-04: it is told of what comes, once that is durable, also behind a note."""
        await self.set_up()
        await self.append(batch("a", "u1"))
        (record,) = await self.all()
        waiting = self.topics.fetch(P, record.offset + 1, wait=60)
        await self.append(batch("n"), batch("b", "u2"))
        fetched = await waiting
        self.assertEqual([each.key for each in fetched.records], [b"u2"])

    async def test_an_entry_that_is_not_readable(self) -> None:
        """Q-08: it is named with its position, and never left out without a word."""
        await self.set_up()
        await self.append(batch("a", "u1"), b"{nonsense", batch("c", "u3"))
        low = await self.topics.earliest(P)
        fetched = await self.topics.fetch(P, low)
        self.assertEqual([record.key for record in fetched.records], [b"u1"])
        self.assertEqual(fetched.next_offset, low + PER_ENTRY)
        position, following = low // PER_ENTRY + 1, low + 2 * PER_ENTRY
        with self.assertRaisesRegex(
            CorruptBatch, f"position {position} of the log: not a batch.*read on from {following}"
        ):
            await self.topics.fetch(P, fetched.next_offset)
        self.assertEqual([record.key for record in await self.all(following)], [b"u3"])

    async def test_by_time(self) -> None:
        """Q-17, Q-40."""
        await self.set_up()
        for n in range(6):
            self.now = T + n // 2 * 10
            await self.append(batch(f"b{n}", f"u{n}", at=self.now))
        offsets = [record.offset for record in await self.all()]
        found = [await self.topics.at_time(P, T + seconds) for seconds in (0, 1, 20, 21)]
        self.assertEqual(found, [offsets[0], offsets[2], offsets[4], await self.topics.latest(P)])

    async def test_what_is_not_there(self) -> None:
        """Q-26, Q-27: one partition, which is described as any other."""
        await self.set_up()
        await self.append(batch("a", "u1"))
        self.assertEqual(self.topics.names(), [SUBMISSIONS])
        described = await self.topics.describe(SUBMISSIONS)
        self.assertEqual(described.settings, TopicSettings(retention_time=77))
        (extent,) = described.partitions
        self.assertEqual(extent.high - extent.low, PER_ENTRY)
        other = Partition(SUBMISSIONS, 1)
        for call in (
            lambda: self.topics.fetch(other, 0),
            lambda: self.topics.earliest(other),
            lambda: self.topics.at_time(other, 0),
            lambda: self.engine.commit("g", {other: 0}),
        ):
            with self.assertRaises(UnknownPartition):
                await call()

    async def test_nobody_else_writes(self) -> None:
        """Issue 16, build 2: it is not created, changed, deleted, cut or written to.

        It also takes no place of the topics that users may have.
        """
        await self.set_up()
        await self.append(batch("a", "u1"))
        record = NewRecord(b"forged")
        for name in (SUBMISSIONS, "events"):
            for call in (
                lambda name=name: self.topics.create(name, TopicSettings()),
                lambda name=name: self.topics.change(name, TopicSettings()),
                lambda name=name: self.topics.delete(name),
                lambda name=name: self.engine.drop_below(Partition(name, 0), 1 << 60),
            ):
                with self.assertRaisesRegex(ReservedTopic, f"topic {name} is written by the daem"):
                    await call()
        await self.topics.create("other", TopicSettings())
        with self.assertRaises(ReservedTopic):
            await self.topics.produce(SUBMISSIONS, [record])
        appends = self.topics.prepare(Writing(SUBMISSIONS, (record,))).encode()
        more = self.topics.prepare(Writing("other", (record,))).encode()
        with self.assertRaises(ReservedTopic):
            await self.engine.append([*more, *appends])
        with self.assertRaises(ReservedTopic):
            await self.engine.delay([*more, *appends], 0)
        self.assertEqual(await self.engine.delayed(SUBMISSIONS), [])
        self.assertEqual(await self.topics.latest(Partition("other", 0)), 0)
        self.assertEqual([each.key for each in await self.all()], [b"u1"])

    async def test_a_group_reads_it(self) -> None:
        """Q-42, Q-45: its positions are kept in the main engine, and it goes on from there."""
        await self.set_up()
        await self.append(batch("a", "u1", "u2"), batch("b", "u3"))
        self.assertEqual(await self.consume(3), [b"u1", b"u2", b"u3"])
        await self.append(batch("n"), batch("c", "u4"))
        self.assertEqual(await self.consume(1), [b"u4"])
        committed = await self.main.committed("g")
        self.assertEqual(committed, {P: (await self.all())[-1].offset + 1})
        # It is the empty topic of the main engine to which the positions belong.
        self.assertEqual(await self.main.extents(SUBMISSIONS), [(0, 0, 0)])
        self.assertEqual(self.topics.names(), [SUBMISSIONS])

    async def consume(self, count: int) -> list[bytes | None]:
        """Return the keys that a member of a group gets until it has so many; it commits."""
        groups = ConsumerGroups(self.engine, the_reactor(), time.time, GroupLimits())
        found: list[bytes | None] = []
        enough: Deferred[None] = Deferred()

        def handle(delivery: DeliveredRecord) -> None:
            found.append(delivery.record.key)
            if len(found) == count:
                enough.callback(None)

        consumer = GroupConsumer(
            LocalGroupClient(self.topics, groups),
            the_reactor(),
            ("g", "m"),
            topics=frozenset((SUBMISSIONS,)),
            handler=handle,
            give_away=lambda delivery, failure: DeferredList([]),  # type: ignore[arg-type, return-value]
            settings=MemberSettings(),
        )
        await consumer.start()
        await enough
        await consumer.stop()
        groups.close()
        return found

    async def test_counts_are_made_again_from_it(self) -> None:
        """X-06: they equal those that were made from the log while it was written."""
        await self.set_up()
        store = MemoryStats()
        consumer = StatsConsumer(the_reactor(), store, settings=ConsumerSettings(interval=0.01))
        await consumer.start(self.log)
        random = Random(7)
        names = ["alice", "alice.rig1", "alice.rig2", "bob.x", "名.a"]
        for n in range(60):
            who = random.choices(names, k=random.randrange(8))
            await self.append(batch(f"b{n}", *who, at=T + n * 7))
        while self.log.status().depth or consumer.pending:
            await deferLater(the_reactor(), 0.01)
        self.assertTrue(await consumer.drain(the_reactor().seconds() + 60))
        await consumer.stop()
        again: Counter[tuple[str, str, int]] = Counter()
        for record in await self.all(max_bytes=500):
            submission = json.loads(record.value)
            user, worker = split_username(submission["username"])
            minute = submission["at"] // 60_000 * 60
            again[user, "", minute] += 1
            if worker:
                again[user, worker, minute] += 1
        self.assertGreater(sum(again.values()), 100)
        table = CountTable()
        await store.snapshot(table, 0, 1 << 40)  # type: ignore[arg-type]
        self.assertEqual(again, table.rows)


class CountTable:
    """Takes the rows of a store, and nothing else."""

    def __init__(self) -> None:
        self.rows: Counter[tuple[str, str, int]] = Counter()

    def counts(self, rows: Sequence[MinuteCount]) -> None:
        self.rows.update({row[:3]: row.submissions for row in rows})

    def begin(self, snapshot: object) -> None:
        pass

    spans = batches = begin


class OutOfRangeContract(SubmissionTopicContract):
    """More of it, for a log that is trimmed by us."""

    async def test_below_what_was_trimmed(self) -> None:
        """Q-04: the error has the range that is valid."""
        await self.set_up()
        consumer = StatsConsumer(the_reactor(), MemoryStats())
        await consumer.start(self.log)
        for n in range(5):
            await self.append(batch(f"b{n}", *["u" * 250] * 50))
        self.assertTrue(await consumer.drain(the_reactor().seconds() + 60))
        await consumer.stop()
        low = await self.topics.earliest(P)
        self.assertGreater(await self.log.trim(0, 0, 30_000), 0)
        (extent,) = await self.engine.extents(SUBMISSIONS)
        self.assertGreater(extent.low, low)
        for offset in (0, low, extent.low - 1):
            with self.assertRaises(OffsetOutOfRange) as caught:
                await self.topics.fetch(P, offset)
            self.assertEqual((caught.exception.low, caught.exception.high), extent[:2])
        self.assertEqual((await self.all(extent.low))[0].offset, extent.low)


class SubmissionsInMemoryTests(OutOfRangeContract, TestCase):
    """The suite, for the log in memory."""

    def make_log(self) -> MemoryLog:
        return MemoryLog(the_reactor(), self.wall)


class SubmissionsInSqliteTests(OutOfRangeContract, TestCase):
    """The suite, for the log in a SQLite file."""

    def make_log(self) -> SqliteLog:
        self.database = Database(the_reactor(), Path(self.mktemp()), "log")
        return SqliteLog(self.database, the_reactor(), self.wall)

    async def test_the_log_of_the_release_before(self) -> None:
        """Issue 16, build 6: it is taken over, and its submissions are read as the topic."""
        await self.set_up()
        left = ROOT / "tests/data/release_0"
        path = Path(self.mktemp())
        connection = sqlite3.connect(path)
        connection.executescript((left / "log.sql").read_text())
        connection.close()
        log = SqliteLog(Database(the_reactor(), path, "log"), the_reactor(), self.wall)
        await log.open()
        self.addCleanup(log.close)
        source = SubmissionTopic(log.reader(), TopicSettings())
        await source.open()
        self.addCleanup(source.close)
        found = []
        for stored in await source.read(P, PER_ENTRY, 1 << 30):
            for record in source.decode(stored.body, stored.base)[1]:
                value = json.loads(record.value)
                self.assertEqual(record.offset // PER_ENTRY * PER_ENTRY, stored.base)
                found.append((value["username"], value["job_id"], value["client_nonce"]))
        answered = json.loads((left / "submissions.json").read_text())
        self.assertEqual(
            sorted(found), sorted((name, job, nonce) for name, job, _, nonce in answered)
        )

    async def test_a_reader_does_not_wait_for_the_writer(self) -> None:
        """Q-07, Q-16: it has a connection of its own."""
        await self.set_up()
        await self.append(batch("a", "u1"))
        hold = threading.Event()
        held = self.database.run(lambda connection: hold.wait(60))
        try:
            self.assertEqual([record.key for record in await self.all()], [b"u1"])
            self.assertFalse(held.called)
        finally:
            hold.set()
        await held


class SubmissionsInRabbitTests(SubmissionTopicContract, TestCase):
    """The suite, for the stream in RabbitMQ, on a real broker."""

    timeout = 120

    def make_log(self) -> RabbitLog:
        settings = RabbitSettings(topology=Topology(groups=("stats",)), look_every=0.1)
        return RabbitLog(the_reactor(), self.wall, rabbit().new_vhost(), settings)
