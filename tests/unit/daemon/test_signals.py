"""The signals of the process, on a reactor that only notes what it is asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon import signals
from kupool.daemon.signals import Signals


class _Reactor:
    def __init__(self) -> None:
        self.running = True
        self.stopped = 0
        self.begin: list[Callable[[], object]] = []
        self.asked: list[Callable[[], object]] = []

    def callWhenRunning(self, call: Callable[[], object]) -> None:
        self.begin.append(call)

    def callFromThread(self, call: Callable[[], object]) -> None:
        self.asked.append(call)

    def stop(self) -> None:
        self.stopped += 1
        self.running = False

    def turn(self) -> None:
        asked, self.asked = self.asked, []
        for call in asked:
            call()


class SignalTests(SynchronousTestCase):
    """K-85: the first signal stops, the second ends; SIGHUP reads the settings again."""

    def setUp(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.reactor = _Reactor()
        self.reloads = 0
        self.now = 100.0
        self.patch(signals.time, "monotonic", lambda: self.now)
        Signals(self.reactor, self.reload).install()

    def reload(self) -> None:
        self.reloads += 1

    def begin(self) -> None:
        for call in self.reactor.begin:
            call()

    def test_not_before_the_reactor_runs(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        self.assertEqual(len(self.reactor.begin), 1)
        self.begin()
        self.assertNotEqual(signal.getsignal(signal.SIGTERM), before)

    def test_each_of_them_stops(self) -> None:
        """K-85: in the reactor's turn, not in the handler."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.reactor = _Reactor()
            Signals(self.reactor, self.reload).install()
            self.begin()
            os.kill(os.getpid(), number)
            self.assertEqual(self.reactor.stopped, 0)
            self.reactor.turn()
            self.assertEqual(self.reactor.stopped, 1)

    def test_a_reactor_that_has_stopped_already(self) -> None:
        self.begin()
        self.reactor.running = False
        os.kill(os.getpid(), signal.SIGTERM)
        self.reactor.turn()
        self.assertEqual(self.reactor.stopped, 0)

    def ends(self, after: float) -> mock.Mock:
        """Send a second signal so many seconds later; returns the call that ends it all."""
        self.begin()
        os.kill(os.getpid(), signal.SIGTERM)
        self.now += after
        with (
            mock.patch.object(signals.os, "_exit") as end,
            mock.patch.object(signals.os, "write") as write,
        ):
            os.kill(os.getpid(), signal.SIGINT)
        self.assertEqual(write.called, end.called)
        found: Any = end
        return found

    def test_the_second_ends_at_once(self) -> None:
        """K-85: with status 1, whatever the reactor does."""
        self.ends(after=0.101).assert_called_once_with(1)

    def test_the_same_one_twice(self) -> None:
        """K-85: one that comes within a tenth of a second is the first one again."""
        self.ends(after=0.099).assert_not_called()

    def test_hang_up(self) -> None:
        """K-32: SIGHUP is no stop, however often it comes."""
        self.begin()
        for number in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
            self.assertEqual(self.reloads, number)
            self.reactor.turn()
        self.assertEqual((self.reloads, self.reactor.stopped), (3, 0))
