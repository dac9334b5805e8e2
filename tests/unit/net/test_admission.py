"""Issue 15, acceptance 2: when connections are closed without a word, and their pace."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.admission import REFUSALS_BURST, Admission, ServerSettings
from kupool.net.places import Places
from kupool.net.transport.proxied import TrustedProxies

BAD, GOOD = "192.0.2.1", "192.0.2.2"


class AdmissionCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.admission = Admission(self.clock)
        self.addCleanup(self.admission.stop)
        self.places = Places()

    def limit(self, **limits: Any) -> None:
        self.limits = ServerSettings(**limits)

    def turn_away(self, count: int, host: str = BAD) -> None:
        for _ in range(count):
            self.admission.turned_away(self.limits, host)

    def unwanted(self, host: str = BAD) -> bool:
        return self.admission.unwanted(self.limits, self.places, host)


class UnwantedTests(AdmissionCase):
    """An address that was refused often enough is not told again."""

    def setUp(self) -> None:
        super().setUp()
        self.limit(refusals_per_ip=2.0)

    def test_ten_seconds_worth_may_come_at_once(self) -> None:
        self.turn_away(19)
        self.assertEqual(REFUSALS_BURST, 10.0)
        self.assertFalse(self.unwanted())
        self.turn_away(1)
        self.assertTrue(self.unwanted())
        self.assertFalse(self.unwanted(GOOD))

    def test_it_is_told_again_later(self) -> None:
        self.turn_away(100)
        self.clock.advance(0.45)
        self.assertTrue(self.unwanted())
        self.clock.advance(0.1)
        self.assertFalse(self.unwanted())

    def test_it_is_counted(self) -> None:
        self.turn_away(20)
        self.unwanted()
        self.unwanted()
        self.assertEqual(
            self.admission.refusals.counts, {"connection, closed after too many refusals": 2}
        )

    def test_a_network_of_ipv6_is_one_address(self) -> None:
        self.turn_away(20, "2001:db8::1")
        self.assertTrue(self.unwanted("2001:db8::2"))
        self.assertFalse(self.unwanted("2001:db8:0:1::2"))

    def test_half_used_up_those_that_have_not_authorized_count(self) -> None:
        """Each of them may be the next refusal; until then they are nobody's concern."""
        for number in range(30):
            self.places.enter(number, BAD)
        self.turn_away(9)
        self.assertFalse(self.unwanted())
        self.turn_away(2)
        self.assertTrue(self.unwanted())
        for number in range(22):
            self.places.leave(number, BAD)
        self.assertFalse(self.unwanted())  # 9 are left, of which 8 are waited for
        self.places.enter(30, BAD)
        self.assertTrue(self.unwanted())
        self.places.welcome(30)
        self.assertFalse(self.unwanted())

    def test_who_is_never_unwanted(self) -> None:
        """Proxies, peers on a Unix socket, and everybody where there is no limit."""
        self.limit(refusals_per_ip=2.0, shared_hosts=TrustedProxies((BAD,)))
        self.turn_away(50)
        self.turn_away(50, "")
        self.assertFalse(self.unwanted() or self.unwanted(""))
        self.limit()
        self.turn_away(50, GOOD)
        self.assertFalse(self.unwanted(GOOD))

    def test_a_new_limit_begins_anew(self) -> None:
        self.turn_away(20)
        self.assertTrue(self.unwanted())
        self.limit(refusals_per_ip=1.0)
        self.assertFalse(self.unwanted())
        self.turn_away(10)
        self.assertTrue(self.unwanted())

    def test_banned_and_crowded_ones_were_turned_away(self) -> None:
        """What the whole server lacks is no fault of the address."""
        self.limit(refusals_per_ip=0.1, max_connections_per_ip=1)
        self.places.enter(1, BAD)
        self.assertIsNotNone(self.admission.refusal(self.limits, self.places, BAD))
        self.assertTrue(self.unwanted())
        self.admission.ban(GOOD, 60.0, "a test")
        self.assertIsNotNone(self.admission.refusal(self.limits, self.places, GOOD))
        self.assertTrue(self.unwanted(GOOD))
        self.limit(refusals_per_ip=0.1, accept_rate=1.0)
        self.admission.count(self.limits)
        self.assertIsNotNone(self.admission.refusal(self.limits, self.places, "192.0.2.3"))
        self.assertFalse(self.unwanted("192.0.2.3"))


class PaceTests(AdmissionCase):
    """Connections are taken from the system's queue at a pace."""

    def take(self) -> int:
        """Take what may be taken now; returns how many."""
        taken = 0
        while not self.admission.pause(self.limits) and taken < 1000:
            self.admission.accepted(self.limits)
            taken += 1
        return taken

    def test_a_tenth_of_a_second_at_once(self) -> None:
        self.limit(accept_pace=500.0)
        self.assertEqual(self.take(), 50)
        self.assertAlmostEqual(self.admission.pause(self.limits), 0.002)
        self.clock.advance(0.01)
        self.assertEqual(self.take(), 5)
        self.clock.advance(1.0)
        self.assertEqual(self.take(), 50)

    def test_one_at_least(self) -> None:
        self.limit(accept_pace=0.5)
        self.assertEqual(self.take(), 1)
        self.assertAlmostEqual(self.admission.pause(self.limits), 2.0)

    def test_no_limit(self) -> None:
        self.limit()
        self.assertEqual(self.take(), 1000)

    def test_a_new_pace(self) -> None:
        self.limit(accept_pace=500.0)
        self.take()
        self.limit(accept_pace=100.0)
        self.assertEqual(self.take(), 10)
