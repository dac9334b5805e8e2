"""The workers that are connected."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.pool.online import Idle, OnlineWorkers
from kupool.pool.session import Session


class FakeConnection:
    """A connection whose context the test sets."""

    def __init__(self, username: str, last_accepted: float) -> None:
        self.context: Any = None
        if username:
            self.context = Session(username, "user")
            self.context.last_accepted = last_accepted


class OnlineTests(SynchronousTestCase):
    """Issue 18, build 4: who is connected is listed, also without counts."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.connections: list[Any] = [
            FakeConnection("a.x", 990.0),
            FakeConnection("a.y", 100.0),
            FakeConnection("a.y", float("-inf")),
            FakeConnection("b", float("-inf")),
            FakeConnection("", 0.0),
        ]
        names = {"a.x": 1, "a.y": 2, "b": 1}
        self.online = OnlineWorkers(self.clock, names, self.connections)

    def idle(self, seconds: float, **more: Any) -> Idle:
        return self.successResultOf(
            Deferred.fromCoroutine(self.online.idle_for(seconds, **{"most": 10, **more}))
        )

    def test_names(self) -> None:
        self.assertEqual(["a.x" in self.online, "c" in self.online], [True, False])

    def test_idle(self) -> None:
        self.assertEqual(self.idle(60), Idle([("a", "y"), ("b", "")], False))
        self.assertEqual(self.idle(5), Idle([("a", "x"), ("a", "y"), ("b", "")], False))
        self.assertEqual(self.idle(60, user="b"), Idle([("b", "")], False))

    def test_bounded(self) -> None:
        self.assertEqual(self.idle(5, most=2), Idle([("a", "x"), ("a", "y")], True))

    def test_in_turns(self) -> None:
        """Many sessions are looked at in several turns of the reactor."""

        class Running(Clock):
            def seconds(self) -> float:
                self.rightNow += 0.001
                return self.rightNow

        clock = Running()
        clock.rightNow = 1000.0
        online = OnlineWorkers(clock, {}, self.connections * 1000)
        found = Deferred.fromCoroutine(online.idle_for(60, most=10))
        self.assertNoResult(found)
        for _ in range(200):
            clock.advance(0)
        self.assertEqual(self.successResultOf(found).names, [("a", "y"), ("b", "")])
