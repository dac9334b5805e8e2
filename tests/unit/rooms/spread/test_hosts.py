"""Who is there and who serves rooms, as hosts tell each other over the bus."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import SILENCE, BusError
from kupool.bus.local import LocalBus
from kupool.rooms.spread.hosts import HostExists, Hosts, parted
from kupool.rooms.spread.settings import SpreadSettings


class HostsCase(SynchronousTestCase):
    """Hosts on one bus; times are sums of halves, so that clocks have them exactly."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.bus = LocalBus(self.clock, wall=self.clock.seconds)
        self.changes: list[set[str]] = []
        self.lost: list[str] = []
        self.cut_off: list[str] = []

    def make(self, name: str, **settings: Any) -> Hosts:
        hosts = Hosts(
            self.clock,
            self.bus,
            SpreadSettings(**settings),
            name,
            changed=lambda: self.changes.append(set(hosts.ring.hosts)),
            lost=self.lost.append,
            cut_off=lambda: self.cut_off.append(name),
        )
        return hosts

    def start(self, hosts: Hosts, seconds: float = 1.0, **options: Any) -> Deferred[None]:
        started = Deferred.fromCoroutine(hosts.start(**options))
        self.pass_time(seconds)
        return started

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.clock.advance(0.5)

    def stop(self, hosts: Hosts) -> None:
        stopped = Deferred.fromCoroutine(hosts.stop())
        self.clock.advance(0)
        self.successResultOf(stopped)

    def keys(self) -> list[str]:
        """What the members of the topic are, by their keys."""
        seen: list[Any] = []
        self.bus.watch("rooms.members", seen.append)
        self.clock.advance(0)
        self.bus.unwatch(seen.append)
        return sorted(key for member in seen[-1] for key in member.keys)


class ThereAndServingTests(HostsCase):
    """A-51: a host is there at once, and serves rooms when it has looked for the others."""

    def test_what_it_tells_hosts_of_every_version(self) -> None:
        a = self.make("a")
        self.start(a, 0.5)
        self.assertEqual(self.keys(), [f"there {a.epoch_of('a')} a"])
        self.assertEqual((a.heard, a.ring.hosts, self.changes), (True, set(), []))
        self.pass_time(0.5)
        serves, there = self.keys()
        self.assertEqual(serves, f"serves {a.epoch_of('a')} a")
        self.assertRegex(there, "^there [0-9a-f]{16} a$")
        self.assertEqual((a.ring.hosts, self.changes), ({"a"}, [{"a"}]))

    def test_the_epoch_of_each(self) -> None:
        a, b = self.make("a"), self.make("b")
        self.start(a)
        self.start(b)
        self.assertEqual(a.epoch_of("b"), b.epoch_of("b"))
        self.assertNotEqual(a.epoch_of("a"), a.epoch_of("b"))
        self.assertEqual(a.epoch_of("nobody"), "")

    def test_it_serves_no_more_and_is_there(self) -> None:
        a, b = self.make("a"), self.make("b")
        self.start(a)
        self.start(b)
        a.leave()
        self.pass_time(5)
        self.assertEqual((a.ring.hosts, b.ring.hosts), ({"b"}, {"b"}))
        self.assertEqual((a.others, b.others), (["b"], ["a"]))

    def test_it_leaves_before_it_serves(self) -> None:
        """Also where it has been cut off, and is to serve again in a moment."""
        a = self.make("a")
        self.start(a)
        a._told(None)
        self.clock.advance(0.5)
        a.leave()
        self.pass_time(5)
        self.assertEqual((a.ring.hosts, a.heard), (set(), True))
        self.assertEqual(len(self.keys()), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_leaves_while_the_bus_is_away(self) -> None:
        a = self.make("a")
        self.start(a)
        ask = self.patch(a, "_ask", lambda done: None)
        a._told(None)
        ask.restore()
        a.leave()
        a._told(())
        self.pass_time(5)
        self.assertEqual(a.ring.hosts, set())

    def test_it_stops(self) -> None:
        """Nothing of it is left, nothing is told any more, and it may stop again."""
        a, b = self.make("a"), self.make("b")
        self.start(a)
        self.start(b)
        self.stop(a)
        self.pass_time(5)
        self.assertEqual((b.ring.hosts, b.others, self.lost), ({"b"}, [], ["a"]))
        self.assertEqual(self.successResultOf(self.bus.status()).subscribers.__len__(), 2)
        before = len(self.changes)
        unwatched: list[Any] = []
        unwatch = self.bus.unwatch
        self.patch(self.bus, "unwatch", lambda told: unwatched.append(told) or unwatch(told))
        for _ in range(2):
            self.stop(b)
            self.assertEqual(unwatched, [b._told])
        b._told(())
        self.assertEqual((len(self.changes), self.lost), (before, ["a"]))

    def test_it_stops_before_it_serves(self) -> None:
        a = self.make("a")
        self.start(a)
        a._told(None)
        self.clock.advance(0.5)
        self.stop(a)
        self.assertEqual([c for c in self.clock.getDelayedCalls() if "_join" in str(c)], [])
        self.pass_time(5)
        self.assertEqual(self.keys(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_stops_while_it_looks_for_the_others(self) -> None:
        a = self.make("a")
        self.start(a, 0.5)
        self.stop(a)
        self.pass_time(5)
        self.assertEqual((self.keys(), a.ring.hosts), ([], set()))

    def test_a_bus_that_takes_nothing(self) -> None:
        """It goes on: who is a member tells what the bus has taken."""
        a = self.make("a")
        refuse = self.patch(self.bus, "subscribe", lambda *what, **more: fail(BusError("no")))
        a._heard = True
        a._join()
        refuse.restore()
        self.assertEqual(a.ring.hosts, {"a"})

    def test_how_many_hosts_it_knows(self) -> None:
        """K-44: one more is as if it were not there."""
        a = self.make("a", max_hosts=2)
        for host in (a, self.make("b"), self.make("c"), self.make("d")):
            self.start(host)
        self.assertEqual((a.others, a.ring.hosts), (["b", "c"], {"a", "b", "c"}))


class NameTakenTests(HostsCase):
    """A-51: two processes of one name do not both serve rooms."""

    def setUp(self) -> None:
        super().setUp()
        self.first = self.make("a")
        self.start(self.first)

    def test_how_long_it_waits_for_the_other_to_go(self) -> None:
        """One that was killed counts as there until its silence is over, and a moment more."""
        started = self.start(self.make("a"), 1.0 + SILENCE)
        self.assertNoResult(started)
        self.clock.advance(0.5)
        self.failureResultOf(started, HostExists)
        self.assertEqual(len(self.keys()), 2)

    def test_the_other_goes_in_the_last_moment(self) -> None:
        second = self.make("a")
        started = self.start(second, 1.0 + SILENCE)
        self.stop(self.first)
        self.pass_time(0.5)
        self.successResultOf(started)
        self.assertEqual(second.ring.hosts, {"a"})


class CutOffTests(HostsCase):
    """A-51: a host that is not heard counts as gone, and begins anew."""

    def test_the_bus_is_required(self) -> None:
        """Unless the caller says otherwise; then nothing of the host is left there."""
        a = self.make("a")
        told = a._told
        self.patch(a, "_told", lambda members: told(None))
        started = self.start(a)
        self.pass_time(SILENCE)  # a new server of the bus reports nobody for so long
        self.assertNoResult(started)
        self.pass_time(0.5)
        self.failureResultOf(started, BusError)
        self.assertEqual(self.keys(), [])

    def test_the_bus_is_not_required(self) -> None:
        """It serves as soon as it has been heard for a while, and once."""
        a = self.make("a")
        told, deaf = a._told, [True]
        self.patch(a, "_told", lambda members: told(None if deaf else members))
        self.successResultOf(self.start(a, required=False))
        deaf.clear()
        self.start(self.make("b"), 0.5)
        self.assertEqual((a.heard, a.ring.hosts), (True, set()))
        self.pass_time(1)
        self.assertEqual(a.ring.hosts, {"a", "b"})
        self.start(self.make("c"))
        self.pass_time(2)
        mine = [key for key in self.keys() if key.endswith(" a")]
        self.assertEqual(len(mine), 2)

    def test_it_serves(self) -> None:
        a, b = self.make("a"), self.make("b")
        self.start(a)
        self.start(b)
        before, self.changes[:] = a.epoch_of("a"), []
        a._told(None)
        self.assertEqual((self.changes[0], self.cut_off, self.lost), (set(), ["a"], ["b"]))
        self.assertFalse(a.heard)
        self.assertNotEqual(a.epoch_of("a"), before)
        self.assertRegex(a.epoch_of("a"), "^[0-9a-f]{16}$")
        self.clock.advance(0)
        self.assertEqual([key for key in self.keys() if before in key], [])
        self.pass_time(1.5)
        self.assertEqual((a.ring.hosts, b.ring.hosts), ({"a", "b"}, {"a", "b"}))

    def test_it_is_about_to_serve(self) -> None:
        """It begins its wait anew, and no rooms end: it had none."""
        a = self.make("a")
        self.start(a)
        a._told(None)
        self.clock.advance(0.5)
        epoch = a.epoch_of("a")
        a._told(None)
        self.assertNotEqual(a.epoch_of("a"), epoch)
        self.assertEqual(self.cut_off, ["a"])
        self.pass_time(1)
        self.assertEqual(a.ring.hosts, set())
        self.pass_time(1)
        self.assertEqual(a.ring.hosts, {"a"})

    def test_it_is_not_heard_as_it_is_to_serve(self) -> None:
        """It does not serve then, but when it is heard again."""
        a = self.make("a")
        self.start(a)
        a._told(None)
        self.clock.advance(0.5)
        a._told(())
        self.pass_time(1)
        self.assertEqual((a.heard, a.ring.hosts), (False, set()))
        members: list[Any] = []
        self.bus.watch("rooms.members", members.append)
        self.clock.advance(0)
        a._told(members[-1])
        self.pass_time(1)
        self.assertEqual((a.heard, a.ring.hosts), (True, {"a"}))

    def test_it_does_not_serve(self) -> None:
        """It stays who it is, and does not begin to serve when it is heard again."""
        a = self.make("a")
        self.start(a)
        a.leave()
        before = a.epoch_of("a")
        a._told(None)
        self.bus.watch("rooms.members", a._told)
        self.pass_time(5)
        self.assertEqual((a.epoch_of("a"), a.ring.hosts, self.cut_off), (before, set(), []))


class PartingTests(SynchronousTestCase):
    def test_a_bus_that_is_away(self) -> None:
        """A-51: a host that stops does not wait for it without an end."""
        clock = Clock()
        done = parted(clock, Deferred())
        clock.advance(1.5)
        self.assertNoResult(done)
        clock.advance(0.5)
        self.assertIsNone(self.successResultOf(done))
