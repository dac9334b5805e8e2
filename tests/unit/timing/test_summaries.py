"""What happens often is said at once, and then added up."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.timing.summaries import Summaries


class SummaryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[tuple[str, int]] = []
        self.summaries: Summaries[str] = Summaries(
            self.clock, 60.0, lambda key, count: self.said.append((key, count))
        )

    def test_the_first_at_once_and_then_the_sum(self) -> None:
        self.assertEqual([self.summaries.note(key) for key in "aab"], [True, False, True])
        self.summaries.note("a", 5)
        self.assertEqual(self.said, [("a", 1), ("b", 1)])
        self.clock.advance(60)
        self.assertEqual(self.said[2:], [("a", 6)])
        self.assertEqual(("a" in self.summaries, "b" in self.summaries), (True, False))
        self.assertEqual(len(self.summaries), 1)

    def test_after_a_quiet_period_at_once_again(self) -> None:
        self.summaries.note("a")
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.summaries.note("a"))
        self.assertEqual(self.said, [("a", 1), ("a", 1)])

    def test_the_end(self) -> None:
        self.summaries.note("a")
        self.summaries.note("a")
        self.summaries.stop()
        self.assertEqual(self.said, [("a", 1), ("a", 1)])
        self.assertEqual(self.clock.getDelayedCalls(), [])
