"""The counts after a daemon that was killed, in small; the large run is by hand."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.faults import kill9


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
