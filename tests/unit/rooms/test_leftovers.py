"""What a thousand short sessions leave behind in the rooms: nothing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms import MatchRequest, RoomSettings
from kupool.rooms.service import RoomService
from tests.fakes.rooms_hall import Hall
from tests.tables import tables
from tests.unit.rooms.spread.test_lobby import Peer, World
from tests.unit.rooms.test_service import RoomsCase


def kept(root: object) -> dict[str, int]:
    """The tables of rooms in which something is."""
    return {way: size for way, size in tables(root, "kupool.rooms").items() if size}


class TablesTests(SynchronousTestCase):
    """The tables that the tests below look at are those there are."""

    def test_members_rooms_and_players_are_seen(self) -> None:
        hall = Hall()
        before = kept(hall.lobby)
        hall.lobby.create("tea", user="ann", address="192.0.2.1")
        ann, _ = hall.member("tea", "ann")
        hall.lobby.match(ann, MatchRequest("ann", "duel", 2, 10))
        hall.lobby.get("tea").once("turn", 5)
        hall.settle()
        ways = set(kept(hall.lobby)) - set(before)
        for name in (
            "_rooms._rooms",
            "_rooms._makers",
            "members._users",
            "members._connections",
            "_seeking._players",
            "_seeking._connections",
            "matchmaker._seekers",
            "matchmaker._queues",
            "user_rooms._counts",
            "address_rooms._counts",
            "address_members._counts",
            "address_waiting._counts",
            "_rooms",
        ):
            self.assertTrue([way for way in ways if way.endswith(name)], (name, ways))


class SessionsTests(RoomsCase):
    """Issue 13: by user, by connection or by room, no table has anything of them."""

    settings = RoomSettings(grace=1.0, remember=3)

    def session(self, number: int) -> None:
        """One of many ways to come and go."""
        framing = ("line", "frame", "int32")[number % 3]
        peer = self.connect(f"user {number}", framing, f"10.0.{number // 250}.{number % 250}")
        way = number % 7
        if way < 4:
            peer.ask("room.create", {"room": f"room {number}"})
            peer.ask("room.send", {"data": number})
        if way == 1:
            peer.ask("room.leave", {})
        elif way == 2:
            other = self.connect(f"user {number}")
            other.ask("room.join", {"room": f"room {number}"})
            other.abort()
        if way >= 3:
            timeout = 10 if number % 2 else 2000
            peer.ask("match.join", {"mode": f"m{way}", "needed": 2, "timeout_ms": timeout})
        if way == 5:
            peer.ask("match.cancel", {})
        if number % 5 == 0:
            self.network.advance(0.1)
        peer.abort()

    def empty(self, service: RoomService) -> dict[str, int]:
        self.network.advance(90)
        return kept(service)

    def test_a_thousand_short_sessions(self) -> None:
        for number in range(70):  # every way once, so that what is made once is there
            self.session(number)
        before = self.empty(self.service)
        for number in range(70, 1070):
            self.session(number)
        self.assertEqual(self.empty(self.service), before)
        lobby = self.service.lobby
        self.assertEqual((len(lobby), len(lobby.members), len(lobby.matchmaker)), (0, 0, 0))
        self.assertEqual(len(lobby.timers), 0)


class HostsTests(SynchronousTestCase):
    """Issue 13: the same over hosts, whose sessions have rooms on the other one."""

    def test_sessions_of_another_host(self) -> None:
        world = World()
        settings = RoomSettings(grace=0.2, remember=3)
        a, b = world.add("a", settings), world.add("b", settings)
        there = [world.code_of("b")]

        def session(number: int) -> None:
            peer = Peer(a, f"10.0.0.{number}")
            peer.tell(room=there[0], user=f"user {number}")
            if number % 3 == 0:
                peer.tell(say=number)
            if number % 2:
                world.advance(0.05)
            peer.lost()

        def left() -> list[dict[str, int]]:
            world.advance(2)
            for host in (a, b):
                host.hooks.events.clear()
            return [kept(host.lobby) for host in (a, b)]

        for number in range(10):
            session(number)
        before = left()
        for number in range(10, 210):
            session(number)
        self.assertEqual(left(), before)
        self.assertEqual((len(a.lobby.seats), len(b.lobby.remote_peers)), (0, 0))
