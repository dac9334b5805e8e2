"""Moves topics from one data folder to another while their daemon takes records.

    python -m tools.topic_migration --records 5000000 --rate 1000

A topic is filled, and a daemon started on it, to which a client writes so many records a second.
The topics are moved by ``kupool migrate``; the first run is killed. Then the daemon is stopped, the
rest is moved, and the daemon is started on the new side. Every record that was confirmed has to be
there, the batches have to be the same, in the same order, and every group at the same record.
Prints how long the client was without a daemon. Ends with status 1 on any difference.
"""

from __future__ import annotations

import argparse
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import yaml

from kupool.storage.database import connect
from kupool.storage.migrations import migrate
from kupool.topics import sqlite_tables
from kupool.topics.batches import Compression, RecordCodec
from kupool.topics.interfaces import Append
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.settings import TopicSettings
from tests.servers.commands import KUPOOL, environment
from tests.servers.running_daemon import LineClient, RunningDaemon

TOPIC, PARTITIONS, GROUPS = "orders", 12, 5

#: Batches that are written in one transaction when the topic is filled.
AT_ONCE = 5_000

#: The daemons of both sides take what the client sends.
FLAGS = ("--interval=1h", "--permissions=* log.publish >", "--topics-rate=100000")


class Differs(Exception):
    """Something is not as it should be; says what."""


def fill(path: Path, records: int, batch: int) -> None:
    """Make the file of a topic with so many records, ``batch`` in each batch, and some groups."""
    codec, chosen = RecordCodec(), random.Random(1)
    with closing(connect(path, "OFF")) as connection:
        migrate(connection, "topics")
        row = sqlite_tables.create(connection, TOPIC, TopicSettings(partitions=PARTITIONS), 0)
        for piece in _pieces(records // batch, AT_ONCE):
            connection.execute("BEGIN")
            orders = []
            for number in piece:
                values = [b"%d/%d" % (number, each) for each in range(batch)]
                found = [NewRecord(value, b"key-%d" % (number % 1000)) for value in values]
                body = codec.encode(found, f"filled-{number}", number, Compression())
                partition = number % PARTITIONS
                append = Append(Partition(TOPIC, partition), batch, body)
                orders.append([(row.partitions[partition], append)])
            sqlite_tables.append(connection, orders, 1_700_000_000_000 + piece[0])
            connection.execute("COMMIT")
        ends = dict(connection.execute("SELECT id, next FROM partitions").fetchall())
        positions = [
            (f"group-{group}", key, chosen.randint(0, end))
            for group in range(GROUPS)
            for key, end in ends.items()
        ]
        sqlite_tables.commit(connection, positions)


def _pieces(count: int, size: int) -> Iterator[range]:
    for first in range(0, count, size):
        yield range(first, min(count, first + size))


class Writer:
    """Writes records at a rate, and knows which ones were confirmed; it waits for no answer."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._daemon: RunningDaemon | None = None
        self.confirmed: set[bytes] = set()
        self.sent = 0
        #: Seconds between one answer and the next, the longest.
        self.longest = 0.0
        self._answered_at = time.monotonic()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, daemon: RunningDaemon) -> None:
        """Begin to write."""
        self._daemon = daemon
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the answers that are under way."""
        self._ended = True
        self._thread.join()

    def use(self, daemon: RunningDaemon | None) -> None:
        """Write to another daemon, or to none."""
        self._daemon = daemon

    def _run(self) -> None:
        while not self._ended:
            daemon = self._daemon
            if daemon is None:
                time.sleep(0.01)
                continue
            with suppress(OSError, EOFError):
                self._write_to(daemon)

    def _write_to(self, daemon: RunningDaemon) -> None:
        client = LineClient(daemon)
        client.authorize("writer")
        waiting: deque[bytes] = deque()
        reader = threading.Thread(target=self._read, args=(client, waiting), daemon=True)
        reader.start()
        began, sent = time.monotonic(), 0
        try:
            while not self._ended and self._daemon is daemon and reader.is_alive():
                if sent >= (time.monotonic() - began) * self._rate:
                    time.sleep(0.002)
                    continue
                value = f"live-{self.sent}"
                waiting.append(value.encode())
                params = {"topic": TOPIC, "value": value, "key": str(self.sent % 1000)}
                client.send({"id": self.sent, "method": "log.produce", "params": params})
                sent, self.sent = sent + 1, self.sent + 1
            deadline = time.monotonic() + 5
            while waiting and reader.is_alive() and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            with suppress(OSError):
                client.socket.shutdown(2)
            reader.join()
            client.close()

    def _read(self, client: LineClient, waiting: deque[bytes]) -> None:
        with suppress(OSError, EOFError, ValueError):
            while True:
                message = client.receive()
                if "method" in message:
                    continue
                value = waiting.popleft()
                if message.get("result"):
                    self.confirmed.add(value)
                    now = time.monotonic()
                    self.longest = max(self.longest, now - self._answered_at)
                    self._answered_at = now


class Migration:
    """The move from one folder to another."""

    def __init__(self, folder: Path) -> None:
        self.old, self.new = folder / "old", folder / "new"
        self.names = []
        for data in (self.old, self.new):
            name = folder / f"{data.name}.yaml"
            name.write_text(yaml.safe_dump({"data": str(data)}))
            self.names.append(str(name))

    def run(self, kill_after: float = 0.0) -> str:
        """Run the command; returns what it printed. It is killed after so many seconds."""
        flags = ("migrate", "--from", self.names[0], "--to", self.names[1])
        process = subprocess.Popen(
            [*KUPOOL, *flags],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            printed, wrong = process.communicate(timeout=kill_after or 3600)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return ""
        if process.returncode:
            raise Differs(f"kupool migrate: {wrong}")
        return printed

    def compare(self, confirmed: set[bytes]) -> tuple[int, int]:
        """Compare both files; returns the records, and the positions of groups."""
        codec, records, missing = RecordCodec(), 0, set(confirmed)
        with closing(_reading(self.old)) as old, closing(_reading(self.new)) as new:
            keys = [_keys(old), _keys(new)]
            for number in range(PARTITIONS):
                theirs = _batches(new, keys[1][number])
                for (count, at, body), found in zip(
                    _batches(old, keys[0][number]), theirs, strict=False
                ):
                    if found != (count, at, body):
                        raise Differs(f"partition {number}: a batch differs")
                    records += count
                    if missing:
                        missing -= {r.value for r in codec.decode(body, 0)[1]}
                for count, _, body in theirs:  # what the daemon on the new side has taken
                    records += count
                    missing -= {record.value for record in codec.decode(body, 0)[1]}
            if missing:
                raise Differs(f"{len(missing)} confirmed records are missing")
            positions = self._compare_groups(old, new, keys)
        return records, positions

    def _compare_groups(
        self, old: sqlite3.Connection, new: sqlite3.Connection, keys: Sequence[dict[int, int]]
    ) -> int:
        query = "SELECT group_name, number, group_positions.next FROM group_positions "
        query += "JOIN partitions ON partitions.id = partition"
        theirs = {(name, number): at for name, number, at in new.execute(query)}
        count = 0
        for name, number, at in old.execute(query).fetchall():
            before = _record(old, keys[0][number], at)
            after = _record(new, keys[1][number], theirs[name, number])
            if before is not None and before != after:
                raise Differs(f"{name} is at {after!r} of partition {number}, was at {before!r}")
            count += 1
        return count


def _reading(data: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{data / 'topics.sqlite'}?mode=ro", uri=True)


def _keys(connection: sqlite3.Connection) -> dict[int, int]:
    rows = connection.execute(
        "SELECT number, partitions.id FROM partitions JOIN topics ON topics.id = topic "
        "WHERE name = ?",
        (TOPIC,),
    )
    return dict(rows.fetchall())


def _batches(connection: sqlite3.Connection, key: int) -> Iterator[tuple[int, int, bytes]]:
    bits = sqlite_tables.OFFSET_BITS
    yield from connection.execute(
        "SELECT count, appended_at, body FROM batches WHERE position >= ? AND position < ? "
        "ORDER BY position",
        (key << bits, (key + 1) << bits),
    )


def _record(connection: sqlite3.Connection, key: int, offset: int) -> tuple[Any, ...] | None:
    """Return the id of the batch at an offset, and the value there; None at the end."""
    first = key << sqlite_tables.OFFSET_BITS
    row = connection.execute(
        "SELECT position, body FROM batches WHERE position BETWEEN ? AND ? AND position + count > ?"
        " ORDER BY position DESC LIMIT 1",
        (first, first + offset, first + offset),
    ).fetchone()
    if row is None:
        return None
    base = row[0] - first
    batch_id, records = RecordCodec().decode(row[1], base)
    return batch_id, records[offset - base].value


def move(folder: Path, records: int, batch: int, rate: float) -> None:
    """Do all of it; prints what was seen. Raises :class:`Differs`."""
    migration = Migration(folder)
    with RunningDaemon(*FLAGS, data=migration.old) as daemon:
        daemon.stop()
    for path in migration.old.glob("topics.sqlite*"):
        path.unlink()
    began = time.monotonic()
    fill(migration.old / "topics.sqlite", records, batch)
    print(
        f"{records:,} records in batches of {batch}, {time.monotonic() - began:.0f} s", flush=True
    )
    writer = Writer(rate)
    with RunningDaemon(*FLAGS, data=migration.old) as daemon:
        writer.start(daemon)
        time.sleep(1)
        migration.run(kill_after=5)
        began = time.monotonic()
        migration.run()
        print(f"copied and compared while it ran: {time.monotonic() - began:.1f} s", flush=True)
        before, longest = len(writer.confirmed), writer.longest
        print(f"{before:,} records confirmed meanwhile, longest wait {longest:.2f} s", flush=True)
        began = time.monotonic()
        writer.use(None)
        if daemon.stop():
            raise Differs("the daemon did not stop in order")
        stopped = time.monotonic()
    printed = migration.run()
    moved = time.monotonic()
    with RunningDaemon(*FLAGS, data=migration.new) as daemon:
        writer.use(daemon)
        while len(writer.confirmed) <= before:
            time.sleep(0.005)
        ended = time.monotonic()
        print(
            f"the stop: {ended - began:.2f} s: daemon stopped {stopped - began:.2f}, "
            f"rest moved {moved - stopped:.2f}, first record on the new side {ended - moved:.2f}"
        )
        time.sleep(2)
        writer.stop()
        daemon.stop()
    print(printed)
    count, positions = migration.compare(writer.confirmed)
    print(
        f"equal: {count:,} records, {len(writer.confirmed):,} of them confirmed to the client; "
        f"{positions} positions of groups at the same records"
    )


def main() -> int:
    """Run it; the status is 1 on a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=5_000_000)
    parser.add_argument("--batch", type=int, default=10, help="records of a batch")
    parser.add_argument("--rate", type=float, default=1000.0, help="records written a second")
    parser.add_argument("--folder", help="where the data folders are made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kupool-move-", dir=arguments.folder) as folder:
        try:
            move(Path(folder), arguments.records, arguments.batch, arguments.rate)
        except Differs as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
