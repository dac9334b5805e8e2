"""The contract of topics, for those in RabbitMQ, on a real broker and both stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from kupool.storage.database import Database
from kupool.storage.postgres import PostgresDatabase
from kupool.topics.rabbit.engine import RabbitTopics
from kupool.topics.rabbit.entries import STRIDE
from kupool.topics.rabbit.store import PostgresTopicStore, SqliteTopicStore
from tests.contract.test_topics import TopicsContract
from tests.servers.reactor import the_reactor
from tests.servers.services import postgres, rabbit


class RabbitTopicsTests(TopicsContract, TestCase):
    """Q-31, Q-38: the contract, with topics and positions in a file."""

    timeout = 120
    stride = STRIDE

    def setUp(self) -> None:
        super().setUp()
        self.server = rabbit()
        self.url = self.server.new_vhost()
        self.path = Path(self.mktemp())

    async def test_who_shares_them(self) -> None:
        """Q-38: those whose positions are in PostgreSQL are shared with other nodes."""
        engine = await self.engine()
        self.assertIs(engine.capabilities.shared, isinstance(self, RabbitPostgresTopicsTests))

    def make_store(self) -> Any:
        return SqliteTopicStore(Database(the_reactor(), self.path, "topics_rabbit"))

    def make_engine(self) -> RabbitTopics:
        return RabbitTopics(the_reactor(), self.wall, self.url, self.make_store())


class RabbitPostgresTopicsTests(RabbitTopicsTests):
    """Q-38: the same, with topics and positions in PostgreSQL, which nodes share."""

    def setUp(self) -> None:
        super().setUp()
        self.dsn = postgres().new_database()

    def make_store(self) -> Any:
        return PostgresTopicStore(PostgresDatabase(the_reactor(), self.dsn))
