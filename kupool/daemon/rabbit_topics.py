"""Makes topics in RabbitMQ from the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kupool.daemon.files import RABBIT_TOPICS_FILE, topics_dsn
from kupool.settings import LogSettings, Settings
from kupool.storage.database import Database
from kupool.storage.postgres import PostgresDatabase, PostgresSettings
from kupool.topics.rabbit.broker import RabbitTopicsSettings
from kupool.topics.rabbit.engine import RabbitTopics
from kupool.topics.rabbit.leases import NodeName
from kupool.topics.rabbit.store import PostgresTopicStore, SqliteTopicStore

#: Seconds that a stop waits for PostgreSQL to reply.
PATIENCE = 2.0

#: The schema of the file of what is known of topics.
SCHEMA = "topics_rabbit"


class RabbitTopicsParts(NamedTuple):
    """The engine, and the ITopicStore of what is known of its topics."""

    engine: RabbitTopics
    store: Any


def make_rabbit_topics(
    settings: Settings,
    reactor: Any,
    wall: Callable[[], float],
    *,
    database: Callable[[str, str], Database],
    node: NodeName | None = None,
    required: bool = False,
) -> RabbitTopicsParts:
    """Return topics in RabbitMQ, and their store, which the engine opens and closes.

    ``database`` returns the database in a file of the data folder, with a schema. Other daemons
    know this one as ``node``. With ``required`` they cannot be opened without a broker. The
    connections to PostgreSQL are their own: what is done for topics keeps no submission waiting.
    """
    dsn = topics_dsn(settings)
    store: SqliteTopicStore | PostgresTopicStore
    if dsn:
        own = PostgresDatabase(reactor, dsn, PostgresSettings(others=1, patience=PATIENCE))
        store = PostgresTopicStore(own)
    else:
        store = SqliteTopicStore(database(RABBIT_TOPICS_FILE, SCHEMA))
    engine = RabbitTopics(
        reactor,
        wall,
        settings.log.url,
        store,
        settings=RabbitTopicsSettings(prefix=stream_prefix(settings), required=required),
        node=node,
    )
    return RabbitTopicsParts(engine, store)


def stream_prefix(settings: Settings) -> str:
    """Return the beginning of the names of streams.

    Pools with queues of their own on one broker have topics of their own, too.
    """
    queue = settings.log.queue
    by_queue = "kupool.topic" if queue in ("", LogSettings().queue) else f"{queue}.topic"
    return settings.topics.prefix or by_queue


__all__ = ["SCHEMA", "RabbitTopicsParts", "make_rabbit_topics", "stream_prefix"]
