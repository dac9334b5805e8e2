"""Jobs kept in the store's PostgreSQL database."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from zope.interface import implementer

from kupool.pool import IJobStore, SavedJob, SavedJobs
from kupool.storage.postgres import PostgresDatabase


@implementer(IJobStore)
class PostgresJobStore:
    """Keeps jobs in the tables ``job_history`` and ``job_ids``.

    Whoever keeps the counts there opens and closes the database. Calls fail with
    :class:`kupool.storage.postgres.DatabaseUnavailable` while it is away.
    """

    persistent = True

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        #: One save after the other, also when the caller has ceased to wait for the first:
        #: an older reservation must not come after a newer one.
        self._order = DeferredLock()

    def load(self, since: float) -> Deferred[SavedJobs]:
        """Return the jobs made at ``since`` or later, and always the newest."""

        async def work(cursor: Any) -> SavedJobs:
            await cursor.execute(
                "SELECT job_id, server_nonce, created_at FROM job_history WHERE created_at >= %s "
                "OR job_id = (SELECT max(job_id) FROM job_history) ORDER BY job_id",
                (since,),
            )
            jobs = [SavedJob(*row) for row in cursor.fetchall()]
            await cursor.execute("SELECT reserved_until FROM job_ids")
            reserved = cursor.fetchone()
            return SavedJobs(jobs, reserved[0] if reserved else 0)

        return self._database.run(work)

    def save(self, job: SavedJob, reserved_until: int) -> Deferred[None]:
        """Keep a job, and the highest id that may be given out before the next save."""

        async def work(cursor: Any) -> None:
            await cursor.execute(
                "INSERT INTO job_history (job_id, server_nonce, created_at) VALUES (%s, %s, %s) "
                "ON CONFLICT (job_id) DO NOTHING",
                job,
            )
            await cursor.execute(
                "INSERT INTO job_ids (only_row, reserved_until) VALUES (1, %s) "
                "ON CONFLICT (only_row) DO UPDATE SET reserved_until = excluded.reserved_until",
                (reserved_until,),
            )

        saved: Deferred[None] = Deferred()
        self._order.run(self._database.run, work).addBoth(saved.callback)
        return saved

    def forget(self, before: float) -> Deferred[None]:
        """Drop the jobs made before a time, but never the newest."""

        async def work(cursor: Any) -> None:
            await cursor.execute(
                "DELETE FROM job_history WHERE created_at < %s "
                "AND job_id < (SELECT max(job_id) FROM job_history)",
                (before,),
            )

        return self._database.run(work)
