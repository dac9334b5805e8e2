"""Wrong keys of applications: delayed, counted by address, and refused when there are too many."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.key_guard import WRONG_KEY, KeyGuard
from kupool.accounts.login_guard import LoginSettings, TryAgain

RIGHT = "r" * 40


class KeyGuardTests(SynchronousTestCase):
    """W-72, W-87: guesses of the API key cost the guesser, and nobody else."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.guard = KeyGuard(self.clock, LoginSettings(address_failures=3, at_once=1.0, delay=2.0))
        self.addCleanup(self.guard.stop)

    def check(self, key: str, host: str = "192.0.2.1", right: str = RIGHT) -> Deferred[bool]:
        return self.guard.check(key, right, host)

    def guess(self, count: int) -> None:
        for _ in range(count):
            answer = self.check("wrong")
            self.clock.advance(2)
            self.assertFalse(self.successResultOf(answer))

    def test_the_right_key(self) -> None:
        self.assertTrue(self.successResultOf(self.check(RIGHT)))
        self.assertEqual(self.guard.refusals.counts, {})

    def test_a_wrong_key_is_answered_late(self) -> None:
        answer = self.check("wrong")
        self.clock.advance(1.9)
        self.assertNoResult(answer)
        self.clock.advance(0.2)
        self.assertFalse(self.successResultOf(answer))
        self.assertEqual(self.guard.refusals.counts[WRONG_KEY], 1)

    def test_no_key(self) -> None:
        """An empty key is wrong, also where none is right; and one with other letters."""
        for given, right in (("", RIGHT), ("", ""), ("x", ""), ("é", RIGHT)):
            answer = self.check(given, host=f"192.0.2.{len(given)}{len(right)}", right=right)
            self.clock.advance(2)
            self.assertFalse(self.successResultOf(answer))

    def test_too_many(self) -> None:
        """Nothing is compared any more for this address; others, and the right key, go on."""
        self.guess(3)
        error = self.failureResultOf(self.check("wrong"), TryAgain).value
        self.assertGreater(error.wait, 0)
        self.assertTrue(self.successResultOf(self.check(RIGHT)))
        self.assertNoResult(self.check("wrong", host="198.51.100.1"))
        self.assertEqual(sum(self.guard.refusals.counts.values()), 5)

    def test_they_come_back(self) -> None:
        self.guess(3)
        self.clock.advance(60)
        self.guess(1)
