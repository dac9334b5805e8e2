"""Kills a process that writes to topics again and again, and compares what is in the file.

    python -m tools.topic_kills --kills 500 --seed 1

A process writes records to the partitions of a topic in SQLite, five under way in each, and prints
the offset of each one that it was told is written. It is killed at a random moment, and the next
one sends again, with the same marks, what had no answer. After each kill every record that was
confirmed has to be at its offset, a record that was seen once has to be the same, the records of a
partition have to be in the order in which they were sent, each exactly once, without a gap. Ends
with status 1 on any difference.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kupool.topics.batches import RecordCodec
from tests.servers.running_daemon import ROOT

PARTITIONS = 12

#: Records under way in each partition: as many as an engine remembers of a producer.
UNDER_WAY = 5


class Books:
    """What was confirmed, what was seen in the file, and what is different."""

    def __init__(self) -> None:
        #: (partition, offset) -> number of the record.
        self.confirmed: dict[tuple[int, int], int] = {}
        self.seen: dict[tuple[int, int], int] = {}
        self.problems: list[str] = []
        self.resent = 0

    def compare(self, found: dict[tuple[int, int], int]) -> None:
        """Compare the file with what was there before, and with what was confirmed."""
        for what, known in (("confirmed", self.confirmed), ("seen", self.seen)):
            for place, number in known.items():
                if found.get(place) != number:
                    self._add(f"{what}: {number} at {place}, there is {found.get(place)}")
        for partition in range(PARTITIONS):
            mine = sorted((at, number) for (part, at), number in found.items() if part == partition)
            if [at for at, _ in mine] != list(range(len(mine))):
                self._add(f"partition {partition} has gaps")
            numbers = [number for _, number in mine]
            if numbers != sorted(set(numbers)):
                self._add(f"partition {partition} is not in order, or has records twice")
        self.seen = found

    def _add(self, text: str) -> None:
        self.problems.append(text)
        if len(self.problems) < 20:
            print(f"problem: {text}", flush=True)


def records(path: Path) -> dict[tuple[int, int], int]:
    """Return the number of the record at each (partition, offset) of the file."""
    codec = RecordCodec()
    found = {}
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT position, body FROM batches")
    numbers = dict(connection.execute("SELECT id, number FROM partitions").fetchall())
    for position, body in rows.fetchall():
        for record in codec.decode(body, position & (1 << 43) - 1)[1]:
            found[numbers[position >> 43], record.offset] = int(record.value)
    connection.close()
    return found


def unanswered(books: Books, first: int, sent: int) -> list[int]:
    """Return the numbers below ``sent`` that were not confirmed, from ``first`` on."""
    known = set(books.confirmed.values())
    return [number for number in range(first, sent) if number not in known]


def run(folder: Path, kills: int, chance: random.Random) -> Books:
    """Start and kill writers; returns the books."""
    books, sent, first = Books(), 0, 0
    path = folder / "topics.sqlite"
    for kill in range(kills):
        again = unanswered(books, first, sent)
        first = min(again, default=sent)
        books.resent += len(again)
        writer = subprocess.Popen(
            [sys.executable, "-m", "tools.topic_kills", "--write", str(path), str(sent)]
            + [str(number) for number in again],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lines.extend, args=(writer.stdout,))
        ready = writer.stdout.readline()
        if ready != "ready\n":
            raise SystemExit(f"a writer did not start: {ready}")
        reader.start()
        time.sleep(chance.expovariate(1 / 0.06))
        writer.kill()
        writer.wait()
        reader.join()
        for line in lines:
            if not line.endswith("\n"):
                continue
            word, *numbers = line.split()
            if word == "sent":
                sent = max(sent, int(numbers[0]) + 1)
            elif word == "written":
                number, partition, offset = map(int, numbers)
                books.confirmed[partition, offset] = number
            else:
                books.problems.append(line.strip())
        books.compare(records(path))
        if kill % 25 == 24:
            print(f"{kill + 1} kills, {len(books.confirmed):,} records confirmed", flush=True)
    return books


def write(path: Path, start: int, again: list[int]) -> None:
    """Write until somebody kills this process."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.threads import deferToThread

    from kupool.storage.database import Database
    from kupool.topics.records import NewRecord, Stamp
    from kupool.topics.service import TopicLimits, Topics
    from kupool.topics.settings import TopicSettings
    from kupool.topics.sqlite import SqliteTopics

    clock: Any = reactor

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    async def one(topics: Topics, numbers: Iterator[int]) -> None:
        for number in numbers:
            say(f"sent {number}")
            (place,) = await topics.produce(
                "t",
                [NewRecord(b"%d" % number)],
                partition=number % PARTITIONS,
                stamp=Stamp("writer", number),
            )
            say(f"written {number} {place.partition} {place.offset}")

    async def main() -> None:
        engine = SqliteTopics(Database(clock, path, "topics"), clock, time.time)
        await engine.open()
        topics = Topics(
            engine, clock, time.time, deferToThread, random=random.Random(), limits=TopicLimits()
        )
        if not topics.names():
            await topics.create("t", TopicSettings(partitions=PARTITIONS))
        say("ready")
        for partition in range(PARTITIONS):
            mine = [number for number in again if number % PARTITIONS == partition]
            left = iter(mine)
            fresh = range(start + (partition - start) % PARTITIONS, sys.maxsize, PARTITIONS)
            numbers = _then(left, iter(fresh))
            for _ in range(UNDER_WAY):
                Deferred.fromCoroutine(one(topics, numbers)).addErrback(
                    lambda failure: say(f"failed {failure.getErrorMessage()}")
                )

    Deferred.fromCoroutine(main()).addErrback(lambda failure: say(f"failed {failure.value}"))
    clock.run()


def _then(first: Iterator[int], second: Iterator[int]) -> Iterator[int]:
    yield from first
    yield from second


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--folder", type=Path, help="where the file is; by default a temporary one")
    parser.add_argument("--write", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        path, start, *again = arguments.write
        write(Path(path), int(start), [int(number) for number in again])
        return
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="topic-kills-", dir=arguments.folder) as folder:
        books = run(Path(folder), arguments.kills, random.Random(arguments.seed))
    print(
        f"{arguments.kills} kills, {len(books.confirmed):,} records confirmed, "
        f"{len(books.seen):,} in the file, {books.resent:,} sent again or left over, "
        f"problems {len(books.problems)}"
    )
    raise SystemExit(1 if books.problems else 0)


if __name__ == "__main__":
    main()
