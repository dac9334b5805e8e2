"""What counts the requests of sessions, and the parts about activity."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.activity.store import NoMinutes, StoredMinutes
from kupool.daemon.activity import MethodCounts, PoolTotals
from kupool.daemon.parts import build
from kupool.net.routing.router import Router
from kupool.settings import Settings, with_values
from tests.fakes.pool_fixture import PoolBench


class MethodCountsTests(SynchronousTestCase):
    """A-55: requests by method."""

    def test_methods_of_before_and_after(self) -> None:
        """A-55: all methods are counted, whenever they are added, and answered as before."""
        methods = Router()
        methods.add("first", lambda connection, request: 1)
        counts = MethodCounts(methods)
        methods.add("second", lambda connection, request: 2)
        methods.add("submit", lambda connection, request: 3)
        connection: Any = SimpleNamespace(complain=lambda answer: None)
        for method, result in (("first", 1), ("second", 2), ("second", 2), ("submit", 3)):
            reply = methods.dispatch(connection, b'{"id":1,"method":"%b"}' % method.encode())
            self.assertEqual(reply, b'{"id":1,"result":%d}' % result)
        methods.dispatch(connection, b'{"id":1,"method":"none"}')
        self.assertEqual(counts.calls, {"first": 1, "second": 2})

    def test_totals(self) -> None:
        """A-55: submissions are what was accepted and rejected; each login counts."""
        bench = PoolBench().start()
        server: Any = SimpleNamespace(manager=bench.manager)
        totals = PoolTotals(
            MethodCounts(bench.handlers.router),
            bench.acceptance,
            lambda: bench.pool,
            lambda: server,
        )
        peer = bench.connect().authorize("alice")
        bench.connect().authorize("")
        peer.submit("a")
        peer.submit("a")
        peer.send({"id": 1, "method": "ping"}, {"id": 2, "method": "none"})
        found = totals.read()
        self.assertEqual(found.accepted, 1)
        self.assertEqual(sum(found.rejections.values()), 1)
        self.assertEqual(
            {name: count for name, count in found.methods.items() if count},
            {"submit": 2, "authorize": 2, "ping": 1, "invalid": 1},
        )


class ActivityPartTests(SynchronousTestCase):
    """A-53 to A-55: what is kept, by the settings."""

    def test_where_minutes_are_kept(self) -> None:
        """A-55: in the data folder, where there is one."""
        for values, kind in (
            ({"store": "memory", "mq": "memory"}, NoMinutes),
            ({"store": "sqlite", "mq": "memory", "data": "d"}, StoredMinutes),
        ):
            parts = build(with_values(Settings(), values), Clock(), lambda: 1.8e9)
            self.assertIsInstance(parts.activity.requests._store, kind)

    def test_without_events(self) -> None:
        """A-54: what has ended is not known then, and changes are in the log alone."""
        for values in ({"topics": "off"}, {"events": "off"}):
            given = {"store": "memory", "mq": "memory", **values}
            parts = build(with_values(Settings(), given), Clock(), lambda: 1.8e9)
            self.assertIs(parts.activity.past, None)
            self.assertIs(parts.activity.trail._write, None)

    def test_the_number_of_users(self) -> None:
        """Issue 18, bad input: how many users are remembered is a setting."""
        given = {"store": "memory", "mq": "memory", "known_users": 7}
        parts = build(with_values(Settings(), given), Clock(), lambda: 1.8e9)
        self.assertEqual(parts.activity.book._most, 7)
