"""The lobby: hooks, coming and going, presence, and matches by connection."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.errors import FORBIDDEN, RequestError
from kupool.net.routing.router import Router
from kupool.rooms import IRoomHooks
from kupool.rooms.audience import Presence
from kupool.rooms.events import Closing
from kupool.rooms.failures import RoomGone
from kupool.rooms.hooks import RoomHooks
from kupool.rooms.lobby import Lobby
from kupool.rooms.matchmaking import MatchOutcome, MatchRequest
from kupool.rooms.membership import Disconnected, Joined, Left, Renamed, Returned
from kupool.rooms.room import Incoming, Room
from kupool.rooms.running import HandlerTimeout
from kupool.rooms.settings import RoomSettings
from kupool.session.connection import Connection
from tests.fakes.peers import Bench, lines
from tests.fakes.rooms_hall import Hall


class EntranceTests(SynchronousTestCase):
    """A-42, A-43: parse, create or join, and then a member; each hook in its place."""

    def setUp(self) -> None:
        self.hall = Hall()
        self.lobby = self.hall.lobby

    def test_hooks_fit_their_interface(self) -> None:
        self.assertTrue(verifyObject(IRoomHooks, RoomHooks()))
        self.assertEqual(self.hall.hooks.started, [self.lobby], "on_init, once")

    def test_the_first_creates_and_the_second_joins(self) -> None:
        prepared: list[str] = []

        def create(room: Room) -> None:
            prepared.append(room.code)
            room.data = {"cards": 52}

        self.hall.hooks.create = create
        self.hall.hooks.handle = lambda room, incoming: (
            room.data,
            incoming.member.user,
            incoming.body,
        )
        ann, _ = self.hall.connect()
        bob, _ = self.hall.connect()
        self.hall.hooks.users = {ann: ("tea", "ann"), bob: ("tea", "bob")}
        first, second = self.lobby.request(ann, "hi"), self.lobby.request(bob, "ho")
        room = self.lobby.get("tea")
        self.assertEqual(list(room.members), ["ann", "bob"], "both are members at once")
        self.hall.settle()
        self.assertEqual(self.successResultOf(first), ({"cards": 52}, "ann", "hi"))
        self.assertEqual(self.successResultOf(second), ({"cards": 52}, "bob", "ho"))
        self.assertEqual(prepared, ["tea"])
        joined = [event.member.user for event in self.hall.hooks.log if isinstance(event, Joined)]
        self.assertEqual(joined, ["ann", "bob"])

    def test_a_room_is_ready_before_its_first_message(self) -> None:
        gate: Deferred[object] = Deferred()
        self.hall.hooks.create = lambda room: gate
        ann, _ = self.hall.connect()
        self.hall.hooks.users = {ann: ("tea", "ann")}
        answer = self.hall.request_now(ann, "hi")
        self.assertNoResult(answer)
        self.assertEqual(self.hall.hooks.log, [])
        gate.callback(None)
        self.hall.settle()
        self.successResultOf(answer)

    def test_parsing_may_take_its_time_and_holds_that_connection_only(self) -> None:
        gate: Deferred[tuple[str, str]] = Deferred()

        async def parse() -> object:
            return await gate

        ann, transport = self.hall.connect()
        bob, _ = self.hall.connect()
        self.hall.hooks.users = {bob: ("tea", "bob")}
        self.patch(
            self.hall.hooks,
            "on_parse_user",
            lambda c, body: parse() if c is ann else ("tea", "bob"),
        )
        ann.feed(b"1\n2\n3\n")
        bob.feed(b"x\n")
        self.hall.settle()
        self.assertFalse(transport.reading)
        self.assertEqual(self.hall.hooks.log[1:], [b"x"])
        gate.callback(("tea", "ann"))
        self.hall.settle()
        self.assertEqual(self.hall.hooks.log[-3:], [b"1", b"2", b"3"])
        self.assertTrue(transport.reading)

    def test_one_that_ended_while_it_was_parsed_does_not_join(self) -> None:
        gate: Deferred[tuple[str, str]] = Deferred()
        ann, _ = self.hall.connect()
        self.hall.hooks.users = {ann: gate}
        answer = self.lobby.request(ann, "hi")
        ann.lost(self.hall.done)
        gate.callback(("tea", "ann"))
        self.hall.settle()
        error = self.failureResultOf(answer, RequestError).value.error
        self.assertEqual(error.text, "not found: connection")
        self.assertEqual((len(self.lobby), len(self.lobby.members)), (0, 0))

    def test_refusals(self) -> None:
        """Nobody in particular, nonsense, and what raises: an answer, and no room."""
        ann, _ = self.hall.connect()
        self.assertEqual(
            self.failureResultOf(self.lobby.request(ann, "hi"), RequestError).value.error, FORBIDDEN
        )
        for nonsense in ("tea", ("tea",), ("tea", 7), 7, ("a", "b", "c")):
            self.hall.hooks.users = {ann: nonsense}
            self.failureResultOf(self.lobby.request(ann, "hi"), TypeError)
        self.assertEqual([e[1].type for e in self.hall.hooks.errors], [TypeError] * 5)
        self.assertEqual(len(self.lobby), 0)
        self.lobby.deliver(ann, "hi")
        self.assertEqual(len(self.hall.hooks.errors), 6)

    def test_limits_of_rooms_and_members(self) -> None:
        hall = Hall(RoomSettings(max_rooms=2, max_members=1))
        hall.lobby.create("tea")
        hall.member("tea", "ann")
        for code, user, text in (
            ("tea", "bob", "too many requests: members of room tea"),
            ("coffee", "bob", None),
            ("milk", "cid", "too many requests: 2 rooms"),
        ):
            connection, _ = hall.connect()
            hall.hooks.users = {connection: (code, user)}
            answer = hall.request_now(connection, "hi")
            if text is None:
                self.successResultOf(answer)
            else:
                failure = self.failureResultOf(answer, RequestError)
                self.assertEqual(failure.value.error.text, text)
        self.assertRaises(RequestError, hall.lobby.create, "tea")
        self.assertRaises(ValueError, RoomSettings, queue_limit=0)

    def test_a_room_made_for_one_who_may_not_join_does_not_stay(self) -> None:
        self.lobby.create("tea")
        self.hall.member("tea", "ann")
        other, _ = self.hall.connect()
        self.hall.hooks.users = {other: ("coffee", "ann")}
        failure = self.failureResultOf(self.hall.request_now(other, "hi"), RequestError)
        self.assertEqual(failure.value.error.text, "already exists: ann in room tea")
        self.assertIsNone(self.lobby.find("coffee"))
        self.assertEqual(self.hall.hooks.log[-1], Closing("nobody came"))

    def test_who_is_brought_to_a_room_needs_no_more_than_a_move(self) -> None:
        """A-50: the room's queue of events has a single place for it, and that is enough."""
        for connected in (True, False):
            hall = Hall(RoomSettings(system_limit=2))
            hall.lobby.create("tea")
            hall.settle()
            ann, _ = hall.member("tea", "ann")
            hall.settle()
            duel = hall.lobby.create("duel")
            member = hall.lobby.bring(duel, "ann", ann if connected else None)
            self.assertEqual((member.room, member.connections), (duel, [ann]))

    def test_how_late_a_timer_may_be(self) -> None:
        """A-49: unless told otherwise, 50 ms."""
        self.assertEqual(Lobby(self.hall.clock, self.hall.hooks).timers.tick, 0.05)

    def test_over_a_router(self) -> None:
        """A-41, A-42: `request` is a handler, and errors are rows of the table."""

        class Chat(RoomHooks):
            def on_parse_user(self, connection: Connection, body: object) -> object:
                return ("tea", "ann") if body.params == {"say": "hi"} else None  # type: ignore

            def on_dispatch_message(self, room: Room, incoming: Incoming) -> object:
                room.broadcast(b'"news"', without=[incoming.member])
                return len(room.members)

        router = Router()
        bench = Bench(router)
        lobby = Lobby(bench.clock, Chat())
        router.add("say", lobby.request, object)
        ann, transport = bench.connect()
        ann.feed(b'{"id":1,"method":"say","params":{}}\n')
        ann.feed(b'{"id":2,"method":"say","params":{"say":"hi"}}\n')
        bench.clock.advance(0)
        refused, answer = lines(transport.value())
        self.assertEqual((refused["id"], refused["error"]), (1, "forbidden"))
        self.assertEqual(answer, {"id": 2, "result": 1})


class MembershipTests(SynchronousTestCase):
    """A-44: join, leave and rename; users and connections looked up either way."""

    def setUp(self) -> None:
        self.hall = Hall()
        self.members = self.hall.lobby.members
        self.tea = self.hall.lobby.create("tea")
        self.hall.lobby.create("coffee")
        self.ann, _ = self.hall.member("tea", "ann")
        self.hall.settle()
        self.hall.hooks.log.clear()

    def test_lookup_both_ways(self) -> None:
        member = self.members.get("ann")
        self.assertIs(self.members.find("ann"), member)
        self.assertIs(self.members.of(self.ann), member)
        self.assertIs(self.tea.members["ann"], member)
        self.assertEqual((member.room, member.connections), (self.tea, [self.ann]))
        self.assertIsNone(self.members.find("bob"))
        self.assertIsNone(self.members.of(self.hall.connect()[0]))
        error = self.assertRaises(RequestError, self.members.get, "bob")
        self.assertEqual(error.error.text, "not found: user bob")

    def test_leave(self) -> None:
        member = self.members.get("ann")
        self.hall.member("tea", "bob")
        self.members.leave("ann", "kicked")
        self.assertIsNone(self.members.of(self.ann))
        self.assertEqual((list(self.tea.members), member.present), (["bob"], False))
        self.hall.settle()
        self.assertEqual(self.hall.hooks.log[1:], [Left(member, "kicked")])
        self.assertRaises(RequestError, self.members.leave, "ann")
        self.assertEqual(self.leaves("bob"), "left", "without another reason")
        self.assertTrue(self.ann.sends)
        self.members.join(self.hall.lobby.get("coffee"), "ann", self.ann)
        self.assertEqual(self.members.get("ann").room.code, "coffee")

    def leaves(self, user: str) -> str:
        """Let a user leave; returns the reason that the room is told."""
        self.members.leave(user)
        self.hall.settle()
        return next(e.reason for e in reversed(self.hall.hooks.log) if isinstance(e, Left))

    def test_rename(self) -> None:
        self.hall.member("tea", "bob")
        member = self.members.rename("ann", "anna")
        self.assertEqual((self.members.find("ann"), self.members.get("anna")), (None, member))
        self.assertIs(self.members.of(self.ann), member)
        self.assertEqual(set(self.tea.members), {"bob", "anna"})
        self.assertRaises(RequestError, self.members.rename, "anna", "bob")
        self.assertRaises(RequestError, self.members.rename, "nobody", "x")
        self.assertIs(self.members.rename("anna", "anna"), member)
        self.hall.settle()
        self.assertEqual(self.hall.hooks.log[1:], [Renamed(member, "ann")])

    def test_joining_again_changes_nothing(self) -> None:
        self.members.join(self.tea, "ann", self.ann)
        self.hall.settle()
        self.assertEqual(
            (self.members.get("ann").connections, self.hall.hooks.log), ([self.ann], [])
        )

    def test_one_place_for_a_user_and_one_user_for_a_connection(self) -> None:
        coffee = self.hall.lobby.get("coffee")
        other, _ = self.hall.connect()
        self.assertRaises(RequestError, self.members.join, coffee, "ann", other)
        self.assertRaises(RequestError, self.members.join, coffee, "bob", self.ann)
        self.ann.lost(self.hall.done)
        self.assertRaises(RequestError, self.members.join, coffee, "ann", self.ann)
        self.members.join(coffee, "ann", other)
        self.assertEqual((list(self.tea.members), list(coffee.members)), ([], ["ann"]))

    def test_messages_of_one_who_has_left_are_refused(self) -> None:
        answers = [self.hall.lobby.request(self.ann, n) for n in range(2)]
        self.hall.member("tea", "bob")
        self.members.leave("ann")
        self.hall.settle()
        for answer in answers:
            self.failureResultOf(answer, RoomGone)
        elsewhere = Incoming(self.members.get("bob"), None, "hi")
        self.assertRaises(RoomGone, self.hall.lobby.get("coffee").post, elsewhere)

    def test_an_empty_room_ends(self) -> None:
        self.members.leave("ann")
        self.hall.settle()
        self.assertIsNone(self.hall.lobby.find("tea"))
        self.assertEqual(len(self.hall.lobby), 1, "one that nobody has joined yet stays")
        self.assertEqual(self.hall.hooks.log[-1], Closing("empty"))

    def test_an_empty_room_may_linger(self) -> None:
        hall = Hall(RoomSettings(linger=5))
        for code in ("tea", "coffee"):
            hall.lobby.create(code)
            hall.member(code, f"of {code}")
            hall.lobby.members.leave(f"of {code}")
        hall.clock.advance(4)
        hall.member("tea", "bob")
        hall.clock.advance(2)
        self.assertEqual([room.code for room in hall.lobby], ["tea"])
        self.assertEqual(hall.hooks.log[-1], Closing("empty"))

    def test_an_empty_room_may_stay(self) -> None:
        hall = Hall(RoomSettings(linger=None))
        hall.lobby.create("tea")
        hall.member("tea", "ann")
        hall.lobby.members.leave("ann")
        hall.clock.advance(1000)
        self.assertEqual([room.code for room in hall.lobby], ["tea"])

    def test_an_empty_room_that_ends_before_its_time(self) -> None:
        """A-47: whatever ends it, no timer of it is left."""
        hall = Hall(RoomSettings(linger=5))
        room = hall.lobby.create("tea")
        hall.member("tea", "ann")
        hall.lobby.members.leave("ann")
        self.assertEqual(len(hall.lobby.timers), 1)
        room.close()
        hall.settle()
        self.assertEqual((len(hall.lobby), len(hall.lobby.timers)), (0, 0))

    def test_a_room_that_is_emptied_as_it_ends(self) -> None:
        """It has the timer of its end alone."""
        hall = Hall(RoomSettings(linger=5))
        hall.hooks.handle = lambda room, incoming: Deferred()
        room = hall.lobby.create("tea")
        ann, _ = hall.member("tea", "ann")
        hall.request_now(ann, "slow")
        room.close()
        hall.lobby.members.leave("ann")
        self.assertEqual(len(hall.lobby.timers), 1)

    def test_a_room_that_is_to_end_unless_someone_comes(self) -> None:
        for code in ("milk", "water"):
            self.hall.lobby.linger(self.hall.lobby.create(code), 5)
        self.hall.clock.advance(4.9)
        self.hall.member("milk", "bob")
        self.hall.clock.advance(0.2)
        self.assertEqual({room.code for room in self.hall.lobby}, {"tea", "coffee", "milk"})

    def test_in_one_process_every_room_belongs_here(self) -> None:
        self.assertTrue(self.hall.lobby.owns("anything"))

    def test_an_old_name(self) -> None:
        text = "Lobby.wheel is called timers now"
        found = self.assertWarns(DeprecationWarning, text, __file__, lambda: self.hall.lobby.wheel)
        self.assertIs(found, self.hall.lobby.timers)


class PresenceTests(SynchronousTestCase):
    """A-46, A-52: disconnects, the grace period, and who is here and was."""

    def setUp(self) -> None:
        self.hall = Hall()
        self.lobby = self.hall.lobby
        self.tea = self.lobby.create("tea")
        self.hall.member("tea", "bob")
        self.ann, _ = self.hall.member("tea", "ann")
        self.member = self.lobby.members.get("ann")
        self.hall.settle()
        self.hall.hooks.log.clear()

    def test_gone_after_the_grace_period(self) -> None:
        self.hall.clock.advance(10)
        self.ann.lost(self.hall.done)
        self.hall.settle()
        self.assertEqual(self.hall.hooks.log, [Disconnected(self.member)])
        self.assertTrue(self.member.present)
        self.hall.clock.advance(29.9)
        self.assertTrue(self.member.present)
        self.hall.clock.advance(0.1)
        self.assertEqual(self.hall.hooks.log[1:], [Left(self.member, "gone")])
        self.assertEqual(list(self.tea.members), ["bob"])
        self.assertEqual(self.lobby.members.last_seen("ann"), 1010)
        self.assertEqual(len(self.lobby.timers), 0)

    def test_who_is_away_and_is_removed(self) -> None:
        """The grace period is over: no timer is left."""
        self.ann.lost(self.hall.done)
        self.assertEqual(len(self.lobby.timers), 1)
        self.lobby.members.leave("ann")
        self.assertEqual(len(self.lobby.timers), 0)

    def test_who_is_away_as_the_room_ends(self) -> None:
        self.ann.lost(self.hall.done)
        self.tea.close()
        self.hall.settle()
        self.assertEqual(len(self.lobby.timers), 0)

    def test_back_within_the_grace_period(self) -> None:
        self.member.data = "a hand of cards"
        self.ann.lost(self.hall.done)
        self.hall.clock.advance(29)
        self.hall.member("tea", "ann")
        self.hall.clock.advance(100)
        self.assertEqual(self.hall.hooks.log, [Disconnected(self.member), Returned(self.member)])
        self.assertIs(self.lobby.members.get("ann"), self.member)
        self.assertEqual((self.member.data, self.member.online), ("a hand of cards", True))

    def test_a_second_connection_keeps_the_member(self) -> None:
        second, transport = self.hall.member("tea", "ann")
        self.ann.lost(self.hall.done)
        self.hall.clock.advance(100)
        self.assertEqual(self.hall.hooks.log, [])
        self.lobby.send_user("ann", b"hi")
        self.assertEqual(transport.value(), b"hi\n")
        second.lost(self.hall.done)
        self.hall.settle()
        self.assertEqual(self.hall.hooks.log, [Disconnected(self.member)])

    def test_without_grace(self) -> None:
        hall = Hall(RoomSettings(grace=0))
        hall.lobby.create("tea")
        hall.member("tea", "bob")
        ann, _ = hall.member("tea", "ann")
        member = hall.lobby.members.get("ann")
        ann.lost(hall.done)
        hall.settle()
        self.assertEqual(hall.hooks.log[-2:], [Disconnected(member), Left(member, "gone")])

    def test_members_leak_nothing(self) -> None:
        """A-46: a thousand come and go, and nothing is left of them."""
        for n in range(1000):
            connection, _ = self.hall.member("tea", f"user {n}")
            connection.lost(self.hall.done)
            self.hall.clock.advance(0.01)
        self.hall.clock.advance(31)
        self.assertEqual((len(self.tea.members), len(self.lobby.members)), (2, 2))
        self.assertEqual(len(self.lobby.timers), 0)

    def test_presence_and_last_seen(self) -> None:
        self.hall.clock.advance(5)
        self.lobby.deliver(self.ann, "hi")
        self.hall.clock.advance(5)
        self.assertEqual(
            self.tea.presence(),
            [Presence("bob", True, 1000, 1000), Presence("ann", True, 1000, 1005)],
        )
        self.ann.lost(self.hall.done)
        self.assertEqual(self.tea.presence()[1], Presence("ann", False, 1000, 1010))
        self.assertEqual(self.lobby.members.last_seen("bob"), 1000)
        self.assertIsNone(self.lobby.members.last_seen("nobody"))

    def test_what_is_remembered_is_bounded(self) -> None:
        hall = Hall(RoomSettings(remember=3))
        hall.lobby.create("tea")
        hall.member("tea", "bob")
        for n in range(5):
            hall.member("tea", f"user {n}")
            hall.lobby.members.leave(f"user {n}")
        known = [n for n in range(5) if hall.lobby.members.last_seen(f"user {n}") is not None]
        self.assertEqual(known, [2, 3, 4])


class LobbyMatchTests(SynchronousTestCase):
    """A-42, A-50: matches by connection, through the hooks."""

    def setUp(self) -> None:
        self.hall = Hall()
        self.lobby = self.hall.lobby

    def seek(self, player: str, timeout: float = 10) -> Connection:
        connection, _ = self.hall.connect()
        self.lobby.match(connection, MatchRequest(player, "duel", 2, timeout))
        return connection

    def test_matched_players_into_a_room(self) -> None:
        async def matched(lobby: Lobby, outcome: MatchOutcome) -> None:
            for request in outcome.players:
                lobby.enter("duel 1", request.player, request.connection)

        self.hall.hooks.matched = matched
        ann, bob = self.seek("ann"), self.seek("bob")
        self.hall.settle()
        self.assertEqual(list(self.lobby.get("duel 1").members), ["ann", "bob"])
        members = self.lobby.members
        self.assertEqual([members.get(u).connections for u in ("ann", "bob")], [[ann], [bob]])
        (outcome,) = self.hall.hooks.outcomes
        self.assertTrue(outcome.matched)

    def test_one_who_has_gone_is_not_matched(self) -> None:
        self.seek("ann").lost(self.hall.done)
        self.seek("bob")
        self.assertEqual(self.hall.hooks.outcomes, [])
        self.seek("cid")
        (outcome,) = self.hall.hooks.outcomes
        self.assertEqual([p.player for p in outcome.players], ["bob", "cid"])
        self.assertEqual(self.lobby.matchmaker.statistics()["duel"].cancelled, 1)

    def test_time_is_up_and_again(self) -> None:
        connection = self.seek("ann")
        self.assertRaises(RequestError, self.lobby.match, connection, MatchRequest("x", "m", 2, 1))
        self.hall.clock.advance(10.1)
        self.assertFalse(self.hall.hooks.outcomes[0].matched)
        self.lobby.match(connection, MatchRequest("ann", "duel", 2, 10))
        self.assertTrue(self.lobby.cancel_match("ann"))
        self.assertFalse(self.lobby.cancel_match("ann"))

    def test_refusals_and_failures(self) -> None:
        connection, _ = self.hall.connect()
        self.assertRaises(RequestError, self.lobby.match, connection, None)
        self.assertRaises(TypeError, self.lobby.match, connection, ("ann", "duel"))
        bad = MatchRequest("ann", "duel", 0, 1)
        self.assertRaises(RequestError, self.lobby.match, connection, bad)

        async def fail(lobby: Lobby, outcome: MatchOutcome) -> None:
            raise ZeroDivisionError

        self.hall.hooks.matched = fail
        self.lobby.match(connection, bad._replace(needed=1))
        self.assertEqual([e[1].type for e in self.hall.hooks.errors], [ZeroDivisionError])

    def parsing(self) -> tuple[Connection, Deferred[object], object]:
        """Ask for a match whose request is still to come; returns what comes of it, too."""
        coming: Deferred[object] = Deferred()
        self.hall.hooks.parse_match = lambda connection, body: coming
        connection, _ = self.hall.connect()
        return connection, coming, self.lobby.match(connection, "a duel")

    def test_a_request_that_takes_its_time(self) -> None:
        _, coming, asked = self.parsing()
        coming.callback(MatchRequest("ann", "duel", 2, 10))
        self.assertIs(self.successResultOf(asked), True)
        self.assertIn("ann", self.lobby.matchmaker)
        self.assertEqual(self.hall.clock.getDelayedCalls()[1:], [], "none but the timers")

    def test_a_request_that_never_comes(self) -> None:
        """A-42: the player is answered, and the application hears of it."""
        _, _, asked = self.parsing()
        self.hall.clock.advance(29.9)
        self.assertNoResult(asked)
        self.hall.clock.advance(0.1)
        self.failureResultOf(asked, HandlerTimeout)
        ((room, failure, subject),) = self.hall.hooks.errors
        self.assertEqual((room, failure.type, subject), (None, HandlerTimeout, "a duel"))

    def test_a_request_that_is_refused_later(self) -> None:
        """The player alone is told."""
        _, coming, asked = self.parsing()
        coming.errback(RequestError(FORBIDDEN))
        self.assertEqual(self.failureResultOf(asked, RequestError).value.error, FORBIDDEN)
        self.assertEqual(self.hall.hooks.errors, [])

    def test_a_request_that_comes_too_late(self) -> None:
        """The connection has ended, or the lobby has."""
        for closing in (True, False):
            self.setUp()
            connection, coming, asked = self.parsing()
            if closing:
                self.successResultOf(Deferred.fromCoroutine(self.lobby.close()))
            else:
                connection.lost(self.hall.done)
            coming.callback(MatchRequest("ann", "duel", 2, 10))
            self.assertEqual(self.failureResultOf(asked, RequestError).value.error, FORBIDDEN)
            self.assertNotIn("ann", self.lobby.matchmaker)

    def test_the_end(self) -> None:
        self.seek("ann")
        self.lobby.timers.once("the application", "turn", 1000, lambda timer: None)
        ended = Deferred.fromCoroutine(self.lobby.close())
        self.assertEqual(self.successResultOf(ended), [])
        self.assertEqual((len(self.lobby.matchmaker), len(self.lobby.timers)), (0, 0))
        self.assertEqual(self.hall.clock.getDelayedCalls(), [])
        connection, _ = self.hall.connect()
        request = MatchRequest("bob", "duel", 2, 1)
        self.assertRaises(RequestError, self.lobby.match, connection, request)
