"""The file of a spool: a queue of entries in SQLite with a size limit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.log import Entry
from kupool.storage.database import Database, touch
from kupool.storage.probing import WriteProbe

#: Bytes of a row besides its body: its id, its position and its share of a page.
ROW_BYTES = 128


class SpoolFile:
    """Entries in the table ``spooled``, appended and dropped by group commit.

    ``wall`` returns seconds since the epoch. ``count`` and ``size`` include entries that are still
    being written.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        wall: Callable[[], float],
        max_bytes: int = 1024**3,
    ) -> None:
        self._database = database
        self._wall = wall
        self._max_bytes = max_bytes
        self.count = 0
        self.size = 0
        #: When the oldest entry was added, in seconds since the epoch; 0 if there is none.
        self.since = 0.0
        #: The pool of the entries; empty if it is not known yet.
        self.pool_id = ""
        self._probe = WriteProbe(clock, self._write_again)
        #: The position up to which to drop entries, and up to which they have been dropped.
        self._drop_to = self._dropped_to = 0
        self._dropping = self._closing = False

    @property
    def problem(self) -> str:
        """Why the file accepts no entries; empty if it does."""
        return self._probe.problem or self._database.problem

    def open(self) -> Deferred[None]:
        """Open the file and read its state."""
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        await self._database.open()
        self.count, self.size, self.since = await self._database.run(_measure)
        self.pool_id = await self._database.run(_pool_id)

    async def belong_to(self, pool_id: str) -> None:
        """Save the id of the pool that the entries belong to."""

        def keep(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO pool_identity (only_row, pool_id) VALUES (1, ?) "
                "ON CONFLICT (only_row) DO UPDATE SET pool_id = excluded.pool_id",
                (pool_id,),
            )

        await self._database.run(keep)
        self.pool_id = pool_id

    def has_room(self, body: bytes) -> bool:
        """Return whether an entry fits the size limit."""
        return self.size + len(body) + ROW_BYTES <= self._max_bytes

    def put(self, entries: Sequence[tuple[str, bytes]]) -> Deferred[None]:
        """Append entries, as (id, body), regardless of the limit; fires when they are on disk.

        Either all of them are in the file then, or none.
        """
        at = self._wall()
        size = sum(len(body) + ROW_BYTES for _, body in entries)
        self.count += len(entries)
        self.size += size
        self.since = self.since or at
        rows = [(entry_id, int(at * 1000), body) for entry_id, body in entries]

        def insert(connection: sqlite3.Connection) -> None:
            statement = "INSERT INTO spooled (entry_id, appended_at, body) VALUES (?, ?, ?)"
            for row in rows:
                connection.execute(statement, row)

        return self._database.run(insert, single=len(rows) == 1).addCallbacks(
            self._written, self._not_put, errbackArgs=(len(rows), size)
        )

    def _written(self, _: object) -> None:
        self._probe.wrote()
        self._drop()  # what could not be dropped while there was a problem

    def _not_put(self, failure: Failure, count: int, size: int) -> Failure:
        self._subtract(count, size)
        self._probe.failed(failure)
        return failure

    def _write_again(self) -> Deferred[None]:
        """Write a page, and then drop what could not be dropped."""
        return self._database.run(touch).addCallback(lambda _: self._drop())

    def _subtract(self, count: int, size: int) -> None:
        self.count -= count
        self.size -= size
        if not self.count:
            self.since = 0.0

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` entries that follow the position ``after``."""
        return self._database.run(lambda connection: read_spooled(connection, after, limit))

    def drop(self, position: int) -> None:
        """Drop the entries up to a position, as soon as possible.

        One transaction runs at a time; later positions go into the next one.
        """
        self._drop_to = max(self._drop_to, position)
        if not self._probe.problem:  # otherwise whatever ends the problem drops them
            self._drop()

    def _drop(self) -> None:
        target = self._drop_to
        if self._dropping or self._closing or target <= self._dropped_to:
            return
        self._dropping = True

        def delete(connection: sqlite3.Connection) -> tuple[int, int, float]:
            count, size = connection.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0) FROM spooled WHERE position <= ?",
                (target,),
            ).fetchone()
            connection.execute("DELETE FROM spooled WHERE position <= ?", (target,))
            return count, size + count * ROW_BYTES, _oldest(connection)

        self._database.run(delete).addCallbacks(
            self._dropped, self._not_dropped, callbackArgs=(target,)
        ).addErrback(lambda failure: self._log.failure("The spool failed unexpectedly", failure))

    def _dropped(self, found: tuple[int, int, float], target: int) -> None:
        count, size, oldest = found
        self._dropping, self._dropped_to = False, target
        self._probe.wrote()
        self.since = oldest or self._wall()
        self._subtract(count, size)
        self._drop()

    def _not_dropped(self, failure: Failure) -> None:
        # This only costs space: after a restart the entry is sent again.
        self._dropping = False
        self._probe.failed(failure)

    def close(self) -> Deferred[None]:
        """Finish queued work and close the file; may be called again."""
        self._closing = True
        self._probe.close()
        return self._database.close()


def read_spooled(connection: sqlite3.Connection, after: int, limit: int) -> list[Entry]:
    """Return up to ``limit`` entries of a spool's file after a position; blocks."""
    rows = connection.execute(
        "SELECT position, entry_id, appended_at, body FROM spooled "
        "WHERE position > ? ORDER BY position LIMIT ?",
        (after, limit),
    )
    return [Entry(position, entry_id, at / 1000, body) for position, entry_id, at, body in rows]


def _measure(connection: sqlite3.Connection) -> tuple[int, int, float]:
    count, size = connection.execute(
        "SELECT count(*), coalesce(sum(length(body)), 0) FROM spooled"
    ).fetchone()
    return count, size + count * ROW_BYTES, _oldest(connection)


def _pool_id(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT pool_id FROM pool_identity").fetchone()
    return "" if row is None else str(row[0])


def _oldest(connection: sqlite3.Connection) -> float:
    row = connection.execute("SELECT appended_at FROM spooled ORDER BY position LIMIT 1").fetchone()
    return row[0] / 1000 if row else 0.0


__all__ = ["ROW_BYTES", "SpoolFile"]
