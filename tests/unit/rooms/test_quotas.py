"""What one user and one address may have of the rooms."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import RequestError
from kupool.rooms import MatchRequest, RoomSettings
from kupool.rooms.spread.ring import Ring
from kupool.session.connection import Connection
from kupool.wire.framing import LINE
from tests.fakes.peers import PeerTransport
from tests.fakes.rooms_hall import Hall
from tests.unit.rooms.spread.test_lobby import Peer, World


class QuotaCase(SynchronousTestCase):
    settings = RoomSettings(
        grace=5.0,
        linger=60.0,
        user_rooms=2,
        user_connections=2,
        address_rooms=3,
        address_members=4,
        address_waiting=2,
    )

    def setUp(self) -> None:
        self.hall = Hall(self.settings)
        self.lobby = self.hall.lobby

    def connect(self, address: str = "192.0.2.1") -> Connection:
        connection = self.hall.manager.admit(PeerTransport(address), address, LINE)
        assert connection is not None
        return connection

    def refused(self, call: object, *arguments: object) -> str:
        error = self.assertRaises(RequestError, call, *arguments).error
        self.assertEqual(error.code, 34)
        return error.text.removeprefix("too many requests: ")


class RoomQuotaTests(QuotaCase):
    """Issue 13: rooms that one user or one address made."""

    def test_rooms_of_one_user(self) -> None:
        ann = self.connect()
        for code in ("one", "two"):
            self.lobby.enter(code, "ann", ann)
            self.lobby.members.leave("ann")
        said = self.refused(self.lobby.enter, "three", "ann", ann)
        self.assertEqual(said, "rooms of one user")
        self.lobby.enter("one", "ann", ann)
        said = self.refused(self.lobby.move, "ann", "three")
        self.assertEqual(said, "rooms of one user")
        self.assertEqual(self.lobby.members.get("ann").room.code, "one")
        self.lobby.enter("three", "bob", self.connect("192.0.2.2"))
        self.hall.clock.advance(61)
        self.lobby.move("ann", "four")  # "two" has ended
        self.assertEqual(self.lobby.refusals.counts, {"rooms of one user": 2})

    def test_rooms_of_one_address(self) -> None:
        for number in range(3):
            self.lobby.enter(f"room {number}", f"user {number}", self.connect())
        said = self.refused(self.lobby.enter, "more", "user 4", self.connect())
        self.assertEqual(said, "rooms of one address")
        self.lobby.enter("more", "bob", self.connect("192.0.2.2"))
        self.lobby.get("room 0").close()
        self.hall.settle()
        self.lobby.enter("again", "user 5", self.connect())

    def test_what_the_application_makes_is_nobodys(self) -> None:
        for number in range(9):
            self.lobby.create(f"room {number}")
            self.lobby.enter(f"of {number}", f"user {number}")
        self.assertEqual(self.lobby.refusals.counts, {})

    def test_what_the_application_makes_for_somebody(self) -> None:
        """For a user, or for an address: it counts for those that are named."""
        for of, most in (("user", 2), ("address", 3)):
            for number in range(most):
                self.lobby.create(f"{of} {number}", **{of: "somebody"})
            said = self.refused(partial(self.lobby.create, "more", **{of: "somebody"}))
            self.assertEqual(said, f"rooms of one {of}")
        self.lobby.get("user 0").close()
        self.hall.settle()
        self.lobby.create("again", user="somebody")

    def test_a_room_that_nobody_could_enter(self) -> None:
        """What was counted for it is given back."""
        closed = self.connect()
        closed.close(None)
        for number in range(9):
            self.assertRaises(RequestError, self.lobby.enter, f"room {number}", "ann", closed)
            self.hall.clock.advance(61)
        self.lobby.enter("one", "ann", self.connect())


class MemberQuotaTests(QuotaCase):
    """Issue 13: members of one address, and connections of one user."""

    def test_members_of_one_address(self) -> None:
        tea = self.lobby.create("tea")
        connections = [self.connect() for _ in range(4)]
        for number, connection in enumerate(connections):
            self.lobby.members.join(tea, f"user {number}", connection)
        said = self.refused(self.lobby.members.join, tea, "more", self.connect())
        self.assertEqual(said, "members of one address")
        self.lobby.members.join(tea, "user 0", self.connect())  # is one already
        self.lobby.members.join(tea, "bob", self.connect("192.0.2.2"))
        connections[1].lost(self.hall.done)
        said = self.refused(self.lobby.members.join, tea, "more", self.connect())
        self.assertEqual(said, "members of one address", "who is away has a place still")
        self.hall.clock.advance(5.1)
        self.lobby.members.join(tea, "more", self.connect())

    def test_a_move_needs_no_new_place(self) -> None:
        self.lobby.create("tea")
        self.lobby.create("coffee")
        for number in range(4):
            self.lobby.enter("tea", f"user {number}", self.connect())
        for _ in range(9):
            self.lobby.move("user 1", "coffee")
            self.lobby.move("user 1", "tea")
        self.assertEqual(self.lobby.refusals.counts, {})
        self.lobby.get("tea").close()
        self.hall.settle()
        self.lobby.enter("coffee", "more", self.connect())

    def test_connections_of_one_user(self) -> None:
        tea = self.lobby.create("tea")
        pair = [self.connect() for _ in range(2)]
        for connection in pair:
            self.lobby.members.join(tea, "ann", connection)
        said = self.refused(self.lobby.members.join, tea, "ann", self.connect())
        self.assertEqual(said, "connections of one user in a room")
        self.lobby.members.join(tea, "ann", pair[0])  # harmless, as ever
        pair[0].lost(self.hall.done)
        self.lobby.members.join(tea, "ann", self.connect())


class WaitingQuotaTests(QuotaCase):
    """Issue 13: players of one address who wait."""

    def seek(self, player: str, address: str = "192.0.2.1") -> Connection:
        connection = self.connect(address)
        self.lobby.match(connection, MatchRequest(player, player, 2, 10))
        return connection

    def test_players_of_one_address(self) -> None:
        first = self.seek("ann")
        self.seek("bob")
        self.assertEqual(self.refused(self.seek, "cid"), "players of one address who wait")
        self.seek("dan", "192.0.2.2")
        first.lost(self.hall.done)
        self.seek("eve")
        self.lobby.cancel_match("eve")
        self.seek("fay")
        self.hall.clock.advance(11)
        self.seek("gil")
        self.assertEqual(self.lobby.refusals.counts, {"players of one address who wait": 1})


class FullTests(QuotaCase):
    """Issue 13: what is full for everybody is counted, too."""

    def test_the_limits_of_all(self) -> None:
        hall = Hall(RoomSettings(max_rooms=1, max_members=1, max_waiting=1))
        for user in ("ann", "bob", "cid"):
            connection, _ = hall.connect()
            for call in (
                partial(hall.lobby.enter, user, user, connection),
                partial(hall.lobby.enter, "ann", user, connection),
                partial(hall.lobby.match, connection, MatchRequest(user, "duel", 3, 10)),
            ):
                try:
                    call()
                except RequestError as error:
                    self.assertEqual(error.error.code, 34)
        self.assertEqual(
            hall.lobby.refusals.counts,
            {"rooms": 2, "members of one room": 2, "players who wait": 2},
        )


class LogTests(QuotaCase):
    """Issue 13: a flood of refusals is a few lines of the log."""

    def test_refusals_are_counted_and_logged_by_the_minute(self) -> None:
        lines: list[str] = []
        self.patch(self.lobby.refusals, "_log", self)
        self.warn = lambda text, **fields: lines.append(text.format(**fields))
        for number in range(3):
            self.lobby.enter(f"room {number}", f"user {number}", self.connect())
        for number in range(1000):
            self.refused(self.lobby.enter, "more", f"user {number + 9}", self.connect())
        self.hall.clock.advance(61)
        self.assertEqual(len(lines), 2, lines)
        self.assertIn("rooms of one address: 999, 1000 since the start", lines[1])
        self.successResultOf(self.lobby_closed())
        self.assertEqual(self.hall.clock.getDelayedCalls(), [])

    def lobby_closed(self) -> object:
        closed = Deferred.fromCoroutine(self.lobby.close())
        self.hall.clock.pump([0.1] * 200)
        return closed


class OneClientTests(SynchronousTestCase):
    """Issue 13: whatever one address does, the others have rooms, members and matches."""

    def test_the_lobby_is_not_filled_by_one(self) -> None:
        settings = RoomSettings(
            max_rooms=20, max_members=20, max_waiting=20, linger=None, address_rooms=10,
            address_members=10, address_waiting=10,
        )  # fmt: skip
        hall = Hall(settings)
        lobby, bad = hall.lobby, 0
        tea = lobby.create("tea")
        for number in range(500):
            connection, _ = hall.connect()
            user = f"user {number}"
            calls = (
                partial(lobby.enter, user, user, connection),
                partial(lobby.members.join, tea, user, connection),
                partial(lobby.match, connection, MatchRequest(user, user, 2, 100)),
            )
            for call in calls:
                try:
                    call()
                except RequestError:
                    bad += 1
            hall.settle()
        self.assertGreater(bad, 1000)
        connection = hall.manager.admit(PeerTransport("192.0.2.2"), "192.0.2.2", LINE)
        lobby.enter("mine", "ann", connection)
        lobby.move("ann", "tea")
        lobby.match(connection, MatchRequest("ann", "duel", 2, 10))


class HostTests(SynchronousTestCase):
    """Issue 13: an address is the same at every host."""

    def test_an_address_of_another_host(self) -> None:
        world = World()
        settings = RoomSettings(address_members=2)
        a, b = world.add("a", settings), world.add("b", settings)
        there = world.code_of("b")
        for number, host in enumerate((a, b)):
            self.assertEqual(Peer(host).ask(room=there, user=f"user {number}")[0], "b")
        said = Peer(a).ask(room=there, user="more")
        self.assertEqual(said, "too many requests: members of one address")
        self.assertEqual(b.lobby.refusals.counts, {"members of one address": 1})

    def test_a_room_that_has_moved(self) -> None:
        """It counts for its maker where it is now, and where it was no more."""
        world = World()
        settings = RoomSettings(user_rooms=1, address_rooms=2)
        a, b = world.add("a", settings), world.add("b", settings)
        code = world.code_of("a", then="c", of="abc")
        # Its maker is at one host and it is on the other: what is counted is theirs still.
        self.assertEqual(Peer(b, "192.0.2.9").ask(room=code, user="ann")[0], "a")
        other = Peer(a, "192.0.2.9").ask(room=world.code_of("a", then="a", of="abc"), user="ann")
        self.assertEqual(other, "too many requests: rooms of one user")
        c = world.add("c", settings)
        world.advance(1)
        self.assertEqual(c.codes, {code})
        lobby = c.lobby
        codes = (f"new {n}" for n in range(1000))
        first, second, third = [code for code in codes if lobby.owns(code)][:3]
        said = self.assertRaises(RequestError, lobby.create, first, user="ann").error.text
        self.assertEqual(said, "too many requests: rooms of one user")
        lobby.create(first, user="bob", address="192.0.2.9")
        said = self.assertRaises(
            RequestError, lobby.create, second, user="eve", address="192.0.2.9"
        ).error.text
        self.assertEqual(said, "too many requests: rooms of one address")
        a.lobby.create(a.lobby.code_here("new "), user="ann", address="192.0.2.9")
        lobby.get(code).close()
        world.advance(0.1)
        lobby.create(third, user="ann", address="192.0.2.9")

    def test_a_room_that_moves_to_where_its_maker_has_enough(self) -> None:
        """It is taken over all the same, and counts: a move must cost nobody a room."""
        world = World()
        settings = RoomSettings(user_rooms=1, linger=None)
        a = world.add("a", settings)
        world.add("b", settings)
        codes = [c for c in map("room {}".format, range(200)) if Ring("abc").owner(c) == "c"]
        here = next(c for c in codes if Ring("ab").owner(c) == "a")
        there = next(c for c in codes if Ring("ab").owner(c) == "b")
        for code, host in ((here, "a"), (there, "b")):
            self.assertEqual(Peer(a).ask(room=code, user="ann")[0], host)
        c = world.add("c", settings)
        world.advance(1)
        self.assertEqual(c.codes, {here, there})
        c.lobby.get(here).close()
        world.advance(0.1)
        free = next(code for code in codes if code not in (here, there))
        said = self.assertRaises(RequestError, c.lobby.create, free, user="ann").error.text
        self.assertEqual(said, "too many requests: rooms of one user")
