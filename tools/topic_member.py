"""A member of a consumer group, for ``tools.topic_groups``: it has nothing but HTTP and SQLite.

It fetches the records of the partitions that it is assigned from the committed offsets on. For each
batch it counts the numbers in the records and saves how far it is, in one transaction of a SQLite
file that all members share; only then it commits the offsets to the group. So a number that comes
again is recognized by its offset and not counted twice. After each rebalance it also tries a commit
with the generation before, which must be refused.

What it did is appended to a file, line by line: ``commit SENT GENERATION`` for each commit that was
accepted, with the monotonic time before it was sent, ``refused CODE``, ``stale`` for each commit of
an older generation that was refused, and ``problem TEXT``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Seconds between two heartbeats, and those that it waits if there is nothing to read.
HEARTBEAT, IDLE = 0.5, 0.05

#: Codes of the errors: the member or the group is unknown, the generation is not the current one,
#: the partition is not this member's.
UNKNOWN, STALE, NOT_OWNER = 35, 39, 41

_TABLES = (
    "CREATE TABLE IF NOT EXISTS counted (number INTEGER PRIMARY KEY, member TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS processed (number INTEGER PRIMARY KEY, times INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL)",
)


class Refused(Exception):
    """The server refused a call; has the code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class TopicCalls:
    """Calls the operations of topics over HTTP."""

    def __init__(self, port: int, secret: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}

    def call(self, operation: str, **params: Any) -> Any:
        """Return the result of an operation; raises :class:`Refused`."""
        path = "/api/" + operation.replace(".", "/")
        body = json.dumps(params)
        try:
            self._connection.request("POST", path, body, self._headers)
            response = self._connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self._connection.close()  # it was closed while nothing was sent
            self._connection.request("POST", path, body, self._headers)
            response = self._connection.getresponse()
        found = json.load(response)
        if response.status != 200:
            raise Refused(found.get("code", response.status), found.get("error", ""))
        return found


class Results:
    """What all members have counted, in a SQLite file."""

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path, isolation_level=None, timeout=60)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=NORMAL")
        for table in _TABLES:
            self._file.execute(table)

    def count(self, member: str, partition: int, records: list[tuple[int, int]]) -> str:
        """Count records (offset, number) that were not counted yet; returns what is wrong."""
        run, many = self._file.execute, self._file.executemany
        run("BEGIN IMMEDIATE")
        row = run("SELECT next FROM positions WHERE partition = ?", (partition,)).fetchone()
        following = 0 if row is None else row[0]
        many(
            "INSERT INTO processed VALUES (?, 1) ON CONFLICT DO UPDATE SET times = times + 1",
            [(number,) for _, number in records],
        )
        fresh = [(offset, number) for offset, number in records if offset >= following]
        problem = ""
        if records[0][0] > following:
            problem = f"partition {partition}: {records[0][0]} was read, {following} is next"
        try:
            many("INSERT INTO counted VALUES (?, ?)", [(number, member) for _, number in fresh])
        except sqlite3.IntegrityError:
            problem = f"partition {partition}: a number is there twice from {records[0]} on"
            run("ROLLBACK")
            return problem
        if fresh:
            run("INSERT OR REPLACE INTO positions VALUES (?, ?)", (partition, fresh[-1][0] + 1))
        run("COMMIT")
        return problem

    def table(self, name: str) -> dict[int, Any]:
        """Return a table as a mapping."""
        return dict(self._file.execute(f"SELECT * FROM {name}").fetchall())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Member:
    """One member: joins, works, and leaves when it is told to."""

    def __init__(self, calls: TopicCalls, name: str, options: argparse.Namespace) -> None:
        self._calls = calls
        self._name = name
        self._topic: str = options.topic
        self._timeout_ms: int = options.timeout_ms
        self._results = Results(options.folder / "results.sqlite")
        self._diary = os.open(
            options.folder / f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND
        )
        self._me = {"group": "g", "member": name}
        self._generation = self._before = 0
        #: Partition -> the offset to read next.
        self._offsets: dict[int, int] = {}
        self._beaten = 0.0
        self.stopping = False

    def run(self) -> None:
        """Work until it is told to stop, then leave."""
        self._join()
        while not self.stopping:
            if time.monotonic() - self._beaten > HEARTBEAT:
                self._beat()
            if not sum(self._read(partition) for partition in list(self._offsets)):
                time.sleep(IDLE)
        with suppress(Refused):
            self._calls.call("group.leave", **self._me)

    def _note(self, line: str) -> None:
        os.write(self._diary, f"{line}\n".encode())

    def _join(self) -> None:
        self._offsets.clear()
        place = self._calls.call(
            "group.join", **self._me, topics=[self._topic], session_timeout_ms=self._timeout_ms
        )
        self._take(place)

    def _beat(self) -> None:
        holding = [{"topic": self._topic, "partition": each} for each in self._offsets]
        try:
            place = self._calls.call(
                "group.heartbeat", **self._me, generation=self._generation, holding=holding
            )
        except Refused as error:
            self._note(f"refused {error.code}")
            self._join()
            return
        self._take(place)
        if place["revoked"]:
            self._beat()  # nothing is under way: it is given back at once

    def _take(self, place: dict[str, Any]) -> None:
        self._beaten = time.monotonic()
        assigned = {each["partition"] for each in place["assigned"]}
        for partition in set(self._offsets) - assigned:
            del self._offsets[partition]
        for partition in assigned - set(self._offsets):
            fetched = self._calls.call(
                "log.fetch", topic=self._topic, partition=partition, group="g", max_bytes=1
            )
            records = fetched.get("records")
            self._offsets[partition] = records[0]["offset"] if records else fetched["next"]
        if place["generation"] != self._generation:
            self._before, self._generation = self._generation, place["generation"]
            self._try_stale()

    def _try_stale(self) -> None:
        """Commit what is true, with the generation before: it must be refused all the same."""
        if not self._before or not self._offsets:
            return
        partition, offset = next(iter(self._offsets.items()))
        try:
            self._send_commit(partition, offset, self._before)
        except Refused as error:
            self._note("stale" if error.code == STALE else f"refused {error.code}")
        else:
            self._note(f"problem a commit of generation {self._before} was accepted")

    def _send_commit(self, partition: int, offset: int, generation: int) -> None:
        offsets = [{"topic": self._topic, "partition": partition, "offset": offset}]
        self._calls.call("group.commit", **self._me, generation=generation, offsets=offsets)

    def _read(self, partition: int) -> int:
        """Read some records of a partition, count and commit them; returns how many."""
        if partition not in self._offsets:
            return 0  # a heartbeat in between has taken it away
        fetched = self._calls.call(
            "log.fetch",
            topic=self._topic,
            partition=partition,
            offset=self._offsets[partition],
            max_bytes=4096,
        )
        records = [(each["offset"], int(each["value"])) for each in fetched.get("records", ())]
        if not records:
            return 0
        problem = self._results.count(self._name, partition, records)
        if problem:
            self._note(f"problem {problem}")
        following, sent, generation = records[-1][0] + 1, time.monotonic(), self._generation
        try:
            self._send_commit(partition, following, generation)
        except Refused as error:
            self._note(f"refused {error.code}")
            if error.code not in (UNKNOWN, STALE, NOT_OWNER):
                self._note(f"problem commit: {error}")
            self._beat()
            return 0
        self._note(f"commit {sent!r} {generation}")
        self._offsets[partition] = following
        return len(records)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--topic", default="t")
    parser.add_argument("--timeout-ms", type=int, default=5000)
    options = parser.parse_args()
    secret = os.environ["TOPIC_SECRET"]
    member = Member(TopicCalls(options.port, secret), options.name, options)

    def stop(*_: object) -> None:
        member.stopping = True

    signal.signal(signal.SIGTERM, stop)
    member.run()


if __name__ == "__main__":
    main()
