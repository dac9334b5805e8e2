"""How many rejected submissions are too many for an address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.net.transport.proxied import TrustedProxies
from kupool.pool.scores import AddressScores, AddressStanding

FINE, THROTTLED, BANNED = AddressStanding.FINE, AddressStanding.THROTTLED, AddressStanding.BANNED


@dataclass
class Peer:
    """What the scores see of a connection."""

    host: str
    id: str = "session"


class ScoreTests(SynchronousTestCase):
    """Issue 15, build 5: the score belongs to the address, over all of its sessions."""

    def add(self, scores: AddressScores, count: int, now: float, **peer: str) -> list[Any]:
        """Add points, and return what each of them led to."""
        connection: Any = Peer(**{"host": "192.0.2.9", **peer})
        return [scores.add(connection, now) for _ in range(count)]

    def test_a_tenth_throttles_and_all_bans(self) -> None:
        scores = AddressScores(10.0, 20.0)
        found = self.add(scores, 12, 0.0)
        self.assertEqual(found, [FINE] + [THROTTLED] * 9 + [BANNED] * 2)

    def test_goes_down_with_time(self) -> None:
        """The whole score goes in the time that is set, evenly."""
        scores = AddressScores(10.0, 20.0)
        self.add(scores, 10, 0.0)
        self.assertEqual(self.add(scores, 1, 1.0), [BANNED])
        self.assertEqual(self.add(scores, 2, 2.0), [THROTTLED, BANNED])
        self.assertEqual(self.add(scores, 6, 22.0), [FINE] + [THROTTLED] * 5)

    def test_shared_by_the_sessions_of_an_address(self) -> None:
        scores = AddressScores(2.0, 20.0)
        self.add(scores, 2, 0.0, id="one")
        self.assertEqual(self.add(scores, 1, 0.0, id="two"), [BANNED])
        self.assertEqual(self.add(scores, 1, 0.0, host="192.0.2.8"), [THROTTLED])
        self.assertEqual(len(scores), 2)

    def test_shared_by_a_network_of_ipv6(self) -> None:
        """One who has a network can change the address at will."""
        scores = AddressScores(2.0, 20.0)
        self.add(scores, 2, 0.0, host="2001:db8:1:2::1")
        self.assertEqual(self.add(scores, 1, 0.0, host="2001:db8:1:2:3::4"), [BANNED])
        self.assertEqual(self.add(scores, 1, 0.0, host="2001:db8:1:3::1"), [THROTTLED])

    def test_each_session_has_its_own_where_the_address_tells_nothing(self) -> None:
        """Behind a trusted proxy, and on a Unix socket."""
        scores = AddressScores(2.0, 20.0, TrustedProxies(["10.0.0.0/8"]))
        for host in ("10.0.0.1", ""):
            self.add(scores, 2, 0.0, host=host, id=f"bad{host}")
            self.assertEqual(self.add(scores, 1, 0.0, host=host, id=f"good{host}"), [THROTTLED])
            self.assertEqual(self.add(scores, 1, 0.0, host=host, id=f"bad{host}"), [BANNED])

    def test_off(self) -> None:
        """0 turns it off: nobody is slowed down, and nothing is remembered."""
        for most, seconds in ((0.0, 60.0), (10.0, 0.0)):
            scores = AddressScores(most, seconds)
            self.assertEqual(set(self.add(scores, 100, 0.0)), {FINE})
            self.assertEqual(len(scores), 0)

    def test_memory(self) -> None:
        """An address whose score is back at nothing is forgotten."""
        scores = AddressScores(10.0, 10.0)
        for number in range(5000):
            self.add(scores, 1, float(number), host=f"198.51.{number // 250}.{number % 250}")
        self.assertLess(len(scores), 1100)
