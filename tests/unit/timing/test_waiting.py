"""Those that wait for something that happens for all of them at once."""

from __future__ import annotations

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.timing.waiting import UnderWay, Waiters, after, and_then, uncut
from tests.fakes.raising import ENDINGS


class WaitersTests(SynchronousTestCase):
    """issue 12: one waiting list."""

    def setUp(self) -> None:
        self.waiters = Waiters[int]()

    def test_all_get_the_result(self) -> None:
        first, second = self.waiters.wait(), self.waiters.wait()
        self.assertEqual(len(self.waiters), 2)
        self.waiters.tell(7)
        self.assertEqual([self.successResultOf(w) for w in (first, second)], [7, 7])
        self.assertEqual(len(self.waiters), 0)
        self.waiters.tell(8)

    def test_all_get_the_failure(self) -> None:
        waiting = [self.waiters.wait() for _ in range(3)]
        self.waiters.tell(Failure(ValueError("on purpose")))
        for waiter in waiting:
            self.failureResultOf(waiter, ValueError)

    def test_who_comes_while_they_are_told_waits_for_the_next_time(self) -> None:
        again: list[Deferred[int]] = []
        self.waiters.wait().addCallback(lambda _: again.append(self.waiters.wait()))
        self.waiters.tell(1)
        self.assertNoResult(again[0])
        self.waiters.tell(2)
        self.assertEqual(self.successResultOf(again[0]), 2)

    def test_one_that_is_cancelled_waits_no_more(self) -> None:
        first, second = self.waiters.wait(), self.waiters.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(len(self.waiters), 1)
        self.waiters.tell(1)
        self.assertEqual(self.successResultOf(second), 1)

    def test_one_that_is_cancelled_by_another(self) -> None:
        first = self.waiters.wait()
        second = self.waiters.wait()
        third = self.waiters.wait()
        first.addCallback(lambda _: second.cancel())
        self.waiters.tell(1)
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.successResultOf(third), 1)

    def test_joined(self) -> None:
        """issue 12: lists become one; who is cancelled then disturbs nobody either."""
        others = Waiters[int]()
        first, second, third = self.waiters.wait(), others.wait(), others.wait()
        self.waiters.join(others)
        self.assertEqual((len(self.waiters), len(others)), (3, 0))
        third.cancel()
        self.failureResultOf(third, CancelledError)
        others.tell(1)
        self.assertNoResult(second)
        self.waiters.tell(2)
        self.assertEqual([self.successResultOf(w) for w in (first, second)], [2, 2])

    def test_a_timeout(self) -> None:
        clock = Clock()
        waiter = self.waiters.wait().addTimeout(1.0, clock)
        clock.advance(1.0)
        self.failureResultOf(waiter, defer.TimeoutError)
        self.assertEqual(len(self.waiters), 0)


class UncutTests(SynchronousTestCase):
    """Issue 16, bad input: work goes on when nobody waits for it any more."""

    def test_the_outcome(self) -> None:
        work: Deferred[int] = Deferred()
        waiting = uncut(work)
        self.assertNoResult(waiting)
        work.callback(3)
        self.assertEqual(self.successResultOf(waiting), 3)
        self.failureResultOf(uncut(fail(ValueError("x"))), ValueError)

    def test_one_that_is_cancelled(self) -> None:
        for end in (1, Failure(ValueError("x"))):
            cut: list[object] = []
            work: Deferred[int] = Deferred(cut.append)
            waiting = uncut(work)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            self.assertEqual(cut, [])
            work.callback(end)  # type: ignore[arg-type]


class AfterTests(SynchronousTestCase):
    """issue 12: waiting for work that others wait for too."""

    def test_many_wait(self) -> None:
        work: Deferred[int] = Deferred()
        waiting = [after(work) for _ in range(3)]
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        self.assertNoResult(work)
        work.callback(5)
        self.assertEqual([self.successResultOf(w) for w in waiting[1:]], [None, None])
        self.assertIs(self.successResultOf(after(work)), None)

    def test_work_that_fails(self) -> None:
        work: Deferred[int] = Deferred()
        waiting = [after(work) for _ in range(2)]
        work.errback(ValueError("on purpose"))
        self.assertEqual([self.successResultOf(w) for w in waiting], [None, None])


class EndTests(SynchronousTestCase):
    """Issue 12, point 5: an end that is waited for, which a closed coroutine may not do."""

    def setUp(self) -> None:
        self.work: Deferred[int] = Deferred()
        self.end: Deferred[None] = Deferred()
        self.ends = 0

    def ended(self) -> Deferred[None]:
        self.ends += 1
        return self.end

    def waiting(self) -> Deferred[int]:
        return Deferred.fromCoroutine(and_then(self.work, self.ended))

    def test_after_work(self) -> None:
        waiting = self.waiting()
        self.assertEqual(self.ends, 0)
        self.work.callback(5)
        self.assertNoResult(waiting)
        self.end.callback(None)
        self.assertEqual((self.successResultOf(waiting), self.ends), (5, 1))

    def test_after_work_that_fails(self) -> None:
        for error in ENDINGS:
            self.setUp()
            waiting = self.waiting()
            self.work.errback(error())
            self.assertNoResult(waiting)
            self.end.callback(None)
            self.failureResultOf(waiting, error)
            self.assertEqual(self.ends, 1)

    def test_after_work_that_is_cancelled(self) -> None:
        waiting = self.waiting()
        waiting.cancel()
        self.assertNoResult(waiting)
        self.end.callback(None)
        self.failureResultOf(waiting, CancelledError)

    def test_a_closed_coroutine(self) -> None:
        coroutine = and_then(self.work, self.ended)
        coroutine.send(None)
        coroutine.close()  # raises RuntimeError where it waits for something
        self.assertEqual(self.ends, 0)


class UnderWayTests(SynchronousTestCase):
    """issue 13: the end of all that is under way, by one mechanism."""

    def test_the_end_of_all(self) -> None:
        work = UnderWay()
        for _ in range(3):
            work.begin()
        self.assertFalse(work.finishing)
        ended = [work.finish(), work.finish()]
        self.assertTrue(work.finishing)
        work.end(2)
        self.assertNoResult(ended[0])
        work.end()
        self.assertEqual([self.successResultOf(one) for one in ended], [None, None])

    def test_nothing_under_way(self) -> None:
        work = UnderWay()
        work.begin()
        work.end()
        self.assertIsNone(self.successResultOf(work.finish()))
