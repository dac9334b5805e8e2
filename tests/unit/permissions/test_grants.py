"""Rules of the setting ``permissions``: how they are written, and which are refused."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.permissions import Rule
from kupool.permissions.grants import Grant, parse_grant
from kupool.permissions.offered import KINDS
from kupool.permissions.table import PermissionTable


class GrantTests(SynchronousTestCase):
    """Issue 15, build 2: WHO ACTION PATTERN; an error quotes the rule and says what is wrong."""

    def test_rules(self) -> None:
        for text, wanted in (
            ("bank subscribe bank.>", Grant(Rule("bank", "subscribe", "bank.>"))),
            ("bank* create {user}.*", Grant(Rule("bank*", "create", "{user}.*"))),
            ("* match chess", Grant(Rule("*", "match", "chess"))),
            ("@worker publish a", Grant(Rule("*", "publish", "a"), "worker")),
            ("@admin call bus.*", Grant(Rule("*", "call", "bus.*"), "admin")),
            ("@operator GET /stats", Grant(Rule("*", "GET", "stats"), "operator")),
            (" alice  POST /jobs/* ", Grant(Rule("alice", "POST", "jobs.*"))),
            ("@worker GET />", Grant(Rule("*", "GET", ">"), "worker")),
        ):
            self.assertEqual(parse_grant(text), wanted, text)
        self.assertEqual(parse_grant("* match a", "permissions").source, "permissions")

    def test_rules_that_are_refused(self) -> None:
        for text, said in (
            ("", "expected WHO ACTION PATTERN"),
            ("bank publish", "expected WHO ACTION PATTERN"),
            ("bank writes x", "where ACTION is one of call, publish, subscribe, create, join"),
            ("@boss publish x", "@boss is not one of the roles @anonymous, @worker, @operator, @"),
            ("b*k publish x", "'*' can only be the last character"),
            ("bank publish a..b", "topic 'a..b'"),
            ("bank publish a.x{user}", "{user} stands for a whole level"),
            ("@admin call submitt", "there is no such method"),
            ("@admin GET /nothing", "there is no such route"),
            ("@admin POST /stats", "there is no such route"),
            ("@admin GET stats", "'stats' is not the path of a route, as /stats or /bans/*"),
            ("@admin GET /a.b", "'/a.b' is not the path of a route"),
            ("@admin GET /health", "/health is open to everybody, and stays so"),
            ("@worker call ping", "ping is open to everybody"),
            ("@anonymous POST /bans/lift", "/bans/lift changes something, and needs a role or"),
            ("* POST /jobs/*", "/jobs/rotate changes something"),
            ("* GET /bus/*", "/bus/publish changes something"),
        ):
            error = self.assertRaises(ValueError, parse_grant, text)
            self.assertTrue(str(error).startswith(f"{text!r}: "), error)
            self.assertIn(said, str(error))

    def test_every_action_has_rules(self) -> None:
        """X-08: one table for every kind of names."""
        for kind in KINDS:
            for action in kind.actions:
                path = {"call": "submit", "GET": "/stats", "POST": "/bans/lift"}
                rule = f"@admin {action} {path.get(action, 'a')}"
                self.assertEqual(parse_grant(rule).rule.action, action)

    def test_channels_with_a_namespace(self) -> None:
        """W-72: a pattern of a namespace covers the names in it, and no others."""
        table = PermissionTable([parse_grant("* channel.publish news:*")])
        self.assertTrue(table.may_channel("", "anonymous", "publish", "news:local"))
        self.assertFalse(table.may_channel("", "anonymous", "publish", "news"))
        self.assertFalse(table.may_channel("", "anonymous", "publish", "other:local"))
        self.assertFalse(table.may_channel("", "anonymous", "subscribe", "news:local"))
