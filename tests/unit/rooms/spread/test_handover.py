"""Rooms on their way from one host to another: their state, and who asks for them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import BAD_PARAMS, RequestError
from kupool.rooms.events import TakenOver
from kupool.rooms.spread.entries import Ask, Handed
from kupool.rooms.spread.handover import RINGS
from kupool.rooms.spread.ring import Ring
from tests.unit.rooms.spread.test_lobby import Host, Peer, World
from tests.unit.rooms.spread.test_seats import raising


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
            self.assertEqual(len(self.states()), 1 if size == most else 0)

    def states(self) -> list[bytes]:
        """The states of rooms that the second host was told of."""
        return [each.state for each in self.b.hooks.events if isinstance(each, TakenOver)]

    def test_a_room_without_a_state(self) -> None:
        """Its new host is told of none, and what the hook raises is an error of the room."""
        errors: list[Any] = []

        def fail(room: Any) -> bytes:
            raise ZeroDivisionError

        self.patch(self.a.hooks, "on_error", lambda *what: errors.append(what))
        for hook, failed in ((lambda room: None, []), (fail, [ZeroDivisionError])):
            self.setUp()
            self.patch(self.a.hooks, "on_error", lambda *what: errors.append(what))
            self.patch(self.a.hooks, "on_hand_over", hook)
            self.move()
            self.assertEqual((self.b.codes, self.states()), ({self.code}, []))
            self.assertEqual([failure.type for _, failure, _ in errors], failed)

    def test_a_message_to_a_room_on_its_way(self) -> None:
        """It may be sent again; one to a room that ends for good need not."""
        for moves, error in ((True, "Temporarily unavailable"), (False, "not found")):
            self.setUp()
            ann = Peer(self.a)
            ann.ask(room=self.code, user="ann")
            self.a.hooks.slow = Deferred()
            ann.tell()
            room = self.a.lobby.get(self.code)
            if moves:
                self.a.lobby.handover._let_go(room)
            else:
                room.close()
            self.assertRegex(ann.ask(say="late"), error)

    def test_who_is_sent_away_before_the_room_goes(self) -> None:
        """They do not follow it."""
        ann = Peer(self.a)
        ann.ask(room=self.code, user="ann")
        self.a.hooks.slow = slow = Deferred()
        ann.tell()
        self.world.advance(0.1)
        ended = Deferred.fromCoroutine(self.a.lobby.close())
        self.a.lobby.members.leave("ann")
        slow.callback("done")
        self.world.advance(2)
        self.successResultOf(ended)
        self.assertEqual(list(self.b.lobby.get(self.code).members), ["bob"])

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


class ThreeHosts(SynchronousTestCase):
    """Three hosts, and what they say to each other about rooms."""

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

    def sent_by(self, host: Host) -> list[tuple[str, Any]]:
        sent: list[tuple[str, Any]] = []
        send = host.lobby.exchange.send

        def note(to: str, entry: Any) -> None:
            if isinstance(entry, Handed | Ask):
                sent.append((to, entry))
            send(to, entry)

        self.patch(host.lobby.exchange, "send", note)
        return sent


class LostOnTheWayTests(ThreeHosts):
    """Issue 13, acceptance 3: a room and its state arrive, whoever comes and goes meanwhile."""

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

    def test_a_room_that_came_against_the_ring(self) -> None:
        """It is kept, as that host may know more; and let go of if the ring does not change."""
        code = self.world.code_of("b")
        self.a.lobby.handover.take("b", Handed(code, b'["before"]'))
        self.world.advance(1)
        self.assertEqual(self.places(code), ["a"])
        self.world.advance(self.a.lobby.spread.move_timeout)
        self.assertEqual(self.places(code), ["b"])
        self.assertEqual(self.b.lobby.get(code).data, ["before"])

    def test_a_room_that_came_against_the_ring_and_has_ended(self) -> None:
        code = self.world.code_of("b")
        self.a.lobby.handover.take("b", Handed(code, b"[]"))
        self.a.lobby.get(code).close()
        self.world.advance(self.a.lobby.spread.move_timeout + 1)
        self.assertEqual(self.places(code), [])

    def test_a_room_that_came_against_the_ring_while_there_are_too_many_timers(self) -> None:
        """A-47: the limit is for those of the application."""
        code, timers = self.world.code_of("b"), self.a.lobby.timers
        timers.limit = 1
        timers.once("a room of the application", "turn", 1000, lambda timer: None)
        self.a.lobby.handover.take("b", Handed(code, b"[]"))
        self.world.advance(self.a.lobby.spread.move_timeout + 1)
        self.assertEqual(self.places(code), ["b"])
        self.assertEqual(self.a.lobby.tasks.snapshot()["place"].runs, 1)

    def test_the_ring_has_changed_back(self) -> None:
        """The room goes on where it was, with its state and members."""
        code = self.room_of("a", "b", of="bc")
        ann = Peer(self.a)
        ann.ask(room=code, user="ann")
        self.a.hooks.slow = slow = Deferred()
        ann.tell()
        ring = self.patch(self.a.lobby.hosts, "ring", Ring("b"))
        self.a.lobby.handover._let_go(self.a.lobby.get(code))
        ring.restore()
        waiting = self.a.lobby.ready(code)
        self.world.advance(0.1)
        self.assertNoResult(waiting)
        slow.callback("done")
        self.world.advance(0.1)
        self.successResultOf(waiting)
        self.a.hooks.slow = None
        ann.messages()
        self.assertEqual(ann.ask()[0], "a")
        self.assertEqual(set(ann.ask()[1]), {"ann", "bob"})
        self.assertEqual(ann.ask()[2], ["before"])
        self.assertEqual(self.a.lobby.handover.moved, 0)

    def test_the_room_is_full_as_the_ring_has_changed_back(self) -> None:
        """Who was in it is told that it is lost for them."""
        code = self.room_of("a", "b", of="bc")
        ann = Peer(self.a)
        ann.ask(room=code, user="ann")
        ann.messages()
        self.patch(self.a.lobby, "enter", raising(RequestError(BAD_PARAMS)))
        self.a.lobby.handover._let_go(self.a.lobby.get(code))
        (told,) = ann.news()
        self.assertEqual((told["room"], told["event"]), (code, "lost"))
        self.assertEqual(told["data"], BAD_PARAMS.text)

    def test_no_host_is_left_for_it(self) -> None:
        code = self.room_of("a", "b", of="bc")
        ann = Peer(self.a)
        ann.ask(room=code, user="ann")
        ann.messages()
        self.patch(self.a.lobby.hosts, "ring", Ring())
        self.a.lobby.handover._let_go(self.a.lobby.get(code))
        (told,) = ann.news()
        self.assertEqual((told["room"], told["data"]), (code, "cut off"))

    def test_who_asks_for_a_room_that_is_here_gets_it(self) -> None:
        """It has heard of a change before us: of several, the last one has."""
        for askers, to in (("b", "b"), ("bc", "c"), ("cb", "b")):
            self.setUp()
            code = self.world.code_of("a")
            Peer(self.a).ask(room=code, user="ann", say="before")
            for host in askers:
                self.patch(self.world.hosts[host].lobby.hosts, "ring", Ring(host))
                self.a.lobby.handover.asked(host, Ask(code))
            self.assertEqual(self.a.lobby.owner(code), "a", "they serve: the ring decides")
            self.world.advance(0.5)
            self.assertEqual(self.places(code), [to])
            self.assertEqual(self.world.hosts[to].lobby.get(code).data, ["before"])

    def test_who_asks_for_a_room_that_goes_elsewhere(self) -> None:
        """The ring decides, as far as it does not name us."""
        code = self.room_of("a", "b", of="bc")
        self.patch(self.a.lobby.hosts, "ring", Ring("bc"))
        self.a.lobby.handover._let_go(self.a.lobby.get(code))
        self.a.lobby.handover.asked("c", Ask(code))
        self.world.advance(0.1)
        self.assertEqual(self.places(code), ["b"])

    def on_its_way(self) -> str:
        """Send a room from the first to the second host, where it does not arrive."""
        code = self.room_of("a", "b", of="bc")
        incoming: Any = self.b.lobby.exchange._channels._incoming
        self.patch(incoming, "_expected", lambda message: False)
        self.patch(self.a.lobby.hosts, "ring", Ring("bc"))
        self.a.lobby.handover._let_go(self.a.lobby.get(code))
        self.world.advance(0.1)
        return code

    def test_who_asked_is_told_when_it_goes_elsewhere(self) -> None:
        """Its new host is gone: it is sent to another one, and who asked is waiting no more."""
        code = self.on_its_way()
        sent = self.sent_by(self.a)
        self.a.lobby.handover.asked("c", Ask(code))
        self.patch(self.a.lobby.hosts, "ring", Ring("c"))
        self.a.lobby.handover.lost("b")
        told = [(to, entry.state, entry.at) for to, entry in sent]
        self.assertEqual(told, [("c", b'["before"]', ""), ("c", None, "")])

    def test_who_asked_is_told_when_it_comes_back(self) -> None:
        """It has been there, then: another host that asked asks there."""
        code = self.on_its_way()
        sent = self.sent_by(self.a)
        self.a.lobby.handover.asked("c", Ask(code))
        self.a.lobby.handover.handed("c", Handed("another", b"[]"))
        self.assertEqual([to for to, entry in sent if entry.code == code], [])
        self.a.lobby.handover.handed("b", Handed(code, b"[]", leaving=["b"]))
        told = [(to, entry.state, entry.at) for to, entry in sent if entry.code == code]
        self.assertEqual(told[0], ("c", None, "b"))

    def test_who_gets_it_and_asks_for_it(self) -> None:
        """It is on its way there: the answer comes after it."""
        code = self.on_its_way()
        sent = self.sent_by(self.a)
        self.a.lobby.handover.asked("b", Ask(code))
        self.assertEqual(sent, [("b", Handed(code, None, at="b"))])

    def test_it_comes_back_before_its_arrival_is_known(self) -> None:
        code = self.room_of("a", "b", of="bc")
        arrived: Deferred[bool] = Deferred()
        self.patch(self.a.lobby.exchange, "arrived", lambda host: arrived)
        ring = self.patch(self.a.lobby.hosts, "ring", Ring("bc"))
        self.a.lobby.handover._let_go(self.a.lobby.get(code))
        self.world.advance(0.1)
        ring.restore()
        self.a.lobby.handover.handed("b", Handed(code, b"[]", leaving=["b"]))
        arrived.callback(True)
        self.assertIsNone(self.successResultOf(arrived))
        self.assertIn(code, self.a.codes)

    def test_it_comes_from_a_host_that_serves_to_one_that_does(self) -> None:
        """It belongs to neither, and is passed on."""
        code = self.world.code_of("c")
        self.b.lobby.handover.take("a", Handed(code, b'["before"]'))
        self.world.advance(0.5)
        self.assertEqual(self.places(code), ["c"])

    def test_a_room_that_was_here_again_is_not_looked_for_elsewhere(self) -> None:
        code = self.room_of("a", "b", of="bc")
        ring = self.patch(self.a.lobby.hosts, "ring", Ring("bc"))
        self.a.lobby.handover._let_go(self.a.lobby.get(code))
        self.world.advance(0.1)
        ring.restore()
        self.a.lobby.handover.handed("b", Handed(code, b"[]", leaving=["b"]))
        self.a.lobby.get(code).close()
        self.world.advance(0.1)
        sent = self.sent_by(self.a)
        self.a.lobby.handover.asked("c", Ask(code))
        self.assertEqual(sent, [("c", Handed(code, None, at=""))])


class AskingTests(ThreeHosts):
    """Issue 13, acceptance 3: who is asked for a room that belongs to host ``c`` now."""

    def asked(self, code: str) -> list[str]:
        """Let the third host look for a room; returns whom it asks."""
        sent = self.sent_by(self.c)
        self.c.lobby.ready(code)
        return sorted(host for host, entry in sent if isinstance(entry, Ask))

    def unanswered(self) -> str:
        """A code of the third host, which asks the first for it and has no answer."""
        code = self.world.code_of("c")
        self.patch(self.c.lobby.handover, "_former", lambda code: {"a"})
        unheard = {**self.a.lobby._receivers, Ask: lambda host, entry: None}
        self.patch(self.a.lobby, "_receivers", unheard)
        return code

    def test_who_does_not_answer(self) -> None:
        """It is waited for as long as a room may take to move, whatever timers there are."""
        code, timers = self.unanswered(), self.c.lobby.timers
        timers.limit = 1
        timers.once("a room of the application", "turn", 1000, lambda timer: None)
        ready = self.c.lobby.ready(code)
        self.world.advance(self.c.lobby.spread.move_timeout - 0.1)
        self.assertNoResult(ready)
        self.world.advance(0.2)
        self.successResultOf(ready)
        self.assertEqual(self.c.lobby.tasks.snapshot()["move"].runs, 1)
        sent = self.sent_by(self.c)
        self.c.lobby.handover.lost("a")
        self.assertEqual(sent, [], "nobody looks for it any more")

    def test_who_answers_leaves_no_timer(self) -> None:
        code, before = self.unanswered(), len(self.c.lobby.timers)
        ready = self.c.lobby.ready(code)
        self.assertEqual(len(self.c.lobby.timers), before + 1)
        self.c.lobby.handover.handed("a", Handed(code, None))
        self.successResultOf(ready)
        self.assertEqual(len(self.c.lobby.timers), before)

    def test_the_time_in_which_it_is_asked_for(self) -> None:
        code, clock = self.world.code_of("c", then="a", of="ab"), self.world.clock
        for after, asked in ((60.0, ["a"]), (60.5, [])):
            clock.rightNow = 1024.0 + after * 4
            self.c.lobby.handover.ring_changed(Ring("ab"), Ring("abc"))
            clock.rightNow += after
            self.assertEqual(self.asked(code), asked, after)
            self.setUp()
            clock = self.world.clock

    def test_a_host_that_is_gone_is_not_waited_for(self) -> None:
        code = self.world.code_of("c")
        self.world.clock.rightNow += 1000.0
        self.c.lobby.handover.ring_changed(Ring("x"), Ring("c"))
        for host in ("a", "b"):
            self.patch(self.world.hosts[host].lobby, "_receivers", {Ask: lambda host, entry: None})
        self.patch(self.c.lobby.hosts, "ring", Ring("abc"))
        self.successResultOf(self.c.lobby.ready(code))

    def test_who_came_with_this_host(self) -> None:
        """It may have made the room while it had not heard of us; who came later has heard."""
        code = self.world.code_of("c")
        for before, asked in (("", ["a", "b"]), ("c", [])):
            self.world.clock.rightNow += 1000.0
            self.c.lobby.handover.ring_changed(Ring(before), Ring("abc"))
            self.assertEqual(self.asked(code), asked)
            self.c.lobby.handover.handed("a", Handed(code, None))
            self.c.lobby.handover.handed("b", Handed(code, None))

    def test_how_many_rings_are_remembered(self) -> None:
        code = self.world.code_of("c", then="a", of="ab")
        for rings, asked in ((RINGS, ["a"]), (RINGS + 1, [])):
            self.world.clock.rightNow += 1000.0
            for n in range(rings):
                self.c.lobby.handover.ring_changed(Ring("c" if n else "ab"), Ring("c"))
            self.assertEqual(self.asked(code), asked)
            self.c.lobby.handover.handed("a", Handed(code, None))
        self.assertEqual(RINGS, 8)


class ClaimTests(ThreeHosts):
    """Issue 13, acceptance 3: a room that a host has asked for which does not serve yet."""

    def setUp(self) -> None:
        super().setUp()
        self.code = self.world.code_of("a")
        for host in (self.b, self.c):
            host.lobby.hosts.leave()
        self.world.advance(0.1)

    def test_the_last_one_who_asked_has_it(self) -> None:
        for host in ("b", "c"):
            self.a.lobby.handover.asked(host, Ask(self.code))
            self.assertEqual(self.a.lobby.owner(self.code), host)

    def test_one_that_serves_asks_as_well(self) -> None:
        """The ring decides again: the first one has told it that the room is not there."""
        self.a.lobby.handover.asked("b", Ask(self.code))
        self.patch(self.a.lobby.hosts, "ring", Ring("ac"))
        self.a.lobby.handover.asked("c", Ask(self.code))
        self.assertEqual(self.a.lobby.owner(self.code), "a")

    def test_it_has_the_room_no_more(self) -> None:
        self.a.lobby.handover.asked("b", Ask(self.code))
        self.a.lobby.handover.handed("c", Handed(self.code, b"[]", leaving=["c"]))
        self.assertEqual(self.a.lobby.owner(self.code), "b", "another one had it")
        self.a.lobby.handover.handed("b", Handed(self.code, b'["before"]', leaving=["b"]))
        self.assertEqual(self.a.lobby.owner(self.code), "a")

    def test_it_has_passed_the_room_on(self) -> None:
        """It stops as well, as the one that sends the room here knows."""
        self.a.lobby.handover.asked("b", Ask(self.code))
        self.a.lobby.handover.handed("c", Handed(self.code, b"[]", leaving=["b", "c"]))
        self.assertEqual(self.places(self.code), ["a"])

    def test_it_serves_and_stops(self) -> None:
        """The ring has named it since: what it asked for before is forgotten."""
        handover = self.a.lobby.handover
        handover.asked("b", Ask(self.code))
        handover.ring_changed(Ring("a"), Ring("ab"))
        handover.ring_changed(Ring("ab"), Ring("a"))
        self.assertEqual(self.a.lobby.owner(self.code), "a")
