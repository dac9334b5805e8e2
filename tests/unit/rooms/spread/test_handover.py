"""Rooms on their way from one host to another: their state, and who asks for them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.spread.entries import Ask, Handed
from kupool.rooms.spread.ring import Ring
from tests.unit.rooms.spread.test_lobby import Host, Peer, World


class HandoverTests(SynchronousTestCase):
    """A-51: a room moves from host ``a``, which ends, to host ``b``."""

    def setUp(self) -> None:
        self.world = World()
        self.a, self.b = self.world.add("a"), self.world.add("b")
        self.code = self.world.code_of("a")
        self.bob = Peer(self.b)
        self.bob.ask(room=self.code, user="bob")

    def move(self) -> None:
        ended = Deferred.fromCoroutine(self.a.lobby.close())
        self.world.advance(2)
        self.successResultOf(ended)

    def counts(self, host: Host) -> tuple[int, int]:
        return host.lobby.handover.moved, host.lobby.handover.taken

    def test_counts(self) -> None:
        self.move()
        self.assertEqual((self.counts(self.a), self.counts(self.b)), ((1, 0), (0, 1)))

    def test_the_largest_state(self) -> None:
        """One that is larger is lost, and the room moves without it."""
        most = self.a.lobby.spread.max_entry
        for size in (most, most + 1):
            self.setUp()
            state = b'["' + b"x" * (size - 4) + b'"]'
            self.patch(self.a.hooks, "on_hand_over", lambda room, state=state: state)
            self.move()
            self.assertEqual(self.b.codes, {self.code})
            data: Any = self.b.lobby.get(self.code).data
            self.assertEqual(len(data), 1 if size == most else 0)

    def test_a_host_that_asks_and_does_not_get_it(self) -> None:
        """It is told that there is no such room here; who gets it is sent the room alone."""
        sent: list[tuple[str, str, bool]] = []
        send = self.a.lobby.exchange.send

        def note(host: str, entry: Any) -> None:
            if type(entry).__name__ == "Handed":
                sent.append((host, entry.code, entry.state is not None))
            send(host, entry)

        self.patch(self.a.lobby.exchange, "send", note)
        self.a.hooks.slow = slow = Deferred()
        self.bob.tell()
        self.world.advance(0.1)
        ended = Deferred.fromCoroutine(self.a.lobby.close())
        self.world.advance(0.1)
        for host in ("b", "c"):
            self.a.lobby.handover.asked(host, Ask(self.code))
        slow.callback("done")
        self.world.advance(2)
        self.successResultOf(ended)
        self.assertEqual(sorted(sent), [("b", self.code, True), ("c", self.code, False)])


class LostOnTheWayTests(SynchronousTestCase):
    """Issue 13, acceptance 3: a room and its state arrive, whoever comes and goes meanwhile."""

    def setUp(self) -> None:
        self.world = World()
        self.a, self.b, self.c = (self.world.add(name) for name in "abc")

    def room_of(self, host: str, then: str, of: str) -> str:
        code = self.world.code_of(host, then=then, of=of)
        bob = Peer(self.world.hosts[host])
        bob.ask(room=code, user="bob", say="before")
        return code

    def places(self, code: str) -> list[str]:
        return [name for name, host in self.world.hosts.items() if code in host.codes]

    def test_two_hosts_that_stop_at_once(self) -> None:
        """The one that gets it serves no rooms any more either, and passes it on."""
        code = self.room_of("a", "b", of="bc")
        ended = [Deferred.fromCoroutine(host.lobby.close()) for host in (self.a, self.b)]
        self.world.advance(2)
        for each in ended:
            self.successResultOf(each)
        self.assertEqual(self.places(code), ["c"])
        self.assertEqual(self.c.lobby.get(code).data, ["before"])

    def test_a_host_that_passes_it_back(self) -> None:
        """It has stopped serving rooms since the other sent it one."""
        code = self.world.code_of("a")
        self.b.lobby.hosts.leave()
        self.b.lobby.handover.take("a", Handed(code, b'["before"]'))
        self.world.advance(0.5)
        self.assertEqual(self.places(code), ["a"])

    def test_it_is_passed_on_past_a_host_that_serves_no_more(self) -> None:
        """The one that passes it on may not have heard of that yet."""
        code = self.room_of("a", "b", of="bc")
        sent = self.sent_by(self.b)
        self.b.lobby.hosts.leave()
        self.assertEqual(self.b.lobby.owner(code), "a")
        self.b.lobby.handover.take("a", Handed(code, b"[]", leaving=["a"]))
        self.assertEqual([(to, entry.leaving) for to, entry in sent], [("c", ["a", "b"])])

    def test_its_new_host_is_gone_before_it_arrives(self) -> None:
        code = self.room_of("a", "b", of="bc")
        self.patch(self.b.lobby.exchange._channels._incoming, "_expected", lambda message: False)
        ended = Deferred.fromCoroutine(self.a.lobby.close())
        self.world.advance(0.5)
        self.assertEqual(self.places(code), [])
        gone = Deferred.fromCoroutine(self.b.lobby.close())
        self.world.advance(12)
        self.successResultOf(ended)
        self.successResultOf(gone)
        self.assertEqual(self.c.lobby.get(code).data, ["before"])

    def test_who_asks_while_it_is_on_its_way_elsewhere(self) -> None:
        """It is told where the room has arrived, and asks there."""
        code = self.room_of("a", "b", of="bc")
        handover, sent = self.a.lobby.handover, self.sent_by(self.a)
        room = self.a.lobby.get(code)
        self.patch(self.a.lobby.hosts, "ring", Ring("b"))
        incoming: Any = self.b.lobby.exchange._channels._incoming
        taken = self.patch(incoming, "_expected", lambda message: False)
        handover._let_go(room)
        self.world.advance(0.2)
        handover.asked("c", Ask(code))
        self.world.advance(0.2)
        self.assertNotIn("c", [host for host, _ in sent])
        taken.restore()
        self.world.advance(0.2)
        handover.asked("c", Ask(code))
        told = [(entry.state, entry.at) for host, entry in sent if host == "c"]
        self.assertEqual(told, [(None, "b")] * 2, "as it arrives, and later")

    def test_who_is_told_where_it_is_asks_there(self) -> None:
        code = self.world.code_of("c")
        sent, done = self.sent_by(self.c), []
        self.patch(self.c.lobby.handover, "_former", lambda code: {"a"})
        unheard = {**self.a.lobby._receivers, Ask: lambda host, entry: None}
        self.patch(self.a.lobby, "_receivers", unheard)
        self.c.lobby.ready(code).addCallback(done.append)
        self.c.lobby.handover.handed("a", Handed(code, None, at="b"))
        self.assertEqual(([host for host, _ in sent], done), (["a", "b"], []))
        self.world.advance(0.2)
        self.assertEqual(done, [None], "the other has none")

    def test_who_was_asked_is_gone(self) -> None:
        """It may have passed the room on: the others are asked."""
        code = self.world.code_of("c")
        sent: list[Any] = self.sent_by(self.c)
        self.patch(self.c.lobby.handover, "_former", lambda code: {"a"})
        self.c.lobby.ready(code)
        self.c.lobby.handover.lost("a")
        self.assertEqual([host for host, _ in sent][1:], self.c.lobby.others)

    def sent_by(self, host: Host) -> list[tuple[str, Any]]:
        sent: list[tuple[str, Any]] = []
        send = host.lobby.exchange.send

        def note(to: str, entry: Any) -> None:
            if isinstance(entry, Handed | Ask):
                sent.append((to, entry))
            send(to, entry)

        self.patch(host.lobby.exchange, "send", note)
        return sent

    def test_a_room_that_came_against_the_ring(self) -> None:
        """It is kept, as that host may know more; and let go of if the ring does not change."""
        code = self.world.code_of("b")
        self.a.lobby.handover.take("b", Handed(code, b'["before"]'))
        self.world.advance(1)
        self.assertEqual(self.places(code), ["a"])
        self.world.advance(self.a.lobby.spread.move_timeout)
        self.assertEqual(self.places(code), ["b"])
        self.assertEqual(self.b.lobby.get(code).data, ["before"])
