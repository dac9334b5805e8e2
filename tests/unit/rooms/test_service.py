"""The rooms and matches of docs/protocol.md, for peers that know only JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.bus.local import LocalBus
from kupool.errors import FORBIDDEN, RequestError
from kupool.net.interfaces import IClosingObserver
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork, MemoryPeer
from kupool.rooms import RoomSettings
from kupool.rooms.bodies import SayBody
from kupool.rooms.failures import RoomGone
from kupool.rooms.service import MAX_SHOWN, PAGE, RoomService
from kupool.rooms.settings import FloodPolicy
from kupool.rooms.spread.settings import SpreadSettings


def happened(room: str | None, event: str, user: str | None = None, data: Any = None) -> Any:
    """Return a notification of a room."""
    params = {"room": room, "event": event, "user": user, "data": data}
    return {"id": None, "method": "room", "params": params}


class RoomsCase(SynchronousTestCase):
    """A server whose connections say who they are."""

    settings = RoomSettings(grace=5.0, max_rooms=60, max_members=55)

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        router = Router()
        router.add("iam", self.iam, str)
        self.service = RoomService(
            self.network,
            lambda connection: str(connection.context),
            router,
            settings=self.settings,
            max_data=100,
            wall=lambda: 1000 + self.network.seconds(),
        )
        self.server = Server(self.network, self.service)
        self.network.run(self.server.listen(["tcp:8000"]))
        self.peers: dict[str, MemoryPeer] = {}

    def iam(self, connection: Any, request: Any) -> bool:
        connection.context = request.params
        return True

    def connect(self, user: str, framing: str = "line", host: str = "192.0.2.1") -> MemoryPeer:
        peer = self.network.connect(8000, framing, host)
        self.assertTrue(peer.ask("iam", user)["result"])
        return peer

    def ok(self, peer: MemoryPeer, method: str, **params: Any) -> Any:
        answer = peer.ask(method, params)
        self.assertNotIn("error", answer)
        return answer["result"]

    def refused(self, peer: MemoryPeer, method: str, **params: Any) -> tuple[int, str]:
        answer = peer.ask(method, params)
        self.assertIs(answer["result"], False)
        return answer["code"], answer["error"]

    def heard(self, peer: MemoryPeer) -> list[Any]:
        self.network.settle()
        return peer.messages()


class RoomTests(RoomsCase):
    """A-41, A-43 to A-46, A-52: members talk, and see who is there."""

    def test_interface(self) -> None:
        verifyObject(IClosingObserver, self.service)

    def test_talk(self) -> None:
        """A-43, A-45: who creates or joins is a member, and hears what the others say."""
        alice, bob = self.connect("alice"), self.connect("bob", "frame")
        carol = self.connect("carol", "int32")
        self.assertEqual(self.ok(alice, "room.create", room="tea"), {"room": "tea", "members": 1})
        self.assertEqual(self.ok(bob, "room.join", room="tea"), {"room": "tea", "members": 2})
        self.assertEqual(self.ok(carol, "room.join", room="tea"), {"room": "tea", "members": 3})
        self.assertEqual(
            self.heard(alice),
            [happened("tea", "joined", "bob"), happened("tea", "joined", "carol")],
        )
        self.assertEqual(self.heard(bob), [happened("tea", "joined", "carol")])
        self.assertIs(self.ok(bob, "room.send", data={"text": "hé", "n": [1, None]}), True)
        said = happened("tea", "message", "bob", {"text": "hé", "n": [1, None]})
        self.assertEqual((self.heard(alice), self.heard(carol)), ([said], [said]))
        self.assertEqual(self.heard(bob), [])
        self.assertIs(self.ok(bob, "room.send", data=1, to=["carol", "carol"]), True)
        self.assertEqual(self.heard(carol), [happened("tea", "message", "bob", 1)])
        self.assertEqual(self.heard(alice), [])
        self.assertIs(self.ok(bob, "room.leave"), True)
        self.assertEqual(self.heard(alice), [happened("tea", "left", "bob", "left")])
        self.assertEqual(self.refused(bob, "room.send", data=1)[0], 35)
        self.ok(alice, "room.leave")
        self.ok(carol, "room.leave")
        self.assertEqual(self.ok(alice, "room.list"), {"rooms": [], "next": None})

    def test_refusals(self) -> None:
        """A-43, A-44: what cannot be is named, and changes nothing."""
        alice, bob = self.connect("alice"), self.connect("bob")
        self.ok(alice, "room.create", room="tea")
        self.assertEqual(
            self.refused(bob, "room.create", room="tea"), (36, "already exists: room tea")
        )
        self.assertEqual(self.refused(bob, "room.join", room="x"), (35, "not found: room x"))
        nowhere = (35, "not found: room of this connection")
        for method, params in (
            ("room.leave", {}), ("room.send", {"data": 1}), ("room.list", {"room": "tea"}),
        ):  # fmt: skip
            self.assertEqual(self.refused(bob, method, **params), nowhere, method)
        self.assertEqual(self.refused(bob, "match.cancel"), (35, "not found: player bob"))
        self.assertEqual(
            self.refused(alice, "room.create", room="other"),
            (36, "already exists: alice in room tea"),
        )
        self.assertEqual(len(self.service.lobby), 1)
        self.assertEqual(
            self.refused(alice, "room.send", data="x" * 99),
            (32, "bad params: data: 101 bytes, more than 100"),
        )
        self.ok(alice, "room.send", data="x" * 98)
        self.assertEqual(
            self.refused(alice, "room.send", data=1, to=["bob"]), (35, "not found: user bob")
        )
        for params in ({"room": ""}, {"room": "x" * 256}, {"room": 5}, {}):
            self.assertEqual(self.refused(bob, "room.join", **params)[0], 32, params)
        self.assertEqual(self.refused(bob, "room.send", data=1, to=[])[0], 32)
        self.assertEqual(self.heard(bob), [])

    def test_last_words(self) -> None:
        """A-41: what was said before leaving, in one go, is heard."""
        alice, bob = self.connect("alice"), self.connect("bob")
        self.ok(alice, "room.create", room="tea")
        self.ok(bob, "room.join", room="tea")
        self.heard(alice)
        bob.send(
            b'{"id":7,"method":"room.send","params":{"data":"bye"}}\n'
            b'{"id":8,"method":"room.leave"}\n'
            b'{"id":9,"method":"room.create","params":{"room":"coffee"}}\n'
        )
        answers = [True, True, {"room": "coffee", "members": 1}]
        expected = [{"id": 7 + n, "result": answer} for n, answer in enumerate(answers)]
        self.assertEqual(self.heard(bob), expected)
        said = [happened("tea", "message", "bob", "bye"), happened("tea", "left", "bob", "left")]
        self.assertEqual(self.heard(alice), said)

    def test_away_and_back(self) -> None:
        """A-46: who is cut off has a while to come back, on any connection."""
        alice, bob, too = self.connect("alice"), self.connect("bob"), self.connect("bob")
        self.ok(alice, "room.create", room="tea")
        self.ok(bob, "room.join", room="tea")
        self.assertEqual(self.ok(too, "room.join", room="tea")["members"], 2)
        self.heard(alice)
        bob.abort()
        self.assertEqual(self.heard(alice), [])
        too.abort()
        self.assertEqual(self.heard(alice), [happened("tea", "away", "bob")])
        self.network.advance(4.0)
        again = self.connect("bob")
        self.assertEqual(self.ok(again, "room.join", room="tea")["members"], 2)
        self.assertEqual(self.heard(alice), [happened("tea", "back", "bob")])
        again.abort()
        self.network.advance(5.1)
        gone = [happened("tea", "away", "bob"), happened("tea", "left", "bob", "gone")]
        self.assertEqual(self.heard(alice), gone)

    def test_lists(self) -> None:
        """A-52: rooms for all, members for members, page by page."""
        everyone = [self.connect(f"u{n}") for n in range(PAGE + 4)]
        for n, peer in enumerate(everyone):
            self.ok(peer, "room.create", room=f"r{n}")
        first = self.ok(everyone[0], "room.list")
        self.assertEqual((len(first["rooms"]), first["next"]), (PAGE, PAGE))
        self.assertEqual(first["rooms"][0], {"room": "r0", "members": 1})
        second = self.ok(everyone[0], "room.list", start=PAGE)
        codes = [room["room"] for room in second["rooms"]]
        self.assertEqual(codes, [f"r{PAGE + n}" for n in range(4)])
        self.assertIsNone(second["next"])
        beyond = self.ok(everyone[0], "room.list", start=1000)
        self.assertEqual(beyond, {"rooms": [], "next": None})
        self.assertEqual(self.refused(everyone[0], "room.list", room="r1")[0], 35)
        for peer in everyone[1:]:
            self.ok(peer, "room.leave")
            self.ok(peer, "room.join", room="r0")
        members = self.ok(everyone[0], "room.list", room="r0")
        self.assertEqual((len(members["members"]), members["next"]), (PAGE, PAGE))
        self.assertEqual(members["members"][0]["user"], "u0")
        self.assertEqual(set(members["members"][0]), {"user", "online", "joined_at", "last_seen"})
        self.assertEqual(members["members"][0]["joined_at"], 1000_000)

    def test_limits(self) -> None:
        """A-48: of rooms, and of the members of one."""
        peers = [self.connect(f"u{n}") for n in range(61)]
        for n, peer in enumerate(peers[:60]):
            self.ok(peer, "room.create", room=f"r{n}")
        self.assertEqual(
            self.refused(peers[60], "room.create", room="r60"), (34, "too many requests: 60 rooms")
        )
        for peer in peers[1:55]:
            self.ok(peer, "room.leave")
            self.ok(peer, "room.join", room="r0")
        self.assertEqual(self.refused(peers[60], "room.join", room="r0")[0], 34)

    def test_the_end(self) -> None:
        """A-47: members hear that it is over; then there are no rooms and no timers."""
        alice = self.connect("alice")
        self.ok(alice, "room.create", room="tea")
        self.network.run(self.service.close("server going down"), 20.0)
        self.assertEqual(self.heard(alice), [happened("tea", "closed", None, "server going down")])
        self.assertEqual(self.refused(alice, "room.create", room="x"), (35, "not found: room x"))
        self.assertEqual(self.refused(alice, "match.join", mode="m", needed=2)[0], 33)
        alice.close()
        self.network.run(self.server.stop())
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_what_waits_at_the_end(self) -> None:
        """A-47: it is refused, and nobody hears it."""
        alice, bob = self.connect("alice"), self.connect("bob")
        self.ok(alice, "room.create", room="tea")
        self.ok(bob, "room.join", room="tea")
        (connection,) = self.service.lobby.members.get("alice").connections
        answer = self.service.lobby.request(connection, SayBody(msgspec.Raw(b"1")))
        self.network.run(self.service.close("over"), 20.0)
        self.failureResultOf(answer, RoomGone)
        self.assertEqual(self.heard(bob), [happened("tea", "closed", None, "over")])

    def test_steps_in_front(self) -> None:
        """Every method can be guarded."""
        asked: list[object] = []
        service = RoomService(
            self.network,
            str,
            Router(),
            [lambda connection, request: asked.append(request)],
        )
        self.network.run(Server(self.network, service).listen(["tcp:8001"]))
        peer = self.network.connect(8001, "line")
        methods = [route.key for route in service.router.routes]  # type: ignore[attr-defined]
        params = {"room": "x", "data": 1, "mode": "m", "needed": 2}
        for method in methods:
            peer.ask(method, params)
        self.assertEqual((len(asked), len(methods)), (7, 7))


class MatchTests(RoomsCase):
    """A-50: players are brought together, or told that nobody came."""

    def seek(self, peer: MemoryPeer, **params: Any) -> None:
        self.assertIs(self.ok(peer, "match.join", **{"mode": "duel", "needed": 2} | params), True)

    def test_matched(self) -> None:
        alice, bob = self.connect("alice"), self.connect("bob")
        self.seek(alice, data={"level": 3})
        self.assertEqual(
            self.refused(alice, "match.join", mode="duel", needed=2),
            (36, "already exists: player alice"),
        )
        self.seek(bob)
        (found,) = self.heard(alice)
        code = found["params"]["room"]
        self.assertRegex(code, "^match-[0-9a-f]{16}$")
        players = [{"user": "alice", "data": {"level": 3}}, {"user": "bob", "data": None}]
        expected = happened(code, "matched", None, {"mode": "duel", "players": players})
        self.assertEqual(found, expected)
        self.assertEqual(self.heard(bob), [expected])
        self.ok(bob, "room.send", data="hello")
        self.assertEqual(self.heard(alice)[-1], happened(code, "message", "bob", "hello"))

    def test_from_another_room(self) -> None:
        """Who waits in a room goes from there."""
        alice, bob, carol = (self.connect(user) for user in ("alice", "bob", "carol"))
        self.ok(alice, "room.create", room="tea")
        self.ok(carol, "room.join", room="tea")
        self.ok(bob, "room.create", room="coffee")
        self.seek(alice)
        self.seek(bob)
        self.assertEqual([m["params"]["event"] for m in self.heard(bob)], ["matched"])
        member = self.service.lobby.members.get("alice")
        self.assertTrue(member.room.code.startswith("match-"))
        self.assertEqual(set(member.room.members), {"alice", "bob"})
        self.assertEqual(self.heard(carol), [happened("tea", "left", "alice", "moved")])

    def test_nobody_came(self) -> None:
        alice = self.connect("alice")
        self.seek(alice, timeout_ms=2000)
        self.network.advance(1.9)
        self.assertEqual(self.heard(alice), [])
        self.network.advance(0.3)
        self.assertEqual(
            self.heard(alice), [happened(None, "unmatched", "alice", {"mode": "duel"})]
        )
        self.seek(alice, timeout_ms=100_000)
        self.network.advance(99.95)
        self.assertEqual(self.heard(alice), [])
        self.network.advance(0.15)
        self.assertEqual(len(self.heard(alice)), 1)
        self.seek(alice)
        self.assertIs(self.ok(alice, "match.cancel"), True)
        self.assertEqual(self.refused(alice, "match.cancel"), (35, "not found: player alice"))

    def test_no_room_for_it(self) -> None:
        """Who is matched hears of it, whatever comes of it."""
        for n in range(60):
            self.ok(self.connect(f"u{n}"), "room.create", room=f"r{n}")
        alice, bob = self.connect("alice"), self.connect("bob")
        self.seek(alice)
        self.seek(bob)
        data = {"mode": "duel", "error": "too many requests: 60 rooms"}
        for peer, user in ((alice, "alice"), (bob, "bob")):
            self.assertEqual(self.heard(peer), [happened(None, "unmatched", user, data)])
        self.seek(alice)

    def test_gone_meanwhile(self) -> None:
        """A player whose connection ends waits no longer."""
        alice, bob, carol = (self.connect(user) for user in ("alice", "bob", "carol"))
        self.seek(alice)
        alice.abort()
        self.network.settle()
        self.seek(bob)
        self.assertEqual(self.heard(bob), [])
        self.seek(carol)
        self.assertEqual(self.heard(bob)[-1]["params"]["event"], "matched")

    def test_bad_params(self) -> None:
        alice = self.connect("alice")
        for params in (
            {"mode": "m", "needed": 1},
            {"mode": "m", "needed": 33},
            {"mode": "", "needed": 2},
            {"mode": "m", "needed": 2, "timeout_ms": 5},
            {"mode": "m", "needed": 2, "timeout_ms": 3_600_001},
            {"mode": "m", "needed": 2, "data": "x" * MAX_SHOWN},
            {"needed": 2},
        ):
            self.assertEqual(self.refused(alice, "match.join", **params)[0], 32, params)
        self.assertEqual(len(self.service.lobby.matchmaker), 0)

    def test_the_limits_themselves(self) -> None:
        """What is just allowed."""
        for number, params in enumerate(
            (
                {"mode": "m", "needed": 32},
                {"mode": "m", "needed": 2, "timeout_ms": 10},
                {"mode": "m" * 255, "needed": 3, "timeout_ms": 3_600_000},
                {"mode": "m", "needed": 4, "data": "x" * 510},
            )
        ):
            self.seek(self.connect(f"u{number}"), **params)
        alice = self.connect("alice")
        for params in (
            {"mode": "m", "needed": 2, "timeout_ms": 9},
            {"mode": "m" * 256, "needed": 2},
        ):
            self.assertEqual(self.refused(alice, "match.join", **params)[0], 32, params)
        self.assertEqual(
            self.refused(alice, "match.join", mode="m", needed=2, data="x" * 511),
            (32, "bad params: data: 513 bytes, more than 512"),
        )

    def test_how_long_a_player_waits_who_does_not_say(self) -> None:
        alice = self.connect("alice")
        self.seek(alice)
        self.network.advance(29.95)
        self.assertEqual(self.heard(alice), [])
        self.network.advance(0.05)
        self.assertEqual([m["params"]["event"] for m in self.heard(alice)], ["unmatched"])

    def test_who_cannot_come(self) -> None:
        """The others play without them, and see who is there."""
        alice, bob, carol = (self.connect(user) for user in ("alice", "bob", "carol"))
        bring = self.service.lobby.bring

        def unless_bob(room: Any, user: str, connection: Any = None) -> Any:
            if user == "bob":
                raise RequestError(FORBIDDEN)
            return bring(room, user, connection)

        self.patch(self.service.lobby, "bring", unless_bob)
        for peer in (alice, bob, carol):
            self.seek(peer, needed=3)
        data = {"mode": "duel", "error": FORBIDDEN.text}
        self.assertEqual(self.heard(bob), [happened(None, "unmatched", "bob", data)])
        (found,) = self.heard(alice)
        players = [each["user"] for each in found["params"]["data"]["players"]]
        self.assertEqual(players, ["alice", "carol"])
        self.assertEqual(len(self.service.lobby), 1)

    def test_nobody_can_come(self) -> None:
        """Nothing is left of the room."""
        alice, bob = self.connect("alice"), self.connect("bob")

        def refuse(*arguments: object) -> None:
            raise RequestError(FORBIDDEN)

        self.patch(self.service.lobby, "bring", refuse)
        self.seek(alice)
        self.seek(bob)
        events = [m["params"]["event"] for peer in (alice, bob) for m in self.heard(peer)]
        self.assertEqual((events, len(self.service.lobby)), (["unmatched"] * 2, 0))

    def test_who_is_matched_and_joins_with_another_connection(self) -> None:
        """They are a member already: nobody is told that they joined."""
        alice, bob = self.connect("alice"), self.connect("bob")
        self.seek(alice)
        self.seek(bob)
        (found,) = self.heard(alice)
        code = found["params"]["room"]
        self.ok(alice, "room.leave")
        self.heard(bob)
        self.ok(alice, "room.join", room=code)
        self.assertEqual(self.heard(bob), [happened(code, "joined", "alice")])


class PermissionTests(RoomsCase):
    """Issue 13: what a peer may do with rooms and modes of some names."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[tuple[str, str]] = []
        self.allowed = True

        def may(connection: Any, action: str, name: str) -> bool:
            self.asked.append((action, name))
            return self.allowed

        self.patch(self.service, "_may", may)
        self.alice = self.connect("alice")

    def test_what_is_asked(self) -> None:
        self.ok(self.alice, "room.create", room="tea")
        self.ok(self.alice, "room.join", room="tea")
        self.ok(self.alice, "match.join", mode="duel", needed=2)
        self.assertEqual(self.asked, [("create", "tea"), ("join", "tea"), ("match", "duel")])

    def test_what_is_forbidden(self) -> None:
        self.ok(self.connect("bob"), "room.create", room="coffee")
        self.ok(self.connect("alice"), "room.create", room="tea")
        self.allowed = False
        for method, params, what in (
            ("room.create", {"room": "milk"}, "room milk"),
            ("room.join", {"room": "coffee"}, "room coffee"),
            ("room.join", {"room": "nowhere"}, "room nowhere"),
            ("match.join", {"mode": "duel", "needed": 2}, "mode duel"),
        ):
            refused = self.refused(self.alice, method, **params)
            self.assertEqual(refused, (33, f"forbidden: {what}"))
        self.assertEqual(self.ok(self.alice, "room.join", room="tea")["members"], 1, "a member")
        self.assertEqual(self.ok(self.alice, "room.list"), {"rooms": [], "next": None})

    def test_from_a_room_to_one_that_is_forbidden(self) -> None:
        """The reason is the first of what stands against it."""
        self.ok(self.connect("bob"), "room.create", room="coffee")
        self.ok(self.alice, "room.create", room="tea")
        in_tea = (36, "already exists: alice in room tea")
        self.assertEqual(self.refused(self.alice, "room.join", room="coffee"), in_tea)
        self.assertEqual(
            self.refused(self.alice, "room.create", room="coffee"),
            (36, "already exists: room coffee"),
        )
        self.assertEqual(
            self.refused(self.alice, "room.join", room="nowhere"), (35, "not found: room nowhere")
        )
        self.assertEqual(
            self.refused(self.alice, "room.create", room="tea"), (36, "already exists: room tea")
        )
        self.allowed = False
        self.assertEqual(
            self.refused(self.alice, "room.join", room="coffee"), (33, "forbidden: room coffee")
        )


class BoundsTests(RoomsCase):
    """K-44: the largest of what one request may say."""

    def test_names_starts_and_receivers(self) -> None:
        alice = self.connect("alice")
        self.ok(alice, "room.create", room="x" * 255)
        self.ok(alice, "room.leave")
        self.ok(alice, "room.create", room="x")
        self.assertEqual(self.ok(alice, "room.list", start=2**53 - 1)["rooms"], [])
        for start in (-1, 2**53):
            self.assertEqual(self.refused(alice, "room.list", start=start)[0], 32)
        for count, code in ((50, 35), (51, 32)):
            self.assertEqual(self.refused(alice, "room.send", data=1, to=["u"] * count)[0], code)
        self.assertEqual(self.refused(alice, "room.send", data=1, to=[""])[0], 32)

    def test_the_largest_message_unless_told_otherwise(self) -> None:
        service = RoomService(self.network, lambda connection: "alice")
        self.network.run(Server(self.network, service).listen(["tcp:8001"]))
        alice = self.network.connect(8001, "line")
        self.ok(alice, "room.create", room="tea")
        self.ok(alice, "room.send", data="x" * 4094)
        self.assertEqual(
            self.refused(alice, "room.send", data="x" * 4095),
            (32, "bad params: data: 4097 bytes, more than 4096"),
        )

    def test_a_page_of_members(self) -> None:
        peers = [self.connect(f"u{n}") for n in range(53)]
        self.ok(peers[0], "room.create", room="tea")
        for peer in peers[1:]:
            self.ok(peer, "room.join", room="tea")
        self.network.advance(1.5)
        peers[52].abort()
        page = self.ok(peers[0], "room.list", room="tea", start=2)
        self.assertEqual([m["user"] for m in page["members"]], [f"u{n}" for n in range(2, 52)])
        self.assertEqual(page["next"], 52)
        last = self.ok(peers[0], "room.list", room="tea", start=52)
        self.assertIsNone(last["next"])
        (member,) = last["members"]
        self.assertEqual((member["online"], member["last_seen"]), (False, 1001_500))
        full = self.ok(peers[0], "room.list", room="tea", start=3)
        self.assertEqual((len(full["members"]), full["next"]), (50, None))
        self.assertEqual(
            self.refused(peers[0], "room.list", room="coffee"), (35, "not found: room coffee")
        )


class RefusingTests(RoomsCase):
    """A-48: a room that has too much to do."""

    settings = RoomSettings(sender_limit=1, flood=FloodPolicy.REFUSE)

    def test_who_leaves_at_once(self) -> None:
        """It is refused like any other message, and they stay."""
        alice = self.connect("alice")
        self.ok(alice, "room.create", room="tea")
        alice.send(
            b'{"id":7,"method":"room.send","params":{"data":1}}\n{"id":8,"method":"room.leave"}\n'
        )
        answers = {message["id"]: message for message in self.heard(alice)}
        self.assertIs(answers[7]["result"], True)
        self.assertEqual(answers[8]["error"], "too many requests: messages of room tea")
        self.assertIs(self.ok(alice, "room.leave"), True)


class HostsTests(SynchronousTestCase):
    """A-51, A-52: two services on one bus, whose rooms are the same."""

    spread = SpreadSettings(settle=0.5, move_timeout=4.0, window=4.0)

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.bus = LocalBus(self.network, wall=self.network.seconds)
        self.services: list[RoomService] = []
        for port in (8000, 8001):
            router = Router()
            router.add("iam", self.iam, str)
            service = RoomService(
                self.network,
                lambda connection: str(connection.context),
                router,
                settings=RoomSettings(grace=2.0),
                wall=lambda: 1000 + self.network.seconds(),
                bus=self.bus,
                spread=self.spread,
            )
            self.services.append(service)
            self.network.run(Server(self.network, service).listen([f"tcp:{port}"]))
            self.network.run(service.start(), 2.0)
        self.network.advance(1.0)
        lobby = self.services[0].lobby
        self.code = next(c for c in map("r{}".format, range(99)) if lobby.owns(c))

    def iam(self, connection: Any, request: Any) -> bool:
        connection.context = request.params
        return True

    def connect(self, host: int, user: str) -> MemoryPeer:
        peer = self.network.connect(8000 + host, "line")
        self.assertTrue(self.asked(peer, "iam", user)["result"])
        return peer

    def asked(self, peer: MemoryPeer, method: str, params: Any = None) -> Any:
        number = peer.request(method, params)
        self.network.advance(0.1)
        (answer,) = [m for m in peer.messages() if m["id"] == number]
        return answer

    def ok(self, peer: MemoryPeer, method: str, **params: Any) -> Any:
        answer = self.asked(peer, method, params)
        self.assertNotIn("error", answer)
        return answer["result"]

    def events(self, peer: MemoryPeer) -> list[Any]:
        self.network.advance(0.1)
        told = [m["params"] for m in peer.messages()]
        return [(each["event"], each["user"], each["data"]) for each in told]

    def test_a_room_of_the_other_service(self) -> None:
        alice, bob = self.connect(0, "alice"), self.connect(1, "bob")
        self.ok(alice, "room.create", room=self.code)
        self.assertEqual(self.ok(bob, "room.join", room=self.code)["members"], 2)
        self.assertEqual(self.ok(bob, "room.list")["rooms"], [{"room": self.code, "members": 2}])
        answer = self.asked(bob, "room.create", {"room": self.code})
        self.assertEqual(answer["error"], f"already exists: room {self.code}")
        answer = self.asked(bob, "room.join", {"room": "elsewhere"})
        self.assertEqual(answer["code"], 36 if not self.services[1].lobby.owns("elsewhere") else 35)
        self.assertIs(self.ok(bob, "room.leave"), True)
        self.assertEqual(self.events(alice)[-1], ("left", "bob", "left"))
        answer = self.asked(bob, "room.leave")
        self.assertEqual(answer["error"], "not found: room of this connection")

    def moved(self) -> dict[str, Any]:
        """Move the room to the second service; returns its members as listed there."""
        self.network.run(self.services[0].close("stopping"), 5.0)
        self.network.advance(0.2)
        room = self.services[1].lobby.get(self.code)
        return dict(room.members)

    def test_its_members_follow(self) -> None:
        """Who was a member before is not announced, and joined when they did."""
        bob, carol = self.connect(1, "bob"), self.connect(1, "carol")
        self.ok(bob, "room.create", room=self.code)
        joined = self.network.seconds()
        self.network.advance(5.0)
        self.ok(carol, "room.join", room=self.code)
        self.events(bob)
        members = self.moved()
        self.assertEqual(set(members), {"bob", "carol"})
        self.assertLess(members["bob"].joined_at - 1000 - joined, 1.0)
        self.assertEqual((self.events(bob), self.events(carol)), ([], []))
        dan = self.connect(1, "dan")
        self.ok(dan, "room.join", room=self.code)
        self.assertEqual(self.events(bob), [("joined", "dan", None)])

    def test_who_does_not_follow(self) -> None:
        """They have left when their time is over; who was away comes back."""
        alice, bob, carol = self.connect(0, "alice"), self.connect(1, "bob"), self.connect(1, "c")
        for peer, method in ((alice, "room.create"), (bob, "room.join"), (carol, "room.join")):
            self.ok(peer, method, room=self.code)
        carol.abort()
        alice.abort()
        self.events(bob)
        self.assertEqual(set(self.moved()), {"bob"})
        again = self.connect(1, "c")
        self.assertEqual(self.ok(again, "room.join", room=self.code)["members"], 2)
        self.assertEqual(self.events(bob), [("back", "c", None)])
        self.network.advance(5.0)
        self.assertEqual(self.events(bob), [("left", "alice", "gone")])
        self.ok(self.connect(1, "alice"), "room.join", room=self.code)
        self.assertEqual(self.events(bob), [("joined", "alice", None)])

    def test_how_long_they_are_waited_for(self) -> None:
        """As long as a room may take to move, or a member to come back, if that is longer."""
        alice, bob = self.connect(0, "alice"), self.connect(1, "bob")
        self.ok(alice, "room.create", room=self.code)
        self.ok(bob, "room.join", room=self.code)
        alice.abort()
        self.events(bob)
        self.moved()
        self.network.advance(3.0)
        self.assertEqual(self.events(bob), [])
        self.network.advance(1.2)
        self.assertEqual(self.events(bob), [("left", "alice", "gone")])
        self.assertEqual(self.services[1].lobby.tasks.snapshot()["missing"].runs, 1)

    def test_a_service_that_has_stopped_answers_no_lists(self) -> None:
        before = len(self.network.run(self.bus.status()).subscribers)
        self.network.run(self.services[0].close("stopping"), 5.0)
        after = len(self.network.run(self.bus.status()).subscribers)
        self.assertEqual(after, before // 2, "nothing of it is left on the bus")

    def test_the_bus_is_required_unless_told_otherwise(self) -> None:
        asked: list[bool] = []

        async def start(*, required: bool) -> None:
            asked.append(required)

        self.patch(self.services[0]._spread, "start", start)
        self.network.run(self.services[0].start())
        self.network.run(self.services[0].start(required=False))
        self.assertEqual(asked, [True, False])


class FloodTests(RoomsCase):
    """A-48: one member says more than the room can take in."""

    settings = RoomSettings(queue_limit=10, sender_limit=5)

    def test_flood(self) -> None:
        """Nothing is lost, and the others are heard."""
        loud, quiet = self.connect("loud"), self.connect("quiet")
        self.ok(loud, "room.create", room="tea")
        self.ok(quiet, "room.join", room="tea")
        for n in range(500):
            loud.request("room.send", {"data": n})
        self.ok(quiet, "room.send", data="me too")
        said = [m["params"]["data"] for m in self.heard(quiet)]
        self.assertEqual(said, list(range(500)))
        answers = [m for m in self.heard(loud) if m.get("result") is True]
        self.assertEqual(len(answers), 500)
