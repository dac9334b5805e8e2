"""Reads the log in a SQLite file, on a connection of its own, which never changes the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kupool.log import Entry, ILogReader, LogBounds
from kupool.log.searching import position_since
from kupool.storage.reading import ReadOnlyDatabase


@implementer(ILogReader)
class SqliteLogReader:
    """Reads a log's file; ``watch`` is that of the log, which appends in this process."""

    def __init__(
        self, database: ReadOnlyDatabase, watch: Callable[[Callable[[], object]], None]
    ) -> None:
        self._database = database
        self._watch = watch

    def open(self) -> Deferred[None]:
        """Open the file, which the log has made."""
        return self._database.open()

    def read(self, after: int, max_bytes: int) -> Deferred[Sequence[Entry]]:
        """Return the entries that follow a position, up to ``max_bytes``."""
        return self._database.run(lambda connection: _read_bytes(connection, after, max_bytes))

    def bounds(self) -> Deferred[LogBounds]:
        """Return what the log has."""
        return self._database.run(_bounds)

    def find(self, at: float) -> Deferred[int]:
        """Return the position of the first entry that was appended at a time or later."""
        return Deferred.fromCoroutine(self._find(at))

    async def _find(self, at: float) -> int:
        return await position_since(await self.bounds(), at, self._following)

    async def _following(self, after: int) -> Entry | None:
        found = await self.read(after, 0)
        return found[0] if found else None

    def watch(self, told: Callable[[], object]) -> None:
        """Have ``told`` called soon after entries were appended."""
        self._watch(told)

    def close(self) -> Deferred[None]:
        """Close the file."""
        return self._database.close()


def read_entries(connection: sqlite3.Connection, after: int, limit: int) -> list[Entry]:
    """Return up to ``limit`` entries of a log's file after a position; blocks."""
    rows = connection.execute(
        "SELECT position, entry_id, appended_at, body FROM entries "
        "WHERE position > ? ORDER BY position LIMIT ?",
        (after, limit),
    )
    return [Entry(position, entry_id, at / 1000, body) for position, entry_id, at, body in rows]


def live_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes of the pages of a file that are in use; blocks."""
    page, count, free = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_size", "page_count", "freelist_count")
    )
    return int(page * (count - free))


def _read_bytes(connection: sqlite3.Connection, after: int, max_bytes: int) -> list[Entry]:
    found: list[Entry] = []
    connection.execute("BEGIN")
    try:
        rows = connection.execute(
            "SELECT position, entry_id, appended_at, body FROM entries "
            "WHERE position > ? ORDER BY position",
            (after,),
        )
        for position, entry_id, at, body in rows:
            max_bytes -= len(body)
            if max_bytes < 0 and found:
                break
            found.append(Entry(position, entry_id, at / 1000, body))
    finally:
        connection.execute("COMMIT")  # which ends a statement that was not read to its end
    return found


def _bounds(connection: sqlite3.Connection) -> LogBounds:
    first, newest = connection.execute(
        "SELECT min(position), max(position) FROM entries"
    ).fetchone()
    (begins_after,) = connection.execute(
        "SELECT coalesce(max(begins_after), 0) FROM epochs"
    ).fetchone()
    last = max(newest or 0, begins_after)
    return LogBounds(first or last + 1, last, live_bytes(connection))


__all__ = ["SqliteLogReader", "live_bytes", "read_entries"]
