"""Events that are published again."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.duplicates import RecentEvents


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
