"""Topics compared with their bare engines: records per second, and the CPU time of each.

``python -m bench.topics`` produces to 12 partitions and fetches everything again, in batches of one
record and of 100, for each engine. A round does this with topics (checks, partitions, batches and
their ids, offsets, records) and with the bare engine, one after the other, and the ratios are those
of the same round. The bare engine does nothing but store the same bodies and read them:

- ``sqlite``: inserts the same rows into the same table in the same kind of file, with the same
  thread, group commit and durability; reads with the same statement, in the same thread pool, as
  many bytes at a time, and has msgspec make lists of the records.
- ``rabbit``: publishes the same bodies to streams of the same private broker with a plain client
  (pika), with confirms, and consumes them with it. It does not learn their offsets.
- ``memory`` has no bare engine: it is one.

CPU time is that of the whole process, without the broker. Exits with status 1 if a target is
missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from msgspec.msgpack import decode
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool

from kupool.amqp.address import parse_brokers
from kupool.storage.database import Database
from kupool.storage.reading import ReadOnlyDatabase
from kupool.topics.batches import Compression, RecordCodec
from kupool.topics.memory import MemoryTopics
from kupool.topics.partition import Partition
from kupool.topics.rabbit.engine import RabbitTopics
from kupool.topics.rabbit.store import SqliteTopicStore
from kupool.topics.records import NewRecord
from kupool.topics.service import TopicLimits, Topics
from kupool.topics.settings import TopicSettings
from kupool.topics.sqlite import SqliteTopics
from kupool.topics.sqlite_tables import OFFSET_BITS
from tests.servers.services import rabbit as rabbit_server

PARTITIONS = 12

#: Bytes of a value, and of a fetch.
VALUE, FETCH = 100, 1024 * 1024

#: The most that topics may cost, as a multiple of the bare engine, per engine that has targets.
PRODUCE, FETCHING = 1.5, 2.0


class Figures(NamedTuple):
    """What a piece of work took: records per second, and microseconds of CPU for each."""

    rate: float
    cpu: float


class Bare(NamedTuple):
    """The bare engine: stores a body in a partition, and reads all of them.

    ``read`` returns the number of batches.
    """

    store: Callable[[int, bytes], Deferred[Any]]
    read: Callable[[], Awaitable[int]]
    close: Callable[[], Awaitable[object]]


class Case(NamedTuple):
    """An engine to measure, and the bare one that it is compared with, if there is one."""

    engine: Any
    bare: Bare | None


async def memory(reactor: Any, folder: Path, per_batch: int) -> Case:
    """Return the engine in memory."""
    return Case(MemoryTopics(time.time, capacity=1 << 40), None)


async def sqlite(reactor: Any, folder: Path, per_batch: int) -> Case:
    """Return the engine in SQLite, and plain inserts into the same table."""
    engine = SqliteTopics(Database(reactor, folder / "topics", "topics"), reactor, time.time)
    path = folder / "bare"
    database, reader = Database(reactor, path, "topics"), ReadOnlyDatabase(reactor, path, "topics")
    await database.open()
    await reader.open()
    ends = [0] * PARTITIONS

    def insert(row: tuple[int, int, int, bytes], connection: Any) -> None:
        connection.execute(
            "INSERT INTO batches (position, count, appended_at, body) VALUES (?, ?, ?, ?)", row
        )

    def store(number: int, body: bytes) -> Deferred[Any]:
        offset, ends[number] = ends[number], ends[number] + per_batch
        position = (number + 1 << OFFSET_BITS) + offset
        row = (position, per_batch, int(time.time() * 1000), body)
        return database.run(partial(insert, row))

    def some(after: int, end: int, connection: Any) -> list[Any]:
        rows: list[Any] = []
        left = FETCH
        for row in connection.execute(
            "SELECT position, count, appended_at, body FROM batches "
            "WHERE position > ? AND position < ? ORDER BY position",
            (after, end),
        ):
            left -= len(row[3])
            if left < 0 and rows:
                break
            # A reader needs the records, so decoding them is a part of the fetch.
            _, _, _, _, _, payload = decode(memoryview(row[3])[5:])
            rows.append((row[0], decode(payload)))
        return rows

    async def read() -> int:
        found = 0
        for number in range(1, PARTITIONS + 1):
            after, end = (number << OFFSET_BITS) - 1, (number + 1) << OFFSET_BITS
            while rows := await reader.run(partial(some, after, end)):
                found, after = found + len(rows), rows[-1][0]
        return found

    async def close() -> None:
        await reader.close()
        await database.close()

    return Case(engine, Bare(store, read, close))


async def rabbit(reactor: Any, folder: Path, per_batch: int) -> Case:
    """Return the engine in RabbitMQ, and plain publishes to streams with a client's library."""
    from pika import BasicProperties, ConnectionParameters, PlainCredentials
    from pika.adapters.twisted_connection import TwistedProtocolConnection

    url = rabbit_server().new_vhost()
    store = SqliteTopicStore(Database(reactor, folder / "positions", "topics_rabbit"))
    engine = RabbitTopics(reactor, time.time, url, store)
    (broker,) = parse_brokers(url)
    account = PlainCredentials(broker.user, broker.password)
    parameters = ConnectionParameters(broker.host, broker.port, broker.vhost, account)
    factory = Factory.forProtocol(lambda: TwistedProtocolConnection(parameters))
    factory.noisy = False
    connection: Any = await HostnameEndpoint(reactor, broker.host, broker.port).connect(factory)
    await connection.ready
    channel = await connection.channel()
    await channel.confirm_delivery()
    streams = [f"bare.{number}" for number in range(PARTITIONS)]
    for stream in streams:
        await channel.queue_declare(stream, durable=True, arguments={"x-queue-type": "stream"})
    ends = [0] * PARTITIONS

    def store_one(number: int, body: bytes) -> Deferred[Any]:
        ends[number] += 1
        properties = BasicProperties(delivery_mode=2, message_id=f"{number}-{ends[number]}")
        done: Deferred[Any] = channel.basic_publish(
            "", streams[number], body, properties, mandatory=True
        )
        return done

    async def read() -> int:
        found = 0
        for stream, end in zip(streams, ends, strict=True):
            reading = await connection.channel()
            await reading.basic_qos(prefetch_count=2000)
            queue, _ = await reading.basic_consume(stream, arguments={"x-stream-offset": "first"})
            for number in range(1, end + 1):
                message = await queue.get()
                if not number % 1000:
                    reading.basic_ack(message.method.delivery_tag, multiple=True)
                # A reader needs the records, so decoding them is a part of the fetch.
                _, _, _, _, _, payload = decode(memoryview(message.body)[5:])
                decode(payload)
            found += end
            reading.close()
        return found

    async def close() -> None:
        await connection.close()

    return Case(engine, Bare(store_one, read, close))


#: Makes the case of each engine, from the reactor, a folder, and the number of records of a batch.
ENGINES: dict[str, Callable[[Any, Path, int], Awaitable[Case]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "rabbit": rabbit,
}


async def measured(work: Awaitable[object], records: int) -> Figures:
    """Return what a piece of work took."""
    began, cpu = time.perf_counter(), time.process_time()
    await work
    seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    return Figures(records / seconds, spent / records * 1e6)


async def send(store: Callable[[int], Deferred[Any]], batches: int, under_way: int) -> None:
    """Store batches in the partitions in turn, so many under way at any time."""
    left = iter(range(batches))

    def following(_: object) -> Any:
        for number in left:
            done = store(number % PARTITIONS)
            if not done.called:
                return done.addCallback(following)
            done.addErrback(failed)
        return None

    def failed(failure: Any) -> None:
        raise failure.value

    await gatherResults([following_of(following) for _ in range(under_way)], consumeErrors=True)


def following_of(following: Callable[[object], Any]) -> Deferred[Any]:
    """Begin one of those that store one batch after the other."""
    done: Deferred[Any] = Deferred()
    done.addCallback(following)
    done.callback(None)
    return done


async def fetch_all(topics: Topics) -> int:
    """Fetch all records; returns how many."""
    found = 0
    for number in range(PARTITIONS):
        offset = 0
        while True:
            fetched = await topics.fetch(Partition("t", number), offset, max_bytes=FETCH)
            if not fetched.records:
                break
            found, offset = found + len(fetched.records), fetched.next_offset
    return found


async def one_round(
    reactor: Any, name: str, folder: Path, *, per_batch: int, batches: int, under_way: int
) -> dict[str, Figures]:
    """Measure topics and the bare engine once; returns the figures by what was done."""
    case = await ENGINES[name](reactor, folder, per_batch)
    await case.engine.open()
    run = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    topics = Topics(case.engine, reactor, time.time, run, random=Random(1), limits=TopicLimits())
    await topics.create("t", TopicSettings(partitions=PARTITIONS))
    chance = Random(2)
    records = [
        NewRecord(chance.randbytes(VALUE), key=b"key-%d" % number) for number in range(per_batch)
    ]
    codec, now = RecordCodec(), int(time.time() * 1000)
    # Encode the bodies before the measurement. Each is an object of its own, as in a topic.
    bodies = [codec.encode(records, f"{each:024x}", now, Compression()) for each in range(batches)]
    left = iter(bodies)
    count = batches * per_batch

    def produce(number: int) -> Deferred[Any]:
        return topics.produce("t", records, partition=number)

    found = {}
    if case.bare is not None:
        bare = case.bare
        work = send(lambda number: bare.store(number, next(left)), batches, under_way)
        found["bare produce"] = await measured(work, count)
    found["produce"] = await measured(send(produce, batches, under_way), count)
    if case.bare is not None:
        found["bare fetch"] = await measured(case.bare.read(), count)
        await case.bare.close()
    found["fetch"] = await measured(fetch_all(topics), count)
    await case.engine.close()
    return found


def shown(name: str, per_batch: int, rounds: list[dict[str, Figures]]) -> bool:
    """Print the medians of some rounds; returns whether the targets are met."""
    met = True
    for what, target in (("produce", PRODUCE), ("fetch", FETCHING)):
        line = f"{name:<7} {what:<8} {per_batch:>4} a batch"
        for which in (what, f"bare {what}"):
            if which in rounds[0]:
                rate, cpu = (statistics.median(r[which][at] for r in rounds) for at in (0, 1))
                line += f"  {which:<12} {rate:>11,.0f}/s {cpu:>7.2f} us"
        if f"bare {what}" in rounds[0]:
            slower = statistics.median(r[f"bare {what}"].rate / r[what].rate for r in rounds)
            dearer = statistics.median(r[what].cpu / r[f"bare {what}"].cpu for r in rounds)
            good = slower <= target
            met = met and good
            line += (
                f"  time x{slower:.2f}, CPU x{dearer:.2f}  target x{target:g} "
                f"{'met' if good else 'NOT MET'}"
            )
        print(line, flush=True)
    return met


async def compare(reactor: Any, options: argparse.Namespace) -> bool:
    """Measure everything; returns whether the targets are met."""
    met = True
    for name in options.engines:
        for per_batch in (1, 100):
            rounds = []
            for _ in range(options.rounds):
                with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                    rounds.append(
                        await one_round(
                            reactor,
                            name,
                            Path(folder),
                            per_batch=per_batch,
                            batches=max(1, options.batches // (1 if per_batch == 1 else 10)),
                            under_way=options.under_way,
                        )
                    )
            met = shown(name, per_batch, rounds) and met
    return met


def main() -> int:
    """Run it from the command line."""
    from twisted.internet import reactor

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engines", nargs="+", choices=sorted(ENGINES), default=list(ENGINES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=50_000, help="of one record, in a round")
    parser.add_argument("--under-way", type=int, default=64, help="batches without an answer yet")
    parser.add_argument("--folder", type=Path, help="where the files are, to compare disks")
    options = parser.parse_args()
    place: Any = reactor
    outcome: list[Any] = []

    def begin() -> None:
        done = Deferred.fromCoroutine(compare(place, options))
        done.addBoth(outcome.append).addCallback(lambda _: place.stop())

    place.callWhenRunning(begin)
    place.run()
    if outcome[0] is not True and outcome[0] is not False:
        outcome[0].raiseException()
    return 0 if outcome[0] else 1


if __name__ == "__main__":
    sys.exit(main())
