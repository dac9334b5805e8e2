"""Whose stream it is, and what is counted from it: on a real broker."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred

from kupool.amqp.address import parse_brokers
from kupool.amqp.channel import BrokerMessage
from kupool.amqp.connection import connect
from kupool.amqp.wire import ConnectionSettings
from kupool.log import Epoch, Gap, Identity, IdentityMismatch, Mark
from kupool.log.rabbit.log import RabbitLog
from kupool.log.rabbit.topology import Topology
from kupool.stats.comparison import Comparison, compare
from kupool.stats.consumer import ConsumerSettings, StatsConsumer
from kupool.stats.fold import fold_entry
from kupool.stats.memory import MemoryStats
from kupool.stats.positions import NOWHERE
from kupool.stats.sweep import Sweeper, SweepSettings
from kupool.wire.batches import VERSION, Batch, encode_batch
from tests.integration.test_rabbit import RabbitCase
from tests.servers.reactor import the_reactor

TOPOLOGY = Topology()
MINE = Identity("mine", (Epoch("one", 0),))
EVER = (0, 2**40)


class IdentityCase(RabbitCase):
    """A store that outlives the logs in front of it, and what counts into it."""

    def setUp(self) -> None:
        super().setUp()
        self.store = MemoryStats()
        self.names = count()

    def new_id(self) -> str:
        return f"made{next(self.names)}"

    async def run_pool(self, **settings: Any) -> Pool:
        pool = Pool(await self.open_log(hold=True, **settings), self.store, self.new_id)
        self.addCleanup(pool.end)
        await pool.begin()
        return pool

    async def top(self) -> dict[str, int]:
        return dict(await self.store.top(100, *EVER))

    async def counted(self, **expected: int) -> None:
        found: dict[str, int] = {}
        for _ in range(1000):
            found = await self.top()
            if found == expected:
                return
            await self.quiet(0.02)
        self.assertEqual(found, expected)

    def purge(self) -> None:
        self.server.api(f"queues/{self.vhost}/{TOPOLOGY.queue}/contents", "DELETE")

    async def messages(self, queue: str, number: int, **arguments: Any) -> list[BrokerMessage]:
        """The first messages of a queue, as a plain client sees them."""
        (broker,) = parse_brokers(self.url)
        connection = await connect(the_reactor(), broker, ConnectionSettings(), "reader")
        channel = await connection.channel()
        await channel.prefetch(100)
        deliveries = await channel.consume(queue, arguments)
        found = [await deliveries.next() for _ in range(number)]
        connection.close()
        await connection.ended()
        return found

    async def publish(self, body: bytes, message_id: str = "x", **headers: Any) -> None:
        """Publish as a stranger, or as the release before."""
        (broker,) = parse_brokers(self.url)
        connection = await connect(the_reactor(), broker, ConnectionSettings(), "stranger")
        channel = await connection.channel()
        await channel.confirm(lambda _: None)
        await channel.publish(TOPOLOGY.exchange, "", message_id, headers, body=body)
        connection.close()
        await connection.ended()


class Pool:
    """What of a daemon stands between a log and its counts."""

    def __init__(self, log: RabbitLog, store: MemoryStats, new_id: Any) -> None:
        self.log = log
        self.store = store
        self.new_id = new_id
        reactor = the_reactor()
        self.compared: list[Comparison] = []
        self.consumer = StatsConsumer(reactor, store, settings=ConsumerSettings(interval=0.05))
        self.sweeper = Sweeper(
            reactor,
            time.time,
            log,
            store,
            compare=self.compare,
            new_id=new_id,
            settings=SweepSettings(0.5, 0.2, 0.1),
        )

    async def compare(self) -> Comparison:
        self.compared.append(await compare(self.log, self.store, self.new_id))
        return self.compared[-1]

    async def begin(self) -> None:
        await self.compare()
        await self.sweeper.begin()
        await self.consumer.start(self.log)

    async def submit(self, batch_id: str, *usernames: str) -> None:
        await self.log.append(batch_id, body_of(batch_id, *usernames))

    async def end(self) -> None:
        await self.consumer.stop()
        await self.sweeper.stop(10.0)
        await self.log.close()

    async def crash(self) -> None:
        """End without a last look at anything."""
        sweeper, self.sweeper._stopped = self.sweeper, True
        if sweeper._next is not None:
            sweeper._next.cancel()
        if sweeper._running is not None:
            await sweeper._wait(sweeper._running, 10.0)
        await self.consumer.stop()
        await self.log.close()

    @property
    def changes(self) -> list[Comparison]:
        return [compared for compared in self.compared if compared.changed]


def body_of(batch_id: str, *usernames: str) -> bytes:
    number = len(usernames)
    columns = (list(usernames), [1] * number, ["x"] * number)
    return encode_batch(Batch(VERSION, batch_id, int(time.time() * 1000), *columns))


class ExtentTests(IdentityCase):
    """Issue 11, point 1: a stream that was made again is told from the one that was counted."""

    async def test_new(self) -> None:
        log = await self.open_log()
        extent = await log.extent(None, Mark(0))
        self.assertEqual(extent, (None, 1, 0, False, 0))

    async def test_marks_of_every_message(self) -> None:
        """Each message says which pool and epoch it is of, in the stream and in the queue."""
        log = await self.open_log()
        await log.extent(None, Mark(0))
        await log.identify(MINE)
        await log.append("e", b"body")
        for queue, start in ((TOPOLOGY.queue, {}), (TOPOLOGY.stream, {"x-stream-offset": 0})):
            (message,) = await self.messages(queue, 1, **start)
            self.assertEqual(message.headers["pool"], "mine")
            self.assertEqual(message.headers["epoch"], "one")
            self.assertLess(abs(message.headers["appended_at"] / 1000 - time.time()), 60)

    async def test_the_same(self) -> None:
        log = await self.open_log()
        await log.identify(MINE)
        await self.fill(log, 5)
        again = await self.open_log()
        extent = await again.extent(MINE, Mark(3, "e2"))
        self.assertEqual(extent, (MINE, 1, 5, True, 5))

    async def test_positions_of_a_later_epoch(self) -> None:
        """They are above what the epoch begins after: in a read, at the end, and in the status."""
        later = MINE.with_epoch("two", 100)
        log = await self.open_log()
        await log.extent(MINE, Mark(100, "gone"))
        await log.identify(later)
        await self.fill(log, 3)
        self.assertEqual([e.position for e in await log.read(0, 10)], [101, 102, 103])
        self.assertEqual([e.entry_id for e in await log.read(101, 10)], ["e1", "e2"])
        self.assertEqual(log.status().appended, 103)
        again = await self.open_log()
        self.assertEqual(await again.extent(later, Mark(102, "e1")), (later, 101, 103, True, 103))
        self.assertEqual(again.status().appended, 103)

    async def test_an_epoch_in_the_same_stream(self) -> None:
        """A restored store has a new epoch, and the stream goes on: the mark tells where."""
        log = await self.open_log()
        await log.identify(MINE)
        await self.fill(log, 5)
        restored = MINE.with_epoch("restored", 4)
        again = await self.open_log()
        extent = await again.extent(restored, Mark(4, "e3"))
        self.assertEqual(extent, (restored, 1, 5, True, 5))
        await again.identify(restored)
        self.assertEqual([e.position for e in await again.read(4, 9)], [5])

    async def test_another_entry_at_the_mark(self) -> None:
        """Made again, and used by the same pool meanwhile: no data that was counted."""
        log = await self.open_log()
        await log.identify(MINE)
        await self.fill(log, 5)
        extent = await log.extent(MINE, Mark(3, "another"))
        self.assertEqual((extent.identity, extent.holds_data), (None, False))

    async def test_it_ends_before_the_mark(self) -> None:
        log = await self.open_log()
        await log.identify(MINE)
        await self.fill(log, 5)
        extent = await log.extent(MINE, Mark(30, "e29"))
        self.assertEqual((extent.identity, extent.holds_data), (None, False))

    async def test_it_begins_after_the_mark(self) -> None:
        """Retention took what was not counted: the store's identity, and the first says so."""
        log = await self.open_log(topology=Topology(max_bytes=200_000))
        await log.identify(MINE)
        for n in range(60):
            await log.append(f"e{n}", b"x" * 10_000)
        extent = await log.extent(MINE, Mark(2, "e1"))
        self.assertEqual(extent.identity, MINE)
        self.assertGreaterEqual(extent.last, 60)
        self.assertGreater(extent.first, 3)

    async def test_another_pool(self) -> None:
        log = await self.open_log()
        await log.identify(Identity("theirs", (Epoch("e", 0),)))
        await self.fill(log, 5)
        for mark in (Mark(0), Mark(3, "mine"), Mark(30, "mine")):
            extent = await log.extent(MINE, mark)
            assert extent.identity is not None
            self.assertEqual((extent.identity.pool_id, extent.holds_data), ("theirs", True))

    async def test_a_stranger_in_a_stream_that_was_made_again(self) -> None:
        """A message of another pool does not make a stream theirs in which ours are."""
        log = await self.open_log()
        await log.identify(MINE)
        await self.fill(log, 3)
        await self.publish(b"?", pool="theirs", epoch="e")
        extent = await log.extent(MINE, Mark(30, "gone"))
        self.assertEqual((extent.identity, extent.holds_data), (None, False))

    async def test_the_release_before(self) -> None:
        """Entries that name no pool: for a new store there to be taken over, else refused."""
        log = await self.open_log()
        await self.fill(log, 5)
        self.assertEqual(await log.extent(None, Mark(0)), (None, 1, 5, True, 5))
        for mark in (Mark(0), Mark(3, "mine"), Mark(30, "mine")):
            extent = await log.extent(MINE, mark)
            self.assertEqual((extent.identity, extent.holds_data), (None, True))

    async def test_a_new_store(self) -> None:
        """It learns the pool and the epoch from the newest message that names them."""
        log = await self.open_log()
        await self.fill(log, 2)
        await log.identify(MINE)
        await log.append("f", b"x")
        await self.publish(b"?")
        again = await self.open_log()
        self.assertEqual(await again.extent(None, Mark(0)), (MINE, 1, 4, True, 4))


class AppendedTests(IdentityCase):
    """K-11: what is appended from now on is above the position that jobs are told of."""

    async def position(self, pool: Pool, entry_id: str) -> int:
        after = 0
        while entries := await pool.log.read(after, 1000):
            for entry in entries:
                if entry.entry_id == entry_id:
                    return entry.position
            after = entries[-1].position
        raise AssertionError(f"{entry_id} is not in the stream")

    async def test_compared_while_entries_are_on_their_way(self) -> None:
        """An entry that the stream shows before it is confirmed is counted once."""
        pool = await self.run_pool()
        connection: Any = pool.log._publishing.connection
        wire = connection._protocol.wire._transport
        for n in range(3):
            wire.pauseProducing()  # no confirm is read
            asked = [pool.submit(f"b{n}-{k}", "alice") for k in range(30)]
            submitted = [Deferred.fromCoroutine(one) for one in asked]
            await self.until_shown(pool, 30 * (n + 1))
            await pool.compare()
            wire.resumeProducing()
            for done in submitted:
                await done
            told = pool.log.status().appended
            await pool.submit(f"after{n}", "bob")
            self.assertGreater(await self.position(pool, f"after{n}"), told)

    async def until_shown(self, pool: Pool, number: int) -> None:
        while len(await pool.log.read(0, 1000)) < number:
            await self.quiet(0.02)

    async def test_compared_under_load(self) -> None:
        """A comparison comes to its end while entries are appended all the time."""
        pool = await self.run_pool()
        busy = True

        async def submit_on_and_on(name: str) -> None:
            for n in count():
                if not busy:
                    return
                await pool.submit(f"{name}-{n}", "alice")

        submitting = [Deferred.fromCoroutine(submit_on_and_on(f"b{k}")) for k in range(20)]
        compared = Deferred.fromCoroutine(pool.compare()).addTimeout(30, the_reactor())
        try:
            await compared
        finally:
            busy = False
            for done in submitting:
                await done
        self.assertGreater(pool.compared[-1].extent.last, 0)


class CountingTests(IdentityCase):
    """Issue 11, point 1: everything that was answered is counted, and once."""

    async def test_the_queue_is_purged_while_stopped(self) -> None:
        pool = await self.run_pool()
        await self.counted()
        await pool.consumer.stop()
        for n in range(20):
            await pool.submit(f"b{n}", "alice")
        await pool.crash()
        self.purge()
        again = await self.run_pool()
        await self.counted(alice=20)
        await again.submit("c", "alice")
        await self.counted(alice=21)
        await again.end()
        self.assertEqual(await self.top(), {"alice": 21})

    async def test_the_queue_is_purged_while_running(self) -> None:
        pool = await self.run_pool()
        await pool.consumer.stop()
        await pool.submit("b1", "alice")
        await pool.submit("b2", "bob")
        self.purge()
        await self.counted(alice=1, bob=1)
        self.assertEqual(pool.changes[1:], [])

    async def test_the_queue_is_deleted_while_stopped(self) -> None:
        pool = await self.run_pool()
        await pool.consumer.stop()
        await pool.submit("b1", "alice")
        await pool.crash()
        self.delete("queues", TOPOLOGY.queue)
        await self.run_pool()
        await self.counted(alice=1)

    async def test_the_queue_alone_has_it(self) -> None:
        """The stream is deleted while stopped: what the queue holds is counted, and once."""
        pool = await self.run_pool()
        await pool.submit("b1", "alice")
        await self.counted(alice=1)
        await pool.consumer.stop()
        await pool.submit("b2", "alice")
        appended = pool.log.status().appended
        await self.until(lambda: self.store._mark.position == appended, "the sweep")
        await pool.crash()
        self.delete("queues", TOPOLOGY.stream)
        again = await self.run_pool()
        (change,) = again.changes
        self.assertIs(change.plan.keep_jobs, False)
        self.assertGreaterEqual(change.plan.identity.begins_after, appended)
        self.assertEqual(change.plan.text, "the log is missing: a new one begins")
        await again.submit("b3", "bob")
        await self.counted(alice=2, bob=1)
        self.assertGreater((await again.log.read(0, 1))[0].position, appended)

    async def test_a_minute_that_is_partly_in_no_log(self) -> None:
        """What only the queue still had is counted, and its minute is not taken for one that
        the new stream holds wholly.
        """
        pool = await self.run_pool()
        await pool.consumer.stop()
        await pool.submit("b1", "alice")
        await pool.crash()
        self.delete("queues", TOPOLOGY.stream)
        again = await self.run_pool()
        await self.counted(alice=1)
        await again.submit("b2", "bob")
        await self.counted(alice=1, bob=1)
        first = min(self.store._spans)
        self.assertEqual(self.store._spans[first].after, NOWHERE)

    async def test_the_stream_is_deleted_while_running(self) -> None:
        """Positions go on above all that anybody was told, what is lost is a gap, and every
        batch is counted once.
        """
        pool = await self.run_pool()
        for n in range(10):
            await pool.submit(f"b{n}", "alice")
        appended = pool.log.status().appended
        self.delete("queues", TOPOLOGY.stream)
        for n in range(10, 20):
            await pool.submit(f"b{n}", "alice")
        await self.until(lambda: len(pool.changes) == 2, "the comparison")
        changed = pool.changes[1]
        self.assertEqual(len(changed.plan.identity.epochs), 2)
        self.assertGreaterEqual(changed.plan.identity.begins_after, appended)
        await pool.submit("last", "bob")
        await self.counted(alice=20, bob=1)
        await self.until(lambda: self.store._mark.entry_id, "the mark")
        entries = await pool.log.read(0, 100)
        self.assertGreater(entries[0].position, appended)
        gaps = await self.store.gaps()
        self.assertEqual([gap for gap, _ in gaps if gap.last >= appended], [gaps[-1][0]])
        await pool.end()
        again = await self.run_pool()
        self.assertEqual(again.changes, [])
        await self.counted(alice=20, bob=1)

    async def test_the_stream_is_made_again_by_another(self) -> None:
        """Deleted and made again under a daemon that notices nothing but the id at its mark."""
        pool = await self.run_pool()
        for n in range(5):
            await pool.submit(f"b{n}", "alice")
        await self.counted(alice=5)
        await self.until(lambda: self.store._mark.entry_id == "b4", "the mark")
        self.delete("queues", TOPOLOGY.stream)
        helper = await self.open_log()
        await helper.identify(pool.compared[-1].plan.identity)
        for n in range(9):
            await helper.append(f"c{n}", body_of(f"c{n}", "bob"))
        await self.until(lambda: len(pool.changes) == 2, "the comparison")
        await self.counted(alice=5, bob=9)
        await pool.submit("last", "carol")
        await self.counted(alice=5, bob=9, carol=1)

    async def test_truncated_while_stopped(self) -> None:
        """What retention took before it was known to be counted is a gap; the rest is counted."""
        topology = Topology(max_bytes=200_000)
        pool = await self.run_pool(topology=topology)
        await pool.consumer.stop()
        await pool.crash()
        mark = self.store._mark.position
        helper = await self.open_log(topology=topology)
        await helper.identify(pool.compared[-1].plan.identity)
        for n in range(60):
            name = f"b{n}"
            body = body_of(name, "alice").replace(b'"x"', b'"' + b"x" * 10_000 + b'"')
            await helper.append(name, body)
        await helper.close()
        self.purge()
        again = await self.run_pool(topology=topology)
        (change,) = again.changes
        first = change.extent.first
        self.assertGreater(first, mark + 1)
        self.assertEqual([gap for gap, _ in await self.store.gaps()], [Gap(mark + 1, first - 1)])
        self.assertIs(change.plan.keep_jobs, True)  # their positions say which can be known
        left = {entry.entry_id for entry in await again.log.read(0, 100)}
        await self.counted(alice=sum(name.startswith("b") for name in left))

    async def test_the_stream_of_another_pool(self) -> None:
        pool = await self.run_pool()
        await pool.submit("b", "alice")
        await self.counted(alice=1)
        await pool.end()
        for queue in (TOPOLOGY.queue, TOPOLOGY.stream):
            self.delete("queues", queue)
        theirs = await self.open_log()
        await theirs.identify(Identity("theirs", (Epoch("e", 0),)))
        await theirs.append("t", body_of("t", "eve"))
        await theirs.close()
        with self.assertRaises(IdentityMismatch) as caught:
            await self.run_pool()
        self.assertIn("the log belongs to pool theirs", str(caught.exception))
        self.assertEqual(await self.top(), {"alice": 1})

    async def test_messages_of_another_pool(self) -> None:
        """One that comes by the queue is put among the dead letters, and one in the stream is
        passed over, whoever looks.
        """
        pool = await self.run_pool()
        await self.publish(body_of("theirs", "eve"), "theirs", pool="theirs", epoch="e")
        await pool.submit("ours", "alice")
        await self.publish(body_of("theirs2", "eve"), "theirs2", pool="theirs", epoch="e")
        await self.until(lambda: pool.log.status().dead_letters == 2, "the dead letters")
        await self.until(lambda: self.store._mark.entry_id == "ours", "the sweep")
        await self.counted(alice=1)
        dead = await self.messages(TOPOLOGY.dead_letters, 2)
        mine = pool.compared[-1].plan.identity.pool_id
        self.assertEqual(dead[0].headers["reason"], f"of pool theirs, not of {mine}")
        self.assertNotIn("theirs", [e.entry_id for e in await pool.log.read(0, 10)])
        await self.until(lambda: pool.log.status().depth == 0, "acknowledgements")
        await pool.end()
        await self.run_pool()

    async def test_the_release_before_is_taken_over(self) -> None:
        """Counted by it, on its way in the queue, or new: each batch is counted once."""
        before = await self.open_log()
        await before.append("old", body_of("old", "alice"))
        await before.append("waiting", body_of("waiting", "alice"))
        await before.close()
        self.store.apply([fold_entry(body_of("old", "alice"))], {})
        pool = await self.run_pool()
        self.assertIs(pool.compared[0].plan.adopt, True)
        await pool.submit("new", "alice")
        await self.counted(alice=3)
        await pool.end()
        again = await self.run_pool()
        self.assertEqual(again.changes, [])

    async def test_nothing_before_the_comparison(self) -> None:
        """A log that holds back takes and delivers nothing before it knows its pool."""
        helper = await self.open_log()
        await helper.append("b", body_of("b", "alice"))
        log = await self.open_log(hold=True)
        self.assertIn("has not been compared", log.status().problem)
        consumer = await self.follow(log)
        await self.quiet()
        self.assertEqual(consumer.ids, [])
        await log.extent(None, Mark(0))
        await log.identify(MINE)
        self.assertEqual(log.status().problem, "")
        await self.until(lambda: consumer.ids == ["b"], "the delivery")

    async def test_refused(self) -> None:
        log = await self.open_log()
        log.refuse("no")
        self.assertEqual(log.status().problem, "no")
        refused: Deferred[None] = log.append("b", b"x")
        self.assertEqual(self.failureResultOf(refused).getErrorMessage(), "no")
        log.refuse("")
        await log.append("b", b"x")


class AgainTests(IdentityCase):
    """K-11: a new epoch is found again at the next start, and no other one begins."""

    async def test_a_start_after_the_stream_was_deleted(self) -> None:
        pool = await self.run_pool()
        for n in range(3):
            for k in range(5):
                await pool.submit(f"b{n}-{k}", "alice")
            await pool.crash()
            self.delete("queues", TOPOLOGY.stream)
            pool = await self.run_pool()
            self.assertEqual(len(pool.changes), 1)
            await pool.submit(f"c{n}", "alice")
            await pool.crash()
            pool = await self.run_pool()
            self.assertEqual([c.plan.text for c in pool.changes], [])
