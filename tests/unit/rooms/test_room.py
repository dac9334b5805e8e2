"""Rooms: one message at a time, floods, timers, broadcasts, and the end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import NOT_FOUND, RequestError
from kupool.rooms.events import Closing, Created, TimerFired
from kupool.rooms.failures import RoomBusy, RoomGone
from kupool.rooms.membership import Joined
from kupool.rooms.room import Incoming, Member, Room
from kupool.rooms.running import HandlerTimeout
from kupool.rooms.settings import FloodPolicy, RoomSettings
from kupool.session.connection import Connection
from kupool.session.outbox import EventPolicy
from kupool.timing.round_robin import RoundRobin
from kupool.wire.framing import FRAME, LINE, Framing
from tests.fakes.peers import PeerTransport
from tests.fakes.rooms_hall import Hall


class OrderTests(SynchronousTestCase):
    """A-41: a code, members, data, two queues, and one message at a time."""

    def setUp(self) -> None:
        self.hall = Hall()
        self.room = self.hall.lobby.create("tea")
        self.ann, _ = self.hall.member("tea", "ann")
        self.hall.settle()

    def test_what_a_room_has(self) -> None:
        self.room.data = {"round": 1}
        self.assertEqual((self.room.code, list(self.room.members)), ("tea", ["ann"]))
        self.assertIs(self.hall.lobby.get("tea"), self.room)

    def test_what_a_room_has_not(self) -> None:
        """Nothing has happened in it."""
        room = self.hall.lobby.create("coffee")
        counts = (room.waiting, room.refused, room.dropped, room.handled, room.failed)
        self.assertEqual(counts, (0, 0, 0, 0, 0))
        self.assertEqual((room.has_timer("turn"), room.cancel("turn")), (False, False))
        self.assertEqual(room.cancel_prefix(), 0)

    def test_a_member_whose_address_is_unknown(self) -> None:
        member = Member(self.room, "bot", 1000.0)
        self.assertEqual((member.address, member.waiting, member.online), ("", 0, False))

    def test_messages_in_order_and_events_first(self) -> None:
        self.hall.hooks.log.clear()
        for n in range(5):
            self.hall.lobby.deliver(self.ann, n)
        self.room.post_system("event 1")
        self.room.post_system("event 2")
        self.assertEqual(self.hall.hooks.log, [], "not within the sender's call")
        self.hall.settle()
        self.assertEqual(self.hall.hooks.log, ["event 1", "event 2", 0, 1, 2, 3, 4])

    def test_one_at_a_time_with_plain_functions_coroutines_and_deferreds(self) -> None:
        gates: list[Deferred[str]] = []
        log: list[str] = []

        def handle(room: Room, incoming: Incoming) -> object:
            kind, name = incoming.body  # type: ignore[misc]
            log.append(f"{name} begins")
            if kind == "plain":
                log.append(f"{name} ends")
                return name.upper()
            gates.append(Deferred())
            gates[-1].addCallback(lambda result: log.append(f"{name} ends") or result)

            async def wait() -> str:
                return await gates[-1]

            return wait() if kind == "coroutine" else gates[-1]

        self.hall.hooks.handle = handle
        answers = [
            self.hall.lobby.request(self.ann, body)
            for body in (("plain", "a"), ("coroutine", "b"), ("deferred", "c"), ("plain", "d"))
        ]
        self.hall.settle()
        self.assertEqual(log, ["a begins", "a ends", "b begins"])
        self.assertEqual(self.successResultOf(answers[0]), "A")
        self.assertEqual(self.room.waiting, 2)
        gates[0].callback("B")
        self.assertEqual(self.successResultOf(answers[1]), "B")
        self.hall.settle()
        self.assertEqual(log[3:], ["b ends", "c begins"])
        gates[1].callback("C")
        self.hall.settle()
        self.assertEqual([self.successResultOf(a) for a in answers[2:]], ["C", "D"])
        self.assertEqual(log[5:], ["c ends", "d begins", "d ends"])

    def test_a_handler_that_raises_is_reported_and_the_next_goes_on(self) -> None:
        def handle(room: Room, incoming: Incoming) -> object:
            if incoming.body == "bad":
                raise ZeroDivisionError
            if incoming.body == "refused":
                raise RequestError(NOT_FOUND.about("card"))
            return "fine"

        self.hall.hooks.handle = handle
        bad, refused, good = [self.hall.lobby.request(self.ann, b) for b in ("bad", "refused", "")]
        self.hall.settle()
        self.failureResultOf(bad, ZeroDivisionError)
        self.assertEqual(self.failureResultOf(refused, RequestError).value.error.code, 35)
        self.assertEqual(self.successResultOf(good), "fine")
        ((room, failure, subject),) = self.hall.hooks.errors
        self.assertEqual((room, failure.type, subject.body), (self.room, ZeroDivisionError, "bad"))
        self.assertEqual(self.room.failed, 2)

    def test_what_a_handler_says_after_its_timeout(self) -> None:
        """A failure is a debug line; a result is nothing."""
        for canceller, said in (
            (lambda handler: handler.callback("late"), []),
            (lambda handler: handler.errback(ValueError("late")), ["late"]),
        ):
            self.hall.hooks.handle = lambda room, incoming, c=canceller: Deferred(c)
            waiting = self.hall.lobby.request(self.ann, "x")
            self.hall.settle()
            with capturedLogs() as events:
                self.hall.clock.advance(30.0)
            self.failureResultOf(waiting, HandlerTimeout)
            late = [str(event["error"]) for event in events if "abandoned" in str(event)]
            self.assertEqual((late, self.flushLoggedErrors()), (said, []))

    def test_a_handler_that_hangs_is_cut_off(self) -> None:
        """One that ignores its cancellation holds the room no longer, either."""
        stubborn: Deferred[object] = Deferred(lambda d: None)
        hung = [stubborn, Deferred()]

        async def ignores() -> object:
            try:
                await Deferred()
            except Exception:
                return await Deferred()

        self.hall.hooks.handle = lambda room, incoming: (
            ignores() if incoming.body == "x" else hung.pop() if hung else "fine"
        )
        answers = [self.hall.lobby.request(self.ann, body) for body in ("x", "", "", "")]
        self.hall.settle()
        for n in range(3):
            self.hall.clock.advance(29.9)
            self.assertNoResult(answers[n])
            self.hall.clock.advance(0.1)
            self.failureResultOf(answers[n], HandlerTimeout)
        self.assertEqual(self.successResultOf(answers[3]), "fine")
        self.assertEqual(len(self.hall.hooks.errors), 3)

    def test_rooms_do_not_wait_for_each_other(self) -> None:
        other = self.hall.lobby.create("coffee")
        bob, _ = self.hall.member("coffee", "bob")
        self.hall.settle()
        self.hall.hooks.handle = lambda room, i: Deferred() if room is self.room else "fine"
        stuck = self.hall.lobby.request(self.ann, "")
        free = self.hall.lobby.request(bob, "")
        self.hall.settle()
        self.assertNoResult(stuck)
        self.assertEqual(self.successResultOf(free), "fine")
        self.assertEqual(other.handled, 3)

    def test_a_busy_room_does_not_hold_the_reactor(self) -> None:
        """A turn of the reactor does a bounded number of messages, of all rooms."""
        self.hall.lobby.create("coffee")
        bob, _ = self.hall.member("coffee", "bob")
        self.hall.settle()
        self.hall.hooks.log.clear()
        for n in range(60):
            self.hall.lobby.deliver(self.ann, f"a{n}")
        self.hall.lobby.deliver(bob, "b")
        self.hall.settle()
        self.assertEqual(len(self.hall.hooks.log), 61)
        self.assertLess(self.hall.hooks.log.index("b"), 60, "not after all of the other room's")

    def busy(self, *, members: int = 1) -> tuple[Hall, Connection, Connection]:
        """Two rooms that are new: one of ann and others, and one of bob."""
        hall = Hall()
        hall.lobby.create("tea")
        ann, *_ = [hall.member("tea", f"user {n}")[0] for n in range(members)]
        hall.lobby.create("coffee")
        return hall, ann, hall.member("coffee", "bob")[0]

    def test_how_much_a_room_does_in_its_turn(self) -> None:
        """Fifty events and messages, from the first on; then it is the next room's turn."""
        hall, ann, bob = self.busy()
        for n in range(60):
            hall.lobby.deliver(ann, n)
        hall.lobby.deliver(bob, "b")
        hall.settle()
        joined = Joined(hall.lobby.members.get("bob"))
        # The first room is created, and ann joins it: 48 messages come after that.
        self.assertEqual(hall.hooks.log[48:52], [47, joined, "b", 48])

    def test_sends_that_wait_are_a_part_of_the_turn(self) -> None:
        """Each counts as one message. What was sent before the turn does not count."""
        hall, ann, bob = self.busy(members=20)
        hall.settle()
        hall.hooks.log.clear()
        hall.lobby.get("tea").broadcast(b"now")
        self.successResultOf(hall.lobby.broadcast(b"later"))
        for n in range(60):
            hall.lobby.deliver(ann, n)
        hall.lobby.deliver(bob, "b")
        hall.settle()
        self.assertEqual(hall.hooks.log.index("b"), 30)

    def test_a_single_send_that_waits(self) -> None:
        hall, ann, bob = self.busy()
        hall.settle()
        hall.hooks.log.clear()
        self.successResultOf(hall.lobby.broadcast(b"later"))
        for n in range(60):
            hall.lobby.deliver(ann, n)
        hall.lobby.deliver(bob, "b")
        hall.settle()
        self.assertEqual(hall.hooks.log.index("b"), 49)

    def test_a_large_broadcast_is_a_part_of_the_turn(self) -> None:
        """What the message itself has used of the turn is not used again."""
        hall, ann, bob = self.busy()
        others = [hall.member("tea", f"other {n}")[1] for n in range(600)]
        hall.settle()
        sent: list[int] = []

        def handle(room: Room, incoming: Incoming) -> None:
            if room.code == "tea":
                room.broadcast(b"news", without=["user 0"])
            else:
                sent.append(sum(bool(transport.value()) for transport in others))

        hall.hooks.handle = handle
        hall.lobby.deliver(ann, "a")
        hall.lobby.deliver(bob, "b")
        hall.settle()
        self.assertEqual(sent, [49])
        self.assertTrue(all(transport.value() for transport in others))

    def test_a_room_that_sends_much_takes_no_longer_a_turn(self) -> None:
        """What a message sends counts as work: the other room comes after the first one."""
        for n in range(400):
            self.hall.member("tea", f"user {n}")
        self.hall.lobby.create("coffee")
        bob, _ = self.hall.member("coffee", "bob")
        self.hall.settle()
        self.hall.hooks.log.clear()
        self.hall.hooks.handle = lambda room, incoming: room.broadcast(b"news")
        for n in range(40):
            self.hall.lobby.deliver(self.ann, f"a{n}")
        self.hall.lobby.deliver(bob, "b")
        self.hall.settle()
        self.assertEqual(self.hall.hooks.log.index("b"), 1)

    def test_what_a_hook_cannot_do_stops_nothing(self) -> None:
        """A-42: not even an ``on_error`` that raises, or a payload that cannot be made."""

        def raising(*arguments: object) -> None:
            raise ZeroDivisionError

        self.patch(self.hall.hooks, "on_error", raising)
        self.hall.hooks.handle = raising
        self.hall.hooks.system = raising
        self.room.post_system("event")
        self.failureResultOf(self.hall.request_now(self.ann, ""), ZeroDivisionError)
        self.room.broadcast(raising)  # type: ignore[arg-type]
        self.hall.hooks.handle = lambda room, incoming: "fine"
        self.assertEqual(self.successResultOf(self.hall.request_now(self.ann, "")), "fine")
        stranger, _ = self.hall.connect()
        self.failureResultOf(self.hall.lobby.request(stranger, ""), RequestError)
        self.hall.lobby.deliver(stranger, "")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)

    def test_what_the_log_says_of_a_hook_that_fails(self) -> None:
        """A-42: which hook it was, and of which room."""

        def raising(*arguments: object) -> None:
            raise ZeroDivisionError

        self.hall.hooks.system = raising
        self.patch(self.hall.hooks, "on_error", raising)
        self.room.when_closed(raising)
        with capturedLogs() as events:
            self.room.close()
            self.hall.settle()
        said = [formatEvent(event) for event in events if "log_failure" in event]
        self.assertEqual(said, ["Failed: on_error of room tea", "Failed: the end of room tea"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_an_answer_that_the_router_has_given_already(self) -> None:
        """A-42: as its own time limit was over; the room goes on."""
        self.hall.hooks.handle = lambda room, incoming: gate
        gate: Deferred[object] = Deferred()
        answer = self.hall.request_now(self.ann, "slow")
        answer.callback("too late")
        gate.callback("done")
        self.hall.settle()
        self.assertEqual(self.successResultOf(answer), "too late")
        self.assertEqual((self.hall.hooks.errors, self.room.failed), ([], 0))

    def test_a_runnable_that_raises_costs_the_others_no_turn(self) -> None:
        class Broken:
            queued = False
            ready = True

            def run(self, budget: int) -> int:
                raise ZeroDivisionError

        turns = RoundRobin(self.hall.clock)
        broken, log = Broken(), []

        class Fine(Broken):
            ready = False

            def run(self, budget: int) -> int:
                log.append(budget)
                return 1

        turns.wake(broken)
        turns.wake(Fine())
        self.hall.settle()
        self.assertEqual((len(log), broken.queued), (1, False))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class FloodTests(SynchronousTestCase):
    """A-48: a flooded room back-pressures its own senders only."""

    def test_a_flooding_member_is_not_read_and_nobody_else_waits(self) -> None:
        hall = Hall(RoomSettings(sender_limit=4, queue_limit=100))
        hall.lobby.create("tea")
        hall.lobby.create("coffee")
        gate: Deferred[object] = Deferred()
        hall.hooks.handle = lambda room, incoming: gate if incoming.body == b"wait" else None
        flooding, transport = hall.member("tea", "ann")
        polite, polite_transport = hall.member("tea", "bob")
        _, elsewhere = hall.member("coffee", "cid")
        hall.settle()
        hall.hooks.log.clear()
        flooding.feed(b"".join(b"%d\n" % n for n in range(50)))
        polite.feed(b"wait\n")
        self.assertFalse(transport.reading)
        self.assertTrue(polite_transport.reading)
        self.assertTrue(elsewhere.reading)
        room = hall.lobby.get("tea")
        self.assertEqual(room.waiting, 5)
        hall.settle()
        self.assertEqual(hall.hooks.log[:5], [b"0", b"1", b"2", b"3", b"wait"])
        self.assertLessEqual(room.waiting, 4)
        gate.callback(None)
        hall.settle()
        self.assertTrue(transport.reading)
        self.assertEqual(
            hall.hooks.log, [b"0", b"1", b"2", b"3", b"wait"] + [b"%d" % n for n in range(4, 50)]
        )
        self.assertEqual(room.refused, 0)

    def test_a_full_room_pauses_all_of_its_senders(self) -> None:
        hall = Hall(RoomSettings(sender_limit=100, queue_limit=8))
        hall.lobby.create("tea")
        gate: Deferred[object] = Deferred()
        hall.hooks.handle = lambda room, incoming: gate
        members = [hall.member("tea", f"user {n}") for n in range(20)]
        hall.lobby.create("coffee")
        other, other_transport = hall.member("coffee", "cid")
        hall.settle()
        for connection, _ in members:
            for n in range(10):
                connection.feed(b"%d\n" % n)
        other.feed(b"hello\n")
        room = hall.lobby.get("tea")
        self.assertLessEqual(room.waiting, 16, "twice the limit is never exceeded")
        self.assertFalse(any(transport.reading for _, transport in members[1:8]))
        self.assertTrue(other_transport.reading)
        gate.callback(None)
        hall.hooks.handle = lambda room, incoming: None
        hall.settle()
        self.assertTrue(all(transport.reading for _, transport in members))
        self.assertEqual(room.waiting, 0)
        self.assertEqual(room.handled + room.refused, 1 + 20 + 200)

    def test_refusing_policy(self) -> None:
        hall = Hall(RoomSettings(flood=FloodPolicy.REFUSE, sender_limit=2, queue_limit=3))
        room = hall.lobby.create("tea")
        ann, transport = hall.member("tea", "ann")
        bob, _ = hall.member("tea", "bob")
        hall.settle()
        answers = [hall.lobby.request(ann, n) for n in range(3)]
        answers += [hall.lobby.request(bob, n) for n in range(2)]
        self.failureResultOf(answers[2], RoomBusy)
        failure = self.failureResultOf(answers[4], RequestError)
        self.assertEqual(failure.value.error, (34, "too many requests: messages of room tea"))
        self.assertEqual((room.refused, room.waiting, transport.reading), (2, 3, True))
        hall.settle()
        self.assertEqual([self.successResultOf(answers[n]) for n in (0, 1, 3)], [None] * 3)

    def test_the_application_itself_is_refused_and_events_are_bounded(self) -> None:
        hall = Hall(RoomSettings(sender_limit=2, system_limit=3))
        room = hall.lobby.create("tea")
        member = hall.lobby.members.join(room, "bot")
        for _ in range(2):
            room.post(Incoming(member, None, "hello"))
        self.assertRaises(RoomBusy, room.post, Incoming(member, None, "hello"))
        room.post_system("third, after created and joined")
        self.assertRaises(RoomBusy, room.post_system, "fourth")
        self.assertRaises(RoomBusy, hall.lobby.members.join, room, "ann")

    def test_a_single_event(self) -> None:
        hall = Hall(RoomSettings(system_limit=1))
        room = hall.lobby.create("tea")
        hall.settle()
        room.post_system("first")
        self.assertRaises(RoomBusy, room.post_system, "second")

    def test_who_leaves_or_goes_is_read_again(self) -> None:
        hall = Hall(RoomSettings(sender_limit=1))
        hall.lobby.create("tea")
        hall.hooks.handle = lambda room, incoming: Deferred()
        ann, transport = hall.member("tea", "ann")
        hall.settle()
        ann.feed(b"1\n2\n3\n")
        self.assertFalse(transport.reading)
        hall.hooks.users[ann] = None
        hall.lobby.members.leave("ann")
        hall.settle()
        self.assertTrue(transport.reading)
        self.assertEqual([error[2] for error in hall.hooks.errors][-2:], [b"2", b"3"])


class TimerTests(SynchronousTestCase):
    """A-49: timers of a room are messages of it, by key, cancelled by prefix."""

    def setUp(self) -> None:
        self.hall = Hall()
        self.room = self.hall.lobby.create("tea")
        self.hall.settle()
        self.hall.hooks.log.clear()
        self.log: list[str] = []

    def test_once_and_repeat(self) -> None:
        self.room.once("turn:ann", 2, lambda room, key: self.log.append(f"{room.code} {key}"))
        self.room.repeat("tick", 1)
        self.hall.clock.pump([1] * 4)
        self.assertEqual(self.log, ["tea turn:ann"])
        self.assertEqual(self.hall.hooks.log, [TimerFired("tick")] * 4)
        self.assertTrue(self.room.cancel("tick"))
        self.assertFalse(self.room.cancel("turn:ann"))
        self.hall.clock.advance(10)
        self.assertEqual(len(self.hall.hooks.log), 4)

    def test_by_room_and_prefix(self) -> None:
        other = self.hall.lobby.create("coffee")
        for room in (self.room, other):
            for key in ("turn:ann", "turn:bob", "end"):
                room.once(key, 1, lambda room, key: self.log.append(f"{room.code} {key}"))
        self.assertEqual(self.room.cancel_prefix("turn:"), 2)
        self.hall.clock.advance(1)
        self.assertEqual(
            sorted(self.log), ["coffee end", "coffee turn:ann", "coffee turn:bob", "tea end"]
        )

    def test_a_timer_waits_for_the_message_before_it(self) -> None:
        """A-41, A-56: timers run one at a time with messages, and the wait is lateness."""
        gate: Deferred[object] = Deferred()
        self.hall.hooks.handle = lambda room, incoming: gate
        ann, _ = self.hall.member("tea", "ann")
        self.hall.lobby.deliver(ann, "slow")
        self.hall.settle()
        self.room.repeat("save:1", 1, lambda room, key: self.log.append(key))
        self.hall.clock.pump([1] * 3)
        self.assertEqual(self.log, [])
        gate.callback(None)
        self.hall.settle()
        self.assertEqual(self.log, ["save:1"], "the runs that were due meanwhile do not pile up")
        counts = self.hall.lobby.tasks.of("save")
        self.assertEqual((counts.runs, counts.skipped, counts.lateness_max), (1, 2, 2.0))

    def busy(self) -> Deferred[object]:
        """Let the room handle a message until what this returns fires."""
        gate: Deferred[object] = Deferred()
        self.hall.hooks.handle = lambda room, incoming: gate
        ann, _ = self.hall.member("tea", "ann")
        self.hall.lobby.deliver(ann, "slow")
        self.hall.settle()
        return gate

    def test_a_run_that_waits_for_its_turn(self) -> None:
        """It is there like a timer, is cancelled like one, and is counted as one."""
        gate = self.busy()
        for key in ("a:1", "a:2", "b", "c"):
            self.room.once(key, 1, lambda room, key: self.log.append(key))
        self.hall.clock.advance(1)
        self.assertEqual(len(self.hall.lobby.timers), 0)
        self.assertTrue(self.room.has_timer("b"))
        self.assertTrue(self.room.cancel("b"))
        self.assertFalse(self.room.cancel("b"))
        self.assertFalse(self.room.has_timer("b"))
        self.assertEqual(self.room.cancel_prefix("a:"), 2)
        gate.callback(None)
        self.hall.settle()
        self.assertEqual((self.log, self.room.has_timer("c")), (["c"], False))

    def test_a_run_that_waits_is_replaced(self) -> None:
        """By a timer of the same key, which runs at its own time."""
        for set_again in (self.room.once, self.room.repeat):
            self.setUp()
            gate = self.busy()
            self.room.once("turn", 1, lambda room, key: self.log.append("old"))
            self.hall.clock.advance(1)
            set_again = getattr(self.room, set_again.__name__)
            set_again("turn", 2, lambda room, key: self.log.append("new"))
            gate.callback(None)
            self.hall.settle()
            self.assertEqual((self.log, self.room.has_timer("turn")), ([], True))
            self.hall.clock.advance(2)
            self.assertEqual(self.log, ["new"])

    def test_a_run_that_has_begun(self) -> None:
        """It may set its own key again, and is no timer while it runs."""
        gate: Deferred[object] = Deferred()
        self.room.once("turn", 1, lambda room, key: gate)
        self.hall.clock.advance(1)
        self.assertFalse(self.room.has_timer("turn"))
        self.assertFalse(self.room.cancel("turn"))
        self.room.once("turn", 1, lambda room, key: self.log.append(key))
        self.hall.clock.advance(1)
        self.assertTrue(self.room.has_timer("turn"))
        gate.callback(None)
        self.hall.settle()
        self.assertEqual((self.log, self.room.has_timer("turn")), (["turn"], False))

    def test_failures_and_duration_are_counted(self) -> None:
        """A-56: what a room's timer does is in the statistics, under the key's first part."""
        gate: Deferred[object] = Deferred()

        def fail(room: Room, key: str) -> object:
            raise ZeroDivisionError

        self.room.once("save:1", 1, lambda room, key: gate)
        self.room.once("load:1", 1, fail)
        self.hall.clock.pump([1, 1, 1])
        gate.callback(None)
        self.hall.settle()
        counts = self.hall.lobby.tasks.snapshot()
        self.assertEqual((counts["save"].runs, counts["save"].duration_max), (1, 2.0))
        self.assertEqual((counts["load"].runs, counts["load"].failures), (1, 1))
        self.assertEqual([error[1].type for error in self.hall.hooks.errors], [ZeroDivisionError])


class BroadcastTests(SynchronousTestCase):
    """A-45: to a room, except some, to all rooms, to one user; encoded once."""

    def setUp(self) -> None:
        self.hall = Hall()
        for code in ("tea", "coffee"):
            self.hall.lobby.create(code)
        self.peers: dict[str, PeerTransport] = {}
        self.connections: dict[str, Connection] = {}
        for code, user, framing in (
            ("tea", "ann", LINE),
            ("tea", "bob", FRAME),
            ("tea", "cid", LINE),
            ("coffee", "dan", LINE),
        ):
            self.connections[user], self.peers[user] = self.hall.member(code, user, framing)
        self.hall.settle()

    def got(self) -> dict[str, bytes]:
        return {user: data for user, peer in self.peers.items() if (data := peer.taken())}

    def test_a_room(self) -> None:
        self.hall.lobby.get("tea").broadcast(b"hi")
        expected = {"ann": b"hi\n", "bob": FRAME.encode(b"hi"), "cid": b"hi\n"}
        self.assertEqual(self.got(), expected)

    def test_all_but_some(self) -> None:
        tea = self.hall.lobby.get("tea")
        tea.broadcast(b"hi", without=["ann", tea.members["bob"]])
        self.assertEqual(self.got(), {"cid": b"hi\n"})
        tea.broadcast(b"hi", without={self.connections["cid"], "bob"})
        self.assertEqual(self.got(), {"ann": b"hi\n"})

    def test_all_rooms(self) -> None:
        made: list[str] = []

        def make(framing: Framing) -> bytes:
            made.append(framing.name)
            return framing.encode(b"hi")

        self.successResultOf(self.hall.lobby.broadcast(make))
        self.hall.settle()
        self.assertEqual(set(self.got()), {"ann", "bob", "cid", "dan"})
        self.assertEqual(sorted(made), ["frame", "line"], "once for each framing")

    def test_one_user_on_any_connection(self) -> None:
        self.connections["ann 2"], self.peers["ann 2"] = self.hall.member("tea", "ann")
        self.assertEqual(self.hall.lobby.send_user("ann", b"psst"), 2)
        self.assertEqual(self.got(), {"ann": b"psst\n", "ann 2": b"psst\n"})
        self.connections["ann"].lost(self.hall.done)
        self.assertEqual(self.hall.lobby.send_user("ann", b"psst"), 1)
        self.assertRaises(RequestError, self.hall.lobby.send_user, "nobody", b"psst")

    def test_a_slow_reader_delays_nobody_and_its_drops_are_counted(self) -> None:
        tea = self.hall.lobby.get("tea")
        self.peers["ann"].full = True
        tea.broadcast(b"fills")
        for n in range(3):
            tea.broadcast(b"%d" % n, key="score")
        tea.broadcast(b"x" * 300_000, policy=EventPolicy.DROP_NEW)
        tea.broadcast(b"kept", policy=None)
        self.assertEqual(tea.dropped, 1)
        self.assertEqual(len(self.peers["cid"].taken()), 6 + 3 * 2 + 300_001 + 5)
        self.peers["ann"].taken()
        self.peers["ann"].drain()
        self.assertEqual(self.peers["ann"].taken(), b"kept\n2\n")

    def test_the_largest_room_in_one_turn(self) -> None:
        room = self.hall.lobby.create("milk")
        peers = [self.hall.member("milk", f"user {n}")[1] for n in range(500)]
        room.broadcast(b"news")
        self.assertTrue(all(peer.value() for peer in peers))

    def test_a_large_room_in_several_turns_and_in_order(self) -> None:
        others = [self.hall.member("tea", f"user {n}")[1] for n in range(1200)]
        self.hall.settle()
        tea = self.hall.lobby.get("tea")
        tea.broadcast(b"one")
        everyone = [*others, *self.peers.values()]
        self.assertEqual([bool(t.value()) for t in everyone], [False] * 1204)
        self.hall.lobby.members.leave("user 3")
        tea.broadcast(b"two")
        self.hall.lobby.send_user("user 1199", b"three")
        self.hall.settle()
        self.assertEqual(others[1199].value(), b"one\ntwo\nthree\n")
        self.assertEqual(sum(t.value() == b"one\ntwo\n" for t in others), 1198)


class CloseTests(SynchronousTestCase):
    """A-47: timers removed, pending messages handled or reported, nothing after the end."""

    def setUp(self) -> None:
        self.hall = Hall()
        self.room = self.hall.lobby.create("tea")
        self.ann, self.transport = self.hall.member("tea", "ann")
        self.hall.settle()
        self.hall.hooks.log.clear()

    def closed(self) -> None:
        self.assertIsNone(self.hall.lobby.find("tea"))
        self.assertIsNone(self.hall.lobby.members.of(self.ann))
        self.assertEqual(len(self.hall.lobby.timers), 0)
        self.assertRaises(RoomGone, self.room.once, "key", 1)
        self.assertRaises(RoomGone, self.room.post_system, "event")
        self.room.broadcast(b"late")
        self.assertEqual(self.transport.value(), b"")

    def test_what_waits_is_handled(self) -> None:
        for n in range(3):
            self.room.once(str(n), 1)
        waiting = [self.hall.lobby.request(self.ann, n) for n in range(3)]
        ended = self.room.close("over")
        again = self.room.close()
        self.assertEqual(len(self.hall.lobby.timers), 1, "the deadline of the close alone")
        self.failureResultOf(self.hall.lobby.request(self.ann, "late"), RoomGone)
        self.assertNoResult(ended)
        self.hall.settle()
        self.assertEqual((self.successResultOf(ended), self.successResultOf(again)), ([], []))
        self.assertEqual(self.hall.hooks.log, [Closing("over"), 0, 1, 2])
        for answer in waiting:
            self.successResultOf(answer)
        self.closed()
        self.assertEqual(self.successResultOf(self.room.close()), [])

    def test_what_waits_of_who_has_left(self) -> None:
        """It is refused, and the room ends without waiting for anything else."""
        answer = self.hall.lobby.request(self.ann, "x")
        self.hall.lobby.members.leave("ann")
        self.hall.settle()
        self.failureResultOf(answer, RoomGone)
        self.assertEqual(len(self.hall.lobby), 0)

    def test_what_waits_is_reported(self) -> None:
        member = self.hall.lobby.members.get("ann")
        waiting = [self.hall.lobby.request(self.ann, n) for n in range(3)]
        self.assertEqual(member.waiting, 3)
        ended = self.room.close(handle_pending=False)
        self.hall.settle()
        self.assertEqual([incoming.body for incoming in self.successResultOf(ended)], [0, 1, 2])
        for answer in waiting:
            self.failureResultOf(answer, RoomGone)
        self.assertEqual(self.hall.hooks.log, [Closing("closed")])
        self.assertEqual(member.waiting, 0)
        self.closed()

    def test_a_room_that_is_new(self) -> None:
        """A-42: no hook gets a room that ``on_create_room`` has not had, however soon it ends."""
        self.hall.hooks.create = lambda room: self.hall.hooks.log.append(f"new: {room.code}")
        room = self.hall.lobby.create("short")
        ended = room.close("cut off", handle_pending=False)
        self.hall.settle()
        self.assertEqual(self.successResultOf(ended), [])
        self.assertEqual(self.hall.hooks.log, ["new: short", Closing("cut off")])

    def test_a_handler_that_hangs_is_not_waited_for_longer_than_the_timeout(self) -> None:
        self.hall.hooks.handle = lambda room, incoming: Deferred()
        waiting = [self.hall.lobby.request(self.ann, n) for n in range(2)]
        self.hall.settle()
        ended = self.room.close()
        self.hall.clock.advance(9.9)
        self.assertNoResult(ended)
        self.hall.clock.advance(0.2)
        self.assertEqual([incoming.body for incoming in self.successResultOf(ended)], [1])
        for answer in waiting:
            self.failureResultOf(answer, RoomGone)
        self.closed()
        self.hall.settle()
        self.assertEqual(self.hall.clock.getDelayedCalls(), [])
        self.assertEqual(self.hall.hooks.log, [0], "it is told nothing more")

    def test_from_its_own_handler(self) -> None:
        ended: list[Any] = []
        self.hall.hooks.handle = lambda room, i: room.close().addCallback(ended.append) and None
        self.successResultOf(self.hall.request_now(self.ann, "x"))
        self.assertEqual(ended, [[]])
        self.closed()

    def test_with_no_timer_left(self) -> None:
        """The lobby's own timers, that rooms and members end by, are always there."""
        hall = Hall(RoomSettings(max_timers=1, linger=1))
        for code in ("tea", "coffee"):
            hall.lobby.create(code)
        ann, _ = hall.member("tea", "ann")
        hall.settle()
        hall.lobby.get("coffee").once("far", 1000)
        self.assertRaises(RequestError, hall.lobby.get("tea").once, "far", 1000)
        ann.lost(hall.done)
        hall.clock.pump([30.1, 1.1])
        self.assertEqual([room.code for room in hall.lobby], ["coffee"])
        hall.lobby.get("coffee").close()
        hall.settle()
        self.assertEqual((len(hall.lobby), len(hall.lobby.timers)), (0, 0))

    def test_a_room_that_cannot_be_created_ends(self) -> None:
        def refuse(room: Room) -> object:
            raise RequestError(NOT_FOUND.about("map"))

        self.hall.hooks.create = refuse
        room = self.hall.lobby.create("coffee")
        bob, _ = self.hall.member("coffee", "bob")
        answer = self.hall.lobby.request(bob, "hello")
        self.hall.settle()
        self.failureResultOf(answer, RoomGone)
        self.assertIsNone(self.hall.lobby.find("coffee"))
        self.assertTrue(room.closing)
        self.assertEqual(self.hall.hooks.errors[0][2], Created())
        self.assertEqual(self.hall.hooks.log, [Closing("it could not be created")])

    def test_all_rooms(self) -> None:
        """A-47: the lobby's end under load, with every message handled or reported."""
        for n in range(20):
            self.hall.lobby.create(f"room {n}")
            connection, _ = self.hall.member(f"room {n}", f"user {n}")
            for _ in range(5):
                self.hall.lobby.deliver(connection, "hello")
        self.hall.hooks.handle = lambda room, i: Deferred() if room.code == "room 7" else None
        ended = Deferred.fromCoroutine(self.hall.lobby.close())
        self.hall.settle()
        self.assertRaises(RoomGone, self.hall.lobby.create, "new")
        self.assertEqual(len(self.hall.lobby), 1)
        self.hall.clock.advance(10.1)
        self.hall.settle()
        self.assertEqual(len(self.successResultOf(ended)), 4)
        self.assertEqual(self.hall.hooks.log.count("hello"), 19 * 5 + 1)
        self.assertEqual(self.hall.hooks.log.count(Closing("closed")), 21)
        self.assertEqual((len(self.hall.lobby), len(self.hall.lobby.members)), (0, 0))
        self.assertEqual(self.hall.clock.getDelayedCalls(), [])

    def test_events_have_been_told(self) -> None:
        room = self.hall.lobby.create("coffee")
        member = self.hall.lobby.members.join(room, "bot")
        self.hall.settle()
        self.assertEqual(self.hall.hooks.log, [Joined(member)])
