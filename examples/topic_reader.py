"""A reader without a group: prints the records of a topic from somewhere on, and then new ones.

``python examples/topic_reader.py tcp:localhost:8080 alice clicks --start earliest``; Ctrl-C ends
it. The user needs the permission ``log.subscribe`` for the topic.
"""

import argparse
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from kupool.topics.errors import TopicError
from kupool.topics.remote.link import Login
from kupool.topics.remote.reader import TopicReader
from kupool.topics.remote.topics import RemoteTopics


async def main(reactor: Any, arguments: argparse.Namespace) -> None:
    """Print records until there are ``--count`` of them, or Ctrl-C."""
    topics = RemoteTopics(
        reactor, arguments.servers.split(","), Login(arguments.user, arguments.password)
    )
    start = int(arguments.start) if arguments.start.isdecimal() else arguments.start
    reader = TopicReader(topics, arguments.topic, start)
    left = arguments.count
    try:
        async for partition, record, _ in reader:
            print(f"{partition} {record.offset} {record.value.decode()}", flush=True)
            left -= 1
            if left == 0:
                break
    except TopicError as error:
        raise SystemExit(f"cannot read: {error}") from None
    await reader.stop()
    await topics.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("servers", help="endpoint strings, with commas between them")
    parser.add_argument("user")
    parser.add_argument("topic")
    parser.add_argument("--start", default="latest", help="earliest, latest, or milliseconds")
    parser.add_argument("--password")
    parser.add_argument("--count", type=int, default=0)
    given = parser.parse_args()
    react(lambda reactor: ensureDeferred(main(reactor, given)))
