"""A test of a client of topics, and a server of topics, on the network in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.testing import MemoryNetwork
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.remote.link import Login, RemoteSettings
from kupool.topics.remote.topics import RemoteTopics
from kupool.topics.settings import TopicSettings
from tests.fakes.topic_server import TopicServer


class RemoteCase(SynchronousTestCase):
    """A server with a topic ``t`` of two partitions, at port 8000."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.server = TopicServer(self.network)
        self.addCleanup(lambda: self.server.close())
        self.network.run(self.server.topics.create("t", TopicSettings(partitions=2)))
        self.serve()

    def serve(self) -> None:
        self.network.run(self.server.listen())

    def stop(self) -> None:
        """End the server, with its connections."""
        self.network.run(self.server.stop(), patience=5)
        self.network.settle()

    def topics(self, *addresses: str, login: Login | None = None, **settings: Any) -> RemoteTopics:
        topics = RemoteTopics(
            self.network,
            addresses or ["tcp:127.0.0.1:8000"],
            login,
            RemoteSettings(**settings),
            random=lambda: 1.0,
        )
        self.addCleanup(lambda: self.network.run(topics.close(), patience=20))
        return topics

    def result(self, work: Deferred[Any], patience: float = 0.0) -> Any:
        return self.network.run(work, patience)

    def stored(self, partition: int = 0, topic: str = "t") -> list[bytes]:
        """Return the values of a partition."""
        found = self.network.run(
            self.server.topics.fetch(Partition(topic, partition), 0, max_bytes=1 << 30)
        )
        return [record.value for record in found.records]

    def write(self, *values: bytes, partition: int = 0) -> None:
        records = [NewRecord(value) for value in values]
        self.network.run(self.server.topics.produce("t", records, partition=partition))
