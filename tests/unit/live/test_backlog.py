"""Whose turn it is among the subscriptions of one slow client."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.backlog import ClientBacklog
from kupool.timing.timers import Timers
from tests.fakes.peers import Bench


class Entrant:
    """A subscription with so many messages of a priority."""

    def __init__(self, name: str, count: int, priority: int, sent: list[str]) -> None:
        self.name = name
        self.count = count
        self.priority = priority
        self.rests_until = 0.0
        self._sent = sent

    @property
    def urgency(self) -> int:
        return self.priority if self.count else 0

    def resting_until(self, now: float) -> float:
        return max(now, self.rests_until)

    def send_next(self) -> None:
        self.count -= 1
        self._sent.append(self.name)


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()
        self.connection, self.transport = self.bench.connect()
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.backlog = ClientBacklog(self.connection, self.timers)
        self.sent: list[str] = []

    def entrant(self, name: str, count: int = 1, priority: int = 1) -> Entrant:
        entrant = Entrant(name, count, priority, self.sent)
        self.backlog.enter(entrant)
        return entrant

    def test_nothing_before_there_is_space(self) -> None:
        """W-16."""
        self.connection.pauseProducing()
        entrant = self.entrant("a", 2)
        self.backlog.pump()
        self.assertEqual((self.sent, entrant in self.backlog), ([], True))
        self.connection.resumeProducing()
        self.assertEqual((self.sent, entrant in self.backlog), (["a", "a"], False))
        self.connection.pauseProducing()
        self.connection.resumeProducing()
        self.assertEqual(self.sent, ["a", "a"])

    def test_emergencies_first_and_nobody_starves(self) -> None:
        """W-21, W-64: of 21 turns, 16, 4 and 1."""
        for name, priority in (("n", 1), ("h", 2), ("e", 3)):
            self.entrant(name, 100, priority)
        self.backlog.pump()
        self.assertEqual(self.sent[:42], [*"e" * 16, *"h" * 4, "n"] * 2)
        self.assertEqual(len(self.sent), 300)

    def test_equals_take_turns(self) -> None:
        for name in "ab":
            self.entrant(name, 3)
        self.backlog.pump()
        self.assertEqual(self.sent, list("ababab"))

    def test_something_urgent_comes_to_one_that_waits(self) -> None:
        self.connection.pauseProducing()
        self.entrant("a", 1)
        late = self.entrant("b", 1)
        late.priority = 3
        self.backlog.enter(late)
        self.connection.resumeProducing()
        self.assertEqual(self.sent, ["b", "a"])

    def test_one_that_rests_holds_nobody_up(self) -> None:
        resting = self.entrant("r", 2)
        resting.rests_until = 2.0
        self.entrant("a", 2)
        self.backlog.pump()
        self.assertEqual((self.sent, len(self.timers)), (["a", "a"], 1))
        self.clock.advance(2.1)
        self.assertEqual((self.sent, len(self.timers)), (["a", "a", "r", "r"], 0))

    def test_one_that_leaves(self) -> None:
        self.connection.pauseProducing()
        gone, resting = self.entrant("a"), self.entrant("b")
        self.backlog.leave(gone)
        resting.rests_until = 5.0
        self.connection.resumeProducing()
        self.assertEqual((self.sent, len(self.timers)), ([], 1))
        self.backlog.leave(resting)
        self.assertEqual((len(self.timers), resting in self.backlog), (0, False))

    def test_the_end_of_the_connection(self) -> None:
        """W-12: nothing is left."""
        self.connection.pauseProducing()
        entrant = self.entrant("a")
        self.connection.abort()
        self.backlog.pump()
        self.assertEqual((self.sent, entrant in self.backlog), ([], False))
        self.assertEqual(len(self.timers), 0)
