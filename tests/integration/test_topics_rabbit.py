"""Topics in RabbitMQ, used by several nodes, over a broker that goes away."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from kupool.amqp import BrokerError
from kupool.amqp.address import parse_brokers
from kupool.amqp.connection import connect
from kupool.amqp.links import LinkSettings
from kupool.amqp.publisher import PublisherSettings
from kupool.amqp.wire import ConnectionSettings
from kupool.storage.database import Database
from kupool.storage.postgres import PostgresDatabase
from kupool.topics.batches import Compression, RecordCodec
from kupool.topics.errors import (
    CorruptBatch,
    OffsetOutOfRange,
    TopicsUnavailable,
    UnknownTopic,
    WrongNode,
)
from kupool.topics.groups import ConsumerGroups, GroupLimits
from kupool.topics.interfaces import Append
from kupool.topics.membership import GroupSubscription
from kupool.topics.partition import Partition
from kupool.topics.rabbit import statements
from kupool.topics.rabbit.broker import RabbitTopicsSettings
from kupool.topics.rabbit.engine import RabbitTopics
from kupool.topics.rabbit.entries import STRIDE
from kupool.topics.rabbit.leases import NodeName
from kupool.topics.rabbit.store import PostgresTopicStore, SqliteTopicStore
from kupool.topics.rabbit.tail import PREFETCH, REMEMBERED_IDS
from kupool.topics.records import NewRecord, Stamp
from kupool.topics.service import TopicLimits, Topics
from kupool.topics.settings import TopicSettings
from tests.servers.own_process import OwnServer
from tests.servers.reactor import the_reactor
from tests.servers.services import RabbitServer, postgres, rabbit, required

P0 = Partition("t", 0)
STREAM = "kupool.topic.t.0"

QUICK = RabbitTopicsSettings(refresh=0.1)


class RabbitTopicsCase(TestCase):
    timeout = 120

    async def node(self, name: str, settings: RabbitTopicsSettings = QUICK) -> RabbitTopics:
        """Return an open engine of a node."""
        engine = RabbitTopics(
            the_reactor(),
            time.time,
            self.url,
            self.store(),
            settings=settings,
            node=NodeName(name, lambda: f"{name}:1"),
        )
        self.addCleanup(engine.close)
        await engine.open()
        return engine

    def store(self) -> Any:
        raise NotImplementedError

    async def until(self, true: Any) -> None:
        for _ in range(1000):
            if true():
                return
            await deferLater(the_reactor(), 0.02)
        self.fail("it did not become true")

    def topics(self, engine: RabbitTopics) -> Topics:
        return Topics(
            engine, the_reactor(), time.time, deferToThread, random=Random(1), limits=TopicLimits()
        )

    async def publish(self, *messages: tuple[str, dict[str, Any], bytes]) -> None:
        """Publish messages to the stream as another client does."""
        (broker,) = parse_brokers(self.url)
        connection = await connect(the_reactor(), broker, ConnectionSettings(), "another client")
        channel = await connection.channel()
        await channel.confirm(lambda _: None)
        for message_id, headers, body in messages:
            await channel.publish("", STREAM, message_id, headers, body=body)
        connection.close()
        await connection.ended()

    async def look_at_stream(self) -> None:
        """Ask the broker for the stream; raises :class:`BrokerError` if there is none."""
        (broker,) = parse_brokers(self.url)
        connection = await connect(the_reactor(), broker, ConnectionSettings(), "another client")
        try:
            await (await connection.channel()).look_at(STREAM)
        finally:
            connection.close()
            await connection.ended()


class NodesTests(RabbitTopicsCase):
    """Q-31, Q-36, Q-38: several nodes on one broker and one PostgreSQL."""

    def setUp(self) -> None:
        self.url = rabbit().new_vhost()
        self.dsn = postgres().new_database()

    def store(self) -> PostgresTopicStore:
        return PostgresTopicStore(PostgresDatabase(the_reactor(), self.dsn))

    async def test_topics_of_another_node(self) -> None:
        """Q-26, Q-61: they are seen, changed and deleted ones as well."""
        a, b = await self.node("a"), await self.node("b")
        await a.create("t", TopicSettings(max_record=7))
        await self.until(lambda: b.topic("t") is not None)
        await b.append([Append(P0, 1, b"x")])
        await a.change("t", TopicSettings(max_record=8, partitions=2))
        await self.until(lambda: b.topic("t").partitions == 2)
        self.assertEqual(await b.append([Append(Partition("t", 1), 1, b"x")]), [0])
        await a.delete("t")
        await self.until(lambda: b.topic("t") is None)
        with self.assertRaises(UnknownTopic):
            await b.append([Append(P0, 1, b"x")])
        await b.create("t", TopicSettings())
        self.assertEqual(await b.append([Append(P0, 1, b"y")]), [0])
        await self.until(lambda: a.topic("t") is not None)
        self.assertEqual([x.body for x in await a.read(P0, 0, 100)], [b"y"])

    async def test_each_node_is_told_the_offsets_of_its_own_batches(self) -> None:
        """Q-02: where two nodes write to one partition at once, each in its order."""
        a, b = await self.node("a"), await self.node("b")
        await a.create("t", TopicSettings())
        await self.until(lambda: b.topic("t") is not None)
        engines = {b"a": a, b"b": b}
        sent = [(name, name + b"%d" % n) for n in range(300) for name in engines]
        offsets = await gatherResults(
            [engines[name].append([Append(P0, 1, body)]) for name, body in sent]
        )
        expected = {offset: body for (offset,), (_, body) in zip(offsets, sent, strict=True)}
        for engine in engines.values():
            await self.until(lambda engine=engine: engine._broker.tail(STREAM).next == 600)
            found = {batch.base: batch.body for batch in await engine.read(P0, 0, 10**6)}
            self.assertEqual(found, expected)
        for name in engines:
            mine = [body for body in found.values() if body.startswith(name)]
            self.assertEqual(mine, [name + b"%d" % n for n in range(300)])

    async def test_a_reader_is_told_what_another_node_writes(self) -> None:
        """Q-04: a long poll ends when there is something."""
        a, b = await self.node("a"), await self.node("b")
        await a.create("t", TopicSettings())
        await self.until(lambda: b.topic("t") is not None)
        waiting = self.topics(b).fetch(P0, 0, wait=60)
        await self.topics(a).produce("t", [NewRecord(b"x")])
        fetched = await waiting
        self.assertEqual([record.value for record in fetched.records], [b"x"])

    async def test_a_group_is_led_by_one_node(self) -> None:
        """Q-36, Q-46: the others name it; when it ends, another one leads, and goes on."""
        a, b = await self.node("a"), await self.node("b")
        await a.create("t", TopicSettings())
        await self.until(lambda: b.topic("t") is not None)
        await a.append([Append(P0, 1, b"x"), Append(P0, 1, b"y")])
        groups = [
            ConsumerGroups(each, the_reactor(), time.time, GroupLimits(), leases=each.leases)
            for each in (a, b)
        ]
        for each in groups:
            self.addCleanup(each.close)
        subscription = GroupSubscription(frozenset({"t"}), 10.0)
        first = await groups[0].join("g", "m", subscription)
        await groups[0].commit("g", "m", first.generation, {P0: STRIDE})
        for call in (
            partial(groups[1].join, "g", "m", subscription),
            partial(groups[1].describe, "g"),
            partial(groups[1].delete, "g"),
            partial(b.commit, "g", {P0: 1}),
        ):
            with self.assertRaisesRegex(WrongNode, "a:1"):
                await call()
        await a.close()
        second = await groups[1].join("g", "m", subscription)
        self.assertGreater(second.generation, first.generation)
        self.assertEqual(await groups[1].committed("g"), {P0: STRIDE})
        self.assertEqual((await groups[1].describe("g")).positions[P0].lag, 1)

    async def test_a_leader_that_was_replaced_saves_nothing(self) -> None:
        """Q-46: though it has not heard of it yet."""
        a, b = await self.node("a"), await self.node("b")
        await a.create("t", TopicSettings())
        await self.until(lambda: b.topic("t") is not None)
        await a.append([Append(P0, 1, b"x")])
        groups = ConsumerGroups(a, the_reactor(), time.time, GroupLimits(), leases=a.leases)
        self.addCleanup(groups.close)
        place = await groups.join("g", "m", GroupSubscription(frozenset({"t"}), 10.0))
        postgres().execute("UPDATE log_group_leases SET expires_at = 0", dsn=self.dsn)
        await b.commit("g", {P0: STRIDE})
        with self.assertRaisesRegex(WrongNode, "b:1"):
            await groups.commit("g", "m", place.generation, {P0: 1})
        self.assertEqual(await a.committed("g"), {P0: STRIDE})
        # Its members have to join where the group is led now.
        with self.assertRaises(WrongNode):
            await groups.join("g", "m", GroupSubscription(frozenset({"t"}), 10.0))

    async def test_what_is_due_is_published_by_one_node(self) -> None:
        """Q-52."""
        a, b = await self.node("a"), await self.node("b")
        await a.create("t", TopicSettings())
        await self.until(lambda: b.topic("t") is not None)
        await gatherResults([a.delay([Append(P0, 1, b"%d" % n)], n) for n in range(1, 51)])
        both = await gatherResults([each.append_due(100) for each in (a, b)])
        self.assertEqual(sum(found.get(P0, 0) for found in both), 50)
        self.assertEqual((await a.extents("t"))[0].high, 50 * STRIDE)

    async def test_a_mark_that_is_used_at_two_nodes(self) -> None:
        """Q-24: the batch is published once, whoever is asked first."""
        a, b = await self.node("a"), await self.node("b")
        await a.create("t", TopicSettings())
        await self.until(lambda: b.topic("t") is not None)
        for sequence in range(5):
            append = Append(P0, 1, b"x", Stamp("p", sequence))
            found = await gatherResults([each.append([append]) for each in (a, b)])
            self.assertEqual(found, [[sequence * STRIDE]] * 2)


class StreamContentTests(RabbitTopicsCase):
    """What is in a stream, whoever put it there."""

    def setUp(self) -> None:
        self.url = rabbit().new_vhost()
        self.path = Path(self.mktemp())

    def store(self) -> SqliteTopicStore:
        return SqliteTopicStore(Database(the_reactor(), self.path, "topics_rabbit"))

    async def again(self, engine: RabbitTopics) -> RabbitTopics:
        """Return another engine, which has nothing in memory."""
        await engine.close()
        return await self.node("again")

    async def test_more_than_the_broker_sends_ahead(self) -> None:
        """Q-39: the end of a stream is followed on and on."""
        engine = await self.node("a")
        await engine.create("t", TopicSettings())
        some, times = PREFETCH // 4, 20
        for _ in range(times):
            await engine.extents("t")  # the end is known
            await gatherResults([engine.append([Append(P0, 1, b"x")]) for _ in range(some)])
        self.assertEqual((await engine.extents("t"))[0].high, times * some * STRIDE)

    async def test_a_deletion_that_was_left_undone(self) -> None:
        """Q-26: a node that sees it deletes the streams, too."""
        engine = await self.node("a")
        await engine.create("t", TopicSettings())
        await engine._store.run(left_half_deleted)
        await self.until(lambda: engine.topic("t") is None)
        with self.assertRaises(BrokerError) as caught:
            for _ in range(500):
                await self.look_at_stream()
        self.assertEqual(caught.exception.code, 404)

    async def test_the_streams_of_others(self) -> None:
        """Q-18, Q-26: topics that are known elsewhere do not take the place of these."""
        engine = await self.node("a")
        await engine.create("t", TopicSettings())
        await engine.append([Append(P0, 1, b"kept")])
        own, self.path = self.path, Path(self.mktemp())
        with self.assertRaisesRegex(TopicsUnavailable, "kupool.topic.owner"):
            await self.node("other")
        other = await self.node("beside", RabbitTopicsSettings(prefix="other.topic"))
        await other.create("t", TopicSettings())
        self.path = own
        engine = await self.again(engine)
        self.assertEqual([each.body for each in await engine.read(P0, 0, 100)], [b"kept"])

    async def test_copies_are_dropped(self) -> None:
        """issue 16, build 3: what was sent again is read once, wherever a reader begins."""
        engine = await self.node("a")
        await engine.create("t", TopicSettings(partitions=2))
        await engine.append([Append(P0, 1, b"0")])
        again = {"records": 1, "repeated": True}
        await self.publish(
            ("x", {"records": 1}, b"1"),
            ("y", {"records": 1}, b"2"),
            ("x", again, b"1"),
            ("y", again, b"2"),
            ("z", again, b"3"),
        )
        await engine.append([Append(P0, 1, b"4")])
        for _ in range(2):
            found = (await engine.read(P0, 0, 1000))[:5]
            self.assertEqual([b.body for b in found], [b"0", b"1", b"2", b"3", b"4"])
            self.assertEqual([b.base // STRIDE for b in found], [0, 1, 2, 5, 6])
            for offset in (2 * STRIDE + 1, 3 * STRIDE, 4 * STRIDE, 5 * STRIDE):
                found = await engine.read(P0, offset, 1000)
                self.assertEqual([b.base // STRIDE for b in found[:2]], [5, 6], offset)
            # Far ahead, so that what is before is read from the broker.
            await gatherResults([engine.append([Append(P0, 1, b"-")]) for _ in range(50)])
            engine = await self.again(engine)
        self.assertGreater(REMEMBERED_IDS, PublisherSettings().entries)

    async def test_the_offset_of_a_batch_that_was_sent_again(self) -> None:
        """Q-02: is that of its first copy."""
        engine = await self.node("a")
        await engine.create("t", TopicSettings())
        await engine.append([Append(P0, 1, b"0")])
        tail = engine._broker.tail(STREAM)
        await self.publish(("twice", {"records": 1}, b"1"))
        await self.until(lambda: tail.next == 2)
        place = tail.position_of("twice")
        await self.publish(("twice", {"records": 1, "repeated": True}, b"1"))
        self.assertEqual(await place, 1)

    async def test_what_other_clients_publish(self) -> None:
        """issue 16, accepted 8: a batch without headers is read; what is none is named."""
        engine = await self.node("a")
        await engine.create("t", TopicSettings())
        body = RecordCodec().encode([NewRecord(b"a"), NewRecord(b"b")], "i", 5, Compression())
        await self.publish(("", {}, body), ("", {}, b"no batch"), ("", {}, body))
        topics = self.topics(engine)
        await self.until(lambda: engine._broker.tail(STREAM).next == 3)
        fetched = await topics.fetch(P0, 0)
        self.assertEqual([r.value for r in fetched.records], [b"a", b"b"])
        with self.assertRaisesRegex(CorruptBatch, f"read on from {STRIDE + 1}"):
            await topics.fetch(P0, STRIDE)
        fetched = await topics.fetch(P0, STRIDE + 1)
        self.assertEqual([r.offset for r in fetched.records], [2 * STRIDE, 2 * STRIDE + 1])

    async def test_a_delayed_batch_whose_publisher_crashed(self) -> None:
        """Q-52: it is in the stream already, and is not published again."""
        engine = await self.node("a")
        await engine.create("t", TopicSettings())
        first, second = [(await engine.delay([Append(P0, 1, b"x")], 1))[0] for _ in range(2)]
        positions = {first: 0, second: 0}
        claim = partial(statements.claim, positions=positions, seconds=-1)
        await engine._store.run(claim)
        await self.publish((f"delayed-{first}", {"records": 1}, b"x"))
        self.assertEqual(await engine.append_due(5), {P0: 2})
        self.assertEqual((await engine.extents("t"))[0].high, 2 * STRIDE)
        self.assertEqual(list(await engine.delayed("t")), [])

    async def test_a_marked_batch_whose_publisher_crashed(self) -> None:
        """Q-24: sent again, it gets the offset at which it is."""
        engine = await self.node("a")
        await engine.create("t", TopicSettings())
        await engine.append([Append(P0, 1, b"0", Stamp("p", 1))])
        await engine._store.run(forget_base)
        await engine.append([Append(P0, 1, b"1")])
        engine = await self.again(engine)
        self.assertEqual(await engine.append([Append(P0, 1, b"0", Stamp("p", 1))]), [0])
        self.assertEqual((await engine.extents("t"))[0].high, 2 * STRIDE)

    async def test_the_retention_is_the_brokers(self) -> None:
        """Q-11: what it has dropped is out of range, and offsets go on."""
        engine = await self.node("a")
        await engine.create("t", TopicSettings(retention_bytes=200_000))
        for _ in range(60):
            await engine.append([Append(P0, 1, b"x" * 10_000)])
        engine = await self.again(engine)
        extent = (await engine.extents("t"))[0]
        self.assertGreater(extent.low, 20 * STRIDE)
        # RabbitMQ uses some positions itself.
        self.assertGreaterEqual(extent.high, 60 * STRIDE)
        with self.assertRaises(OffsetOutOfRange) as caught:
            await engine.read(P0, 5 * STRIDE, 100)
        self.assertEqual(caught.exception.low, extent.low)
        self.assertEqual((await engine.read(P0, extent.low, 1))[0].base, extent.low)

    async def test_a_large_topic_is_read_on_and_on(self) -> None:
        """Q-03: each batch once and in order, in several fetches, up to its end."""
        engine = await self.node("a")
        await engine.create("t", TopicSettings())
        for start in range(0, 4000, 500):
            numbers = range(start, start + 500)
            await gatherResults([engine.append([Append(P0, 1, b"%d" % n)]) for n in numbers])
        engine = await self.again(engine)
        found, offset = [], 0
        while batches := await engine.read(P0, offset, 2000):
            self.assertLessEqual(sum(len(batch.body) for batch in batches), 2000)
            found += [int(batch.body) for batch in batches]
            offset = batches[-1].base + 1
        self.assertEqual(found, list(range(4000)))

    async def test_a_stream_that_somebody_deleted(self) -> None:
        """Q-08: it is made again, and what is written from then on is read."""
        engine = await self.node("a")
        await engine.create("t", TopicSettings())
        await engine.append([Append(P0, 1, b"old")])
        vhost = self.url.rpartition("/")[2]
        await deferToThread(rabbit().api, f"queues/{vhost}/{STREAM}", "DELETE")
        self.assertEqual(await engine.append([Append(P0, 1, b"new")]), [0])
        self.assertEqual([b.body for b in await engine.read(P0, 0, 100)], [b"new"])


async def left_half_deleted(cursor: Any) -> None:
    """Do what a node has done that crashed while it deleted a topic, a minute ago."""
    await cursor.execute("UPDATE log_topics SET state = 'deleting', changed_at = changed_at - 61")


async def forget_base(cursor: Any) -> None:
    """Have the store look as if a node had crashed before it noted where a batch is."""
    await cursor.execute("UPDATE log_once SET base = NULL, claimed_until = 0")


class BrokerAwayTests(RabbitTopicsCase):
    """Q-32, issue 16: a broker that is away is named, and everything goes on when it is back."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        with required():
            self.server: OwnServer = RabbitServer()
        self.addCleanup(self.server.close)
        self.server.start()
        self.url = self.server.new_vhost()

    def store(self) -> SqliteTopicStore:
        return SqliteTopicStore(Database(the_reactor(), self.path, "topics_rabbit"))

    async def test_kill_and_return(self) -> None:
        link = LinkSettings(longest_wait=0.5)
        engine = await self.node("a", RabbitTopicsSettings(link=link, patience=0.5))
        await engine.create("t", TopicSettings())
        await engine.append([Append(P0, 1, b"0")])
        self.assertEqual(engine.problem(), "")
        await deferLater(the_reactor(), 2.0)  # RabbitMQ 3.10 forgets what is younger
        await deferToThread(self.server.kill)
        await self.until(engine.problem)
        self.assertIn("RabbitMQ at 127.0.0.1", engine.problem())
        with self.assertRaisesRegex(TopicsUnavailable, "RabbitMQ at 127.0.0.1"):
            await engine.append([Append(P0, 1, b"1")])
        # What was the end may not be it any more.
        with self.assertRaisesRegex(TopicsUnavailable, "RabbitMQ at 127.0.0.1"):
            await engine.read(P0, STRIDE, 1000)
        await deferToThread(self.server.start)
        await self.until(lambda: not engine.problem())
        offsets: list[Any] = []
        for number in range(2, 5):
            sent: Deferred[Any] = engine.append([Append(P0, 1, b"%d" % number)])
            offsets += await sent
        bodies = {b.base: b.body for b in await engine.read(P0, 0, 1000)}
        self.assertEqual([bodies[offset] for offset in offsets], [b"2", b"3", b"4"])
        self.assertEqual(bodies[0], b"0")
