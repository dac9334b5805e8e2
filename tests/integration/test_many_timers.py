"""As many timers as rooms may have; it takes too long for the quick tests."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.timers import LobbyTimers, RoomTimer


class ManyTimersTests(SynchronousTestCase):
    """A-49: room timers on one timer of the reactor."""

    def test_a_million_timers(self) -> None:
        """A-49: 1,000,000 timers of 10,000 rooms, all of which fire or are cancelled."""
        clock = Clock()
        timers = LobbyTimers(clock, 0.25)
        fired = 0

        def count(timer: RoomTimer) -> None:
            nonlocal fired
            fired += 1

        rooms, keys = range(10_000), [str(n) for n in range(100)]
        for room in rooms:
            for n, key in enumerate(keys):
                timers.once(room, key, (room * 7 + n * 37) % 3600, count)
        self.assertEqual(len(timers), 1_000_000)
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        self.assertEqual(sum(timers.cancel_prefix(room, "1") for room in rooms), 110_000)
        clock.advance(1800)
        self.assertLess(fired, 500_000)
        self.assertEqual(fired + len(timers), 890_000)
        clock.advance(1800.25)
        self.assertEqual((fired, len(timers)), (890_000, 0))
        self.assertEqual(clock.getDelayedCalls(), [])
