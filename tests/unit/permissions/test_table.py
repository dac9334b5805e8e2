"""The table of permissions: what it answers about a user, a role, an action and a name."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.permissions.grants import parse_grant
from kupool.permissions.offered import OFFERED
from kupool.permissions.roles import ADMIN, ANONYMOUS, OPERATOR, ORDER, WORKER
from kupool.permissions.table import PermissionTable


def table(*rules: str) -> PermissionTable:
    return PermissionTable(map(parse_grant, rules))


class TableTests(SynchronousTestCase):
    """Issue 15, build 2, X-08: one table for methods, topics, rooms and routes."""

    def least(self, permissions: PermissionTable, action: str, name: str) -> str:
        """The least role that may do something, whatever the user's name."""
        roles = [role for role in ORDER if permissions.may("ann", role, action, name)]
        self.assertEqual(roles, list(ORDER[len(ORDER) - len(roles) :]), "a higher role may more")
        return roles[0] if roles else ""

    def test_defaults(self) -> None:
        for (action, name), offered in OFFERED.items():
            self.assertEqual(self.least(table(), action, offered.levels), offered.role)
            self.assertEqual(table().least(action, name), offered.role)
        for action in ("publish", "subscribe", "create", "join", "match"):
            self.assertEqual(self.least(table(), action, "a"), "")

    def test_a_role_takes_the_place_of_the_default(self) -> None:
        found = table("@operator GET /stats", "@admin call bus.*", "@worker GET /bans")
        for action, name, role in (
            ("GET", "stats", OPERATOR),
            ("call", "bus.publish", ADMIN),
            ("call", "bus.status", ADMIN),
            ("call", "submit", ANONYMOUS),
            ("GET", "bans", WORKER),
            ("POST", "bans.lift", OPERATOR),
        ):
            self.assertEqual(self.least(found, action, name), role, name)
        self.assertEqual(found.least("GET", "/stats"), OPERATOR)
        # Of several roles the lowest is enough.
        both = table("@admin GET /stats", "@operator GET /stats")
        self.assertEqual(self.least(both, "GET", "stats"), OPERATOR)
        # What is open stays open, also where a pattern covers it.
        self.assertEqual(self.least(table("@admin GET />"), "GET", "health"), ANONYMOUS)
        self.assertEqual(self.least(table("@admin call >"), "call", "ping"), ANONYMOUS)

    def test_a_user_is_added(self) -> None:
        found = table("ann GET /bans", "svc-* POST /jobs/rotate")
        for user, role, action, name, may in (
            ("ann", WORKER, "GET", "bans", True),
            ("ann", WORKER, "POST", "bans.lift", False),
            ("bob", WORKER, "GET", "bans", False),
            ("bob", OPERATOR, "GET", "bans", True),
            ("svc-1", WORKER, "POST", "jobs.rotate", True),
            ("", ANONYMOUS, "GET", "bans", False),
        ):
            self.assertIs(found.may(user, role, action, name), may, (user, role, name))
        self.assertEqual(found.least("GET", "/bans"), OPERATOR)

    def test_topics_and_rooms_by_role(self) -> None:
        found = table("@worker publish inbox.{user}", "@operator join >", "* subscribe news.*")
        for user, role, action, name, may in (
            ("ann", ANONYMOUS, "publish", "inbox.ann", False),
            ("ann", WORKER, "publish", "inbox.ann", True),
            ("ann", ADMIN, "publish", "inbox.ann", True),
            ("ann", ADMIN, "publish", "inbox.bob", False),
            ("ann", OPERATOR, "join", "lounge", True),
            ("ann", WORKER, "join", "lounge", False),
            ("", ANONYMOUS, "subscribe", "news.x", True),
        ):
            self.assertIs(found.may(user, role, action, name), may, (user, role, action, name))

    def test_topics_of_the_log_are_closed(self) -> None:
        """Issue 16, build 2: but for admins, and for what operators read; rules add to that."""
        actions = ("log.publish", "log.subscribe", "log.manage", "log.group")
        for action in actions:
            self.assertEqual(self.least(table(), action, "orders.new"), ADMIN)
            for name in ("submissions", "events"):
                role = OPERATOR if action == "log.subscribe" else ADMIN
                self.assertEqual(self.least(table(), action, name), role)
        found = table("@worker log.subscribe orders.*", "* log.group {user}.>")
        self.assertEqual(self.least(found, "log.subscribe", "orders.new"), WORKER)
        self.assertEqual(self.least(found, "log.subscribe", "events"), OPERATOR)
        self.assertEqual(self.least(found, "log.publish", "orders.new"), ADMIN)
        self.assertEqual(self.least(found, "log.group", "ann.a"), ANONYMOUS)
        self.assertEqual(self.least(found, "log.group", "bob.a"), ADMIN)
        self.assertTrue(found.may_some("ann", WORKER, "log.subscribe"))
        self.assertFalse(found.may_some("ann", WORKER, "log.publish"))
        self.assertTrue(found.may_some("ann", ADMIN, "log.publish"))

    def test_a_role_that_is_none(self) -> None:
        """It may do what an anonymous user may."""
        found = table("@worker publish a", "* publish b")
        self.assertIs(found.may("ann", "boss", "publish", "a"), False)
        self.assertIs(found.may("ann", "boss", "publish", "b"), True)

    def test_who_may_call_all_methods(self) -> None:
        self.assertTrue(table().may_call_all("ann", ANONYMOUS))
        found = table("@operator call bus.status", "ann call bus.status")
        self.assertTrue(found.may_call_all("ann", WORKER))
        self.assertFalse(found.may_call_all("bob", WORKER))
        self.assertTrue(found.may_call_all("bob", OPERATOR))

    def test_other_grants(self) -> None:
        found = table("@admin GET /stats", "ann publish a")
        self.assertTrue(found.may("ann", WORKER, "publish", "a"))
        found.use([parse_grant("ann publish b")])
        self.assertEqual(self.least(found, "GET", "stats"), WORKER)
        self.assertFalse(found.may("ann", WORKER, "publish", "a"))
        self.assertTrue(found.may("ann", WORKER, "publish", "b"))

    def test_what_applies_to_a_user(self) -> None:
        found = table("@operator publish a", "ann publish {user}.>", "b* publish c")
        for user, role, patterns in (
            ("ann", WORKER, ["ann.>"]),
            ("ann", ADMIN, ["a", "ann.>"]),
            ("bob", OPERATOR, ["a", "c"]),
        ):
            applied = [g.rule for g in found.applied(user, role) if g.rule.action == "publish"]
            self.assertEqual([rule.pattern for rule in applied], patterns)
        # A name that is no level of a topic has no names of its own.
        wide = table("* publish {user}.>")
        rules = [g.rule.action for g in wide.applied("*", ADMIN)]
        self.assertNotIn("publish", rules)
