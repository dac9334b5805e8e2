"""Failed logins, counted by address and by user."""

from __future__ import annotations

from typing import Any

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts import login_guard as module
from kupool.accounts.authenticator import Authenticator
from kupool.accounts.login_guard import LoginSettings, TryAgain
from kupool.accounts.logins import Logins


class AllowingChecker:
    """Lets in whoever says ``right``; ``held`` ones are answered when the test says so."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.hold = False
        self.held: list[tuple[Deferred[Any], Any]] = []

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        if self.hold:
            answer: Deferred[Any] = Deferred()
            self.held.append((answer, credentials))
            return answer
        return self.answer(credentials)

    def answer(self, credentials: Any) -> Deferred[Any]:
        if credentials.password == b"right":
            return succeed(credentials.username)
        return fail(UnauthorizedLogin())

    def go_on(self) -> None:
        held, self.held = self.held, []
        for answer, credentials in held:
            self.answer(credentials).chainDeferred(answer)


class GuardTests(SynchronousTestCase):
    """W-32, K-17: guesses cost the guesser, and nobody else."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.checker = AllowingChecker()
        self.logins = self.make(address_failures=3, user_failures=5)

    def make(self, **settings: float) -> Logins:
        logins = Logins(
            self.clock,
            Authenticator(self.clock, [self.checker]),  # type: ignore[list-item]
            LoginSettings(**{"delay": 0.0, "at_once": 1.0, **settings}),
        )
        self.addCleanup(logins.guard.refusals.stop)
        return logins

    def log_in(self, user: str, password: str, host: str = "192.0.2.1") -> Deferred[str]:
        return self.logins.check(user, password, host)

    def guess(self, count: int, user: str = "alice", host: str = "192.0.2.1") -> None:
        for _ in range(count):
            self.assertEqual("", self.successResultOf(self.log_in(user, "wrong", host)))

    def test_an_address_has_so_many_failures(self) -> None:
        self.guess(3)
        failure = self.failureResultOf(self.log_in("bob", "right"), TryAgain)
        self.assertAlmostEqual(failure.value.wait, 20.0)
        self.assertEqual("worker", self.successResultOf(self.log_in("bob", "right", "192.0.2.2")))
        self.clock.advance(20.0)
        self.guess(1)
        self.failureResultOf(self.log_in("bob", "right"), TryAgain)

    def test_a_success_costs_nothing(self) -> None:
        for _ in range(20):
            self.assertEqual("worker", self.successResultOf(self.log_in("alice", "right")))
        self.guess(3)

    def test_a_network_of_ipv6_counts_as_one(self) -> None:
        for number in range(3):
            self.guess(1, host=f"2001:db8::{number}")
        self.failureResultOf(self.log_in("bob", "right", "2001:db8::f:1"), TryAgain)
        self.assertEqual(
            "worker", self.successResultOf(self.log_in("bob", "right", "2001:db8:0:1::1"))
        )

    def test_a_user_has_so_many_failures_from_all_addresses(self) -> None:
        self.assertEqual(
            "worker", self.successResultOf(self.log_in("alice", "right", "192.0.2.99"))
        )
        for number in range(5):
            self.guess(1, host=f"198.51.100.{number}")
        self.failureResultOf(self.log_in("alice", "right", "203.0.113.1"), TryAgain)
        # Nobody is locked out where they have logged in before.
        self.assertEqual(
            "worker", self.successResultOf(self.log_in("alice", "right", "192.0.2.99"))
        )
        self.assertEqual("worker", self.successResultOf(self.log_in("bob", "right", "203.0.113.1")))

    def test_no_limit(self) -> None:
        self.logins = self.make(address_failures=0, user_failures=0)
        self.guess(50)

    def test_a_local_socket_has_no_address(self) -> None:
        self.logins = self.make(address_failures=1, user_failures=0)
        self.guess(50, host="")

    def test_many_guesses_at_once_are_no_more(self) -> None:
        self.checker.hold = True
        asked = [self.log_in("alice", "wrong") for _ in range(10)]
        self.assertEqual(len(self.checker.held), 3)
        self.checker.go_on()
        self.assertEqual(self.checker.held, [])
        self.assertEqual([self.successResultOf(d) for d in asked[:3]], [""] * 3)
        for late in asked[3:]:
            self.assertNoResult(late)
            self.clock.advance(0.0 if late is asked[3] else module.REFUSAL_GAP)
            self.failureResultOf(late, TryAgain)
        self.assertEqual(self.clock.getDelayedCalls(), self.logged())

    def logged(self) -> list[Any]:
        """Return the timers of the refusals, which are logged once a minute."""
        return [c for c in self.clock.getDelayedCalls() if "Summaries._tell" in str(c)]

    def test_those_that_wait_are_let_in_in_their_order(self) -> None:
        """Issue 15, acceptance 2: one comes free, and one is let in, not all to look."""
        self.logins = self.make(address_failures=1, user_failures=0)
        self.checker.hold = True
        asked = [self.log_in(f"user{number}", "right") for number in range(5)]
        for number in range(5):
            self.assertEqual([c.username for _, c in self.checker.held], [b"user%d" % number])
            self.checker.go_on()
            self.assertEqual(self.successResultOf(asked[number]), "worker")

    def test_those_that_wait_get_in_when_failures_come_back(self) -> None:
        """While they are refused one by one, a minute's failures go on coming back."""
        self.patch(module, "REFUSAL_GAP", 30.0)
        self.logins = self.make(address_failures=2, user_failures=0, wait=100.0)
        self.checker.hold = True
        wrong = [self.log_in("alice", "wrong") for _ in range(2)]
        right = [self.log_in("bob", "right") for _ in range(3)]
        self.checker.go_on()
        self.assertEqual([self.successResultOf(d) for d in wrong], ["", ""])
        self.clock.advance(0)
        self.failureResultOf(right[0], TryAgain)
        self.clock.advance(30)
        for _ in range(2):
            self.checker.go_on()
        self.assertEqual([self.successResultOf(d) for d in right[1:]], ["worker"] * 2)

    def test_a_part_of_the_failures_may_come_at_once(self) -> None:
        """Issue 15, acceptance 2: each one that is checked costs the processor milliseconds."""
        self.logins = self.make(address_failures=20, user_failures=0, at_once=0.25)
        self.guess(5)
        failure = self.failureResultOf(self.log_in("alice", "wrong"), TryAgain)
        self.assertAlmostEqual(failure.value.wait, 3.0)

    def test_many_right_ones_at_once_all_get_in(self) -> None:
        self.checker.hold = True
        asked = [self.log_in(f"user{number}", "right") for number in range(10)]
        while self.checker.held:
            self.checker.go_on()
        self.assertEqual([self.successResultOf(d) for d in asked], ["worker"] * 10)

    def test_few_wait(self) -> None:
        self.patch(module, "MAX_WAITING", 2)
        self.checker.hold = True
        asked = [self.log_in("alice", "right") for _ in range(6)]
        self.failureResultOf(asked[5], TryAgain)
        for _ in range(3):
            self.checker.go_on()
        self.assertEqual([self.successResultOf(d) for d in asked[:5]], ["worker"] * 5)

    def test_nobody_waits_longer_than_is_set(self) -> None:
        """Issue 15, build 5: waiting for others has one limit of time, however many there are."""
        self.logins = self.make(address_failures=1, user_failures=1, wait=15.0)
        self.checker.hold = True
        first = self.log_in("alice", "right")
        late = [self.log_in("alice", "right") for _ in range(3)]
        for second in range(15):
            self.clock.advance(1.0)
            if second % 9 == 8:
                self.checker.held, held = [], self.checker.held
                for answer, credentials in held:
                    self.checker.answer(credentials).chainDeferred(answer)
        self.assertEqual(self.successResultOf(first), "worker")
        for asked in late[1:]:
            failure = self.failureResultOf(asked, TryAgain)
            self.assertEqual(str(failure.value), "others of one address took too long")
        self.checker.go_on()
        self.assertEqual(self.successResultOf(late[0]), "worker")
        self.assertEqual(self.logins.guard._by_network._under_way, {})

    def test_a_checker_that_cannot_tell_costs_nothing(self) -> None:
        self.checker.hold = True
        for _ in range(5):
            asked = self.log_in("alice", "wrong")
            self.clock.advance(10.0)
            self.failureResultOf(asked, TryAgain)
        self.checker.held.clear()
        self.checker.hold = False
        self.guess(3)

    def test_a_wrong_password_is_answered_late(self) -> None:
        self.logins = self.make(delay=1.0)
        asked = self.log_in("alice", "wrong")
        self.assertNoResult(asked)
        self.clock.advance(1.0)
        self.assertEqual("", self.successResultOf(asked))
        self.assertEqual("worker", self.successResultOf(self.log_in("alice", "right")))

    def test_nothing_is_left_behind(self) -> None:
        self.guess(3)
        self.failureResultOf(self.log_in("alice", "wrong"), TryAgain)
        for budget in (self.logins.guard._by_network, self.logins.guard._by_user):
            self.assertEqual(budget._under_way, {})
            self.assertEqual(budget._waiting, {})

    def test_each_is_counted(self) -> None:
        """K-92: and the log names the user and the address."""
        self.guess(3)
        self.failureResultOf(self.log_in("alice", "wrong"), TryAgain)
        counts = self.logins.guard.refusals.counts
        self.assertEqual(counts["login"], 3)
        self.assertEqual(counts["login, too many failures of one address"], 1)
