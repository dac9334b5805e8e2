"""Measures whether retention delays those who write to topics.

    python -m tools.topic_retention --folder RAM_DISK

Writes messages to a topic in SQLite, and produces one record at a time at a steady rate. Then it
halves what the topic keeps, and trims it while the produce goes on. The times of produce are from
when each was due until it was durable. Ends with status 1 if their p99 during the trim is more than
twice that before, or if the trim left or dropped what it should not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool

from kupool.storage.database import Database
from kupool.topics.interfaces import Append
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.service import TopicLimits, Topics
from kupool.topics.settings import TopicSettings
from kupool.topics.sqlite import SqliteTopics

PARTITIONS = 12

#: What the p99 of produce may become, as a multiple of that before.
MOST = 2.0

#: Appends under way while the topic is filled.
UNDER_WAY = 256


class Spread(NamedTuple):
    """The times of some produce calls, in milliseconds."""

    number: int
    p50: float
    p99: float
    longest: float

    def __str__(self) -> str:
        """Return them as text."""
        return (
            f"{self.number:>7,} produced  p50 {self.p50:7.2f} ms  p99 {self.p99:7.2f} ms  "
            f"longest {self.longest:7.2f} ms"
        )


def spread(seconds: list[float]) -> Spread:
    """Return the spread of at least one time."""
    ordered = sorted(seconds)
    at = [ordered[int(part * (len(ordered) - 1))] * 1000 for part in (0.5, 0.99, 1)]
    return Spread(len(ordered), *at)


class Producer:
    """Produces one record at a time at a steady rate, and notes how long each took."""

    def __init__(self, topics: Topics, clock: Any, rate: float) -> None:
        self._topics = topics
        self._clock = clock
        self._rate = rate
        self._times: list[float] = []
        self._sent = 0
        self._began = 0.0
        self._loop = LoopingCall(self._send_due)
        self._loop.clock = clock
        self.problems: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._began = self._clock.seconds()
        self._loop.start(0.001).addErrback(self._failed)

    def stop(self) -> None:
        """Send no more."""
        self._loop.stop()

    def taken(self) -> list[float]:
        """Return the times since the last call, in seconds."""
        times, self._times = self._times, []
        return times

    def _send_due(self) -> None:
        while (due := self._began + self._sent / self._rate) <= self._clock.seconds():
            record = NewRecord(b"x" * 100, key=b"%d" % self._sent)
            self._sent += 1
            self._topics.produce("t", [record]).addCallback(self._note(due)).addErrback(
                self._failed
            )

    def _note(self, due: float) -> Callable[[object], None]:
        return lambda _: self._times.append(self._clock.seconds() - due)

    def _failed(self, failure: Any) -> None:
        self.problems.append(failure.getErrorMessage())


async def fill(engine: Any, messages: int, per_batch: int) -> None:
    """Append messages to all partitions, without waiting for the disk each time."""
    chance = Random(1)
    left = iter(range(messages // per_batch))

    async def some() -> None:
        for number in left:
            body = chance.randbytes(100 * per_batch)
            await engine.append([Append(Partition("t", number % PARTITIONS), per_batch, body)])

    await gatherResults([Deferred.fromCoroutine(some()) for _ in range(UNDER_WAY)])


async def measure(
    reactor: Any, options: argparse.Namespace, folder: Path
) -> tuple[float, list[str]]:
    """Do all of it; returns the p99 of the trim as a multiple of that before, and what is wrong."""
    engine = SqliteTopics(Database(reactor, folder / "topics", "topics"), reactor, time.time)
    await engine.open()
    pool = reactor.getThreadPool()
    topics = Topics(
        engine,
        reactor,
        time.time,
        lambda call: deferToThreadPool(reactor, pool, call),
        random=Random(),
        limits=TopicLimits(),
    )
    filling = TopicSettings(partitions=PARTITIONS, durability="os", retention_time=0)
    await topics.create("t", filling)
    began = time.perf_counter()
    await fill(engine, options.messages, options.per_batch)
    size = (await engine.extents("t"))[0].size
    print(
        f"{options.messages:,} messages in batches of {options.per_batch} written in "
        f"{time.perf_counter() - began:.0f} s",
        flush=True,
    )
    durable = TopicSettings(partitions=PARTITIONS, retention_time=0)
    await topics.change("t", durable)
    producer = Producer(topics, reactor, options.rate)
    producer.start()
    await deferLater(reactor, 1.0)  # the first ones find cold caches
    producer.taken()
    await deferLater(reactor, options.seconds)
    before = spread(producer.taken())
    print(f"before   {before}", flush=True)
    half = TopicSettings(partitions=PARTITIONS, retention_time=0, retention_bytes=size // 2)
    await topics.change("t", half)
    producer.taken()
    began = time.perf_counter()
    dropped = await engine.trim(time.time())
    lasted = time.perf_counter() - began
    during = spread(producer.taken())
    print(f"trimming {during}  {dropped:,} dropped in {lasted:.1f} s", flush=True)
    await deferLater(reactor, options.seconds)
    print(f"after    {spread(producer.taken())}", flush=True)
    producer.stop()
    await deferLater(reactor, 1.0)
    kept = [extent.size for extent in await engine.extents("t")]
    await engine.close()
    ratio = during.p99 / before.p99
    problems = producer.problems
    if not 0.49 < dropped / options.messages < 0.6:
        problems.append(f"{dropped:,} of {options.messages:,} messages were dropped")
    if min(kept) < size // 2 - 100 * options.per_batch:
        problems.append("a partition kept less than it should")
    print(f"p99 while half of the messages are dropped: {ratio:.2f} times that before")
    for problem in problems[:20]:
        print(f"problem: {problem}")
    return ratio, problems


def main() -> int:
    """Run it from the command line."""
    from twisted.internet import reactor

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--per-batch", type=int, default=10)
    parser.add_argument("--rate", type=float, default=1000.0, help="records produced in a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="before and after the trim")
    parser.add_argument("--folder", type=Path, help="where the file is; by default a temporary one")
    options = parser.parse_args()
    place: Any = reactor
    outcome: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="topic-retention-", dir=options.folder) as folder:

        def begin() -> None:
            done = Deferred.fromCoroutine(measure(place, options, Path(folder)))
            done.addBoth(outcome.append).addCallback(lambda _: place.stop())

        place.callWhenRunning(begin)
        place.run()
    if not isinstance(outcome[0], tuple):
        outcome[0].raiseException()
    ratio, problems = outcome[0]
    if ratio > MOST:
        print(f"the p99 may be {MOST:g} times that before")
    return 1 if problems or ratio > MOST else 0


if __name__ == "__main__":
    sys.exit(main())
