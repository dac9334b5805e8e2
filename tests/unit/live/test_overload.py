"""When live channels are overloaded."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.overload import (
    BEAT,
    TRANSITIONS,
    LoadChange,
    LoadSign,
    LoadSources,
    LoadState,
    OverloadLimits,
    OverloadWatch,
)


class Load:
    """A watch whose load the test sets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.backlog = self.clients = 0
        self.changes: list[LoadChange] = []
        self.watch = OverloadWatch(
            self.clock,
            OverloadLimits(lag=0.03, backlog=100, clients=10, enter_after=0.3, leave_after=5.0),
            LoadSources(lambda: self.backlog, lambda: self.clients),
            self.changes.append,
        )
        self.watch.start()

    def go(self, seconds: float, late: float = 0.0) -> None:
        """Let time pass, with each turn of the reactor so much late."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(BEAT + late)


class OverloadTests(SynchronousTestCase):
    """Issue text of build 7, overload: degraded mode is a visible state."""

    def test_a_backlog_that_lasts(self) -> None:
        """Degraded mode begins when the load has lasted, and ends when it was calm for long."""
        load = Load()
        load.backlog = 100
        load.go(0.2)
        self.assertIs(load.watch.state, LoadState.RISING)
        self.assertFalse(load.watch.degraded)
        load.go(0.3)
        self.assertTrue(load.watch.degraded)
        load.backlog = 60  # less than the limit, and more than half of it
        load.go(20)
        self.assertIs(load.watch.state, LoadState.DEGRADED)
        load.backlog = 10
        load.go(4)
        self.assertIs(load.watch.state, LoadState.FALLING)
        self.assertTrue(load.watch.degraded)
        load.go(2)
        self.assertIs(load.watch.state, LoadState.NORMAL)
        self.assertEqual([each.degraded for each in load.changes], [True, False])
        self.assertEqual([each.backlog for each in load.changes], [100, 10])
        self.assertGreater(load.changes[1].seconds, 24)
        self.assertEqual((load.watch.entered, load.watch.left), (1, 1))

    def test_a_late_reactor(self) -> None:
        """A reactor that is late again and again is an overload; one long stall is none."""
        load = Load()
        load.go(1)
        load.clock.advance(10)
        load.go(1)
        self.assertEqual(load.changes, [])
        load.go(2, late=0.05)
        self.assertTrue(load.watch.degraded)

    def test_clients_that_wait(self) -> None:
        """Clients with more requests than can be handled are an overload."""
        load = Load()
        load.clients = 10
        load.go(1)
        self.assertTrue(load.watch.degraded)
        self.assertEqual(load.changes[0].clients, 10)

    def test_a_short_load(self) -> None:
        """A load that does not last changes nothing."""
        load = Load()
        for _ in range(10):
            load.backlog = 100
            load.go(0.2)
            load.backlog = 60
            load.go(0.2)
        self.assertEqual(load.changes, [])

    def test_limits_of_zero(self) -> None:
        """A limit of 0 does not count."""
        load = Load()
        load.watch.limits = OverloadLimits(lag=0, backlog=0, clients=0)
        load.backlog = load.clients = 1000
        load.go(2, late=1.0)
        self.assertEqual(load.changes, [])

    def test_stop(self) -> None:
        """A watch that is stopped has no timer, and nothing is held any more."""
        load = Load()
        load.backlog = 100
        load.go(1)
        self.assertTrue(load.watch.degraded)
        load.watch.stop()
        self.assertEqual(load.clock.calls, [])
        self.assertFalse(load.watch.degraded)
        self.assertEqual(len(load.changes), 1)

    @given(st.lists(st.tuples(st.sampled_from((0, 60, 100)), st.integers(1, 120)), max_size=20))
    def test_changes_alternate(self, loads: list[tuple[int, int]]) -> None:
        """Whatever the load does, degraded mode begins and ends in turn, and stands between."""
        load = Load()
        for backlog, beats in loads:
            load.backlog = backlog
            load.go(beats * BEAT)
            told = bool(load.changes) and load.changes[-1].degraded
            self.assertEqual(load.watch.degraded, told)
        kinds = [each.degraded for each in load.changes]
        self.assertEqual(kinds, [at % 2 == 0 for at in range(len(kinds))])

    def test_only_a_lasting_load_changes_the_mode(self) -> None:
        """No other sign leads into degraded mode or out of it."""
        degraded = {LoadState.DEGRADED, LoadState.FALLING}
        for state, sign in product(LoadState, LoadSign):
            after = TRANSITIONS.get((state, sign), state)
            if (state in degraded) != (after in degraded):
                self.assertIs(sign, LoadSign.LASTED)
