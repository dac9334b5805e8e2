"""The counts after a daemon that was killed, in small; the large run is by hand."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.storage.database import connect
from kupool.storage.migrations import migrate
from kupool.wire.batches import VERSION, Batch, encode_batch
from tools import kill9


class KillTests(SynchronousTestCase):
    """K-34, K-47, K-52, K-53: nothing is lost and nothing counts twice over ``kill -9``."""

    def test_small(self) -> None:
        """K-34, K-47, K-53: what clients were told is what is in the log and the counts."""
        report = kill9.run(clients=21, rate=10, kills=3, seed=20, interval="0.5s", longest=1.5)
        self.assertEqual([], report.differences.texts)
        self.assertEqual(0, report.differences.count)
        self.assertEqual(3, report.kills)
        self.assertGreaterEqual(report.books.reconnects, 3 * 21)
        self.assertGreater(report.in_table, 100)
        self.assertGreater(len(report.books.nonces), 3)


class SessionNameTests(SynchronousTestCase):
    """The clients of the run share users, and some are workers."""

    def test_names(self) -> None:
        names = [kill9.session_name(i) for i in range(200)]
        self.assertEqual({"u1", "u1.rig1", "u1.rig2"}, {n for n in names if n[:3] in ("u1", "u1.")})
        self.assertEqual(60, len(set(names)))


class ComparisonTests(SynchronousTestCase):
    """The comparison itself: it must see what is wrong."""

    def test_books(self) -> None:
        """K-34: a job that comes back with another nonce, or with a lower id, is seen."""
        books = kill9.Books()
        books.job(7, "aa")
        books.job(7, "aa")
        self.assertEqual(0, books.differences.count)
        books.job(7, "bb")
        self.assertEqual(1, books.differences.count)
        books.floor = books.newest
        books.job(6, "cc")
        self.assertEqual(2, books.differences.count)

    def found(self, told: list[kill9.Key], logged: list[kill9.Key], counts: dict[str, int]) -> int:
        """Compare what clients were told with a log and a table; returns the differences."""
        books = kill9.Books()
        books.true.update(told)
        killer = kill9.Killer(None, books, 0, 0, 0)  # type: ignore[arg-type]
        report = kill9.Report(killer, books, 0)
        names, jobs, nonces = (list(column) for column in zip(*logged, strict=True))
        body = encode_batch(Batch(VERSION, "b", 0, names, jobs, nonces))
        with tempfile.TemporaryDirectory() as folder:
            for schema in ("log", "store"):
                database = connect(Path(folder) / f"{schema}.sqlite")
                migrate(database, schema)
                if schema == "log":
                    database.execute("INSERT INTO entries VALUES (1, 'b', 0, ?)", (body,))
                else:
                    rows = [(user, "2026-01-01 00:00:00", n) for user, n in counts.items()]
                    database.executemany("INSERT INTO submissions VALUES (?, ?, ?)", rows)
                database.close()
            kill9.compare(Path(folder), report)
        return report.differences.count

    def test_equal(self) -> None:
        """K-53: what agrees is no difference."""
        both = [("u1", 1, "a"), ("u1", 1, "b"), ("u2", 1, "a")]
        self.assertEqual(0, self.found(both, both, {"u1": 2, "u2": 1}))

    def test_lost(self) -> None:
        """K-53: an answer of `true` that is not in the log is seen."""
        told = [("u1", 1, "a"), ("u1", 1, "b")]
        self.assertGreater(self.found(told, told[:1], {"u1": 1}), 0)

    def test_twice_in_the_log(self) -> None:
        """K-47: a nonce that is in the log twice is seen, on whichever session it came."""
        told = [("u1", 1, "a"), ("u1.rig1", 1, "a")]
        self.assertGreater(self.found(told[:1], [told[0], told[0]], {"u1": 1}), 0)
        self.assertGreater(self.found(told, told, {"u1": 2}), 0)

    def test_counted_wrong(self) -> None:
        """K-53: a count that is one too high or too low is seen."""
        told = [("u1", 1, "a"), ("u1", 1, "b")]
        self.assertGreater(self.found(told, told, {"u1": 3}), 0)
        self.assertGreater(self.found(told, told, {"u1": 1}), 0)
        self.assertGreater(self.found(told, told, {"u1": 1, "u2": 1}), 0)
