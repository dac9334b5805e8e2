"""As many room timers as the requirement asks for. It takes too long for a unit test."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.timers import LobbyTimers
from tests.unit.rooms.test_timers import TICK, fire_or_cancel


class MillionTests(SynchronousTestCase):
    def test_a_million_timers(self) -> None:
        """A-49: 1,000,000 timers of 10,000 rooms, all of which fire or are cancelled."""
        clock = Clock()
        fire_or_cancel(self, LobbyTimers(clock, TICK), clock, rooms=10_000)
