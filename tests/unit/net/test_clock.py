"""A reactor's clock is one that nobody sets."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.clock import use_monotonic
from kupool.net.observer import Observer
from kupool.net.routing.router import Router
from kupool.net.server import Server


class _Reactor(ReactorBase):
    """A reactor that never runs."""

    def installWaker(self) -> None:
        pass


class ClockTests(SynchronousTestCase):
    """Issue 12, point 8: kupool.net without twistd uses a monotonic clock too."""

    def test_a_new_reactor(self) -> None:
        reactor: Any = _Reactor()
        self.assertTrue(use_monotonic(reactor))
        self.assertIs(reactor.seconds, time.monotonic)
        self.assertTrue(use_monotonic(reactor))

    def test_a_server_sees_to_it(self) -> None:
        reactor: Any = _Reactor()
        Server(reactor, Observer(Router()))
        self.assertIs(reactor.seconds, time.monotonic)

    def test_calls_that_are_under_way(self) -> None:
        reactor: Any = _Reactor()
        call = reactor.callLater(5, lambda: None)
        self.assertFalse(use_monotonic(reactor))
        self.assertLess(abs(call.getTime() - time.time() - 5), 60)

    def test_a_clock_of_ones_own(self) -> None:
        clock = Clock()
        seconds = clock.seconds
        self.assertTrue(use_monotonic(clock))
        self.assertEqual(clock.seconds, seconds)
