"""A member of a group: prints the records of a topic that it gets, and commits their offsets.

``python examples/topic_consumer.py tcp:localhost:8080 alice clicks --group billing``. Start as many
as you like: each partition is read by one of them. Ctrl-C ends one, and the others take over. The
user needs the permissions ``log.subscribe`` for the topic and ``log.group`` for the group.
"""

import argparse
import os
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from kupool.topics.consumer import GroupConsumer, MemberSettings
from kupool.topics.errors import TopicError
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.remote.groups import RemoteGroupClient
from kupool.topics.remote.link import Login
from kupool.topics.remote.topics import RemoteTopics


def handle(delivery: DeliveredRecord) -> None:
    """Print a record; after an exception it is tried again, and at last kept in ``TOPIC.dlq``."""
    partition, record = delivery.partition, delivery.record
    text = record.value.decode()
    if text == "bad":
        raise ValueError("this record cannot be processed")
    print(f"partition {partition.number} offset {record.offset}: {text}", flush=True)


async def main(reactor: Any, arguments: argparse.Namespace) -> None:
    """Work until Ctrl-C, even if the daemon is restarted meanwhile."""
    topics = RemoteTopics(
        reactor, arguments.servers.split(","), Login(arguments.user, arguments.password)
    )
    client = RemoteGroupClient(topics)
    member = arguments.group, f"member-{os.getpid()}"
    consumer = GroupConsumer(
        client,
        reactor,
        member,
        topics=frozenset([arguments.topic]),
        handler=handle,
        give_away=client.burial(*member),
        settings=MemberSettings(workers=4, attempts=2),
    )
    try:
        await topics.connect()
        await consumer.start()
    except TopicError as error:
        raise SystemExit(f"not a member: {error}") from None

    async def stop() -> None:
        await consumer.stop()  # what was processed is committed
        await topics.close()

    reactor.addSystemEventTrigger("before", "shutdown", lambda: ensureDeferred(stop()))
    print(f"{member[1]} is in the group", flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("servers", help="endpoint strings, with commas between them")
    parser.add_argument("user")
    parser.add_argument("topic")
    parser.add_argument("--group", default="example")
    parser.add_argument("--password")
    given = parser.parse_args()
    react(lambda reactor: ensureDeferred(main(reactor, given)))
