"""Where jobs are kept between restarts: in memory, or in the store's SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from kupool.pool import IJobStore, SavedJob, SavedJobs
from kupool.storage.database import Database


@implementer(IJobStore)
class MemoryJobStore:
    """Keeps nothing beyond the process.

    Ids begin at the time of day, in milliseconds since the epoch, so that they grow
    across restarts although none is remembered: no job is made as often as that.
    """

    persistent = False

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self.saved: list[SavedJob] = []

    def load(self, since: float) -> Deferred[SavedJobs]:
        """Return no jobs, and ids below the time of day as given out."""
        return succeed(SavedJobs((), int(self._wall() * 1000)))

    def save(self, job: SavedJob, reserved_until: int) -> Deferred[None]:
        """Keep a job for whoever looks at ``saved``."""
        self.saved.append(job)
        del self.saved[:-100]
        return succeed(None)

    def forget(self, before: float) -> Deferred[None]:
        """Nothing to do."""
        return succeed(None)


@implementer(IJobStore)
class SqliteJobStore:
    """Keeps jobs in the tables ``job_history`` and ``job_ids``."""

    persistent = True

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, since: float) -> Deferred[SavedJobs]:
        """Return the jobs made at ``since`` or later, and always the newest."""

        def query(connection: sqlite3.Connection) -> SavedJobs:
            rows = connection.execute(
                "SELECT job_id, server_nonce, created_at FROM job_history WHERE created_at >= ? "
                "OR job_id = (SELECT max(job_id) FROM job_history) ORDER BY job_id",
                (since,),
            ).fetchall()
            reserved = connection.execute("SELECT reserved_until FROM job_ids").fetchone()
            return SavedJobs([SavedJob(*row) for row in rows], reserved[0] if reserved else 0)

        return self._database.run(query)

    def save(self, job: SavedJob, reserved_until: int) -> Deferred[None]:
        """Keep a job, and the highest id that may be given out before the next save."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO job_history (job_id, server_nonce, created_at) VALUES (?, ?, ?) "
                "ON CONFLICT (job_id) DO NOTHING",
                job,
            )
            connection.execute(
                "INSERT INTO job_ids (only_row, reserved_until) VALUES (1, ?) "
                "ON CONFLICT (only_row) DO UPDATE SET reserved_until = excluded.reserved_until",
                (reserved_until,),
            )

        return self._database.run(write)

    def forget(self, before: float) -> Deferred[None]:
        """Drop the jobs made before a time, but never the newest."""

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM job_history WHERE created_at < ? "
                "AND job_id < (SELECT max(job_id) FROM job_history)",
                (before,),
            )

        return self._database.run(delete)
