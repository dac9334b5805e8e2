"""The rooms and matches of docs/protocol.md, for peers that know only JSON."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.net.interfaces import IClosingObserver
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork, MemoryPeer
from kupool.rooms import RoomSettings
from kupool.rooms.service import MAX_SHOWN, PAGE, RoomService


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
        for method in ("room.leave", "room.send", "match.cancel"):
            params = {"data": 1} if method == "room.send" else {}
            self.assertEqual(self.refused(bob, method, **params)[0], 35, method)
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
        self.assertTrue(code.startswith("match-"))
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
