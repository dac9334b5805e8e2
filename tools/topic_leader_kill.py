"""Kills the leader of a stream again and again, and measures how long topics pause.

    python -m tools.topic_leader_kill --kills 10 --seed 1

Starts a RabbitMQ cluster of three nodes. A process writes numbered records to a topic in RabbitMQ,
several under way at a time, and another engine reads them on. The node that leads the stream is
killed with SIGKILL at a random moment, and started again. At the end all records that were
confirmed have to be in the stream at their offsets, each once and in the order of sending, and the
reader has to have got the same. Ends with status 1 on any difference.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kupool.topics.errors import TopicsUnavailable
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.service import TopicLimits, Topics
from kupool.topics.settings import TopicSettings
from tests.servers.rabbit_cluster import RabbitCluster

PLACE = Partition("kills", 0)
STREAM = "kupool.topic.kills.0"

#: Appends under way at a time.
UNDER_WAY = 100


class Pauses:
    """How long nothing came, and when."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()
        self.longest = 0.0

    def came(self) -> None:
        """Something came."""
        now = self._clock()
        self.longest = max(self.longest, now - self._last)
        self._last = now


class Writer:
    """Writes numbers in order, and remembers where each was confirmed."""

    def __init__(self, topics: Topics, clock: Any) -> None:
        self._topics = topics
        self._clock = clock
        self.pauses = Pauses(clock.seconds)
        self.confirmed: dict[int, int] = {}
        self.failed: dict[int, str] = {}
        self.next = 0
        self.under_way = 0
        self.stopped = False

    def fill(self) -> None:
        """Have as many under way as there shall be."""
        while self.under_way < UNDER_WAY and not self.stopped:
            number, self.next = self.next, self.next + 1
            self.under_way += 1
            written = self._topics.produce(PLACE.topic, [NewRecord(b"%d" % number)], partition=0)
            written.addCallbacks(self._written, self._not_written, (number,), {}, (number,), {})

    def _written(self, written: Any, number: int) -> None:
        self.confirmed[number] = written[0].offset
        self.pauses.came()
        self._ended()

    def _not_written(self, failure: Any, number: int) -> None:
        failure.trap(TopicsUnavailable)
        self.failed[number] = failure.getErrorMessage()
        self._ended()

    def _ended(self) -> None:
        self.under_way -= 1
        self._clock.callLater(0.001, self.fill)


async def read_on(topics: Topics, clock: Any, found: list[tuple[int, int]], pauses: Pauses) -> None:
    """Read records as they come; appends their offsets and numbers."""
    from twisted.internet.task import deferLater

    offset = 0
    while True:
        try:
            fetched = await topics.fetch(PLACE, offset, wait=5.0)
        except TopicsUnavailable:
            await deferLater(clock, 0.05)
            continue
        for record in fetched.records:
            if record.value == b"end":
                return
            found.append((record.offset, int(record.value)))
        if fetched.records:
            pauses.came()
        offset = fetched.next_offset


def differences(
    writer: Writer, found: list[tuple[int, int]], stored: list[tuple[int, int]]
) -> list[str]:
    """Return what is wrong with what was read, while it came and afterwards."""
    problems = []
    if found != stored:
        problems.append(f"{len(found)} records were read as they came, {len(stored)} afterwards")
    places = {number: offset for offset, number in stored}
    for number, offset in writer.confirmed.items():
        if places.get(number) != offset:
            problems.append(f"{number} was confirmed at {offset}, it is at {places.get(number)}")
    numbers = [number for _, number in stored]
    if len(set(numbers)) != len(numbers):
        problems.append(f"{len(numbers) - len(set(numbers))} records are there twice")
    if numbers != sorted(numbers):
        swaps = sum(1 for one, two in pairwise(numbers) if one > two)
        problems.append(f"the order is wrong at {swaps} places")
    return problems


async def run(
    clock: Any, cluster: RabbitCluster, folder: Path, *, kills: int, chance: random.Random
) -> list[str]:
    """Write, read, kill; returns what was wrong."""
    from twisted.internet.defer import Deferred
    from twisted.internet.task import deferLater
    from twisted.internet.threads import deferToThread

    from kupool.storage.database import Database
    from kupool.topics.rabbit.engine import RabbitTopics
    from kupool.topics.rabbit.store import SqliteTopicStore

    urls = await deferToThread(cluster.new_vhost)
    vhost = urlsplit(urls[0]).path[1:]

    async def make() -> tuple[RabbitTopics, Topics]:
        store = SqliteTopicStore(Database(clock, folder / "topics.sqlite", "topics_rabbit"))
        engine = RabbitTopics(clock, time.time, ",".join(urls), store)
        await engine.open()
        return engine, Topics(
            engine, clock, time.time, deferToThread, random=chance, limits=TopicLimits()
        )

    writing, to_write = await make()
    await to_write.create(PLACE.topic, TopicSettings(replicas=3))
    reading, to_read = await make()
    found: list[tuple[int, int]] = []
    writer, pauses = Writer(to_write, clock), Pauses(clock.seconds)
    reader = Deferred.fromCoroutine(read_on(to_read, clock, found, pauses))
    writer.fill()
    await deferLater(clock, 3.0)
    calm = (writer.pauses.longest, pauses.longest)
    print(f"without kills: producers paused {calm[0]:.3f} s, consumers {calm[1]:.3f} s", flush=True)
    for kill in range(kills):
        writer.pauses.longest = pauses.longest = 0.0
        leader = await deferToThread(cluster.leader_of, STREAM, vhost)
        await deferLater(clock, chance.uniform(0.5, 2.0))
        before = len(writer.confirmed)
        leader.process.kill()
        await deferLater(clock, 8.0)
        await deferToThread(leader.start)
        await deferLater(clock, 5.0)
        print(
            f"kill {kill + 1} of {leader.node}: producers paused {writer.pauses.longest:.2f} s, "
            f"consumers {pauses.longest:.2f} s; {len(writer.confirmed) - before:,} confirmed since",
            flush=True,
        )
        calm = (max(calm[0], writer.pauses.longest), max(calm[1], pauses.longest))
    writer.stopped = True
    while writer.under_way:
        await deferLater(clock, 0.1)
    await to_write.produce(PLACE.topic, [NewRecord(b"end")], partition=0)
    await reader
    _, again = fresh = await make()
    stored: list[tuple[int, int]] = []
    await read_on(again, clock, stored, Pauses(clock.seconds))
    for engine in (writing, reading, fresh[0]):
        await engine.close()
    print(
        f"longest pause of producers {calm[0]:.2f} s, of consumers {calm[1]:.2f} s; "
        f"{len(writer.confirmed):,} records confirmed, {len(writer.failed)} failed, "
        f"{len(stored):,} stored",
        flush=True,
    )
    for text in sorted(set(writer.failed.values()))[:5]:
        print(f"failed: {text}", flush=True)
    return differences(writer, found, stored)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    print(f"seed {arguments.seed}", flush=True)
    clock: Any = reactor
    outcome: list[Any] = []
    with (
        tempfile.TemporaryDirectory(prefix="topic-leader-kill-") as folder,
        RabbitCluster(3) as cluster,
    ):
        chance = random.Random(arguments.seed)
        running = Deferred.fromCoroutine(
            run(clock, cluster, Path(folder), kills=arguments.kills, chance=chance)
        )
        running.addBoth(outcome.append).addBoth(lambda _: clock.stop())
        clock.run()
    if not isinstance(outcome[0], list):
        outcome[0].printTraceback(sys.stderr)
        sys.exit(1)
    for problem in outcome[0][:20]:
        print(f"problem: {problem}")
    if outcome[0]:
        sys.exit(1)
    print("nothing lost, nothing reordered, nothing twice")


if __name__ == "__main__":
    main()
