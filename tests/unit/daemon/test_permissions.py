"""The setting ``permissions`` in a daemon: sessions, a reload, and what is refused at the start."""

from __future__ import annotations

from typing import Any

from kupool.daemon.checks import check
from kupool.errors import UNKNOWN_METHOD
from kupool.settings import SettingError, load
from tests.fakes.daemon_case import PORT, DaemonCase, PasswordCase

FORBIDDEN = 33

#: A submission that would be judged: the job is unknown.
SUBMISSION = {"job_id": 1, "client_nonce": "a", "result": "b"}


class PermissionCase(PasswordCase):
    """A daemon with an account for each role."""

    settings: dict[str, Any] = {"rooms": "on"}
    users = ("alice", "bob")


class MethodTests(PermissionCase):
    """Issue 15, build 2: which methods a session may call."""

    settings = PermissionCase.settings | {
        "permissions": ["@operator call submit", "bob call submit", "@operator call bus.*"]
    }

    def test_methods(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        answer = alice.ask("submit", SUBMISSION)
        self.assertEqual(
            (answer["code"], answer["error"]), (FORBIDDEN, "forbidden: method 'submit'")
        )
        self.assertNotIn(self.code(bob, "submit", **SUBMISSION), (0, FORBIDDEN))
        for peer in (alice, bob):
            self.assertEqual(
                self.code(peer, "bus.publish", topic="a", model="unreliable-all"), FORBIDDEN
            )
            self.assertEqual(self.code(peer, "ping"), 0)
            self.assertEqual(self.code(peer, "room.create", room=f"r{peer}"), 0)
            self.assertEqual(self.code(peer, "nothing"), UNKNOWN_METHOD.code)

    def test_messages_that_hide_their_method(self) -> None:
        """What one decoder takes and another one does not is not passed on."""
        alice = self.user("alice")
        params = b'"params":{"job_id":1,"client_nonce":"a","result":"b"}'
        for message in (
            b'{"id":1,"method":"submit",%b,"x":"\xff"}' % params,
            b'{"id":1,"method":"ping","method":"submit",%b}' % params,
            b'{"id":1,"method":"submit","x":%b}' % (b"[" * 5000 + b"]" * 5000),
        ):
            alice.send(message)
            self.network.settle()
        counted = self.daemon.parts.acceptance.rejections.take()
        self.assertEqual(dict(counted), {})

    def test_a_reload(self) -> None:
        """It counts for sessions that are open."""
        alice = self.user("alice")
        self.reload(permissions=[])
        self.assertNotEqual(self.code(alice, "submit", **SUBMISSION), FORBIDDEN)
        self.reload(permissions=["@admin call submit"])
        self.assertEqual(self.code(alice, "submit", **SUBMISSION), FORBIDDEN)
        self.reload(permissions=["alice calls submit"], expire="5s")
        self.assertEqual(self.code(alice, "submit", **SUBMISSION), FORBIDDEN)
        self.assertEqual(self.daemon.settings.logins.permissions, ("@admin call submit",))


class AuthorizeTests(PermissionCase):
    """Issue 15, build 2: who may have a session at all."""

    settings = PermissionCase.settings | {
        "permissions": ["@operator call authorize", "bob call authorize"]
    }

    def test_authorize(self) -> None:
        self.user("bob")
        peer = self.network.connect(PORT, "line")
        answer = peer.ask("authorize", {"username": "alice.rig", "password": "secret"})
        self.assertEqual(answer["error"], "unauthorized")
        self.network.settle()
        closes = [m["params"] for m in peer.messages() if m.get("method") == "close"]
        self.assertIn("authorize is not permitted to the role worker", closes[0]["detail"])
        self.assertEqual(self.daemon.parts.pool.sessions, 1)


class AnonymousTests(DaemonCase):
    """Without ``auth`` every session is anonymous, whatever its name."""

    settings: dict[str, Any] = {"permissions": ["@worker call submit", "@worker call bus.status"]}

    def test_methods(self) -> None:
        peer = self.session("root")
        self.assertEqual(peer.ask("submit", SUBMISSION)["code"], FORBIDDEN)
        self.assertEqual(self.publish(peer, "a")["outcome"], "sent")


class TopicTests(PermissionCase):
    """Issue 15, build 2: the setting adds to the short forms of bus and rooms."""

    settings = PermissionCase.settings | {
        "bus_publish": ["a"],
        "bus_permissions": ["bob publish b"],
        "rooms_create": [],
        "permissions": [
            "@worker publish c.{user}",
            "@operator publish d",
            "@worker subscribe kupool.submission.accepted",
            "alice create {user}",
        ],
    }

    def test_topics(self) -> None:
        peers = {name: self.user(name) for name in ("alice", "bob")}
        for user, topic, may in (
            ("alice", "a", True),
            ("alice", "b", False),
            ("bob", "b", True),
            ("alice", "c.alice", True),
            ("alice", "c.bob", False),
            ("alice", "d", False),
        ):
            found = self.publish(peers[user], topic)
            self.assertEqual(isinstance(found, dict), may, (user, topic, found))
        found = self.ask(peers["alice"], "subscribe", topics=["kupool.submission.accepted"])
        self.assertEqual(found["topics"], ["kupool.submission.accepted"])
        self.assertEqual(self.code(peers["alice"], "room.create", room="alice"), 0)
        self.assertEqual(self.code(peers["bob"], "room.create", room="bob"), FORBIDDEN)

    def test_subscriptions_after_a_reload(self) -> None:
        alice = self.user("alice")
        self.ask(alice, "subscribe", topics=["kupool.submission.accepted", "x"])
        self.reload(permissions=["@operator subscribe kupool.submission.accepted"])
        (left,) = self.broker.status().subscribers
        self.assertEqual(left.topics, ("x",))


class CheckTests(PermissionCase):
    """Issue 15, build 2: a bad rule is refused, and the error names it."""

    def test_rules_that_are_refused(self) -> None:
        for rules, auth, said in (
            (["@admin GET /stats", "a b c"], [], "permissions: rule 2: 'a b c': expected WHO"),
            (["alice publish a"], [], "permissions: rule 1 needs --auth: "),
            (["@worker publish {user}"], [], "permissions: rule 1 needs --auth: "),
            (["@admin GET /stat"], self.auth, "permissions: rule 1: '@admin GET /stat': there is"),
        ):
            loaded = load({"permissions": rules, "auth": auth}, {})
            error = self.assertRaises(SettingError, check, loaded)
            self.assertTrue(str(error).startswith(said), error)
            self.assertTrue(str(error).endswith("(from flag --permissions)"), error)
        for rules in (["@admin GET /stats"], ["* publish a"], ["@worker call bus.*"]):
            self.assertIsNone(check(load({"permissions": rules}, {})))
