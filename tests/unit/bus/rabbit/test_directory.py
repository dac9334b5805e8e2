"""Who waits for other nodes to have taken a change."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.rabbit.directory import Acknowledgements


class AcknowledgementsTests(SynchronousTestCase):
    """A-03: a subscription waits for the other nodes, and no longer than it has to."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.acknowledgements = Acknowledgements(self.clock, 2.0)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [], "no timer is left")

    def test_nobody_to_wait_for(self) -> None:
        self.successResultOf(self.acknowledgements.wait(0, []))

    def test_all_have_to_take_it(self) -> None:
        done = self.acknowledgements.wait(3, ["a", "b"])
        self.acknowledgements.took("a", 3)
        self.acknowledgements.took("b", 2)
        self.assertNoResult(done)
        self.acknowledgements.took("b", 4)
        self.successResultOf(done)

    def test_one_that_has_taken_it_before(self) -> None:
        """It is not waited for: it says so once."""
        self.acknowledgements.took("a", 3)
        self.successResultOf(self.acknowledgements.wait(3, ["a"]))
        later = self.acknowledgements.wait(4, ["a"])
        self.assertNoResult(later)
        self.acknowledgements.took("a", 4)
        self.successResultOf(later)

    def test_the_first_version_of_all(self) -> None:
        """One that has taken nothing yet has not taken that either."""
        done = self.acknowledgements.wait(0, ["a"])
        self.assertNoResult(done)
        self.acknowledgements.took("a", 0)
        self.successResultOf(done)

    def test_one_that_is_gone(self) -> None:
        """It is not waited for; and whoever has its address next has taken nothing."""
        self.acknowledgements.took("a", 3)
        done = self.acknowledgements.wait(4, ["a"])
        self.acknowledgements.gone("a")
        self.successResultOf(done)
        again = self.acknowledgements.wait(3, ["a"])
        self.assertNoResult(again)
        self.acknowledgements.took("a", 3)
        self.successResultOf(again)

    def test_all_are_gone(self) -> None:
        """The connection is lost: nobody waits, and what was taken is forgotten."""
        self.acknowledgements.took("a", 3)
        waiting = [self.acknowledgements.wait(4, ["a", "b"]) for _ in range(2)]
        self.acknowledgements.clear()
        for done in waiting:
            self.successResultOf(done)
        again = self.acknowledgements.wait(3, ["a"])
        self.assertNoResult(again)
        self.acknowledgements.clear()

    def test_one_that_takes_too_long(self) -> None:
        done = self.acknowledgements.wait(1, ["a"])
        self.clock.advance(1.9)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        self.successResultOf(done)
        self.acknowledgements.took("a", 1)
