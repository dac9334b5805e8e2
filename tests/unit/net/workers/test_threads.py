"""Threads that leave the processor to the reactor."""

from __future__ import annotations

import os
import sys
from threading import get_native_id
from unittest import skipUnless

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from kupool.net.workers import threads as module
from kupool.net.workers.threads import NICER, Threads


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, get_native_id())


@skipUnless(sys.platform == "linux", "threads have no priority of their own here")
class BackgroundTests(TestCase):
    """Issue 15, acceptance 2: hashing passwords does not keep others from their answers."""

    async def niceness(self, *, background: bool) -> int:
        threads = Threads(reactor, 1, background=background)
        found: int = await threads.run(_niceness)
        await threads.stop(1.0)
        return found

    async def test_the_priority(self) -> None:
        mine = _niceness()
        self.assertEqual(await self.niceness(background=False), mine)
        self.assertEqual(await self.niceness(background=True), min(mine + NICER, 19))
        self.assertEqual(_niceness(), mine)

    async def test_a_system_that_does_not_allow_it(self) -> None:
        def refused(*arguments: int) -> None:
            raise PermissionError

        self.patch(module.os, "setpriority", refused)
        self.assertEqual(await self.niceness(background=True), _niceness())
