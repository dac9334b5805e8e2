"""The job store in PostgreSQL, in the same database as the counts."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, fail
from zope.interface import implementer

from kupool.pool import IJobStore, SavedJob, SavedJobs
from kupool.storage.postgres import DatabaseUnavailable, PostgresDatabase


@implementer(IJobStore)
class PostgresJobStore:
    """Keeps jobs in the tables ``job_history`` and ``job_ids``.

    The store of counts opens and closes the database. Calls fail with
    :class:`kupool.storage.postgres.DatabaseUnavailable` while it is unavailable.
    """

    persistent = True

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        #: One save at a time, even if the caller no longer waits for the first one: an older
        #: reservation must not follow a newer one.
        self._order = DeferredLock()

    def load(self, limit: int) -> Deferred[SavedJobs]:
        """Return the newest jobs by id, at most ``limit``, oldest first."""

        async def work(cursor: Any) -> SavedJobs:
            await cursor.execute(
                "SELECT job_id, server_nonce, created_at, log_position, boot_id, boot_seconds "
                "FROM job_history ORDER BY job_id DESC LIMIT %s",
                (limit,),
            )
            jobs = [SavedJob(*row) for row in reversed(cursor.fetchall())]
            await cursor.execute("SELECT reserved_until FROM job_ids")
            reserved = cursor.fetchone()
            return SavedJobs(jobs, reserved[0] if reserved else 0)

        return self._database.run(work)

    def save(self, job: SavedJob, reserved_until: int) -> Deferred[None]:
        """Save a job, and the highest id that may be used before the next save."""

        async def work(cursor: Any) -> None:
            await cursor.execute(
                "INSERT INTO job_history (job_id, server_nonce, created_at, log_position, "
                "boot_id, boot_seconds) VALUES (%s, %s, %s, %s, %s, %s) "
                "ON CONFLICT (job_id) DO UPDATE "
                "SET log_position = coalesce(job_history.log_position, excluded.log_position)",
                job,
            )
            await cursor.execute(
                "INSERT INTO job_ids (only_row, reserved_until) VALUES (1, %s) "
                "ON CONFLICT (only_row) DO UPDATE SET reserved_until = excluded.reserved_until",
                (reserved_until,),
            )

        saved: Deferred[None] = Deferred()
        self._order.run(self._database.write, work).addBoth(saved.callback)
        return saved

    def reserve(self, job_id: int) -> Deferred[None]:
        """Fail: if a job cannot be saved here, an id cannot be reserved here either."""
        return fail(DatabaseUnavailable("nothing can be saved while the database is unavailable"))

    def forget(self, keep: int) -> Deferred[None]:
        """Delete all jobs but the newest ``keep`` by id."""

        async def work(cursor: Any) -> None:
            await cursor.execute(
                "DELETE FROM job_history WHERE job_id <= "
                "(SELECT job_id FROM job_history ORDER BY job_id DESC LIMIT 1 OFFSET %s)",
                (keep,),
            )

        return self._database.write(work)
