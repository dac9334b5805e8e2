"""What the benchmarks say of what they found."""

from __future__ import annotations

import resource
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench.bus import Measured
from bench.load import Cost, Row
from bench.pair import column, shown
from bench.rooms import figures
from bench.run import ROWS
from bench.sessions import P99_MS, allow_files, problems


class SessionsTests(SynchronousTestCase):
    """K-96: ten thousand sessions on one process, and what would be wrong with them."""

    row = Row(10_000, rate=0.5)

    def found(self, *, p99: float = 49_000.0, **there: int) -> dict[str, Any]:
        return {
            "connections": {"ok": 10_000, "lost": 0, **there},
            "unanswered": 0,
            "latency_us": {"p99": p99},
        }

    def test_nothing_wrong(self) -> None:
        self.assertEqual(problems(self.found(), self.row, P99_MS), [])

    def test_each_fault(self) -> None:
        for found, text in (
            (self.found(ok=9_999), "1 sessions did not begin"),
            (self.found(lost=2), "2 sessions were lost"),
            ({**self.found(), "unanswered": 3}, "3 submissions had no answer"),
            (self.found(p99=50_100.0), "p99 is 50.1 ms, above 50 ms"),
        ):
            self.assertEqual(problems(found, self.row, P99_MS), [text])

    def test_open_files(self) -> None:
        """K-96: what the system allows is used, and what it does not is said."""
        limits = [(1024, 4096)]
        asked: list[tuple[int, int]] = []

        def allow(what: int, wanted: tuple[int, int]) -> None:
            if wanted[0] > 4096:
                raise ValueError("not allowed")
            asked.append(wanted)

        self.patch(resource, "getrlimit", lambda what: limits[0])
        self.patch(resource, "setrlimit", allow)
        self.assertEqual(allow_files(1000), "")
        self.assertEqual(asked, [])
        self.assertEqual(allow_files(4096), "")
        self.assertEqual(asked, [(4096, 4096)])
        self.assertIn("10200 open files are needed, and 4096 allowed", allow_files(10_200))


class PairTests(SynchronousTestCase):
    """issue 12: two checkouts are compared round by round."""

    def test_the_median_of_the_ratios(self) -> None:
        now = [Cost(2.0, 1.0, 9.0), Cost(3.0, 2.0, 8.0), Cost(50.0, 3.0, 7.0)]
        then = [Cost(1.0, 2.0, 9.0), Cost(2.0, 4.0, 4.0), Cost(100.0, 6.0, 7.0)]
        for name, start in (
            ("cpu", " 1.500  (0.50 to 2.00)    3.00 us against 2.00"),
            ("p50", " 0.500  (0.50 to 0.50)    2.00 us against 4.00"),
            ("p99", " 1.000  (1.00 to 2.00)    8.00 us against 7.00"),
        ):
            self.assertEqual(shown(*column(now, then, name), "us"), start)

    def test_the_rows(self) -> None:
        """issue 12: rejected submissions and an open loop are among what is compared."""
        self.assertEqual(ROWS["open"], Row(5000, rate=1.0))
        self.assertEqual(ROWS["rejected"]._replace(rejected=False), ROWS["1"])
        self.assertEqual(ROWS["open"].name, "5000 connections, 1/s each")
        self.assertEqual(ROWS["rejected"].name, "100 connections, 16 in flight, rejected")


class TwoCheckoutsTests(SynchronousTestCase):
    """Issue 13, accepted 4: what two checkouts are compared by, of the bus and of rooms."""

    def test_bus(self) -> None:
        costs = {"publisher": 50.0, "subscribers": 20.0, "server": 80.0}
        measured = Measured(1000.0, costs, 0.0)
        self.assertEqual((measured.server, measured.clients, measured.cost), (80.0, 70.0, 150.0))

    def test_rooms(self) -> None:
        """The same figure of another section is another figure; texts are none."""
        text = (
            "-- 10 rooms\n"
            "room         8.20 us and 502 bytes each\n"
            "message      1.50 us among few, 1.60 among all: ratio 1.07\n"
            "-- 20 rooms\n"
            "room         9.00 us and -8 bytes each\n"
            "collect      12.5 ms for a full garbage collection\n"
            "the longest garbage collection took 1.5 ms\n"
        )
        expected = {
            "10 rooms: room, us": 8.2,
            "10 rooms: room, bytes": 502.0,
            "10 rooms: message, us": 1.5,
            "20 rooms: room, us": 9.0,
            "20 rooms: room, bytes": -8.0,
            "20 rooms: collect, ms": 12.5,
        }
        self.assertEqual(figures(text), expected)
