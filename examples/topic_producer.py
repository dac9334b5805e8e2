"""A producer: writes records to a topic of a server, and prints where each of them is.

``python examples/topic_producer.py tcp:localhost:8080 alice clicks --count 10``. The user needs the
permission ``log.publish`` for the topic. The daemon may be restarted meanwhile: each record is
written once, and in order.
"""

import argparse
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from kupool.topics.records import NewRecord
from kupool.topics.remote.failures import ClientRefused, NotProduced, NotSent
from kupool.topics.remote.link import Login
from kupool.topics.remote.producer import Producer
from kupool.topics.remote.topics import RemoteTopics
from kupool.topics.service import Written


def show(outcome: Written | Exception) -> None:
    """Print where a record was written, or why it was not."""
    if isinstance(outcome, Written):
        print(f"written to partition {outcome.partition} at offset {outcome.offset}", flush=True)
    else:
        print(f"failed: {outcome}", flush=True)


async def main(reactor: Any, arguments: argparse.Namespace) -> None:
    """Write so many records, and wait for all outcomes."""
    topics = RemoteTopics(
        reactor, arguments.servers.split(","), Login(arguments.user, arguments.password)
    )
    try:
        await topics.connect()
    except (NotSent, ClientRefused) as error:
        raise SystemExit(f"no session: {error}") from None
    producer = Producer(topics)
    try:
        # One at a time: the Deferred fires when the server has it on disk.
        (place,) = await producer.produce(arguments.topic, [NewRecord(b"first")])
        show(place)
    except NotProduced as error:
        raise SystemExit(str(error)) from None
    # Many at a time: this waits only while the buffer is full, and `show` gets each outcome.
    for number in range(1, arguments.count):
        record = NewRecord(b"record %d" % number, key=b"user-%d" % (number % 3))
        await producer.send(arguments.topic, record, told=show)
    await producer.close()
    await topics.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("servers", help="endpoint strings, with commas between them")
    parser.add_argument("user")
    parser.add_argument("topic")
    parser.add_argument("--password")
    parser.add_argument("--count", type=int, default=10)
    given = parser.parse_args()
    react(lambda reactor: ensureDeferred(main(reactor, given)))
