"""The rooms in the daemon: who may use which, and how much of them one user may have."""

from __future__ import annotations

from typing import Any

from kupool.daemon.checks import check
from kupool.permissions.offered import ROOM
from kupool.rooms.service import CREATE, JOIN, MATCH
from kupool.settings import SettingError, load
from tests.fakes.daemon_case import DaemonCase, PasswordCase


class RoomsCase(PasswordCase):
    """A daemon with rooms, and with passwords."""

    settings: dict[str, Any] = {"rooms": "on", "rooms_rate": "0"}
    users = ("root", "alice", "bob", "bank-1")


class PermissionTests(RoomsCase):
    """Issue 13: rooms and modes by user and pattern."""

    settings = RoomsCase.settings | {
        "rooms_create": ["lounge.{user}"],
        "rooms_join": ["lounge.>"],
        "rooms_match": ["chess.*"],
        "rooms_permissions": ["bank-* create bank.>", "root join >"],
    }

    def test_the_actions_are_those_of_the_rooms(self) -> None:
        self.assertEqual(ROOM.actions, (CREATE, JOIN, MATCH))

    def test_rooms(self) -> None:
        alice, bob, bank = (self.user(name) for name in ("alice", "bob", "bank-1"))
        self.assertEqual(self.code(alice, "room.create", room="lounge.bob"), 33)
        answer = alice.ask("room.create", {"room": "tea party"})
        self.assertEqual((answer["code"], answer["error"]), (33, "forbidden: room tea party"))
        self.assertEqual(self.code(alice, "room.create", room="lounge.alice"), 0)
        self.assertEqual(self.code(bob, "room.join", room="lounge.alice"), 0)
        self.assertEqual(self.code(bank, "room.create", room="bank.safe.1"), 0)
        self.assertEqual(self.code(bob, "room.join", room="bank.safe.1"), 33)
        # Whether there is such a room is nobody's business who may not join it.
        self.assertEqual(self.code(bob, "room.join", room="bank.safe.2"), 33)

    def test_lists_have_what_one_may_join(self) -> None:
        alice, bank, root = (self.user(name) for name in ("alice", "bank-1", "root"))
        self.code(alice, "room.create", room="lounge.alice")
        self.code(bank, "room.create", room="bank.1")
        for peer, codes in ((alice, ["lounge.alice"]), (root, ["lounge.alice", "bank.1"])):
            found = peer.ask("room.list", {})["result"]
            self.assertEqual([room["room"] for room in found["rooms"]], codes)
            self.assertIsNone(found["next"])

    def test_matches(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        answer = alice.ask("match.join", {"mode": "go", "needed": 2})
        self.assertEqual((answer["code"], answer["error"]), (33, "forbidden: mode go"))
        for peer in (alice, bob):
            self.assertEqual(self.code(peer, "match.join", mode="chess.fast", needed=2), 0)
        self.network.settle()
        events = [m["params"]["event"] for m in alice.messages() if m.get("method") == "room"]
        self.assertEqual(events, ["matched"])
        (room,) = self.daemon.parts.rooms.service.lobby  # type: ignore[union-attr]
        alice.abort()
        self.assertEqual(self.code(self.user("alice"), "room.join", room=room.code), 0)
        self.assertEqual(self.code(self.user("bank-1"), "room.join", room=room.code), 33)

    def test_a_reload(self) -> None:
        alice = self.user("alice")
        self.code(alice, "room.create", room="lounge.alice")
        self.reload(rooms_create=["x"], rooms_join=["x"], rooms_permissions=["alice match go"])
        self.assertEqual(self.code(alice, "room.send", data=1), 0, "who is in a room stays")
        self.code(alice, "room.leave")
        self.assertEqual(self.code(alice, "room.create", room="lounge.alice"), 33)
        self.assertEqual(self.code(alice, "room.create", room="x"), 0)
        self.assertEqual(self.code(alice, "match.join", mode="go", needed=2), 0)
        self.reload(rooms_create=["y"], rooms_permissions=["alice writes y"])
        self.assertEqual(self.code(self.user("bob"), "room.create", room="y"), 33)

    def test_rules_that_are_none(self) -> None:
        for name, value, said in (
            ("rooms_create", ["a..b"], "topic 'a..b'"),
            ("rooms_join", ["lounge.{user}"], "needs --auth"),
            ("rooms_permissions", ["* join a", "bob writes b"], "rule 2: 'bob writes b': expected"),
            (
                "rooms_permissions",
                ["bob join a"],
                "rule 1 needs --auth: without it anybody may use ",
            ),
        ):
            error = self.assertRaises(SettingError, check, load({name: value}, {}))
            self.assertIn(said, str(error))


class DefaultTests(RoomsCase):
    """Without such settings everybody may use every room, as ever."""

    def test_any_name(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        for room in ("tea party", "a..b", "*", ">", "x" * 255, "."):
            self.assertEqual(self.code(alice, "room.create", room=room), 0, room)
            self.assertEqual(self.code(bob, "room.join", room=room), 0, room)
            for peer in (alice, bob):
                self.code(peer, "room.leave")
        self.assertEqual(self.code(alice, "match.join", mode="any mode", needed=2), 0)


class QuotaTests(RoomsCase):
    """Issue 13: the settings are in effect."""

    settings = RoomsCase.settings | {
        "rooms_user_max": "1",
        "rooms_user_connections": "2",
        "rooms_address_max": "2",
        "rooms_address_members": "3",
        "rooms_address_waiting": "1",
    }

    def test_one_address(self) -> None:
        alice, bob, root, bank = (self.user(n) for n in ("alice", "bob", "root", "bank-1"))
        self.assertEqual(self.code(alice, "room.create", room="one"), 0)
        self.assertEqual(self.code(bob, "room.create", room="two"), 0)
        answer = root.ask("room.create", {"room": "three"})
        self.assertEqual(answer["error"], "too many requests: rooms of one address")
        self.assertEqual(self.code(root, "room.join", room="one"), 0)
        answer = bank.ask("room.join", {"room": "one"})
        self.assertEqual(answer["error"], "too many requests: members of one address")
        self.assertEqual(self.code(self.user("alice"), "room.join", room="one"), 0)
        self.assertEqual(self.code(self.user("alice"), "room.join", room="one"), 34)
        self.assertEqual(self.code(alice, "match.join", mode="m", needed=3), 0)
        self.assertEqual(self.code(bob, "match.join", mode="m", needed=3), 34)
        self.code(alice, "room.leave")
        answer = root.ask("room.leave", {})
        self.assertEqual(self.code(root, "room.create", room="three"), 0)

    def stop(self) -> None:
        self.network.advance(61)  # what was refused is in the log, by the minute
        super().stop()


class WithoutPasswordsTests(DaemonCase):
    """Issue 13: who is anybody has nothing of their own that others could use up."""

    settings = {"rooms": "on", "rooms_user_connections": "1", "rooms_address_members": "2"}

    def test_a_user_has_what_their_address_has(self) -> None:
        first, second, other = (self.session(name) for name in ("alice", "alice", "bob"))
        self.assertNotIn("error", first.ask("room.create", {"room": "tea"}))
        self.assertNotIn("error", second.ask("room.join", {"room": "tea"}))
        self.assertNotIn("error", other.ask("room.join", {"room": "tea"}))
        answer = self.session("cid").ask("room.join", {"room": "tea"})
        self.assertEqual(answer["error"], "too many requests: members of one address")
