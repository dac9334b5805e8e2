"""Where rooms are, as other hosts have shown, for a while."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.spread.room_hosts import RoomHosts


class RoomHostsTests(SynchronousTestCase):
    """A-51: what was noted counts for ten seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.hosts = RoomHosts(self.clock, 10.0)
        self.hosts.note("tea", "a")

    def test_for_how_long(self) -> None:
        self.clock.advance(9.5)
        self.assertEqual((self.hosts.get("tea"), self.hosts.get("other")), ("a", None))
        self.clock.advance(0.5)
        self.assertIsNone(self.hosts.get("tea"))

    def test_noted_again(self) -> None:
        self.clock.advance(5)
        self.hosts.note("tea", "b")
        self.clock.advance(9.5)
        self.assertEqual(self.hosts.get("tea"), "b")

    def test_forgotten(self) -> None:
        self.hosts.drop("tea")
        self.hosts.drop("unknown")
        self.assertIsNone(self.hosts.get("tea"))
        self.hosts.note("tea", "a")
        self.hosts.note("coffee", "b")
        self.hosts.drop_hosts(["a"])
        self.assertEqual((self.hosts.get("tea"), self.hosts.get("coffee")), (None, "b"))

    def test_what_is_over_takes_no_memory(self) -> None:
        """K-44: also where an older one was noted again meanwhile."""
        self.clock.advance(1)
        self.hosts.note("coffee", "a")
        self.hosts.note("tea", "a")
        self.clock.advance(1)
        self.hosts.note("milk", "a")
        self.clock.advance(9)
        self.hosts.note("water", "a")
        self.assertEqual(list(self.hosts._hosts), ["milk", "water"])

    def test_one_that_is_noted_again_keeps_no_other(self) -> None:
        """K-44: the others are over when their own time is."""
        self.hosts.note("coffee", "a")
        self.clock.advance(5)
        self.hosts.note("tea", "a")
        self.clock.advance(5)
        self.hosts.note("milk", "a")
        self.assertEqual(list(self.hosts._hosts), ["tea", "milk"])
