"""The contract of a log, for the one in RabbitMQ, on a real broker."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from kupool.amqp.address import parse_brokers
from kupool.amqp.connection import connect
from kupool.amqp.wire import ConnectionSettings
from kupool.log import Epoch, Identity, LogUnavailable
from kupool.log.rabbit.log import RabbitLog, RabbitSettings
from kupool.log.rabbit.topology import Topology
from tests.contract.test_log import RETRY, LogContract
from tests.servers.reactor import the_reactor
from tests.servers.services import rabbit

GROUPS = ("g", "one", "two")


class RabbitLogTests(LogContract, TestCase):
    """K-78, K-79: the contract, for the log in RabbitMQ."""

    durable = True
    place_is_before_the_first_open = False
    timeout = 120
    topology = Topology(groups=GROUPS)

    def setUp(self) -> None:
        super().setUp()
        self.server = rabbit()
        self.url = self.server.new_vhost()

    def make_log(self, **settings: Any) -> RabbitLog:
        settings = {"topology": self.topology, "retry": RETRY, "look_every": 0.1} | settings
        return RabbitLog(the_reactor(), self.wall, self.url, RabbitSettings(**settings))

    async def dead_letters(self, log: RabbitLog) -> list[tuple[str, str, int]]:
        (broker,) = parse_brokers(self.url)
        connection = await connect(the_reactor(), broker, ConnectionSettings(), "dead letters")
        channel = await connection.channel()
        # While something moves, the status may count a dead letter twice.
        for _ in range(500):
            count = await channel.look_at(self.topology.dead_letters)
            if count == log.status().dead_letters:
                break
            await self.quiet()
        await channel.prefetch(100)
        deliveries = await channel.consume(self.topology.dead_letters)
        found = []
        for _ in range(count):
            message = await deliveries.next()
            found.append(
                (message.message_id, message.headers["reason"], message.headers["deliveries"])
            )
        connection.close()
        await connection.ended()
        return found

    def stream(self) -> Any:
        """What the broker says about the stream."""
        vhost = self.url.rpartition("/")[2]
        return self.server.api(f"queues/{vhost}/{self.topology.stream}")

    async def test_an_entry_that_was_sent_again_is_read_once(self) -> None:
        """Issue 16, build 3: the stream may hold it twice, under the same id."""
        log = await self.open_log()
        for entry_id in ("e0", "e1", "e0", "e2", "e1"):
            await log.append(entry_id, b"x")
        reader = await self.reader(log)
        found = await self.read_all(reader, 1000)
        self.assertEqual([entry.entry_id for entry in found], ["e0", "e1", "e2"])
        self.assertEqual(await self.read_all(reader, 1000), found)
        self.assertEqual(list(await reader.read(found[-1].position, 1000)), [])

    async def test_a_reader_before_the_pool_is_known(self) -> None:
        """Issue 16, build 6: positions are not known yet, so nothing is read."""
        self.assertEqual(self.opened, [])
        log = self.make_log(hold=True)
        self.addCleanup(log.close)
        await log.open()
        reader = await self.reader(log)
        for call in (lambda: reader.read(0, 1), reader.bounds, lambda: reader.find(0)):
            with self.assertRaisesRegex(LogUnavailable, "not been compared"):
                await call()
        await log.identify(Identity("pool", (Epoch("one", 0), Epoch("two", 70))))
        await self.fill(log, 1)
        (entry,) = await reader.read(0, 1000)
        self.assertEqual(entry.position, 71)
        self.assertEqual((await reader.bounds())[:2], (71, 71))

    async def test_trim_by_age(self) -> None:
        """K-76: entries leave the stream by the broker's retention, and by nothing else."""
        self.topology = Topology(groups=GROUPS, max_age="7D")
        log = await self.open_log()
        await self.fill(log, 3)
        consumer = await self.follow(log)
        await self.until(lambda: len(consumer.deliveries) == 3 and log.status().depth == 0)
        self.assertEqual(await log.trim(self.now + 1, 1, 1), 0)
        self.assertEqual(len(await log.read(0, 10)), 3)
        self.assertEqual(self.stream()["arguments"]["x-max-age"], "7D")

    async def test_trim_by_size(self) -> None:
        """K-76: beyond the size that is set for the stream the oldest entries go."""
        self.topology = Topology(groups=GROUPS, max_bytes=200_000)
        log = await self.open_log()
        for n in range(100):
            await log.append(f"e{n}", b"x" * 10_000)
        entries = await log.read(0, 100)
        self.assertGreater(entries[0].position, 20)
        left = [entry.entry_id for entry in entries]
        self.assertEqual(left, [f"e{n}" for n in range(100 - len(left), 100)])
        self.assertLess(len(left), 30)

    async def test_append_while_trimmed(self) -> None:
        """K-53: positions only grow, and what is counted is not what the stream still has."""
        self.topology = Topology(groups=GROUPS, max_bytes=200_000)
        log = await self.open_log()
        position = 0
        for n in range(60):
            await log.append(f"e{n}", b"x" * 10_000)
            (entry,) = await log.read(position, 1)
            self.assertEqual(entry.entry_id, f"e{n}")
            self.assertGreater(entry.position, position)
            position = entry.position
        consumer = await self.follow(log)
        await self.until(lambda: len(consumer.deliveries) == 60)

    async def test_reopen(self) -> None:
        """K-53, K-79: entries, places and dead letters outlive the process."""
        log = await self.open_log()
        ids = await self.fill(log, 10)
        consumer = await self.follow(log, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 10)
        consumer.subscription.ack(consumer.deliveries[:3])
        consumer.subscription.nack(consumer.deliveries[3], "bad", False)
        await self.until(lambda: log.status().dead_letters == 1 and log.status().depth == 6)
        await consumer.subscription.stop()
        await log.close()
        again = await self.open_log()
        self.assertEqual(again.status().appended, 10)
        self.assertEqual(again.status().dead_letters, 1)
        self.assertEqual([e.entry_id for e in await again.read(0, 100)], ids)
        ids += await self.fill(again, 5, 10)
        consumer = await self.follow(again)
        await self.until(lambda: len(consumer.deliveries) >= 11)
        await self.quiet()
        self.assertEqual(consumer.ids, ids[4:])

    async def test_messages_of_strangers(self) -> None:
        """K-80: a message without an id or a time is delivered like any other."""
        log = await self.open_log()
        (broker,) = parse_brokers(self.url)
        connection = await connect(the_reactor(), broker, ConnectionSettings(), "stranger")
        channel = await connection.channel()
        await channel.confirm(lambda _: None)
        await channel.publish(self.topology.exchange, "", "", {"appended_at": "now"}, body=b"?")
        connection.close()
        await connection.ended()
        (entry,) = await log.read(0, 10)
        self.assertEqual((entry.entry_id, entry.appended_at, entry.body), ("", 0.0, b"?"))
        consumer = await self.follow(log, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 1)
        consumer.subscription.nack(consumer.deliveries[0], "not ours", False)
        await self.until(lambda: log.status().dead_letters == 1)
        self.assertEqual(await self.dead_letters(log), [("", "not ours", 1)])


class ClassicRabbitLogTests(RabbitLogTests):
    """K-79: the same with classic queues."""

    topology = Topology(kind="classic", groups=GROUPS)

    async def test_kind(self) -> None:
        await self.open_log()
        vhost = self.url.rpartition("/")[2]
        kinds = {q["name"]: (q["type"], q["durable"]) for q in self.server.api(f"queues/{vhost}")}
        self.assertEqual(
            kinds,
            {
                self.topology.stream: ("stream", True),
                self.topology.dead_letters: ("classic", True),
                **dict.fromkeys(self.topology.queues, ("classic", True)),
            },
        )
