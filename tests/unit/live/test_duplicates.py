"""Events that are published again."""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.duplicates import BROKEN, FULL, RecentEvent, RecentEvents


class OnceTests(SynchronousTestCase):
    """W-55, W-56: within a window an event is published once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.recent: RecentEvents[int] = RecentEvents(self.clock.seconds, most=3, seconds=300)
        self.published: list[object] = []

    def once(self, key: object, result: int = 0) -> int:
        def publish() -> Deferred[int]:
            self.published.append(key)
            return succeed(result)

        return self.successResultOf(self.recent.once(key, publish))

    def test_the_first_result_counts(self) -> None:
        self.assertEqual([self.once("a", 1), self.once("a", 2), self.once("b", 3)], [1, 1, 3])
        self.assertEqual((self.published, self.recent.repeated), (["a", "b"], 1))

    def test_the_window_is_bounded_by_time(self) -> None:
        """W-59: what is too old is gone."""
        self.once("a", 1)
        self.clock.advance(299.9)
        self.assertEqual(self.once("a", 2), 1)
        self.clock.advance(0.2)
        self.recent.forget_old()
        self.assertEqual(len(self.recent), 0)
        self.assertEqual(self.once("a", 3), 3)

    def test_the_window_is_bounded_by_number(self) -> None:
        for number, key in enumerate("abcd"):
            self.once(key, number)
        self.assertEqual(len(self.recent), 3)
        self.assertEqual([self.once("d", 9), self.once("a", 9)], [3, 9])

    def test_those_who_come_meanwhile_wait(self) -> None:
        first: Deferred[int] = Deferred()
        waiting = [self.recent.once("a", lambda: first) for _ in range(3)]
        for each in waiting:
            self.assertNoResult(each)
        waiting[1].addErrback(lambda _: None)
        waiting[1].cancel()
        first.callback(7)
        self.assertEqual([self.successResultOf(each) for each in waiting], [7, None, 7])

    def test_a_failure_loses_no_event(self) -> None:
        """W-57: it counts when it is kept, not before."""
        first: Deferred[int] = Deferred()
        waiting = [self.recent.once("a", lambda: first) for _ in range(2)]
        first.errback(OSError())
        for each in waiting:
            self.failureResultOf(each, OSError)
        self.failureResultOf(self.recent.once("a", lambda: fail(OSError())), OSError)
        self.assertEqual(self.once("a", 5), 5)


class BrokenMemory(dict[Hashable, "RecentEvent[int]"]):
    """Where events are remembered, which fails while it is ``broken``."""

    broken = False

    def get(self, key: object, default: object = None) -> RecentEvent[int] | None:
        if self.broken:
            raise OSError("no connection")
        return super().get(key)


class TroubleTests(SynchronousTestCase):
    """W-58: what removes duplicates fails, or is full: events are published, and it is told."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.memory = BrokenMemory()
        self.troubles: list[str] = []
        self.recent: RecentEvents[int] = RecentEvents(
            self.clock.seconds,
            most=2,
            seconds=300,
            troubled=self.troubles.append,
            events=self.memory,
        )
        self.published = 0

    def once(self, key: str) -> int:
        def publish() -> Deferred[int]:
            self.published += 1
            return succeed(self.published)

        return self.successResultOf(self.recent.once(key, publish))

    def test_it_fails(self) -> None:
        """Nothing is lost: perhaps an event is there twice."""
        self.once("a")
        self.memory.broken = True
        self.assertEqual([self.once("a"), self.once("b")], [2, 3])
        self.assertEqual(self.troubles, [BROKEN, BROKEN])
        self.assertEqual(self.recent.counts.unchecked, 2)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.memory.broken = False
        self.assertEqual((self.once("a"), self.published), (1, 3))

    def test_it_fails_while_an_event_is_published(self) -> None:
        """The publisher hears why its event was not published, and no other error."""
        done: Deferred[int] = Deferred()
        waiting = self.recent.once("a", lambda: done)
        self.memory.broken = True
        done.errback(ValueError("no"))
        self.failureResultOf(waiting, ValueError)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_it_is_full(self) -> None:
        """The oldest is forgotten before its time, and may come again."""
        for key in "abca":
            self.once(key)
        self.assertEqual(self.published, 4)
        self.assertEqual((self.troubles, self.recent.counts.pushed_out), ([FULL, FULL], 2))
        self.clock.advance(300)
        self.once("d")
        self.assertEqual(self.recent.counts.pushed_out, 2, "those were too old")


class RateTests(SynchronousTestCase):
    """W-60: the rate of duplicates, as a metric."""

    def test_the_last_full_minute(self) -> None:
        clock = Clock()
        recent: RecentEvents[int] = RecentEvents(clock.seconds, most=9, seconds=300)
        rates = []
        for keys in ("aab", "b", "", "cd"):
            for key in keys:
                recent.once(key, lambda: succeed(1))
            clock.advance(60)
            rates.append(recent.counts.rate)
        self.assertEqual(rates, [1 / 3, 1.0, 0.0, 0.0])
        self.assertEqual((recent.counts.with_id, recent.counts.repeated), (6, 2))
        recent.once("d", lambda: succeed(1))
        clock.advance(150)
        self.assertEqual(recent.counts.rate, 0.0, "that minute is over for long")
