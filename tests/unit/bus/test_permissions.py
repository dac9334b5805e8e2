"""Rules by user and pattern: how they are written, and what they let whom do."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.permissions import Permissions, Rule, check_pattern, is_level, parse_rule

ACTIONS = ("publish", "subscribe")


class RuleTests(SynchronousTestCase):
    """Issue 13: a line of text; what is wrong with it is named, and what is expected."""

    def test_rules(self) -> None:
        self.assertEqual(
            parse_rule(" bank  subscribe orders.{user}.> ", ACTIONS),
            Rule("bank", "subscribe", "orders.{user}.>"),
        )
        self.assertFalse(parse_rule("* publish a.*", ACTIONS).personal)
        for text in ("bank publish a", "b* publish a", "* publish {user}"):
            self.assertTrue(parse_rule(text, ACTIONS).personal, text)

    def test_what_is_none(self) -> None:
        for text, named in (
            ("", "expected USER publish|subscribe PATTERN"),
            ("bank orders", "expected USER publish|subscribe PATTERN"),
            ("bank write orders", "'bank write orders': expected USER publish|subscribe PATTERN"),
            ("bank publish a b", "expected USER"),
            ("b*k publish a", "'*' can only be the last character"),
            ("** publish a", "'*' can only be the last character"),
            ("bank publish a..b", "topic 'a..b'"),
            ("bank publish >.a", "topic '>.a'"),
            ("bank publish a.x{user}", "topic 'a.x{user}': {user} stands for a whole level"),
        ):
            error = self.assertRaises(ValueError, parse_rule, text, ACTIONS)
            self.assertIn(named, str(error))
        self.assertEqual(check_pattern(7), "7")


class PermissionsTests(SynchronousTestCase):
    """Issue 13: what one rule gives is allowed, and nothing else is."""

    def setUp(self) -> None:
        lines = (
            "* publish public.>",
            "* publish inbox.{user}.*",
            "* subscribe inbox.{user}.>",
            "bank subscribe bank.>",
            "svc-* subscribe orders.*",
        )
        self.permissions = Permissions(parse_rule(line, ACTIONS) for line in lines)

    def test_names(self) -> None:
        for user, action, name, may in (
            ("ann", "publish", "public.a.b", True),
            ("ann", "publish", "public", False),
            ("ann", "publish", "inbox.ann.x", True),
            ("ann", "publish", "inbox.bob.x", False),
            ("ann", "publish", "inbox.ann.x.y", False),
            ("ann", "subscribe", "public.a", False),
            ("bank", "subscribe", "bank.ann.balance", True),
            ("bank2", "subscribe", "bank.ann.balance", False),
            ("svc-1", "subscribe", "orders.1", True),
            ("svc", "subscribe", "orders.1", False),
            ("", "publish", "public.x", True),
            ("", "publish", "inbox..x", False),
        ):
            self.assertIs(self.permissions.allow(user, action, name), may, (user, action, name))

    def test_patterns(self) -> None:
        """A subscription is allowed where one rule covers all of it."""
        for user, pattern, may in (
            ("ann", "inbox.ann.>", True),
            ("ann", "inbox.ann.*", True),
            ("ann", "inbox.*.x", False),
            ("ann", "inbox.>", False),
            ("ann", ">", False),
            ("ann", "*.ann.x", False),
            ("bank", "bank.*.balance", True),
            ("bank", "*.x", False),
            ("svc-9", "orders.*", True),
            ("svc-9", "orders.>", False),
        ):
            found = self.permissions.allow_all(user, "subscribe", pattern)
            self.assertIs(found, may, (user, pattern))

    def test_names_that_are_patterns(self) -> None:
        """A user who is called as a wildcard, or as several levels, has nothing by that."""
        for user in ("*", ">", "a.b", "ann.*", "", "a b", "\n", "x" * 256):
            self.assertFalse(is_level(user))
            self.assertEqual(self.permissions.patterns(user, "subscribe"), ())
            for pattern in ("inbox.*.x", "inbox.ann.x", "inbox.>", f"inbox.{user}.x"):
                self.assertFalse(self.permissions.allow_all(user, "subscribe", pattern))
        for user in ("名", "a!", "x" * 255):
            self.assertTrue(is_level(user), user)

    def test_many_users(self) -> None:
        """What is remembered is bounded: the patterns of 1000 users, and then it begins anew."""
        first = self.permissions.patterns("u0", "publish")
        for n in range(1000):
            self.assertIs(self.permissions.patterns("u0", "publish"), first)
            self.assertTrue(self.permissions.allow(f"u{n}", "publish", f"inbox.u{n}.x"))
        self.assertTrue(self.permissions.allow("one more", "publish", "public.x"))
        self.assertIsNot(self.permissions.patterns("u0", "publish"), first)
        self.assertEqual(self.permissions.patterns("u0", "publish"), first)
