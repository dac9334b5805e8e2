"""Rooms under members, hooks and moments that are against them."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any
from weakref import ref

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import RequestError
from kupool.rooms.lobby import Lobby
from kupool.rooms.matchmaking import MatchRequest
from kupool.rooms.membership import Disconnected, Left, Returned
from kupool.rooms.running import HandlerTimeout
from kupool.rooms.settings import FloodPolicy, RoomSettings
from tests.fakes.peers import lines
from tests.fakes.rooms_hall import Hall


class HookTests(SynchronousTestCase):
    """A-42: hooks that raise, hang or go on for ever cost their own room alone."""

    def setUp(self) -> None:
        self.hall = Hall(RoomSettings(handler_timeout=5))
        self.lobby = self.hall.lobby

    def test_one_that_is_cut_off_is_answered_timeout_and_reported(self) -> None:
        self.lobby.create("tea")
        ann, _ = self.hall.member("tea", "ann")
        cancelled: list[object] = []

        async def hang() -> None:
            try:
                await Deferred()
            except CancelledError as error:
                cancelled.append(error)
                raise

        self.hall.hooks.handle = lambda room, incoming: hang()
        answer = self.hall.request_now(ann, "x")
        self.hall.clock.advance(5)
        error = self.failureResultOf(answer, RequestError).value.error
        self.assertEqual((error.code, error.text, len(cancelled)), (37, "timeout", 1))
        self.assertEqual([e[1].type for e in self.hall.hooks.errors], [HandlerTimeout])

    def test_parsing_that_hangs_holds_that_connection_and_no_longer(self) -> None:
        ann, transport = self.hall.connect()
        self.hall.hooks.users[ann] = Deferred()
        answer = self.hall.request_now(ann, "x")
        self.assertFalse(transport.reading)
        self.hall.clock.advance(5)
        self.assertEqual(self.failureResultOf(answer, RequestError).value.error.code, 37)
        self.assertTrue(transport.reading)
        self.assertEqual((len(self.lobby), len(self.lobby.members)), (0, 0))

    def test_every_hook_may_raise(self) -> None:
        """The lobby goes on with the next, whichever it is."""

        def raising(*arguments: object) -> Any:
            raise ZeroDivisionError

        hooks = self.hall.hooks
        for name in ("on_parse_user", "on_parse_match", "on_match_players", "on_create_room"):
            self.patch(hooks, name, raising)
        ann, _ = self.hall.connect()
        self.failureResultOf(self.hall.request_now(ann, "x"), ZeroDivisionError)
        self.assertRaises(ZeroDivisionError, self.lobby.match, ann, "x")
        self.lobby.create("tea")
        self.hall.settle()
        self.assertIsNone(self.lobby.find("tea"))
        self.patch(hooks, "on_parse_match", lambda connection, body: body)
        self.assertTrue(self.lobby.match(ann, MatchRequest("ann", "solo", 1, 1)))
        self.assertEqual([e[1].type for e in hooks.errors], [ZeroDivisionError] * 3)
        self.assertEqual(len(self.lobby.matchmaker), 0)

    def test_system_hooks_that_hang(self) -> None:
        self.hall.hooks.system = lambda room, event: Deferred()
        self.lobby.create("tea")
        ann, _ = self.hall.member("tea", "ann")
        answer = self.hall.request_now(ann, "x")
        self.hall.clock.advance(4.9)
        self.assertNoResult(answer)
        self.hall.clock.advance(0.1)
        self.hall.settle()
        self.assertIsNone(self.successResultOf(answer))


class NameTests(SynchronousTestCase):
    """A-44: names that nobody can have."""

    def test_too_long_and_empty_ones(self) -> None:
        hall = Hall()
        tea = hall.lobby.create("tea")
        hall.member("tea", "ann")
        connection, _ = hall.connect()
        for bad in ("", "x" * 256):
            for call in (
                lambda bad=bad: hall.lobby.create(bad),
                lambda bad=bad: hall.lobby.members.join(tea, bad),
                lambda bad=bad: hall.lobby.members.rename("ann", bad),
                lambda bad=bad: hall.lobby.match(connection, MatchRequest(bad, "duel", 2, 1)),
                lambda bad=bad: hall.lobby.match(connection, MatchRequest("ann", bad, 2, 1)),
            ):
                error = self.assertRaises(RequestError, call)
                self.assertEqual(error.error.text, "bad params: a name has 1 to 255 characters")
        self.assertEqual((list(tea.members), len(hall.lobby.matchmaker)), (["ann"], 0))


class TimerMomentTests(SynchronousTestCase):
    """A-49: timers that are cancelled, replaced or left behind while their run waits."""

    def setUp(self) -> None:
        self.hall = Hall()
        self.room = self.hall.lobby.create("tea")
        self.ann, _ = self.hall.member("tea", "ann")
        self.gate: Deferred[object] = Deferred()
        self.hall.hooks.handle = lambda room, incoming: self.gate
        self.hall.lobby.deliver(self.ann, "slow")
        self.hall.settle()
        self.ran: list[str] = []

    def note(self, room: object, key: str) -> None:
        self.ran.append(key)

    def go_on(self) -> None:
        self.gate.callback(None)
        self.hall.clock.pump([0, 0, 0])

    def test_a_run_that_waits_can_be_cancelled(self) -> None:
        self.room.once("turn:ann", 1, self.note)
        self.room.once("turn:bob", 1, self.note)
        self.room.once("end", 1, self.note)
        self.hall.clock.advance(2)
        self.assertTrue(self.room.has_timer("end"))
        self.assertTrue(self.room.cancel("end"))
        self.assertFalse(self.room.cancel("end"))
        self.assertEqual(self.room.cancel_prefix("turn:b"), 1)
        self.go_on()
        self.assertEqual(self.ran, ["turn:ann"])
        self.assertFalse(self.room.has_timer("turn:ann"))

    def test_setting_it_again_replaces_a_run_that_waits(self) -> None:
        self.room.once("turn", 1, lambda room, key: self.ran.append("first"))
        self.hall.clock.advance(2)
        self.room.once("turn", 5, lambda room, key: self.ran.append("second"))
        self.go_on()
        self.assertEqual(self.ran, [])
        self.hall.clock.advance(5)
        self.assertEqual(self.ran, ["second"])

    def test_one_at_work_may_set_and_cancel_its_own_key(self) -> None:
        work: Deferred[object] = Deferred()

        def turn(room: Any, key: str) -> Deferred[object]:
            self.ran.append(key)
            room.cancel(key)
            room.once(key, 1, self.note)
            return work

        self.room.once("turn", 1, turn)
        self.gate.callback(None)
        self.hall.clock.pump([1, 1, 1])
        self.assertEqual(self.ran, ["turn"], "the second waits for the first")
        work.callback(None)
        self.hall.settle()
        self.assertEqual(self.ran, ["turn", "turn"])

    def test_none_fires_after_the_close(self) -> None:
        """A-47: neither one that waits for its turn, nor one on the wheel."""
        self.room.once("waits", 1, self.note)
        self.room.repeat("repeats", 1, self.note)
        self.room.once("far", 100, self.note)
        self.hall.clock.advance(2)
        self.room.close()
        self.assertEqual(len(self.hall.lobby.timers), 1, "the close's own")
        self.go_on()
        self.hall.clock.advance(200)
        self.assertEqual((self.ran, len(self.hall.lobby.timers)), ([], 0))


class ComingTests(SynchronousTestCase):
    """A-43, A-46: who comes in the wrong moment."""

    def test_a_room_that_is_ending_is_waited_for(self) -> None:
        hall = Hall()
        tea = hall.lobby.create("tea")
        ann, _ = hall.member("tea", "ann")
        work: Deferred[object] = Deferred()
        hall.hooks.handle = lambda room, incoming: work if incoming.body == "slow" else "new"
        hall.lobby.deliver(ann, "slow")
        hall.settle()
        hall.lobby.members.leave("ann")
        self.assertTrue(tea.closing)
        bob, transport = hall.connect()
        hall.hooks.users[bob] = ("tea", "bob")
        answer = hall.request_now(bob, "x")
        self.assertNoResult(answer)
        self.assertFalse(transport.reading)
        work.callback(None)
        hall.clock.pump([0, 0])
        self.assertEqual(self.successResultOf(answer), "new")
        self.assertIsNot(hall.lobby.get("tea"), tea)
        self.assertTrue(transport.reading)

    def test_back_while_the_old_connection_has_not_ended(self) -> None:
        hall = Hall()
        hall.lobby.create("tea")
        old, _ = hall.member("tea", "ann")
        member = hall.lobby.members.get("ann")
        new, _ = hall.member("tea", "ann")
        hall.settle()
        hall.hooks.log.clear()
        old.lost(hall.done)
        hall.clock.advance(60)
        self.assertEqual(hall.hooks.log, [], "she was never away")
        new.lost(hall.done)
        hall.member("tea", "ann")
        hall.settle()
        self.assertEqual(hall.hooks.log, [Disconnected(member), Returned(member)])

    def test_one_who_comes_and_goes_all_the_time_is_bounded(self) -> None:
        hall = Hall(RoomSettings(system_limit=10))
        hall.lobby.create("tea")
        hall.hooks.system = lambda room, event: Deferred()
        refused = 0
        for _ in range(100):
            connection, _ = hall.connect()
            try:
                hall.lobby.members.join(hall.lobby.get("tea"), "ann", connection)
            except RequestError:
                refused += 1
            connection.lost(hall.done)
        self.assertGreater(refused, 80)
        self.assertEqual(len(hall.lobby.members), 1)

    def test_a_move_that_is_refused_changes_nothing(self) -> None:
        hall = Hall(RoomSettings(max_members=1, max_rooms=2))
        hall.lobby.create("tea")
        hall.lobby.create("full")
        ann, _ = hall.member("tea", "ann")
        hall.member("full", "bob")
        hall.settle()
        hall.hooks.log.clear()
        for code in ("full", "one too many", ""):
            self.assertRaises(RequestError, hall.lobby.move, "ann", code)
        hall.settle()
        self.assertEqual((hall.hooks.log, len(hall.lobby)), ([], 2))
        self.assertEqual(hall.lobby.members.of(ann).room.code, "tea")  # type: ignore[union-attr]

    def test_a_move_takes_every_connection(self) -> None:
        hall = Hall()
        hall.lobby.create("tea")
        pair = [hall.member("tea", "ann")[0] for _ in range(2)]
        before = hall.lobby.members.get("ann")
        member = hall.lobby.move("ann", "coffee")
        self.assertEqual((member.connections, before.present), (pair, False))
        self.assertIs(hall.lobby.move("ann", "coffee"), member)
        hall.settle()
        self.assertIn(Left(before, "moved"), hall.hooks.log)
        self.assertEqual([e for e in hall.hooks.log if isinstance(e, Returned)], [])
        self.assertIsNone(hall.lobby.find("tea"))

    def test_a_move_of_one_who_is_away(self) -> None:
        """A-46: the grace period is theirs in the new room, too."""
        hall = Hall(RoomSettings(grace=5.0))
        hall.lobby.create("tea")
        connection, _ = hall.member("tea", "ann")
        connection.close(None)  # on its way out, and still known
        self.assertEqual(hall.lobby.move("ann", "coffee").connections, [])
        hall.settle()
        hall.clock.advance(3.0)
        hall.lobby.move("ann", "cocoa")
        hall.clock.advance(4.0)
        self.assertEqual(len(hall.lobby.members), 1)
        hall.clock.advance(1.1)
        hall.settle()
        self.assertEqual((len(hall.lobby.members), len(hall.lobby)), (0, 0))


class FloodTests(SynchronousTestCase):
    """A-48: floods by several connections of one user, and of broadcasts."""

    def test_two_connections_of_one_user_share_a_limit(self) -> None:
        hall = Hall(RoomSettings(sender_limit=4))
        room = hall.lobby.create("tea")
        gate: Deferred[object] = Deferred()
        hall.hooks.handle = lambda room, incoming: gate
        pair = [hall.member("tea", "ann") for _ in range(2)]
        bob, bobs = hall.member("tea", "bob")
        hall.settle()
        for connection, _ in pair:
            connection.feed(b"".join(b"%d\n" % n for n in range(20)))
        bob.feed(b"hello\n")
        self.assertEqual([t.reading for _, t in pair] + [bobs.reading], [False, False, True])
        self.assertLessEqual(room.waiting, 6)
        gate.callback(None)
        hall.settle()
        self.assertTrue(all(t.reading for _, t in pair))
        self.assertEqual(Counter(x for x in hall.hooks.log if isinstance(x, bytes))[b"19"], 2)

    def test_broadcasts_that_pile_up_are_bounded(self) -> None:
        hall = Hall(RoomSettings(outgoing_limit=3, flood=FloodPolicy.REFUSE))
        room = hall.lobby.create("tea")
        peers = [hall.member("tea", f"user {n}")[1] for n in range(600)]
        hall.settle()
        for n in range(10):
            room.broadcast(b"%d" % n)
        self.assertEqual(room.dropped, 7 * 600)
        room.broadcast(b"must", policy=None)
        room.broadcast(b"last")
        hall.settle()
        for peer in peers:
            self.assertEqual(peer.value(), b"0\n1\n2\nmust\nlast\n")


class MatchMomentTests(SynchronousTestCase):
    """A-50, A-57: deadlines and partings in the moment of a match."""

    def setUp(self) -> None:
        self.hall = Hall()
        self.lobby: Lobby = self.hall.lobby

    def seek(self, player: str, timeout: float = 10.0) -> Any:
        connection, transport = self.hall.connect()
        self.lobby.match(connection, MatchRequest(player, "duel", 2, timeout))
        return connection, transport

    def outcomes(self) -> list[tuple[bool, list[str]]]:
        return [(o.matched, [p.player for p in o.players]) for o in self.hall.hooks.outcomes]

    def test_a_match_in_the_tick_of_the_deadline(self) -> None:
        """Whichever is first: one outcome each, and counts that agree with it."""
        for first in (True, False):
            self.setUp()
            self.seek("ann")
            come = lambda: self.seek("bob")  # noqa: E731
            if first:
                self.hall.clock.callLater(10.0, come)
                self.hall.clock.pump([9.9, 0.1, 0.1, 0.1])
            else:
                self.hall.clock.pump([9.9, 0.1])
                come()
                self.hall.clock.pump([0, 0.1])
            counts = self.lobby.matchmaker.statistics()["duel"]
            ended = [player for _, players in self.outcomes() for player in players]
            self.assertEqual(len(ended), len(set(ended)))
            self.assertEqual(counts.joined, counts.matched + counts.timed_out + counts.waiting)
            self.assertEqual(counts.waiting, len(self.lobby.matchmaker))
            self.assertIn("ann", ended)

    def test_one_who_comes_back_in_the_turn_that_their_time_was_up(self) -> None:
        ann, _ = self.seek("ann")
        came: list[Any] = []

        def come_back() -> None:
            self.assertEqual((len(self.lobby.matchmaker), self.outcomes()), (0, []))
            ann.lost(self.hall.done)
            came.append(self.seek("ann")[0])

        self.hall.clock.callLater(10.0, come_back)
        self.hall.clock.advance(10.0)
        self.assertEqual(self.outcomes(), [(False, ["ann"])])
        (again,) = came
        again.lost(self.hall.done)
        self.assertEqual(len(self.lobby.matchmaker), 0, "the second one was known by this")
        self.seek("bob")
        self.assertEqual(len(self.hall.hooks.outcomes), 1)

    def test_one_who_seeks_again_before_they_hear_that_their_time_is_up(self) -> None:
        """They are to hear of it first, whatever they are called then."""
        ann, _ = self.seek("ann")
        other, _ = self.hall.connect()
        refused: list[str] = []

        def again() -> None:
            self.assertEqual((len(self.lobby.matchmaker), self.outcomes()), (0, []))
            for connection, player in ((ann, "anna"), (other, "ann")):
                request = MatchRequest(player, "duel", 2, 10.0)
                error = self.assertRaises(RequestError, self.lobby.match, connection, request)
                refused.append(error.error.text)

        self.hall.clock.callLater(10.0, again)
        self.hall.clock.advance(10.0)
        self.assertEqual(refused, ["already exists: player ann"] * 2)
        self.assertEqual(self.outcomes(), [(False, ["ann"])])
        self.assertTrue(self.lobby.match(ann, MatchRequest("anna", "duel", 2, 10.0)))

    def test_who_has_gone_is_not_gathered(self) -> None:
        ann, _ = self.seek("ann")
        self.hall.hooks.matched = lambda lobby, outcome: lobby.gather("duel 1", outcome)
        ann.close(None)  # it has not ended yet, but does not speak any more
        self.seek("bob")
        self.assertEqual(list(self.lobby.get("duel 1").members), ["bob"])

    def test_players_are_told(self) -> None:
        self.hall.hooks.matched = lambda lobby, outcome: [
            request.notify("matched", outcome.mode) for request in outcome.players
        ]
        _, anns = self.seek("ann")
        self.seek("bob")
        told = {"id": None, "method": "matched", "params": "duel"}
        self.assertEqual(lines(anns.value()), [told])


class LeakTests(SynchronousTestCase):
    """A-47: when rooms have ended, nothing of them is left, however they did."""

    def test_rooms_members_timers_and_messages_are_let_go(self) -> None:
        hall = Hall(RoomSettings(remember=5, handler_timeout=3, close_timeout=2))
        hall.hooks.handle = lambda room, incoming: Deferred() if incoming.body == "hang" else None
        rooms = []
        for n in range(60):
            room = hall.lobby.create(f"room {n}")
            rooms.append(ref(room))
            pair = [hall.member(room.code, f"user {n}.{at}")[0] for at in range(2)]
            hall.settle()
            room.once("once", 1, lambda room, key: None)
            room.repeat("repeat", 0.5)
            for connection in pair:
                hall.lobby.deliver(connection, "hang" if n % 3 == 0 else "hello")
            if n % 3 == 1:
                for connection in pair:
                    connection.lost(hall.done)
            elif n % 3 == 2:
                room.close("over", handle_pending=n % 2 == 0)
            else:
                room.close("over")
            if n % 4 == 0:
                hall.clock.advance(0.3)
        del room, pair, connection
        hall.clock.pump([1] * 40)
        lobby = hall.lobby
        self.assertEqual((len(lobby), len(lobby.members), len(lobby.timers)), (0, 0, 0))
        self.assertEqual(hall.clock.getDelayedCalls(), [])
        hall.hooks.log.clear()
        hall.hooks.errors.clear()
        gc.collect()
        self.assertEqual([room for room in rooms if room() is not None], [])
        tasks = lobby.tasks.snapshot()
        self.assertEqual([c.running for c in tasks.values()], [0] * len(tasks))

    def test_matches_are_let_go(self) -> None:
        hall = Hall()
        for n in range(50):
            connection, _ = hall.connect()
            hall.lobby.match(connection, MatchRequest(f"p{n}", f"mode {n % 9}", 3, 1 + n % 5))
            if n % 7 == 0:
                connection.lost(hall.done)
        hall.clock.pump([0.5] * 12)
        self.assertEqual((len(hall.lobby.matchmaker), len(hall.lobby.timers)), (0, 0))
        total = Counter[str]()
        for counts in hall.lobby.matchmaker.statistics().values():
            self.assertEqual(counts.waiting, 0)
            total["joined"] += counts.joined
            total["ended"] += counts.matched + counts.timed_out + counts.cancelled
        self.assertEqual(total["joined"], total["ended"])
