"""Places of one address, of connections that have not authorized, and of all."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.net.places import FEW, Places
from kupool.net.transport.proxied import TrustedProxies


class PlaceTests(SynchronousTestCase):
    """Issue 15, build 5: one address does not take all places."""

    def setUp(self) -> None:
        self.places = Places()
        self.number = 0

    def enter(self, host: str, count: int = 1) -> range:
        first = self.number
        for _ in range(count):
            self.places.enter(self.number, host)
            self.number += 1
        return range(first, self.number)

    def why(self, host: str, **limits: Any) -> str:
        none = {"most": 0, "per_address": 0, "unauthorized": 0, "unauthorized_per_address": 0}
        return self.places.why_none(host, **{**none, "shared": (), **limits})

    def test_a_network_of_ipv6_is_one_address(self) -> None:
        for number in range(3):
            self.enter(f"2001:db8::{number}")
        self.assertEqual(self.why("2001:db8::9", per_address=3), "too many of one address")
        self.assertEqual(self.why("2001:db8:0:1::9", per_address=3), "")

    def test_unauthorized_of_one_address(self) -> None:
        entered = self.enter("192.0.2.1", 3)
        limit = {"unauthorized_per_address": 3}
        self.assertEqual(self.why("192.0.2.1", **limit), "too many unauthorized of one address")
        self.assertEqual(self.why("192.0.2.2", **limit), "")
        self.places.welcome(entered[0])
        self.places.welcome(entered[0])
        self.assertEqual(self.why("192.0.2.1", **limit), "")
        self.places.leave(entered[0], "192.0.2.1")
        self.places.leave(entered[1], "192.0.2.1")
        self.assertEqual((len(self.places), self.places._strange), (1, {"192.0.2.1": 1}))

    def test_many_unauthorized_leave_some_for_each_address(self) -> None:
        """Who fills the places of those that have not authorized keeps no other address out."""
        self.enter("192.0.2.1", 50)
        limit = {"unauthorized": 50}
        self.assertEqual(self.why("192.0.2.1", **limit), "too many unauthorized at once")
        self.assertEqual(self.why("192.0.2.2", **limit), "")
        self.enter("192.0.2.2", FEW)
        self.assertEqual(self.why("192.0.2.2", **limit), "too many unauthorized at once")

    def test_proxies_are_never_limited_as_an_address(self) -> None:
        proxies = TrustedProxies(("192.0.2.1", "unix"))
        for host in ("192.0.2.1", ""):
            self.enter(host, 10)
            few = {"per_address": 1, "unauthorized": 1, "unauthorized_per_address": 1}
            self.assertEqual(self.why(host, **few, shared=proxies), "")
        self.assertEqual(self.why("192.0.2.1", most=20, shared=proxies), "too many at once")

    def test_nothing_is_left_behind(self) -> None:
        for number in self.enter("192.0.2.1", 5):
            self.places.leave(number, "192.0.2.1")
        self.assertEqual((len(self.places), self.places._networks), (0, {}))
        self.assertEqual((self.places._strangers, self.places._strange), ({}, {}))
