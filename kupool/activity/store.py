"""Keeps the requests by minute in a file of the data folder, or nowhere."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed

from kupool.storage.database import Database, SqliteConnection

#: The name of the folder with the migrations of the file.
SCHEMA = "activity"


class NoMinutes:
    """Keeps nothing: the minutes are lost with the process."""

    def load(self, after: int) -> Deferred[list[tuple[int, str]]]:
        """Return nothing."""
        return succeed([])

    def save(self, rows: Sequence[tuple[int, bytes]], until: int) -> Deferred[None]:
        """Keep nothing."""
        return succeed(None)

    def close(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)


class StoredMinutes:
    """Keeps the minutes in an SQLite file.

    They need not be on the disk at once: with the power of the machine the last ones may be lost.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._opened = False

    def load(self, after: int) -> Deferred[list[tuple[int, str]]]:
        """Open the file; fires with the minutes after a time, in seconds since the epoch, and
        their counts.
        """
        return Deferred.fromCoroutine(self._load(after))

    async def _load(self, after: int) -> list[tuple[int, str]]:
        await self._database.open()
        self._opened = True

        def read(connection: SqliteConnection) -> list[tuple[int, str]]:
            rows = connection.execute(
                "SELECT minute, counts FROM request_minutes WHERE minute > ?", (after,)
            )
            return [(int(minute), str(counts)) for minute, counts in rows.fetchall()]

        return await self._database.run(read, durable=False)

    def save(self, rows: Sequence[tuple[int, bytes]], until: int) -> Deferred[None]:
        """Write minutes with their counts, and delete those up to a time."""

        def write(connection: SqliteConnection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO request_minutes (minute, counts) VALUES (?, ?)",
                [(minute, text.decode()) for minute, text in rows],
            )
            connection.execute("DELETE FROM request_minutes WHERE minute <= ?", (until,))

        return self._database.run(write, durable=False)

    def close(self) -> Deferred[None]:
        """Finish what is queued, and close the file."""
        return self._database.close()


__all__ = ["SCHEMA", "NoMinutes", "StoredMinutes"]
