"""The queue of timers, as what waits for a time uses it; tests of rooms have the rest."""

from __future__ import annotations

import tracemalloc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.timing.timers import CHUNK, TICK, Timers


class TimersTests(SynchronousTestCase):
    """A-14: what waits costs nothing until its time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.called: list[int] = []

    def add(self, at: float, n: int) -> Any:
        return self.timers.add(at, lambda: self.called.append(n))

    def test_one_delayed_call(self) -> None:
        """A-14: ten thousand that wait are one call to the clock."""
        for n in range(10_000):
            self.add(100 - n / 1000, n)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(90.0)
        self.assertEqual(self.called, [])
        self.clock.advance(10.0)
        self.assertEqual(self.called, list(range(10_000))[::-1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_memory(self) -> None:
        """K-96: each of ten thousand clients has a queue of its own, in less than 2 KB."""
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        kept = [Timers(self.clock) for _ in range(100)]
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess((after - before) / len(kept), 2048)

    @given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=200))
    @settings(max_examples=50)
    def test_order(self, planned: list[tuple[int, bool]]) -> None:
        """Each is called at its time, in order, unless it was cancelled before."""
        clock = Clock()
        timers = Timers(clock)
        called: list[tuple[float, int]] = []
        made = [
            timers.add(at, lambda at=at, n=n: called.append((clock.seconds(), n)))
            for n, (at, _) in enumerate(planned)
        ]
        for timer, (_, cancel) in zip(made, planned, strict=True):
            if cancel:
                timers.cancel(timer)
                timers.cancel(timer)
        kept = [(float(at), n) for n, (at, cancel) in enumerate(planned) if not cancel]
        self.assertEqual(len(timers), len(kept))
        clock.pump([0.0, *[1.0] * 51])
        self.assertEqual(sorted(called), sorted(kept))
        self.assertEqual([at for at, _ in called], sorted(at for at, _ in called))
        self.assertEqual(len(timers), 0)

    def test_many_at_once(self) -> None:
        """A-15: many that are due together do not hold up the reactor."""
        turns: list[int] = []
        call_later = self.clock.callLater

        def turn(delay: float, call: Any) -> Any:
            def begin() -> None:
                turns.append(0)
                call()

            return call_later(delay, begin)

        self.clock.callLater = turn  # type: ignore[method-assign,assignment]

        def count() -> None:
            turns[-1] += 1

        for _ in range(2 * CHUNK + 1):
            self.timers.add(1.0, count)
        self.clock.advance(1.0)
        self.assertEqual(sum(turns), 2 * CHUNK + 1)
        self.assertLessEqual(max(turns), CHUNK)

    def test_cancelled_by_another(self) -> None:
        second: list[Any] = []
        self.timers.add(1.0, lambda: self.timers.cancel(second[0]))
        second.append(self.add(1.0, 2))
        self.clock.advance(1.0)
        self.assertEqual((self.called, len(self.timers)), ([], 0))
        self.timers.cancel(None)
        self.add(2.0, 3)
        self.timers.clear()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_within_a_millisecond(self) -> None:
        """issue 12: never early, and late by a tick at most."""
        called: dict[float, float] = {}
        times = [0.0, 0.0004, 0.2557, 0.256, 1.23456, 70.0001, 86_400.5]
        for at in times:
            self.timers.add(at, lambda at=at: called.setdefault(at, self.clock.seconds()))
        while self.clock.getDelayedCalls():
            self.clock.advance(self.clock.getDelayedCalls()[0].getTime() - self.clock.seconds())
        self.assertEqual(list(called), times)
        for at, when in called.items():
            self.assertTrue(at - 1e-8 <= when <= at + TICK + 1e-8, (at, when))

    def test_one_that_fails_stops_nobody_else(self) -> None:
        """issue 12: also one that wants the process to exit."""
        for error in (ValueError("on purpose"), SystemExit(1)):

            def fail(error: BaseException = error) -> None:
                raise error

            self.called.clear()
            self.timers.add(self.clock.seconds() + 1.0, fail)
            self.add(self.clock.seconds() + 1.0, 1)
            self.add(self.clock.seconds() + 2.0, 2)
            self.clock.pump([1.0, 1.0])
            self.assertEqual(self.called, [1, 2])
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)

    def test_one_that_adds_itself_again_leaves_others_their_turn(self) -> None:
        """issue 12: also where it is due at once."""

        def again() -> None:
            self.called.append(0)
            self.timers.add(self.clock.seconds(), again)

        self.timers.add(0.0, again)
        self.clock.advance(0.0)
        self.assertEqual(self.called, [0])
        self.clock.advance(TICK)
        self.assertEqual(self.called, [0, 0])

    def test_the_reactor_is_woken_for_what_is_due_alone(self) -> None:
        """A-14: not for what is only nearer than before."""
        self.add(100.0, 1)
        self.add(100.2, 2)
        (call,) = self.clock.getDelayedCalls()
        self.assertAlmostEqual(call.getTime(), 100.0)
        self.clock.advance(100.0)
        self.assertEqual(self.called, [1])
        (call,) = self.clock.getDelayedCalls()
        self.assertAlmostEqual(call.getTime(), 100.2)
        self.add(100.1, 3)
        self.clock.pump([0.1, 0.1])
        self.assertEqual(self.called, [1, 3, 2])
