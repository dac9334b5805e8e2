"""Rooms of several real daemons on one RabbitMQ: the rooms of all nodes are one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.service import PAGE
from tests.integration.test_daemon_rooms import FLAGS, Line
from tests.servers.rabbit_server import VirtualHosts
from tests.servers.running_daemon import RunningDaemon
from tests.servers.services import RabbitServer, rabbit, required
from tests.servers.sockets import PATIENCE


class Member(Line):
    """A session of a user; keeps what came unasked."""

    def __init__(self, daemon: RunningDaemon, user: str) -> None:
        super().__init__(daemon, 30.0)
        self.user = user
        self.authorize(user)

    def ask(self, method: str, **params: Any) -> Any:
        """Return the result, or the text of the error."""
        answer = self.request(method, **params)
        return answer.get("error", answer["result"])

    def until(self, right: Callable[[Any], bool], method: str, **params: Any) -> Any:
        end = time.monotonic() + PATIENCE
        while not right(answer := self.ask(method, **params)):
            assert time.monotonic() < end, answer
            time.sleep(0.1)
        return answer

    def hears(self) -> tuple[str, str | None, Any]:
        """Return the next event of a room: what, of whom, and its data."""
        params = json.loads(self.line())["params"]
        return params["event"], params["user"], params["data"]


class NodesCase(SynchronousTestCase):
    def daemon(self, url: str, *flags: str) -> RunningDaemon:
        # No session may do anything a second less often than a test asks again.
        nodes = ("--rooms=on", "--bus=rabbit", f"--bus-url={url}", "--rooms-rate=1000")
        daemon = RunningDaemon(*FLAGS, *nodes, *flags).start()
        self.addCleanup(daemon.__exit__)
        return daemon

    def member(self, daemon: RunningDaemon, user: str) -> Member:
        member = Member(daemon, user)
        self.addCleanup(member.close)
        return member


class RoomsOfNodesTests(NodesCase):
    """A-51, issue 13: with ``--bus rabbit`` a session of any node is in the same rooms."""

    def test_all_methods_from_another_node(self) -> None:
        url = rabbit().new_vhost()
        one, two = self.daemon(url), self.daemon(url)
        ann, bob = self.member(one, "ann"), self.member(two, "bob")
        for n in range(6):  # some are on one node, some on the other
            room = f"tea {n}"
            ann.until(lambda a: isinstance(a, dict), "room.create", room=room)
            joined = bob.until(lambda a: isinstance(a, dict), "room.join", room=room)
            self.assertEqual(joined, {"room": room, "members": 2})
            self.assertEqual(ann.hears(), ("joined", "bob", None))
            self.assertEqual(bob.ask("room.create", room=room), f"already exists: room {room}")
            self.assertIs(ann.ask("room.send", data={"n": n}), True)
            self.assertEqual(bob.hears(), ("message", "ann", {"n": n}))
            self.assertIs(bob.ask("room.send", data="hi", to=["ann"]), True)
            self.assertEqual(ann.hears(), ("message", "bob", "hi"))
            self.assertEqual(bob.ask("room.send", data=1, to=["eve"]), "not found: user eve")
            for who in (ann, bob):
                members = who.ask("room.list", room=room)
                self.assertEqual([m["user"] for m in members["members"]], ["ann", "bob"])
                rooms = who.ask("room.list")
                self.assertEqual(rooms, {"rooms": [{"room": room, "members": 2}], "next": None})
            self.assertIs(bob.ask("room.leave"), True)
            self.assertEqual(ann.hears(), ("left", "bob", "left"))
            self.assertEqual(bob.ask("room.send", data=1), "not found: room of this connection")
            self.assertEqual(bob.ask("room.join", room="nowhere"), "not found: room nowhere")
            self.assertIs(ann.ask("room.leave"), True)
        self.assertEqual(ann.ask("room.list"), {"rooms": [], "next": None})

    def pairs(self, one: RunningDaemon, two: RunningDaemon) -> list[tuple[Member, Member]]:
        """Return members of two nodes in one room each time; both nodes have some of the rooms."""
        found = []
        for n in range(10):
            ann, bob = self.member(one, f"ann {n}"), self.member(two, f"bob {n}")
            ann.until(lambda a: isinstance(a, dict), "room.create", room=f"room {n}")
            bob.until(lambda a: isinstance(a, dict), "room.join", room=f"room {n}")
            self.assertEqual(ann.hears(), ("joined", bob.user, None))
            found.append((ann, bob))
        return found

    def test_a_node_that_stops_hands_its_rooms_over(self) -> None:
        """Members of the other node notice nothing but that those of this one are away."""
        url = rabbit().new_vhost()
        one, two = self.daemon(url), self.daemon(url)
        pairs = self.pairs(one, two)
        before = [ann.ask("room.list", room=f"room {n}") for n, (ann, _) in enumerate(pairs)]
        self.assertEqual(two.stop(), 0, two.output)
        for n, (ann, bob) in enumerate(pairs):
            self.assertEqual(ann.hears(), ("away", bob.user, None))
            members = ann.until(lambda a: isinstance(a, dict), "room.list", room=f"room {n}")
            joined = [m["joined_at"] for m in before[n]["members"] if m["user"] == ann.user]
            self.assertEqual(
                [m["joined_at"] for m in members["members"] if m["user"] == ann.user], joined
            )
            again = self.member(one, bob.user)
            self.assertEqual(again.ask("room.join", room=f"room {n}")["members"], 2)
            self.assertEqual(ann.hears(), ("back", bob.user, None))
            self.assertIs(again.ask("room.send", data=n), True)
            self.assertEqual(ann.hears(), ("message", bob.user, n))
        self.assertNotIn('"error"', one.output + two.output)

    def test_a_node_that_is_killed(self) -> None:
        """Members in its rooms hear that these are lost, the others that its members are away."""
        url = rabbit().new_vhost()
        one, two = self.daemon(url), self.daemon(url)
        pairs = self.pairs(one, two)
        two.kill()
        heard = [ann.hears() for ann, _ in pairs]
        lost = [n for n, (event, _, _) in enumerate(heard) if event == "lost"]
        self.assertTrue(0 < len(lost) < len(pairs), heard)
        for n, (ann, bob) in enumerate(pairs):
            if n in lost:
                self.assertEqual(heard[n], ("lost", ann.user, "host lost"))
                self.assertEqual(ann.ask("room.send", data=1), "not found: room of this connection")
                created = ann.until(lambda a: isinstance(a, dict), "room.create", room=f"room {n}")
                self.assertEqual(created, {"room": f"room {n}", "members": 1})
            else:
                self.assertEqual(heard[n], ("away", bob.user, None))
                self.assertIs(ann.ask("room.send", data=1), True)

    def test_lists_limits_and_permissions_are_those_of_all(self) -> None:
        """Issue 13: pages go over all nodes, and what one may not join is in none of them."""
        url = rabbit().new_vhost()
        one = self.daemon(url)
        two = self.daemon(url, "--rooms-join=open.>", "--rooms-create=open.>")
        ann, bob = self.member(one, "ann"), self.member(two, "bob")
        everyone = []
        for n in range(PAGE + 10):
            everyone.append(self.member(one, f"user {n}"))
            everyone[-1].until(lambda a: isinstance(a, dict), "room.create", room=f"open.{n}")
        for who in (ann, bob):
            first = who.ask("room.list")
            self.assertEqual((len(first["rooms"]), first["next"]), (PAGE, PAGE))
            second = who.ask("room.list", start=PAGE)
            self.assertEqual((len(second["rooms"]), second["next"]), (10, None))
            codes = {room["room"] for room in (*first["rooms"], *second["rooms"])}
            self.assertEqual(codes, {f"open.{n}" for n in range(PAGE + 10)})
        ann.until(lambda a: isinstance(a, dict), "room.create", room="closed")
        self.assertEqual(bob.ask("room.join", room="closed"), "forbidden: room closed")
        self.assertEqual(bob.ask("room.create", room="more"), "forbidden: room more")
        pages = [bob.ask("room.list"), bob.ask("room.list", start=PAGE)]
        shown = [room["room"] for page in pages for room in page["rooms"]]
        self.assertEqual((len(shown), "closed" in shown), (PAGE + 10, False))

    def test_a_broker_that_is_away(self) -> None:
        """Daemons start without it, say so, and share their rooms when it is there."""
        with required():
            server = RabbitServer()
            self.addCleanup(server.close)
        url = server.url()  # nobody listens there yet
        one, two = self.daemon(url), self.daemon(url)
        ann, bob = self.member(one, "ann"), self.member(two, "bob")
        self.assertEqual(ann.ask("room.create", room="tea"), "Temporarily unavailable")
        status, answer = one.get("/ready")
        self.assertEqual(status, 200)
        self.assertIn("rooms: RabbitMQ at ", " ".join(answer["reasons"]))
        server.start()
        ann.until(lambda a: isinstance(a, dict), "room.create", room="tea")
        bob.until(lambda a: isinstance(a, dict), "room.join", room="tea")
        self.assertEqual(ann.hears(), ("joined", "bob", None))

    def test_connections_to_the_broker_that_break(self) -> None:
        """All nodes lose them at once, and are back in time: no member notices."""
        broker = rabbit()
        url = broker.new_vhost()
        one, two = self.daemon(url), self.daemon(url)
        pairs = self.pairs(one, two)
        vhost = url.rpartition("/")[2]
        names: list[str] = []
        until(lambda: names or names.extend(_connections(broker, vhost)))
        for name in names:
            broker.api(f"connections/{quote(name, '')}", "DELETE")
        for n, (ann, bob) in enumerate(pairs):
            said = {"data": n}
            bob.until(lambda answer: answer is True, "room.send", **said)
            self.assertEqual(ann.hears(), ("message", bob.user, n))
        self.assertNotIn("cut off", one.output + two.output)


def _connections(broker: VirtualHosts, vhost: str) -> list[str]:
    """The names of the connections of a virtual host, once all of two daemons are there."""
    found = [c["name"] for c in broker.api("connections") if c.get("vhost") == vhost]
    return found if len(found) == 4 else []


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)
