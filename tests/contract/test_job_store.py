"""What every job store does, whatever engine it has."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from kupool.pool import IJobStore, SavedJob
from kupool.pool.jobstore import MemoryJobStore, SqliteJobStore
from kupool.storage.clocks import YEAR_2024
from kupool.storage.database import Database, DatabaseUnusable
from tests.fakes.pool_fixture import SteeredJobStore
from tests.servers.reactor import the_reactor

NOW = 1_800_000_000.0


def job(job_id: int, created_at: float = NOW, server_nonce: str = "") -> SavedJob:
    nonce = server_nonce or f"{job_id:032x}"
    return SavedJob(job_id, nonce, created_at, 10 * job_id, "boot", 0.5 + job_id)


class JobStoreContract:
    """K-34: the suite; mixed into a TestCase by each engine."""

    async def make_store(self) -> Any:
        raise NotImplementedError

    async def test_interface(self) -> None:
        store = await self.make_store()
        verifyObject(IJobStore, store)

    async def test_empty(self) -> None:
        """K-34: without a last run there are no jobs."""
        store = await self.make_store()
        loaded = await store.load(100)
        self.assertEqual(list(loaded.jobs), [])  # type: ignore[attr-defined]
        self.assertGreaterEqual(loaded.reserved_until, 0)  # type: ignore[attr-defined]

    async def test_forget_nothing(self) -> None:
        store = await self.make_store()
        await store.forget(10)


class KeepingContract(JobStoreContract):
    """K-34: and what a store does that outlives the process."""

    async def test_no_ids_are_reserved_at_first(self) -> None:
        """K-35: the ids of a new store begin at the beginning."""
        store = await self.make_store()
        self.assertEqual((await store.load(100)).reserved_until, 0)  # type: ignore[attr-defined]

    async def test_load(self) -> None:
        """K-34: the newest jobs come back by id, oldest first, whenever they were made."""
        store = await self.make_store()
        self.assertTrue(store.persistent)  # type: ignore[attr-defined]
        jobs = [job(n, NOW - 1e6 * n) for n in range(1, 6)]
        for made in jobs:
            await store.save(made, made.job_id + 1)
        loaded = await store.load(3)
        self.assertEqual(list(loaded.jobs), jobs[2:])  # type: ignore[attr-defined]
        self.assertEqual(loaded.reserved_until, 6)  # type: ignore[attr-defined]
        loaded = await store.load(100)
        self.assertEqual(list(loaded.jobs), jobs)  # type: ignore[attr-defined]

    async def test_what_is_not_known(self) -> None:
        """K-34: a job whose place and boot nobody knew comes back without them."""
        store = await self.make_store()
        await store.save(SavedJob(1, "aa", NOW), 2)
        loaded = await store.load(100)
        self.assertEqual(list(loaded.jobs), [SavedJob(1, "aa", NOW)])  # type: ignore[attr-defined]
        for position in (7, 9):  # once it is known, it stays
            await store.save(SavedJob(1, "bb", NOW + 1, position), 2)
        loaded = await store.load(100)
        self.assertEqual(list(loaded.jobs), [SavedJob(1, "aa", NOW, 7)])  # type: ignore[attr-defined]

    async def test_save_again(self) -> None:
        """K-34: a job keeps the nonce that it was first saved with."""
        store = await self.make_store()
        await store.save(job(1, NOW, "aa"), 1001)
        await store.save(job(1, NOW + 5, "bb"), 1)
        loaded = await store.load(100)
        self.assertEqual(list(loaded.jobs), [job(1, NOW, "aa")])  # type: ignore[attr-defined]
        self.assertEqual(loaded.reserved_until, 1)  # type: ignore[attr-defined]

    async def test_forget(self) -> None:
        """K-29: the oldest jobs by id are dropped, whenever they were made."""
        store = await self.make_store()
        for n in range(1, 6):
            await store.save(job(n, NOW - 30 * n), 1000)
        await store.forget(3)
        self.assertEqual(
            [j.job_id for j in (await store.load(100)).jobs],  # type: ignore[attr-defined]
            [3, 4, 5],
        )
        await store.forget(10)
        self.assertEqual(
            [j.job_id for j in (await store.load(100)).jobs],  # type: ignore[attr-defined]
            [3, 4, 5],
        )

    async def test_large_ids(self) -> None:
        store = await self.make_store()
        await store.save(job(2**53), 2**62)
        loaded = await store.load(100)
        self.assertEqual(loaded.jobs[0].job_id, 2**53)  # type: ignore[attr-defined]
        self.assertEqual(loaded.reserved_until, 2**62)  # type: ignore[attr-defined]


class MemoryJobStoreTests(JobStoreContract, TestCase):
    """The contract, for the store that keeps nothing."""

    async def make_store(self) -> MemoryJobStore:
        return MemoryJobStore(lambda: NOW)

    async def test_ids_grow_across_restarts(self) -> None:
        """K-34: ids begin at the seconds since 2024, so that a later run's are above."""
        now = NOW
        store = MemoryJobStore(lambda: now)
        first = (await store.load(100)).reserved_until
        self.assertEqual(first, int(NOW - YEAR_2024))
        await store.save(job(first + 1), first + 2)
        now += 60.0
        again = await MemoryJobStore(lambda: now).load(100)
        self.assertGreater(again.reserved_until, first + 2)

    async def test_a_wrong_clock(self) -> None:
        """Issue 11: ids stay below 2^31, whatever the wall clock shows."""
        for wrong in (0.0, YEAR_2024 - 1, 4_070_908_800.0, 1e12):
            store = MemoryJobStore(lambda wrong=wrong: wrong)  # type: ignore[misc]
            self.assertEqual((await store.load(100)).reserved_until, 0)

    async def test_bounded(self) -> None:
        store = MemoryJobStore(lambda: NOW)
        for n in range(1000):
            await store.save(job(n), n)
        self.assertEqual([saved.job_id for saved in store.saved], list(range(900, 1000)))

    async def test_not_persistent(self) -> None:
        self.assertFalse((await self.make_store()).persistent)


class SqliteJobStoreTests(KeepingContract, TestCase):
    """The contract, for the store in a SQLite file."""

    async def make_store(self) -> SqliteJobStore:
        self.path = Path(self.mktemp())
        return await self.reopen()

    async def reopen(self) -> SqliteJobStore:
        self.database = Database(the_reactor(), self.path, "store")
        await self.database.open()
        self.addCleanup(self.database.close)
        return SqliteJobStore(self.database)

    async def test_reopen(self) -> None:
        """K-34: all of it outlives the process."""
        store = await self.make_store()
        await store.save(job(1), 1001)
        again = await self.reopen()
        loaded = await again.load(100)
        self.assertEqual((list(loaded.jobs), loaded.reserved_until), ([job(1)], 1001))

    async def test_reserve(self) -> None:
        """K-35: ids that are reserved by themselves count like the others."""
        store = await self.make_store()
        await store.load(100)
        await store.save(job(1), 2)
        await store.reserve(7)
        again = await self.reopen()
        self.assertEqual((await again.load(100)).reserved_until, 7)
        await again.save(job(9), 10)
        self.assertEqual((await again.load(100)).reserved_until, 10)

    async def test_reserve_on_a_full_disk(self) -> None:
        """K-35: an id is reserved although the save before it fails."""
        store = await self.make_store()
        await store.load(100)
        run, gate = self.database.run, Event()
        await run(lambda connection: connection.execute("PRAGMA max_page_count = 1") and None)
        first = run(lambda connection: gate.wait(10), alone=True)
        save, reserved = store.save(job(1, server_nonce="x" * 100_000), 2), store.reserve(7)
        gate.set()
        await first
        with self.assertRaises(DatabaseUnusable):
            await save
        await reserved
        self.assertEqual((await store.load(100)).reserved_until, 7)

    async def test_a_reservation_that_cannot_be_used(self) -> None:
        """K-35: the database goes on without it, and the log says so."""
        self.path = Path(self.mktemp())
        file = self.path.with_name(self.path.name + "-ids")
        file.mkdir()
        with capturedLogs() as events:
            store = await self.reopen()
            self.assertEqual((await store.load(100)).reserved_until, 0)
        lines = [formatEvent(event) for event in events]
        self.assertIn(f"{file} cannot be used: Is a directory", lines)

    async def test_a_damaged_reservation(self) -> None:
        """K-34: where nobody knows how many ids were given out, many are left out."""
        store = await self.make_store()
        await store.load(100)
        await store.save(job(1), 2)
        self.path.with_name(self.path.name + "-ids").write_bytes(b"?" * 4096)
        for damaged in (True, False):  # it is written anew
            with capturedLogs() as events:
                again = await self.reopen()
                self.assertEqual((await again.load(100)).reserved_until, 1002)
            lines = [str(formatEvent(event)) for event in events]
            self.assertEqual(any("is damaged" in line for line in lines), damaged)


class SteeredJobStoreTests(KeepingContract, TestCase):
    """The contract, for the store that other tests are made with."""

    async def make_store(self) -> SteeredJobStore:
        return SteeredJobStore()
