"""Issue 15, build 2: the methods of a session that may not call all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kupool.net.routing.interfaces import IRouter
from kupool.permissions.grants import parse_grant
from kupool.permissions.table import PermissionTable
from kupool.pool.permitted import PermittedMethods

PASSED_ON = b"passed on"


@implementer(IRouter)
class Methods:
    """Answers every message, and notes it."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def dispatch(self, connection: Any, item: Any) -> bytes | None:
        self.items.append(item)
        return PASSED_ON


class Connection:
    """A session's connection; notes complaints."""

    def __init__(self, user: str, role: str) -> None:
        self.context = SimpleNamespace(user=user, role=role)
        self.complaints: list[bytes] = []

    def complain(self, answer: bytes) -> None:
        self.complaints.append(answer)


class PermittedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.methods = Methods()
        grants = map(parse_grant, ("@operator call bus.*", "carol call bus.status"))
        self.permitted = PermittedMethods(self.methods, PermissionTable(grants))
        self.connection = Connection("ann", "worker")

    def say(self, item: Any, user: str = "ann", role: str = "worker") -> bytes | None:
        self.connection = Connection(user, role)
        connection: Any = self.connection
        return self.permitted.dispatch(connection, item)

    def test_by_role_and_by_user(self) -> None:
        status, trace = (b'{"id":7,"method":"bus.%s"}' % name for name in (b"status", b"trace"))
        for user, role, item, passed in (
            ("ann", "worker", status, False),
            ("bob", "operator", status, True),
            ("bob", "operator", trace, True),
            ("carol", "worker", status, True),
            ("carol", "worker", trace, False),
        ):
            self.assertEqual(self.say(item, user, role) == PASSED_ON, passed, (user, item))

    def test_refused(self) -> None:
        """The error names the method; a notification is refused in silence."""
        answer = self.say(b'{"id":7,"method":"bus.trace"}') or b""
        self.assertIn(b'"id":7', answer)
        self.assertIn(b"method 'bus.trace'", answer)
        self.assertIsNone(self.say(b'{"id":null,"method":"bus.trace"}'))
        self.assertEqual((self.methods.items, self.connection.complaints), ([], []))

    def test_methods_that_nobody_has_to_be_granted(self) -> None:
        """Those that no rule covers, those that are unknown, and messages that call no method."""
        for item in (
            b'{"id":1,"method":"submit","params":{}}',
            b'{"id":1,"method":"no.such"}',
            b'{"id":1,"method":5}',
            b'{"id":1}',
            SimpleNamespace(id=1, payload=b"{}"),
        ):
            self.assertEqual(self.say(item), PASSED_ON, item)
        self.assertEqual(len(self.methods.items), 5)

    def test_what_cannot_be_read(self) -> None:
        """It is not passed on: another decoder might find a method in it."""
        for item in (b"{", b'{"id":[],"method":"bus.trace"}'):
            self.assertIsNone(self.say(item))
            self.assertEqual(len(self.connection.complaints), 1, item)
        self.assertEqual(self.methods.items, [])
