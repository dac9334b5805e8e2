"""The watch for handlers that never yield, on a fake clock; really hanging: test_bad_input.py."""

from __future__ import annotations

import faulthandler
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.stalls import StallWatch


class StallTests(SynchronousTestCase):
    """P-49: what holds the reactor up does not go unnoticed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.armed: list[Any] = []
        self.patch(
            faulthandler,
            "dump_traceback_later",
            lambda seconds, file: self.armed.append((seconds, file)),
        )
        self.patch(faulthandler, "cancel_dump_traceback_later", lambda: self.armed.append(None))
        self.file = object()
        self.watch = StallWatch(self.clock, 2.0, self.file)

    def test_put_off_while_the_reactor_goes(self) -> None:
        self.watch.start()
        self.watch.start()
        self.clock.pump([0.5] * 10)
        self.assertEqual(self.armed, [(2.0, self.file)] * 11)
        self.assertEqual(self.watch.stalls, 0)

    def test_counted(self) -> None:
        self.watch.start()
        self.clock.advance(1.9)
        self.clock.advance(2.1)
        self.clock.advance(0.5)
        self.assertEqual(self.watch.stalls, 1)

    def test_stopped(self) -> None:
        self.watch.stop()
        self.watch.start()
        self.watch.stop()
        self.watch.stop()
        self.assertEqual(self.armed, [(2.0, self.file), None])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertRaises(ValueError, StallWatch, self.clock, 0)
