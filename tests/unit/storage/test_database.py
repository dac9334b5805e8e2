"""The thread that owns a SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from kupool.storage.database import Database, DatabaseClosed, DatabaseUnusable
from kupool.storage.migrations import SchemaTooNew


def the_reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def put(name: str, position: int = 0) -> Any:
    """Work that keeps a row."""

    def work(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO consumer_groups VALUES (?, ?)", (name, position))
        return name

    return work


def names(connection: sqlite3.Connection) -> list[str]:
    return [n for (n,) in connection.execute("SELECT name FROM consumer_groups ORDER BY rowid")]


class DatabaseCase(TestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    async def database(self) -> Database:
        database = Database(the_reactor(), self.path, "log")
        await database.open()
        self.addCleanup(database.close)
        return database

    async def blocked(self, database: Database) -> threading.Event:
        """Keep the thread busy until the event is set, so that work gathers."""
        go, entered = threading.Event(), Deferred()
        self.addCleanup(go.set)

        def work(connection: sqlite3.Connection) -> None:
            the_reactor().callFromThread(entered.callback, None)
            go.wait(10)

        self.blocker = database.run(work)
        await entered
        return go


class WorkTests(DatabaseCase):
    """K-52, K-71: many share one transaction, and each is answered by itself."""

    async def test_results(self) -> None:
        database = await self.database()
        self.assertEqual(await database.run(put("a")), "a")
        self.assertEqual(await database.run(names), ["a"])

    async def test_runs_in_its_own_thread(self) -> None:
        """K-36: nothing of it is on the reactor; answers are."""
        database = await self.database()
        ident = await database.run(lambda connection: threading.get_ident())
        self.assertNotEqual(ident, threading.get_ident())
        fired = database.run(lambda connection: None).addCallback(lambda _: threading.get_ident())
        self.assertEqual(await fired, threading.get_ident())

    async def trace(self, database: Database) -> list[str]:
        statements: list[str] = []
        await database.run(lambda c: c.set_trace_callback(statements.append), alone=True)
        return statements

    async def test_group_commit(self) -> None:
        """K-52: what gathers while one transaction is written goes into the next whole."""
        database = await self.database()
        statements = await self.trace(database)
        go = await self.blocked(database)
        waiting = [database.run(put(f"n{n}")) for n in range(200)]
        go.set()
        results = await gatherResults(waiting)
        self.assertEqual(results, [f"n{n}" for n in range(200)])
        self.assertEqual([s for s in statements if s.startswith("BEGIN")], ["BEGIN IMMEDIATE"] * 2)
        self.assertEqual(await database.run(names), results)
        await self.blocker

    async def test_alone(self) -> None:
        """Work that must be alone shares its transaction with none, before or after."""
        database = await self.database()
        statements = await self.trace(database)
        go = await self.blocked(database)
        waiting = [
            database.run(put("a")),
            database.run(put("b"), alone=True),
            database.run(put("c"), alone=True),
            database.run(put("d")),
            database.run(put("e")),
        ]
        go.set()
        await gatherResults([*waiting, self.blocker])
        groups = "\n".join(statements).split("BEGIN IMMEDIATE")[2:]
        self.assertEqual([g.count("INSERT") for g in groups], [1, 1, 1, 2])
        self.assertEqual(await database.run(names), list("abcde"))

    async def test_one_failure_takes_nobody_down(self) -> None:
        """K-52: work that fails fails alone; what it did is undone."""
        database = await self.database()
        go = await self.blocked(database)

        def bad(connection: sqlite3.Connection) -> None:
            put("half")(connection)
            raise KeyError("bad")

        waiting = [
            database.run(put("a")),
            database.run(bad),
            database.run(put("a")),  # breaks the primary key
            database.run(put("b")),
        ]
        go.set()
        await self.blocker
        self.assertEqual(await waiting[0], "a")
        await self.assertFailure(waiting[1], KeyError)
        await self.assertFailure(waiting[2], sqlite3.IntegrityError)
        self.assertEqual(await waiting[3], "b")
        self.assertEqual(await database.run(names), ["a", "b"])

    async def test_full_disk_concerns_all(self) -> None:
        """K-52: on a full disk the whole group is refused, and nothing of it remains;
        with space again, all works.
        """
        database = await self.database()
        pages = await database.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await database.run(lambda c: c.execute(f"PRAGMA max_page_count={pages + 1}").fetchone())
        go = await self.blocked(database)
        waiting = [
            database.run(put("a")),
            database.run(put("x" * 50_000)),
            database.run(put("b")),
        ]
        go.set()
        await self.blocker
        for refused in waiting:
            error = await self.assertFailure(refused, DatabaseUnusable)
            self.assertEqual(error.__cause__.sqlite_errorcode, sqlite3.SQLITE_FULL)
        self.assertEqual(await database.run(names), [])
        await database.run(lambda c: c.execute("PRAGMA max_page_count=100000").fetchone())
        self.assertEqual(len(await database.run(put("x" * 50_000))), 50_000)

    async def test_cancelled(self) -> None:
        """Who does not wait any more disturbs nobody."""
        database = await self.database()
        go = await self.blocked(database)
        one, two = database.run(put("a")), database.run(put("b"))
        one.cancel()
        go.set()
        await self.blocker
        await self.assertFailure(one, Exception)
        self.assertEqual(await two, "b")
        self.assertEqual(await database.run(names), ["a", "b"])

    async def test_durable(self) -> None:
        """K-52: what was answered is in the file for whoever opens it next."""
        database = await self.database()
        await database.run(put("a"))
        other = sqlite3.connect(self.path)
        self.addCleanup(other.close)
        self.assertEqual(names(other), ["a"])


class OpenTests(DatabaseCase):
    """K-88: a file that cannot be used is named in a clear error."""

    async def test_missing_folder(self) -> None:
        database = Database(the_reactor(), self.path / "no" / "where.sqlite", "log")
        error = await self.assertFailure(database.open(), DatabaseUnusable)
        self.assertIn("where.sqlite", str(error))
        self.assertIn("unable to open", str(error))
        await database.close()

    async def test_not_a_database(self) -> None:
        self.path.write_bytes(b"this is no database, but it is long enough to be looked at" * 20)
        error = await self.assertFailure(
            Database(the_reactor(), self.path, "log").open(), DatabaseUnusable
        )
        self.assertIn(str(self.path), str(error))
        self.assertIn("not a database", str(error))

    async def test_too_new(self) -> None:
        """K-88: a file of a newer version is left alone, and both versions are named."""
        database = await self.database()
        await database.run(lambda c: c.execute("INSERT INTO schema_version(version) VALUES (99)"))
        await database.close()
        error = await self.assertFailure(
            Database(the_reactor(), self.path, "log").open(), SchemaTooNew
        )
        self.assertIn("99", str(error))
        self.assertIn("log", str(error))

    async def test_work_before_it_opens(self) -> None:
        database = Database(the_reactor(), self.path, "log")
        opened = database.open()
        self.addCleanup(database.close)
        self.assertEqual(await database.run(put("a")), "a")
        await opened

    async def test_work_for_one_that_does_not_open(self) -> None:
        """Nobody waits for ever for a file that could not be opened."""
        database = Database(the_reactor(), self.path / "x" / "y", "log")
        opened = database.open()
        work = database.run(put("a"))
        closed = database.close()
        await self.assertFailure(opened, DatabaseUnusable)
        await self.assertFailure(work, DatabaseClosed)
        await closed
        await self.assertFailure(database.run(put("a")), DatabaseClosed)


class CloseTests(DatabaseCase):
    """K-85: what was begun is finished."""

    async def test_finishes_what_is_queued(self) -> None:
        database = await self.database()
        go = await self.blocked(database)
        waiting = [database.run(put(f"n{n}"), alone=n % 7 == 0) for n in range(50)]
        closed = [database.close(), database.close()]
        await self.assertFailure(database.run(put("late")), DatabaseClosed)
        go.set()
        await gatherResults([*waiting, *closed, self.blocker])
        await database.close()
        other = sqlite3.connect(self.path)
        self.addCleanup(other.close)
        self.assertEqual(names(other), [f"n{n}" for n in range(50)])

    async def test_never_opened(self) -> None:
        database = Database(the_reactor(), self.path, "log")
        await self.assertFailure(database.run(put("a")), DatabaseClosed)
        await database.close()
        await database.close()
