"""Topics on a cluster of three RabbitMQ nodes, of which one is killed."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from kupool.amqp.links import LinkSettings
from kupool.storage.database import Database
from kupool.storage.postgres import PostgresDatabase
from kupool.topics.interfaces import Append
from kupool.topics.partition import Partition
from kupool.topics.rabbit.broker import RabbitTopicsSettings
from kupool.topics.rabbit.engine import RabbitTopics
from kupool.topics.rabbit.leases import NodeName
from kupool.topics.rabbit.store import PostgresTopicStore, SqliteTopicStore
from kupool.topics.settings import TopicSettings
from tests.contract.test_topics_rabbit import RabbitTopicsTests
from tests.servers.rabbit_cluster import RabbitCluster
from tests.servers.reactor import the_reactor
from tests.servers.services import postgres, rabbit_cluster, required

PARTITIONS = 6
STREAM = "kupool.topic.t.{}"


class RabbitClusterTopicsTests(RabbitTopicsTests):
    """Q-31, Q-38: the contract on three nodes, each of which has a copy of every stream."""

    def setUp(self) -> None:
        super().setUp()
        self.url = ",".join(rabbit_cluster().new_vhost())


# Its tests are run where it is defined.
del RabbitTopicsTests


class TopicClusterTests(TestCase):
    """Q-30..Q-33: partitions are spread over the nodes, and survive the loss of one."""

    timeout = 300

    def setUp(self) -> None:
        with required():
            self.cluster = RabbitCluster(3)
            self.cluster.start()
        self.addCleanup(self.cluster.close)
        self.urls = self.cluster.new_vhost()
        self.vhost = self.urls[0].rpartition("/")[2]

    async def engine(self, name: str, url: str, store: Any) -> RabbitTopics:
        engine = RabbitTopics(
            the_reactor(),
            time.time,
            url,
            store,
            settings=RabbitTopicsSettings(refresh=0.1, link=LinkSettings(longest_wait=0.5)),
            node=NodeName(name, lambda: f"{name}:1"),
        )
        self.addCleanup(engine.close)
        await engine.open()
        return engine

    def store(self) -> SqliteTopicStore:
        return SqliteTopicStore(Database(the_reactor(), Path(self.mktemp()), "topics_rabbit"))

    async def leaders(self) -> list[str]:
        """Return the node that leads each partition."""
        return [
            (await deferToThread(self.cluster.leader_of, STREAM.format(number), self.vhost)).node
            for number in range(PARTITIONS)
        ]

    async def test_partitions_are_spread(self) -> None:
        """Q-30: the broker spreads the leaders over the nodes."""
        engine = await self.engine("a", ",".join(self.urls), self.store())
        await engine.create("t", TopicSettings(partitions=PARTITIONS))
        led = Counter(await self.leaders())
        self.assertEqual(sorted(led.values()), [2, 2, 2])

    async def test_a_node_is_killed(self) -> None:
        """Q-31..Q-33: what was confirmed is read at the others, and both go on by themselves."""
        dsn = postgres().new_database()
        stores = [PostgresTopicStore(PostgresDatabase(the_reactor(), dsn)) for _ in range(2)]
        writer = await self.engine("a", ",".join(self.urls), stores[0])
        await writer.create("t", TopicSettings(partitions=PARTITIONS, replicas=3))
        places = [Partition("t", number) for number in range(PARTITIONS)]
        for place in places:
            await writer.append([Append(place, 1, b"before")])
        await deferLater(the_reactor(), 2.0)  # RabbitMQ 3.10 forgets what is younger
        leader = await deferToThread(self.cluster.leader_of, STREAM.format(0), self.vhost)
        others = [
            url
            for node, url in zip(self.cluster.nodes, self.urls, strict=True)
            if node is not leader
        ]
        # This one is connected to a follower of the first partition, and reads there.
        reader = await self.engine("b", others[0], stores[1])
        self.assertEqual([b.body for b in await reader.read(places[0], 0, 1000)], [b"before"])
        await deferToThread(self.cluster.kill, leader)
        for place in places:
            await self.append(writer, place)
        for place in places:
            bodies = [batch.body for batch in await reader.read(place, 0, 1000)]
            self.assertEqual((bodies[0], bodies[-1]), (b"before", b"after"))

    async def append(self, engine: RabbitTopics, place: Partition) -> None:
        """Append until it is confirmed, as a producer does."""
        for _ in range(100):
            try:
                await engine.append([Append(place, 1, b"after")])
            except Exception:
                await deferLater(the_reactor(), 0.2)
            else:
                return
        self.fail("nothing was confirmed after the loss of a node")
