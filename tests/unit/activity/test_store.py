"""The file of the requests by minute."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from twisted.trial.unittest import TestCase

from kupool.activity.store import SCHEMA, NoMinutes, StoredMinutes
from kupool.storage.database import Database, DatabaseUnusable
from tests.unit.storage.test_database import the_reactor


class StoredMinutesTests(TestCase):
    """A-55: minutes are kept in a file, the old ones deleted."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def make(self) -> StoredMinutes:
        return StoredMinutes(Database(the_reactor(), self.path, SCHEMA))

    async def test_kept_over_a_restart(self) -> None:
        store = self.make()
        self.assertEqual(await store.load(0), [])
        await store.save([(60, b"[1]"), (120, b"[2]")], 0)
        await store.save([(120, b"[3]"), (180, b"[4]")], 60)
        await store.close()
        store = self.make()
        self.assertEqual(await store.load(0), [(120, "[3]"), (180, "[4]")])
        await store.close()
        store = self.make()
        self.assertEqual(await store.load(120), [(180, "[4]")])
        await store.close()

    async def test_a_file_that_is_damaged(self) -> None:
        """A-55: it is said, and does not end the process."""
        self.path.write_bytes(b"no database" * 1000)
        store = self.make()
        await self.assertFailure(store.load(0), DatabaseUnusable)
        await store.close()
        self.assertRaises(
            sqlite3.DatabaseError, sqlite3.connect(self.path).execute, "SELECT * FROM x"
        )

    async def test_nothing_is_kept_without_a_folder(self) -> None:
        store = NoMinutes()
        await store.save([(60, b"[1]")], 0)
        self.assertEqual(await store.load(0), [])
        await store.close()
