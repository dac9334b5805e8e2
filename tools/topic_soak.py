"""Writes to a topic over the wire and reads it, at a fixed load, for minutes or hours.

    python -m tools.topic_soak --minutes 60 --rate 500

It starts a daemon, with topics in SQLite. One client writes ``--rate`` records a second, and one
member of a group reads them, each over one connection. Each minute it prints how many records were
written and read, how long they took from the call to the acknowledgement, and the resident memory
of the daemon and of the clients. With ``--kill-every`` the daemon is killed and started again.

A record has to be where its number says: written once, in order, none left out. Ends with status 1
if one is not, if the daemon's or the clients' memory has grown by more than five percent since the
first quarter, or if the daemon's log has an error.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from typing import Any

import psutil
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

from kupool.timing.histogram import Histogram
from kupool.topics.consumer import GroupConsumer, MemberSettings
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.records import NewRecord
from kupool.topics.remote.admin import TopicAdmin
from kupool.topics.remote.groups import RemoteGroupClient
from kupool.topics.remote.link import Login, RemoteSettings
from kupool.topics.remote.producer import Producer, ProducerSettings
from kupool.topics.remote.topics import RemoteTopics
from kupool.topics.service import Written
from kupool.topics.settings import TopicSettings
from tests.servers.running_daemon import RunningDaemon
from tools.process import complaints, megabytes, rss

TOPIC, GROUP, MEMBER = "soak", "soak", "reader"

#: Seconds between two looks at what is due.
TICK = 0.01

#: How much memory may grow, and what the smallest processes may in any case.
TOLERANCE, SLACK = 0.05, 3_000_000

FLAGS = (
    "--topics=sqlite",
    "--topics-rate=0",
    "--topics-cleanup-interval=10s",
    *(f"--permissions=* {action} >" for action in ("log.publish", "log.subscribe")),
    *(f"--permissions=* {action} >" for action in ("log.manage", "log.group")),
)


@dataclass(frozen=True)
class SoakLoad:
    """The load: records a second, bytes of each, partitions, and seconds between kills."""

    rate: float = 500.0
    size: int = 200
    partitions: int = 4
    kill_every: float = 0.0


class SoakBooks:
    """What was written and read, and what is wrong with it."""

    def __init__(self, partitions: int) -> None:
        #: The number of the next record of each partition, which is also its offset.
        self.sent = [0] * partitions
        self.read_to = [0] * partitions
        self.written = self.read = self.kills = 0
        self.latency = Histogram()
        self.problems: list[str] = []

    def add_problem(self, text: str) -> None:
        """Keep and print a problem, the first ones of many."""
        if len(self.problems) < 20:
            self.problems.append(text)
            print(f"problem: {text}", flush=True)

    def acknowledged(self, partition: int, number: int, outcome: Written | Exception) -> None:
        """Compare the place of a record with its number."""
        self.written += 1
        if outcome != Written(partition, number):
            self.add_problem(f"record {number} of partition {partition}: {outcome}")

    def received(self, delivery: DeliveredRecord) -> None:
        """Compare a record with its place; after a restart some come twice."""
        partition, record = delivery.partition.number, delivery.record
        number = int(record.value.split(b" ", 1)[0])
        self.read += 1
        if number != record.offset:
            self.add_problem(f"offset {record.offset} of partition {partition} has {number}")
        if number > self.read_to[partition]:
            expected = self.read_to[partition]
            self.add_problem(f"partition {partition}: {expected} to {number - 1} were left out")
        self.read_to[partition] = max(self.read_to[partition], number + 1)


class Soak:
    """The clients, and the daemon that they use."""

    def __init__(self, reactor: Any, daemon: RunningDaemon, load: SoakLoad) -> None:
        self._reactor = reactor
        self._daemon = daemon
        self._load = load
        self.books = SoakBooks(load.partitions)
        where = [f"tcp:127.0.0.1:{daemon.port}"]
        # A daemon that is killed all the time makes clients wait longer and longer.
        settings = RemoteSettings(backoff_most=1.0)
        self._writing = RemoteTopics(reactor, where, Login("writer"), settings)
        self._reading = RemoteTopics(reactor, where, Login("reader"), settings)
        # A record has to be written, however long the daemon is away.
        self._producer = Producer(self._writing, ProducerSettings(delivery_timeout=3600.0))
        client = RemoteGroupClient(self._reading)
        self._consumer = GroupConsumer(
            client,
            reactor,
            (GROUP, MEMBER),
            topics=frozenset([TOPIC]),
            handler=self.books.received,
            give_away=client.burial(GROUP, MEMBER),
            settings=MemberSettings(workers=8),
        )
        self._stopping = False

    async def run(self, seconds: float, interval: float) -> list[tuple[int, int]]:
        """Work for some seconds; returns the memory of daemon and clients at each interval."""
        settings = TopicSettings(
            partitions=self._load.partitions, durability="always", retention_bytes=8_000_000
        )
        await TopicAdmin(self._writing).create(TOPIC, settings)
        await self._consumer.start()
        work = [Deferred.fromCoroutine(self._write())]
        if self._load.kill_every:
            work.append(Deferred.fromCoroutine(self._kill()))
        end = self._reactor.seconds() + seconds
        sizes: list[tuple[int, int]] = []
        while (left := end - self._reactor.seconds()) > 0:
            await deferLater(self._reactor, min(interval, left))
            sizes.append(self._report(len(sizes) + 1))
        self._stopping = True
        for each in work:
            await each
        await self._producer.close()
        await self._read_the_rest()
        await self._consumer.stop()
        for topics in (self._writing, self._reading):
            await topics.close()
        return sizes

    async def _write(self) -> None:
        """Write at the given rate; late ones are not made up for."""
        books, load, owed = self.books, self._load, 0.0
        filling = b" " + b"x" * load.size
        due, turn = self._reactor.seconds(), 0
        while not self._stopping:
            owed += load.rate * TICK
            while owed >= 1:
                owed -= 1
                partition, turn = turn % load.partitions, turn + 1
                number = books.sent[partition]
                books.sent[partition] += 1
                record = NewRecord(b"%d" % number + filling)
                told = self._told(partition, number)
                await self._producer.send(TOPIC, record, partition=partition, told=told)
            now = self._reactor.seconds()
            due = max(due + TICK, now - 1.0)
            await deferLater(self._reactor, max(0.0, due - now))

    def _told(self, partition: int, number: int) -> Any:
        began = self._reactor.seconds()

        def told(outcome: Written | Exception) -> None:
            self.books.latency.add(self._reactor.seconds() - began)
            self.books.acknowledged(partition, number, outcome)

        return told

    async def _kill(self) -> None:
        while not self._stopping:
            await deferLater(self._reactor, self._load.kill_every)
            await deferToThread(self._daemon.kill)
            await deferToThread(self._daemon.start)
            self.books.kills += 1

    async def _read_the_rest(self) -> None:
        end = self._reactor.seconds() + 60
        while self.books.read_to != self.books.sent and self._reactor.seconds() < end:
            await deferLater(self._reactor, 0.1)
        if self.books.read_to != self.books.sent:
            self.books.add_problem(f"read to {self.books.read_to} of {self.books.sent}")

    def _report(self, number: int) -> tuple[int, int]:
        books, latency = self.books, self.books.latency
        books.latency = Histogram()
        try:
            daemon = rss(self._daemon)
        except psutil.NoSuchProcess:
            daemon = 0  # it is being started again
        sizes = daemon, int(psutil.Process(os.getpid()).memory_info().rss)
        print(
            f"{number}: {books.written} written, {books.read} read; "
            f"{latency.total} took p50 {latency.quantile(0.5) * 1000:.1f} ms, "
            f"p99 {latency.quantile(0.99) * 1000:.1f} ms, "
            f"most {latency.largest * 1000:.0f} ms; "
            f"memory {megabytes(sizes[0])} daemon, {megabytes(sizes[1])} clients",
            flush=True,
        )
        return sizes


def growth(sizes: list[int]) -> str:
    """Return how the last quarter is larger than the first one; empty if it is not by much.

    The first value is left out, if there are more than four: everything was new then.
    """
    sizes = [size for size in sizes if size]
    if len(sizes) > 4:
        del sizes[0]
    quarter = max(1, len(sizes) // 4)
    before, after = max(sizes[:quarter]), max(sizes[-quarter:])
    if after <= before * (1 + TOLERANCE) + SLACK:
        return ""
    return f"memory grew from {megabytes(before)} to {megabytes(after)}"


async def run(
    reactor: Any, daemon: RunningDaemon, load: SoakLoad, *, seconds: float, interval: float
) -> SoakBooks:
    """Do all of it with a daemon that was started with :data:`FLAGS`; returns the books."""
    soak = Soak(reactor, daemon, load)
    sizes = await soak.run(seconds, interval)
    for name, each in zip(("daemon", "clients"), zip(*sizes, strict=True), strict=True):
        if not load.kill_every and (text := growth(list(each))):
            soak.books.add_problem(f"{name}: {text}")
    for line in complaints(daemon):
        soak.books.add_problem(line)
    return soak.books


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=500.0, help="records a second")
    parser.add_argument("--size", type=int, default=200, help="bytes of a record")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--kill-every", type=float, default=0.0, help="seconds; 0: never")
    parser.add_argument("--interval", type=float, default=60.0, help="seconds between two lines")
    given = parser.parse_args()
    load = SoakLoad(given.rate, given.size, given.partitions, given.kill_every)
    problems = ["it was interrupted"]

    async def work(reactor: Any) -> None:
        with RunningDaemon(*FLAGS, fresh=True) as daemon:
            books = await run(
                reactor, daemon, load, seconds=given.minutes * 60, interval=given.interval
            )
        problems[:] = books.problems
        print(f"{books.written} written, {books.read} read, {books.kills} kills", flush=True)

    try:
        react(lambda reactor: Deferred.fromCoroutine(work(reactor)))
    except SystemExit as ended:
        if ended.code:
            return 1
    print("\n".join(problems or ["no problem"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
