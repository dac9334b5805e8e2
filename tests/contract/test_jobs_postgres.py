"""The contract of the job stores, for the one in PostgreSQL."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, gatherResults
from twisted.trial.unittest import TestCase

from kupool.pool.pgjobs import PostgresJobStore
from kupool.storage.postgres import DatabaseUnavailable, PostgresDatabase, PostgresSettings
from tests.contract.test_job_store import NOW, KeepingContract, job
from tests.servers.reactor import the_reactor
from tests.servers.services import postgres


class PostgresJobStoreTests(KeepingContract, TestCase):
    """K-34, K-74: the contract, for the store in PostgreSQL."""

    async def make_store(self) -> PostgresJobStore:
        self.dsn = postgres().new_database()
        return await self.reopen()

    async def reopen(self) -> PostgresJobStore:
        database = PostgresDatabase(the_reactor(), self.dsn)
        await database.open()
        self.addCleanup(database.close)
        return PostgresJobStore(database)

    async def test_reopen(self) -> None:
        """K-34: all of it outlives the process."""
        store = await self.make_store()
        await store.save(job(1, NOW + 0.123456789), 1001)
        again = await self.reopen()
        loaded = await again.load(100)
        self.assertEqual(
            (list(loaded.jobs), loaded.reserved_until), ([job(1, NOW + 0.123456789)], 1001)
        )

    async def test_saves_in_order(self) -> None:
        """K-34: an earlier reservation never comes after a later one, also where the later
        one could be written first.
        """
        await self.make_store()
        database = PostgresDatabase(the_reactor(), self.dsn, PostgresSettings(others=2))
        await database.open()
        self.addCleanup(database.close)
        store = PostgresJobStore(database)
        # Of two connections, the one that is free soon has the longer queue: the first
        # save goes to the other.
        busy = [database.query("SELECT pg_sleep(%s)", (seconds,)) for seconds in (0.1, 0.8, 0.1)]
        await gatherResults([store.save(job(1), 1001), store.save(job(2), 1002), *busy])
        self.assertEqual((await store.load(100)).reserved_until, 1002)

    async def test_not_waited_for(self) -> None:
        """K-35: a save that its caller gave up is done all the same, and in its turn."""
        store = await self.make_store()
        first, second = store.save(job(1), 1001), store.save(job(2), 1002)
        first.cancel()
        with self.assertRaises(CancelledError):
            await first
        await second
        loaded = await store.load(100)
        self.assertEqual(([j.job_id for j in loaded.jobs], loaded.reserved_until), ([1, 2], 1002))

    async def test_reserve(self) -> None:
        """K-35: where the database is away, nothing can be kept elsewhere."""
        store = await self.make_store()
        with self.assertRaises(DatabaseUnavailable) as caught:
            await store.reserve(7)
        self.assertEqual(
            str(caught.exception), "nothing can be saved while the database is unavailable"
        )
