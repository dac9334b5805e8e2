"""A log in a SQLite file that takes part in a move."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from kupool.log import Entry, Identity
from kupool.migration.logs import ENTRIES, Acknowledged, DeadLetter
from kupool.storage.database import Database, connect

#: The consumer group that counts.
_COUNTING = "stats"

_DEAD = "consumer_group, position, entry_id, reason, deliveries, failed_at, body"


class SqliteLogSide:
    """The tables of ``storage/sql/log``; each call is durable when it returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._base = 0
        self._open: sqlite3.Connection | None = None

    @property
    def shown(self) -> str:
        """The file."""
        return str(self._path)

    @property
    def kind(self) -> dict[str, str]:
        """The settings for this log; the folder may have another name meanwhile."""
        return {"mq": "sqlite"}

    @property
    def place(self) -> tuple[str, ...]:
        """The file, whichever path was used."""
        return ("sqlite", str(self._path.resolve()))

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._open is not None
        return self._open

    async def open(self) -> None:
        """Open the file, if there is one."""
        if self._path.exists():
            self._connect()

    def _connect(self) -> None:
        if self._open is None:
            Database(None, self._path, "log").check()
            self._open = connect(self._path)

    async def in_use(self) -> str:
        """Return nothing: the lock of the folder prevents other use."""
        return ""

    async def waiting(self) -> int:
        """Return 0: there is no separate queue."""
        return 0

    async def found(self) -> list[str]:
        """Say what the file contains."""
        if self._open is None:
            return []
        tables = ("entries", "dead_letters", "identity")
        return [table for table in tables if self._holds(table)]

    def _holds(self, table: str) -> bool:
        (holds,) = self._connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()
        return bool(holds)

    async def begin(self, identity: Identity) -> None:
        """Create the file, and save the identity."""
        self._connect()
        self._base = identity.begins_after
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT OR REPLACE INTO identity (only_row, pool_id) VALUES (1, ?)",
            (identity.pool_id,),
        )
        connection.execute("DELETE FROM epochs")
        connection.executemany(
            "INSERT INTO epochs (number, epoch, begins_after) VALUES (?, ?, ?)",
            [(number, *epoch) for number, epoch in enumerate(identity.epochs)],
        )
        connection.execute("COMMIT")

    async def landed(self) -> AsyncIterator[Sequence[Entry]]:
        """Yield what was appended, in order, in pieces."""
        after = self._base
        while True:
            rows = self._connection.execute(
                "SELECT position, entry_id, appended_at, body FROM entries "
                "WHERE position > ? ORDER BY position LIMIT ?",
                (after, ENTRIES),
            ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield [Entry(place, name, at / 1000, body) for place, name, at, body in rows]

    async def append(self, entries: Sequence[Entry]) -> None:
        """Append entries with their ids and times, in one transaction."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        (last,) = connection.execute("SELECT coalesce(max(position), 0) FROM entries").fetchone()
        first = max(last, self._base) + 1
        connection.executemany(
            "INSERT INTO entries (position, entry_id, appended_at, body) VALUES (?, ?, ?, ?)",
            [
                (first + n, entry.entry_id, round(entry.appended_at * 1000), entry.body)
                for n, entry in enumerate(entries)
            ],
        )
        connection.execute("COMMIT")

    async def finish(self, acknowledged: Acknowledged) -> None:
        """Save how far the counting is, and which entries were dropped before."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT OR REPLACE INTO consumer_groups (name, position) VALUES (?, ?)",
            (_COUNTING, acknowledged.counted),
        )
        if acknowledged.trimmed:
            connection.execute(
                "INSERT OR REPLACE INTO trimmed (only_row, position) VALUES (1, ?)",
                (acknowledged.trimmed,),
            )
        connection.execute("COMMIT")

    async def dead_letters(self) -> AsyncIterator[DeadLetter]:
        """Yield the dead letters, in order."""
        cursor = self._connection.cursor().execute(f"SELECT {_DEAD} FROM dead_letters ORDER BY id")
        for row in cursor:
            yield DeadLetter(*row)

    async def bury(self, letters: AsyncIterator[DeadLetter]) -> None:
        """Replace all dead letters by these."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM dead_letters")
        async for letter in letters:
            connection.execute(
                f"INSERT INTO dead_letters ({_DEAD}) VALUES (?, ?, ?, ?, ?, ?, ?)", letter
            )
        connection.execute("COMMIT")

    async def close(self) -> None:
        """Close the file; an unfinished transaction is rolled back."""
        if self._open is not None:
            self._open.close()
            self._open = None


__all__ = ["SqliteLogSide"]
