"""The log in a SQLite file: the default, durable on one machine."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.log import (
    DeliveredEntry,
    Entry,
    Epoch,
    Extent,
    Identity,
    ILog,
    ISubscription,
    LogStatus,
    LogUnavailable,
    Mark,
)
from kupool.log.groups import WAKE_DELAY, LocalSubscription, RetrySettings
from kupool.log.sqlite_reader import SqliteLogReader, live_bytes, read_entries
from kupool.storage.database import Database, touch
from kupool.storage.probing import WriteProbe
from kupool.storage.reading import ReadOnlyDatabase

#: Bytes of the newest entries kept in memory, so that consumers need not read them from the file.
TAIL_BYTES = 8 * 1024 * 1024

#: Entries dropped in one transaction by a trim.
TRIM_CHUNK = 1000

#: The consumer group whose position says what the previous release had counted.
_COUNTING = "stats"

_APPEND = "INSERT INTO entries (entry_id, appended_at, body) VALUES (?, ?, ?)"

#: The same if the log has no entry of its epoch yet, which begins after a position.
_APPEND_FIRST = (
    "INSERT INTO entries (position, entry_id, appended_at, body) VALUES "
    "(1 + max(?, (SELECT coalesce(max(position), 0) FROM entries)), ?, ?, ?)"
)


@implementer(ILog)
class SqliteLog:
    """Entries in a table, appended by group commit.

    ``wall`` returns seconds since the epoch.
    """

    persistent = True
    instant = False
    positional = True

    def __init__(
        self,
        database: Database | ReadOnlyDatabase,
        clock: IReactorTime,
        wall: Callable[[], float],
        retry: RetrySettings | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._wall = wall
        self._retry = retry or RetrySettings()
        self._groups: dict[str, LocalSubscription] = {}
        #: Those who are told of new entries, besides the groups.
        self._watchers: list[Callable[[], object]] = []
        self._tail: deque[Entry] = deque()
        self._tail_bytes = 0
        #: The last position that was used or skipped, that of the newest entry, and the one that
        #: the epoch begins after.
        self._last = self._newest = self._floor = 0
        #: The time of the retention clock at the last trim of this process.
        self._trimmed_at: float | None = None
        self._dead_letters = 0
        self._probe = WriteProbe(clock, lambda: database.run(touch))
        self._waking: IDelayedCall | None = None
        self._closing = False

    def open(self) -> Deferred[None]:
        """Open the file and make its tables."""
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        await self._database.open()
        self._newest, self._dead_letters = await self._database.run(_newest)
        self._last = self._newest
        found = await self._database.run(_identity)
        self._begin_after(0 if found is None else found.begins_after)

    def _begin_after(self, position: int) -> None:
        """Give new entries positions above this one."""
        self._floor = position
        self._last = max(self._last, position)

    def extent(self, known: Identity | None, mark: Mark) -> Deferred[Extent]:
        """Return the extent of the log; its own marks are in the file."""
        return self._database.run(_extent)

    def identify(self, identity: Identity) -> Deferred[None]:
        """Set the identity; fires when it is in the file."""

        def kept(_: None) -> None:
            self._begin_after(identity.begins_after)

        return self._database.run(lambda connection: _identify(connection, identity)).addCallback(
            kept
        )

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        """Append an entry; fires when it is on disk."""
        at = int(self._wall() * 1000)

        def insert(connection: sqlite3.Connection) -> int:
            if self._floor >= self._last:
                cursor = connection.execute(_APPEND_FIRST, (self._floor, entry_id, at, body))
            else:
                cursor = connection.execute(_APPEND, (entry_id, at, body))
            return cursor.lastrowid or 0

        return self._database.run(insert, single=True).addCallbacks(
            self._appended, self._not_appended, callbackArgs=(entry_id, at, body)
        )

    def _appended(self, position: int, entry_id: str, at: int, body: bytes) -> None:
        self._probe.wrote()
        self._last = self._newest = position
        if self._groups:
            if self._tail and self._tail[-1].position != position - 1:
                # Entries between were appended without an answer: they are only in the file.
                self._tail.clear()
                self._tail_bytes = 0
            self._tail.append(Entry(position, entry_id, at / 1000, body))
            self._tail_bytes += len(body)
            while self._tail_bytes > TAIL_BYTES:
                self._tail_bytes -= len(self._tail.popleft().body)
        if self._waking is None and (self._groups or self._watchers) and not self._closing:
            self._waking = self._clock.callLater(WAKE_DELAY, self._wake)

    def _wake(self) -> None:
        self._waking = None
        for subscription in self._groups.values():
            subscription.wake()
        for told in self._watchers:
            told()

    def watch(self, told: Callable[[], object]) -> None:
        """Have ``told`` called soon after entries were appended."""
        self._watchers.append(told)

    def _not_appended(self, failure: Failure) -> None:
        self._probe.failed(failure)
        raise LogUnavailable(self._probe.problem) from failure.value

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` entries that follow the position ``after``."""
        if self._groups and after >= self._last:
            return succeed([])  # the process that delivers entries appends them as well
        if self._tail and self._tail[0].position <= after + 1:
            skip = after + 1 - self._tail[0].position
            return succeed(list(islice(self._tail, skip, skip + limit)))
        return self._database.run(lambda connection: read_entries(connection, after, limit))

    def consume(
        self, group: str, consumer: Any, prefetch: int, after: int | None = None
    ) -> Deferred[ISubscription]:
        """Deliver the entries after ``after``, or those that a group has not acknowledged."""
        if after is not None:
            return succeed(self._consume(after, group, consumer, prefetch))
        found = self._database.run(lambda connection: _place_of(connection, group))
        return found.addCallback(self._consume, group, consumer, prefetch)

    def _consume(self, place: int, group: str, consumer: Any, prefetch: int) -> ISubscription:
        subscription = LocalSubscription(
            self, self._clock, group, consumer, place=place, prefetch=prefetch, retry=self._retry
        )
        self._groups[group] = subscription
        self._clock.callLater(0, subscription.wake)
        return subscription

    def keep_place(self, group: str, position: int) -> Deferred[None]:
        """Save that a group has processed everything up to a position."""
        while self._tail and self._tail[0].position <= min(
            subscription.place for subscription in self._groups.values()
        ):
            self._tail_bytes -= len(self._tail.popleft().body)

        def update(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO consumer_groups (name, position) VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET position = excluded.position",
                (group, position),
            )

        return self._database.run(update)

    def bury(self, group: str, delivery: DeliveredEntry, reason: str) -> Deferred[None]:
        """Move an entry to the dead letters."""
        entry, now = delivery.entry, int(self._wall() * 1000)

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO dead_letters (consumer_group, position, entry_id, reason, "
                "deliveries, failed_at, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (group, entry.position, entry.entry_id, reason, delivery.attempt, now, entry.body),
            )

        def buried(_: None) -> None:
            self._dead_letters += 1

        return self._database.run(insert).addCallback(buried)

    def trim(self, now: float, max_age: float, max_bytes: int) -> Deferred[int]:
        """Drop acknowledged entries that are too old, or beyond a size."""
        return Deferred.fromCoroutine(self._trim(now, max_age, max_bytes))

    async def _trim(self, now: float, max_age: float, max_bytes: int) -> int:
        advance = 0.0 if self._trimmed_at is None else max(0.0, now - self._trimmed_at)
        self._trimmed_at = now
        age = await self._database.run(lambda connection: _note_age(connection, advance))
        before = age - max_age if max_age else -inf
        dropped = 0
        while True:
            count = await self._database.run(
                lambda connection: _trim_chunk(connection, before, max_bytes), alone=True
            )
            dropped += count
            if count < TRIM_CHUNK:
                return dropped

    def trimmed(self) -> Deferred[int | None]:
        """Return the newest position that a trim dropped."""
        return self._database.run(_trimmed)

    def reader(self) -> SqliteLogReader:
        """Return a reader of this log."""
        database = ReadOnlyDatabase(self._database.reactor, self._database.path, "log")
        return SqliteLogReader(database, self.watch)

    def status(self) -> LogStatus:
        """Return the status of the log."""
        place = min((s.place for s in self._groups.values()), default=self._newest)
        # What the epoch begins after, there may be no entries up to.
        depth = max(0, self._newest - place)
        problem = self._probe.problem or self._database.problem
        return LogStatus(self._last, depth, self._dead_letters, problem)

    def close(self) -> Deferred[None]:
        """Finish running work and close the file."""
        self._closing = True
        self._probe.close()
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        return self._database.close()


def _newest(connection: sqlite3.Connection) -> tuple[int, int]:
    (last,) = connection.execute("SELECT coalesce(max(position), 0) FROM entries").fetchone()
    (dead,) = connection.execute("SELECT count(*) FROM dead_letters").fetchone()
    return last, dead


def _place_of(connection: sqlite3.Connection, group: str) -> int:
    row = connection.execute(
        "SELECT position FROM consumer_groups WHERE name = ?", (group,)
    ).fetchone()
    return 0 if row is None else int(row[0])


def _note_age(connection: sqlite3.Connection, advance: float) -> float:
    """Advance the log's age clock, and record its time for the newest entry; returns the time."""
    connection.execute(
        "INSERT INTO age_clock (only_row, seconds) VALUES (1, ?) "
        "ON CONFLICT (only_row) DO UPDATE SET seconds = seconds + excluded.seconds",
        (advance,),
    )
    (seconds,) = connection.execute("SELECT seconds FROM age_clock").fetchone()
    connection.execute(
        "INSERT INTO ages (position, seconds) SELECT max(position), ? FROM entries "
        "WHERE true HAVING max(position) IS NOT NULL ON CONFLICT (position) DO NOTHING",
        (seconds,),
    )
    return float(seconds)


def _trimmed(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT position FROM trimmed").fetchone()
    return 0 if row is None else int(row[0])


def _trim_chunk(connection: sqlite3.Connection, before: float, max_bytes: int) -> int:
    """Drop one chunk of the oldest entries that are due; returns how many.

    ``before`` is a time of the log's age clock.
    """
    (last,) = connection.execute("SELECT coalesce(max(position), 0) FROM entries").fetchone()
    (processed,) = connection.execute(
        "SELECT coalesce(min(position), 0) FROM consumer_groups"
    ).fetchone()
    (old,) = connection.execute(
        "SELECT coalesce(max(position), 0) FROM ages WHERE seconds <= ?", (before,)
    ).fetchone()
    too_large = max_bytes and live_bytes(connection) > max_bytes
    upto = min(processed, last - 1, last if too_large else old)
    (drop_to,) = connection.execute(
        "SELECT max(position) FROM (SELECT position FROM entries WHERE position <= ? "
        "ORDER BY position LIMIT ?)",
        (upto, TRIM_CHUNK),
    ).fetchone()
    if drop_to is None:
        return 0
    connection.execute(
        "INSERT INTO trimmed (only_row, position) VALUES (1, ?) ON CONFLICT (only_row) "
        "DO UPDATE SET position = max(position, excluded.position)",
        (drop_to,),
    )
    connection.execute("DELETE FROM ages WHERE position < ?", (drop_to,))
    return connection.execute("DELETE FROM entries WHERE position <= ?", (drop_to,)).rowcount


def _identity(connection: sqlite3.Connection) -> Identity | None:
    row = connection.execute("SELECT pool_id FROM identity").fetchone()
    if row is None:
        return None
    (pool_id,) = row
    epochs = connection.execute("SELECT epoch, begins_after FROM epochs ORDER BY number")
    return Identity(pool_id, tuple(Epoch(*epoch) for epoch in epochs))


def _extent(connection: sqlite3.Connection) -> Extent:
    identity = _identity(connection)
    (first, newest) = connection.execute(
        "SELECT min(position), max(position) FROM entries"
    ).fetchone()
    last = max(newest or 0, 0 if identity is None else identity.begins_after)
    acknowledged = _place_of(connection, _COUNTING)
    return Extent(identity, first or last + 1, last, first is not None, acknowledged)


def _identify(connection: sqlite3.Connection, identity: Identity) -> None:
    connection.execute(
        "INSERT INTO identity (only_row, pool_id) VALUES (1, ?) "
        "ON CONFLICT (only_row) DO UPDATE SET pool_id = excluded.pool_id",
        (identity.pool_id,),
    )
    connection.execute("DELETE FROM epochs")
    connection.executemany(
        "INSERT INTO epochs (number, epoch, begins_after) VALUES (?, ?, ?)",
        [(number, *epoch) for number, epoch in enumerate(identity.epochs)],
    )
