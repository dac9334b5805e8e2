"""Numbered SQL files."""

from __future__ import annotations

import sqlite3
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kupool.storage import migrations
from kupool.storage.migrations import SchemaTooNew, available, migrate, statements


def tables(connection: sqlite3.Connection) -> set[str]:
    return {
        name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
    }


class MigrateTests(SynchronousTestCase):
    """K-67: tables are made by themselves, in order, each migration once."""

    def setUp(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(self.connection.close)

    def versions(self) -> list[int]:
        return [v for (v,) in self.connection.execute("SELECT version FROM schema_version")]

    def use(self, *found: tuple[int, str]) -> None:
        patcher = mock.patch.object(migrations, "available", return_value=list(found))
        patcher.start()
        self.addCleanup(patcher.stop)

    def test_both_schemas(self) -> None:
        for schema, some in (
            ("log", {"entries", "consumer_groups", "dead_letters"}),
            ("store", {"submissions", "job_history", "applied_batches", "schema_version"}),
        ):
            connection = sqlite3.connect(":memory:", isolation_level=None)
            self.addCleanup(connection.close)
            migrate(connection, schema)
            migrate(connection, schema)
            self.assertLessEqual(some, tables(connection))
            numbers = [number for number, _ in available(schema)]
            self.assertEqual(numbers, list(range(1, len(numbers) + 1)))

    def test_table_that_is_something_else(self) -> None:
        """Issue 11, bad input: a table of counts with another key or other columns is named,
        and nothing is made beside it.
        """
        columns = "username VARCHAR(255), timestamp TIMESTAMP"
        key = "PRIMARY KEY (username, timestamp)"
        for made, line in (
            (f"id INTEGER PRIMARY KEY, {columns}, submission_count INT", "primary key (id)"),
            (f"{columns}, submission_count INT", "has no primary key"),
            (f"{columns}, count INT, {key}", "has no column submission_count"),
            (
                f"username VARCHAR(255), timestamp INTEGER, submission_count INT, {key}",
                "has a column timestamp of type INTEGER",
            ),
            (
                f"{columns}, submission_count INT, pool INT NOT NULL, {key}",
                "has a column pool that may not be empty",
            ),
        ):
            connection = sqlite3.connect(":memory:", isolation_level=None)
            self.addCleanup(connection.close)
            connection.execute(f"CREATE TABLE submissions ({made})")
            error = self.assertRaises(sqlite3.NotSupportedError, migrate, connection, "store")
            self.assertIn(line, str(error))
            self.assertIn("; expected is (username VARCHAR(255), timestamp", str(error))
            self.assertEqual(tables(connection), {"submissions"})

    def test_in_order_and_once(self) -> None:
        first = (1, "CREATE TABLE a (x INT);\nINSERT INTO a VALUES (1);\n")
        self.use(first)
        migrate(self.connection, "log")
        self.use(first, (2, "INSERT INTO a VALUES (2);\n"), (3, "INSERT INTO a VALUES (3);\n"))
        migrate(self.connection, "log")
        migrate(self.connection, "log")
        self.assertEqual(self.versions(), [1, 2, 3])
        rows = self.connection.execute("SELECT x FROM a").fetchall()
        self.assertEqual(rows, [(1,), (2,), (3,)])

    def test_a_failing_one_leaves_nothing(self) -> None:
        self.use((1, "CREATE TABLE a (x INT);\n"), (2, "CREATE TABLE b (x INT);\nNONSENSE;\n"))
        self.assertRaises(sqlite3.OperationalError, migrate, self.connection, "log")
        self.assertEqual(self.versions(), [1])
        self.assertNotIn("b", tables(self.connection))
        self.assertFalse(self.connection.in_transaction)

    def test_two_processes(self) -> None:
        """K-88: one that finds the work done meanwhile does not do it again."""
        path = self.mktemp()
        one = sqlite3.connect(path, isolation_level=None)
        two = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(one.close)
        self.addCleanup(two.close)

        def found(schema: str) -> list[tuple[int, str]]:
            # The other process migrates between this one's look and its turn.
            with mock.patch.object(migrations, "available", return_value=[only]):
                migrate(two, "log")
            return [only]

        only = (1, "CREATE TABLE a (x INT);\n")
        with mock.patch.object(migrations, "available", found):
            migrate(one, "log")
        self.assertEqual(one.execute("SELECT count(*) FROM schema_version").fetchone(), (1,))

    def test_too_new(self) -> None:
        """K-88: a newer version's database is refused, naming both versions."""
        migrate(self.connection, "log")
        self.connection.execute("INSERT INTO schema_version (version) VALUES (7)")
        with self.assertRaises(SchemaTooNew) as caught:
            migrate(self.connection, "log")
        newest = available("log")[-1][0]
        self.assertEqual(
            str(caught.exception),
            f"the log database has schema version 7, this version knows {newest}",
        )

    def test_statements(self) -> None:
        sql = (
            "-- a; b\nCREATE TABLE a (\n  x INT -- one;\n);\nINSERT INTO a VALUES (';');\n-- end\n"
        )
        found = statements(sql)
        self.assertEqual(len(found), 2)
        self.assertTrue(found[0].startswith("-- a; b\nCREATE"))
        self.assertRaises(ValueError, statements, "SELECT 1;\nSELECT 2\n")
