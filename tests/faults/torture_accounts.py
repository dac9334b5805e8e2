"""The accounts of the torture: what clients were told, what the log holds, what is counted.

The log is read by pika's blocking connection and the counts by psycopg2, beside the daemon
and without any of its code but the form of a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, NamedTuple

import pika

from kupool.wire.batches import Batch, decode_batch
from kupool.wire.messages import split_username
from tests.faults.torture_load import Key

#: A user and a minute, in seconds since the epoch.
Minute = tuple[str, int]

#: Entries delivered at once, as none is acknowledged.
_WINDOW = 20_000
_NEVER = 2**40


class Stored(NamedTuple):
    """An entry of the stream: its offset, the id of its message, its content."""

    offset: int
    entry_id: str
    body: bytes


def read_stream(url: str, queue: str, start: int) -> tuple[list[Stored], int]:
    """Return the entries of the stream from an offset on, and the number of dead letters."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        dead = channel.queue_declare(f"{queue}.dead", passive=True).method.message_count
        channel.close()
        found: list[Stored] = []
        while some := _read_some(connection, queue, found[-1].offset + 1 if found else start):
            found += some
        return found, dead
    finally:
        connection.close()


def _read_some(connection: Any, queue: str, start: int) -> list[Stored]:
    """Return up to :data:`_WINDOW` entries; none only at the end."""
    found: list[Stored] = []

    def came(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
        offset = properties.headers["x-stream-offset"]
        if offset >= start:
            found.append(Stored(offset, properties.message_id, body))

    channel = connection.channel()
    channel.basic_qos(prefetch_count=_WINDOW)
    channel.basic_consume(f"{queue}.stream", came, arguments={"x-stream-offset": start})
    before = -1
    while len(found) != before:  # each look comes back after what could be delivered
        before = len(found)
        channel.queue_declare(f"{queue}.stream", passive=True)
        connection.process_data_events(0.01)
    channel.close()
    return found


class Findings(NamedTuple):
    """What does not agree, as texts, and in how many submissions it is less or more."""

    texts: list[str]
    lost: int
    double: int

    def __bool__(self) -> bool:
        return bool(self.texts)


class Accounts:
    """Compares what is new since the last round, and at the end everything.

    ``read`` returns the entries of the stream from an offset on, and the number of dead
    letters; ``count`` returns the rows (username, minute, count) from a minute on.
    """

    def __init__(
        self,
        read: Callable[[int], tuple[list[Stored], int]],
        count: Callable[[int], Iterable[tuple[str, int, int]]],
    ) -> None:
        self._read = read
        self._count = count
        self._next = 0
        #: Digests of the batches in the log, by id; and how many are in there once more.
        self.batches: dict[str, bytes] = {}
        self.copies = 0
        self.logged: set[Key] = set()
        self.minutes: Counter[Minute] = Counter()
        self.in_table = 0
        self._told: set[Key] = set()
        self._unknown: set[Key] = set()
        #: What is on one side and not, or not yet, on the other.
        self._not_logged: set[Key] = set()
        self._not_told: set[Key] = set()
        self._dead = self._dead_before = 0
        #: The first minute that has changed in this round.
        self._since = _NEVER
        #: What has been found in this round and stays so.
        self._found: list[str] = []
        self._twice = 0
        #: How far the counts are off, as has been reported.
        self._off: Counter[Minute] = Counter()

    @property
    def in_log(self) -> int:
        """Submissions in the log."""
        return len(self.logged)

    def told(self, counted: Iterable[Key], unknown: Iterable[Key]) -> None:
        """Note what clients were told: counts, and cannot be known."""
        for key in counted:
            if key in self._told:
                self._twice += 1
                self._found.append(f"{key}: told twice that it counts")
            self._told.add(key)
            if key not in self.logged:
                self._not_logged.add(key)
            self._not_told.discard(key)
        self._unknown.update(unknown)
        self._not_told -= self._unknown

    def read(self) -> None:
        """Read on in the log."""
        entries, self._dead = self._read(self._next)
        for entry in entries:
            self._next = max(self._next, entry.offset + 1)
            digest = sha256(entry.body).digest()
            before = self.batches.setdefault(entry.entry_id, digest)
            if before is digest:
                self._take(decode_batch(entry.body))
            elif before == digest:
                self.copies += 1
            else:
                self._found.append(f"batch {entry.entry_id}: in the log with two contents")

    def _take(self, batch: Batch) -> None:
        minute = batch.at // 60000 * 60
        self._since = min(self._since, minute)
        rows = zip(batch.usernames, batch.job_ids, batch.client_nonces, strict=True)
        for name, job, nonce in rows:
            user = split_username(name)[0]
            key = (user, job, nonce)
            self.minutes[user, minute] += 1
            if key in self.logged:
                self._twice += 1
                self._found.append(f"{key}: twice in the log")
            self.logged.add(key)
            self._not_logged.discard(key)
            if key not in self._told and key not in self._unknown:
                self._not_told.add(key)

    def compare(self) -> Findings:
        """Say what does not agree now; some of it may only not have arrived yet."""
        off = self._counts_off()
        texts = [
            *self._found,
            *(f"{key}: told that it counts, and not in the log" for key in self._not_logged),
            *(f"{key}: in the log, and never answered so" for key in self._not_told),
            *(
                f"{user}, minute {minute}: {by:+d} in the table against the log"
                for (user, minute), by in sorted(off.items())
            ),
        ]
        if self._dead != self._dead_before:
            texts.append(f"{self._dead - self._dead_before} dead letters")
        lost = len(self._not_logged) - sum(by for by in off.values() if by < 0)
        double = self._twice + sum(by for by in off.values() if by > 0)
        return Findings(texts, lost, double)

    def _counts_off(self) -> dict[Minute, int]:
        """Return by how much each count of the changed minutes is higher than the log says."""
        rows = {(user, minute): count for user, minute, count in self._count(self._since)}
        self.in_table = sum(rows.values())
        changed = {key for key in self.minutes if key[1] >= self._since}
        off = {key: rows.get(key, 0) - self.minutes[key] for key in rows.keys() | changed}
        return {key: by - self._off[key] for key, by in off.items() if by != self._off[key]}

    def close_round(self) -> None:
        """What was found is reported, and is not found again."""
        self._off.update(self._counts_off())
        self._not_logged.clear()
        self._not_told.clear()
        self._dead_before = self._dead
        self._found, self._twice = [], 0
        self._since = _NEVER

    def compare_all(self) -> Findings:
        """Read the whole log again, and compare all of it with every count."""
        again, _ = self._read(0)
        kept = {entry.entry_id: sha256(entry.body).digest() for entry in again}
        self._found += [
            f"batch {entry_id}: was in the log and is not any more, or has changed"
            for entry_id, digest in self.batches.items()
            if kept.get(entry_id) != digest
        ]
        self._since = 0
        return self.compare()


__all__ = ["Accounts", "Findings", "Stored", "read_stream"]
