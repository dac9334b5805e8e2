"""A daemon that is killed while a durable channel is used; fifty kills are a command."""

from __future__ import annotations

import importlib.util
import random
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest, SynchronousTestCase

if TYPE_CHECKING:
    from tools.live_kills import LiveKills


class _LiveKillsCase(SynchronousTestCase):
    def setUp(self) -> None:
        if importlib.util.find_spec("centrifuge") is None:
            raise SkipTest("needs the Python package centrifuge-python: pip install -e '.[test]'")


class LiveKillsTests(_LiveKillsCase):
    """W-55, W-57, W-75, accepted 5: over ``kill -9``, everything comes once and in order."""

    def test_a_few_kills(self) -> None:
        from tools.live_kills import PUBLISHERS, run

        found = run(3, 0.5, random.Random(3))
        self.assertEqual(found.problems(), [])
        self.assertEqual(len(found.published), 3 * PUBLISHERS)
        self.assertTrue(all(each.acknowledged for each in found.published))
        for reading in found.readings:
            self.assertGreaterEqual(reading.recovered, 1, reading.name)
            self.assertEqual(reading.got, found.log)


class LiveKillsComparisonTests(_LiveKillsCase):
    """The comparison itself: it must see what is wrong."""

    def setUp(self) -> None:
        super().setUp()
        from tools.live_kills import LiveKills
        from tools.live_kills_clients import Published, Reading, Seen

        self.seen = Seen
        self.found: LiveKills = LiveKills()
        self.published, self.sdk = Published("p"), Published("sdk")
        self.published.acknowledged = {0: 1, 1: 3}
        self.sdk.acknowledged, self.sdk.unknown = {0: 0}, {1, 2}
        self.reading = Reading("r")
        self.found.published = [self.published, self.sdk]
        self.found.readings = [self.reading]
        self.log(("p", 0), ("sdk", 0), ("p", 1), ("sdk", 2))

    def log(self, *publications: tuple[str, int]) -> None:
        """Let the log and the reader have these."""
        self.found.log = [self.seen(n, *each) for n, each in enumerate(publications, 1)]
        self.reading.got = list(self.found.log)

    def check(self, *expected: str) -> None:
        self.assertEqual(self.found.problems(), list(expected))

    def test_nothing(self) -> None:
        """What had no answer may be there or not."""
        self.check()

    def test_a_lost_one(self) -> None:
        self.log(("p", 0), ("sdk", 0))
        self.check("p: acknowledged, and lost: 1, with offset 3")

    def test_one_that_is_there_twice(self) -> None:
        self.log(("p", 0), ("sdk", 0), ("p", 1), ("sdk", 2), ("sdk", 2))
        self.check("sdk: 2 is there 2 times")

    def test_one_at_another_offset(self) -> None:
        self.log(("p", 0), ("p", 1), ("sdk", 0))
        self.check("p: 1 is at offset 2, not 3")

    def test_wrong_order(self) -> None:
        self.published.acknowledged = {0: 2, 1: 1}
        self.log(("p", 1), ("p", 0), ("sdk", 0))
        self.check("p: its publications are not in the order in which they were sent")

    def test_strange_ones(self) -> None:
        self.log(("p", 0), ("sdk", 0), ("p", 1), ("p", 7), ("q", 0))
        self.check("the log has something of q", "p: 7 was not published")

    def test_a_gap_in_the_log(self) -> None:
        self.published.acknowledged = {0: 1, 1: 4}
        self.found.log[2:] = [self.seen(4, "p", 1)]
        self.reading.got = list(self.found.log)
        self.check("the offsets of the log have gaps")

    def test_readers(self) -> None:
        """One that misses something, gets it twice or otherwise, or out of order."""
        log = self.found.log
        strange = self.seen(9, "p", 9)
        for got, expected in (
            (log[:-1], "r: missed: 1, such as (4, 'sdk', 2)"),
            ([*log, log[1]], "r: got twice: 1, such as (2, 'sdk', 0)"),
            ([*log, strange], "r: is not in the log: 1, such as (9, 'p', 9)"),
            (log[::-1], "r: not in the order of offsets"),
        ):
            self.reading.got = got
            self.check(expected)

    def test_a_reader_that_could_not_recover(self) -> None:
        self.reading.subscribed(False, False)
        self.reading.subscribed(True, True)
        self.check()
        self.reading.subscribed(True, False)
        self.check("r: not recovered, behind offset 4")
        self.assertEqual((self.reading.begun, self.reading.recovered), (3, 1))
