"""Several observers of one server's connections."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kupool.daemon.tenants import Tenants
from kupool.net.interfaces import IClosingObserver


@implementer(IClosingObserver)
class Tenant:
    """Notes what it is told, and does what the test says."""

    def __init__(self, name: str, notes: list[tuple[str, str]]) -> None:
        self.name = name
        self.notes = notes
        self.broken = False
        self.waits: Deferred[None] | None = None
        self.last_word: Deferred[object] | None = None

    def opened(self, connection: Any) -> None:
        self.notes.append((self.name, "opened"))

    def closing(self, connection: Any, reason: Any) -> Deferred[object] | None:
        self.notes.append((self.name, "closing"))
        if self.broken:
            raise RuntimeError(self.name)
        return self.last_word

    def closed(self, connection: Any, reason: Failure) -> None:
        self.notes.append((self.name, "closed"))
        if self.broken:
            raise RuntimeError(self.name)

    def settle(self, connection: Any) -> Deferred[None] | None:
        return self.waits


class TenantsTests(SynchronousTestCase):
    """P-57: each hears of an end once, whatever becomes of the others."""

    def setUp(self) -> None:
        self.notes: list[tuple[str, str]] = []
        self.first, self.second, self.third = (Tenant(n, self.notes) for n in ("1", "2", "3"))
        self.tenants = Tenants(self.first, self.second, self.third)
        self.connection: Any = object()

    def test_who_is_told(self) -> None:
        self.assertTrue(verifyObject(IClosingObserver, self.tenants))
        self.tenants.opened(self.connection)
        self.assertIsNone(self.tenants.closing(self.connection, None))
        self.tenants.closed(self.connection, Failure(ConnectionError()))
        told = [("1", "opened"), ("2", "closing"), ("3", "closing")]
        self.assertEqual(self.notes, [*told, ("2", "closed"), ("3", "closed"), ("1", "closed")])

    def test_one_that_fails(self) -> None:
        self.second.broken = True
        self.tenants.closing(self.connection, None)
        self.tenants.closed(self.connection, Failure(ConnectionError()))
        self.assertEqual([who for who, _ in self.notes], ["2", "3", "2", "3", "1"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_what_is_waited_for(self) -> None:
        """A-22, K-85: the answers of every one, and nothing where there is nothing."""
        self.assertIsNone(self.tenants.settle(self.connection))
        self.second.waits = Deferred()
        self.assertIs(self.tenants.settle(self.connection), self.second.waits)
        self.first.waits = Deferred()
        both = self.tenants.settle(self.connection)
        assert both is not None
        self.first.waits.callback(None)
        self.assertNoResult(both)
        self.second.waits.errback(RuntimeError("gone"))
        self.assertIsNone(self.successResultOf(both))

    def test_last_words(self) -> None:
        self.third.last_word = Deferred()
        words = self.tenants.closing(self.connection, None)
        assert words is not None
        self.assertNoResult(words)
        self.third.last_word.callback(None)
        self.successResultOf(words)
