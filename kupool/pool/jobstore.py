"""Job stores: in memory, and in the store's SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from kupool.pool import IJobStore, SavedJob, SavedJobs
from kupool.pool.jobs import id_of_clock
from kupool.storage.database import Database
from kupool.storage.in_place import InPlaceNumber

#: Suffix of the file with the reserved ids; the rest of its name is that of the store's file.
RESERVED = "-ids"

#: Ids that may have been used unsaved if the file with the reserved ids cannot be read.
UNREADABLE = 1000


@implementer(IJobStore)
class MemoryJobStore:
    """Keeps jobs in memory only; they are lost when the process ends.

    Ids start at the seconds since 2024. So they grow across restarts although none is saved, if
    there is at most one job a second. If the clock shows an earlier time, they start at 1 each
    time.
    """

    persistent = False

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self.saved: list[SavedJob] = []

    def load(self, limit: int) -> Deferred[SavedJobs]:
        """Return no jobs, and the seconds since 2024 as the highest id in use."""
        return succeed(SavedJobs((), id_of_clock(self._wall())))

    def save(self, job: SavedJob, reserved_until: int) -> Deferred[None]:
        """Keep a job in ``saved``."""
        self.saved.append(job)
        del self.saved[:-100]
        return succeed(None)

    def reserve(self, job_id: int) -> Deferred[None]:
        """Nothing to do."""
        return succeed(None)

    def forget(self, keep: int) -> Deferred[None]:
        """Nothing to do."""
        return succeed(None)


@implementer(IJobStore)
class SqliteJobStore:
    """Keeps jobs in the tables ``job_history`` and ``job_ids``.

    Reserved ids for a full disk are in a small file beside the database.
    """

    persistent = True

    _log = Logger()

    def __init__(self, database: Database) -> None:
        self._database = database
        path = database.path
        self._reserved = InPlaceNumber(path.with_name(path.name + RESERVED))

    def load(self, limit: int) -> Deferred[SavedJobs]:
        """Return the newest jobs by id, at most ``limit``, oldest first."""

        def query(connection: sqlite3.Connection) -> SavedJobs:
            rows = connection.execute(
                "SELECT job_id, server_nonce, created_at, log_position, boot_id, boot_seconds "
                "FROM job_history ORDER BY job_id DESC LIMIT ?",
                (limit,),
            ).fetchall()
            found = connection.execute("SELECT reserved_until FROM job_ids").fetchone()
            jobs = [SavedJob(*row) for row in reversed(rows)]
            return SavedJobs(jobs, self._read_reserved(found[0] if found else 0))

        return self._database.run(query)

    def _read_reserved(self, in_database: int) -> int:
        """Return the highest reserved id, and prepare the file for the next one; blocks."""
        file = self._reserved.path
        try:
            self._reserved.prepare()
            in_file = self._reserved.read()
            if in_file is None:
                self._log.warn("{file} is damaged, so some job ids are skipped", file=file)
                in_file = in_database + UNREADABLE
                self._reserved.write(in_file)
        except OSError as error:
            self._log.warn("{file} cannot be used: {why}", file=file, why=error.strerror)
            in_file = 0
        return max(in_database, in_file)

    def save(self, job: SavedJob, reserved_until: int) -> Deferred[None]:
        """Save a job, and the highest id that may be used before the next save."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO job_history (job_id, server_nonce, created_at, log_position, "
                "boot_id, boot_seconds) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job_id) DO UPDATE "
                "SET log_position = coalesce(job_history.log_position, excluded.log_position)",
                job,
            )
            connection.execute(
                "INSERT INTO job_ids (only_row, reserved_until) VALUES (1, ?) "
                "ON CONFLICT (only_row) DO UPDATE SET reserved_until = excluded.reserved_until",
                (reserved_until,),
            )

        return self._database.run(write)

    def reserve(self, job_id: int) -> Deferred[None]:
        """Reserve the ids up to this one; this works on a full disk too."""
        return self._database.run(lambda connection: self._reserved.write(job_id), alone=True)

    def forget(self, keep: int) -> Deferred[None]:
        """Delete all jobs but the newest ``keep`` by id."""

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM job_history WHERE job_id <= "
                "(SELECT job_id FROM job_history ORDER BY job_id DESC LIMIT 1 OFFSET ?)",
                (keep,),
            )

        return self._database.run(delete)
