"""Members with their connections: what moves, what is told, and what is let go."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.membership import Left, Returned
from kupool.rooms.room import Incoming
from kupool.rooms.settings import RoomSettings
from kupool.session.connection import Connection
from kupool.wire.framing import LINE
from tests.fakes.peers import PeerTransport
from tests.fakes.rooms_hall import Hall


class MovesTests(SynchronousTestCase):
    """A-46: a member goes to another room, with what belongs to them."""

    def setUp(self) -> None:
        self.hall = Hall()
        self.members = self.hall.lobby.members
        self.tea = self.hall.lobby.create("tea")
        self.coffee = self.hall.lobby.create("coffee")
        self.hall.member("tea", "bob")

    def later(self) -> list[str]:
        """Who is in the second room when every grace period is over."""
        self.hall.clock.advance(31)
        return list(self.coffee.members)

    def test_a_member_of_the_application(self) -> None:
        """It never had a connection, and stays until it is removed."""
        self.members.join(self.tea, "robot")
        self.members.move(self.coffee, "robot")
        self.assertEqual(self.later(), ["robot"])

    def test_who_is_online(self) -> None:
        self.hall.member("tea", "ann")
        self.members.move(self.coffee, "ann")
        self.assertEqual(self.later(), ["ann"])
        self.assertTrue(self.members.get("ann").online)

    def test_who_is_away(self) -> None:
        """The time in which they may come back begins anew."""
        ann, _ = self.hall.member("tea", "ann")
        ann.lost(self.hall.done)
        self.hall.clock.advance(20)
        self.members.move(self.coffee, "ann")
        self.hall.clock.advance(29)
        self.assertEqual(list(self.coffee.members), ["ann"])
        self.assertEqual(self.later(), [])

    def test_who_is_away_and_joins_another_room(self) -> None:
        ann, _ = self.hall.member("tea", "ann")
        ann.lost(self.hall.done)
        member = self.members.get("ann")
        self.hall.member("coffee", "ann")
        self.hall.settle()
        self.assertIn(Left(member, "moved"), self.hall.hooks.log)


class PlacesTests(SynchronousTestCase):
    """Issue 13: a member has one place of an address, wherever their connections are from."""

    def setUp(self) -> None:
        self.hall = Hall(RoomSettings(address_members=2))
        self.members = self.hall.lobby.members
        self.tea = self.hall.lobby.create("tea")

    def join(self, user: str, address: str, code: str = "tea") -> Connection:
        connection = self.hall.manager.admit(PeerTransport(address), address, LINE)
        self.members.join(self.hall.lobby.get(code), user, connection)
        return connection

    def test_another_connection_from_an_address_that_is_full(self) -> None:
        self.join("ann", "192.0.2.1")
        for user in ("bob", "cid"):
            self.join(user, "192.0.2.2")
        self.join("ann", "192.0.2.2")
        self.assertEqual(len(self.members.get("ann").connections), 2)

    def test_who_is_away_and_comes_to_another_room_from_there(self) -> None:
        """The place that they leave is theirs."""
        self.hall.lobby.create("coffee")
        self.join("ann", "192.0.2.1").lost(self.hall.done)
        self.join("bob", "192.0.2.1")
        self.join("ann", "192.0.2.1", "coffee")
        self.assertEqual(self.members.get("ann").room.code, "coffee")

    def test_what_the_application_does_brings_nobody_back(self) -> None:
        """A-46: who is away is so until they connect."""
        self.join("bob", "192.0.2.2")
        self.join("ann", "192.0.2.1").lost(self.hall.done)
        self.members.join(self.tea, "ann")
        self.hall.settle()
        self.assertEqual([e for e in self.hall.hooks.log if isinstance(e, Returned)], [])
        self.hall.clock.advance(31)
        self.assertEqual(list(self.tea.members), ["bob"])


class SomePeer:
    """A connection that counts how often it is held."""

    host = "192.0.2.1"
    sends = True

    def __init__(self) -> None:
        self.held = 0

    def hold(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1


class EndsTests(SynchronousTestCase):
    """A-46, A-47: nothing of a member is held when they are gone."""

    def paused(self, hall: Hall) -> tuple[Any, Any]:
        """A member whose connection is not read: the room has enough of it."""
        hall.lobby.create("tea")
        hall.member("tea", "bob")
        ann, transport = hall.member("tea", "ann")
        hall.hooks.handle = lambda room, incoming: Deferred()
        for n in range(3):
            hall.lobby.deliver(ann, n)
        hall.settle()
        self.assertFalse(transport.reading)
        return ann, transport

    def test_who_leaves_is_read_again(self) -> None:
        hall = Hall(RoomSettings(sender_limit=2))
        _, transport = self.paused(hall)
        hall.lobby.members.leave("ann")
        hall.settle()
        self.assertTrue(transport.reading)

    def test_a_connection_that_ends(self) -> None:
        """The room, which is busy still, does not keep it."""
        hall = Hall(RoomSettings(sender_limit=2))
        peer: Any = SomePeer()
        self.paused(hall)
        member = hall.lobby.members.join(hall.lobby.get("tea"), "cid", peer)
        for n in range(2):
            hall.lobby.get("tea").post(Incoming(member, peer, n))
        self.assertEqual(peer.held, 1)
        hall.lobby.members.disconnected(peer)
        hall.settle()
        self.assertEqual(peer.held, 0)

    def test_a_room_that_ends(self) -> None:
        hall = Hall()
        room = hall.lobby.create("tea")
        ann, _ = hall.member("tea", "ann")
        member = hall.lobby.members.get("ann")
        room.close()
        hall.settle()
        self.assertEqual(
            (len(room.members), member.present, len(hall.lobby.members)), (0, False, 0)
        )
        self.assertIsNone(hall.lobby.members.of(ann))

    def test_who_comes_back_is_remembered_anew(self) -> None:
        """Those who left first are forgotten first."""
        hall = Hall(RoomSettings(remember=2))
        hall.lobby.create("tea")
        hall.member("tea", "bob")
        for user in ("ann", "cid", "ann", "dan"):
            hall.member("tea", user)
            hall.lobby.members.leave(user)
        known = [u for u in ("ann", "cid", "dan") if hall.lobby.members.last_seen(u) is not None]
        self.assertEqual(known, ["ann", "dan"])

    def test_the_names_under_which_timers_are_counted(self) -> None:
        """A-49: those of the lobby itself are among the tasks."""
        hall = Hall(RoomSettings(linger=5.0, close_timeout=1.0))
        hall.lobby.create("tea")
        ann, _ = hall.member("tea", "ann")
        ann.lost(hall.done)
        hall.clock.advance(31)
        hall.clock.advance(6)
        hall.hooks.handle = lambda room, incoming: Deferred()
        room = hall.lobby.create("coffee")
        bob, _ = hall.member("coffee", "bob")
        hall.lobby.deliver(bob, "slow")
        hall.settle()
        room.close()
        hall.clock.advance(2)
        runs = {name: counts.runs for name, counts in hall.lobby.tasks.snapshot().items()}
        self.assertEqual(runs, {"member grace": 1, "room linger": 1, "room close": 1})
