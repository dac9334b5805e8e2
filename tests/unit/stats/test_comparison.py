"""A log and a store are compared, and both are told what they have in common."""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import Epoch, Extent, Gap, Identity, Mark, Plan
from kupool.log.memory import MemoryLog
from kupool.stats import BatchCounts
from kupool.stats.comparison import Comparison, compare
from kupool.stats.memory import MemoryStats

ONE = Identity("pool", (Epoch("one", 0),))


class ComparisonTests(SynchronousTestCase):
    """Issue 11, point 1: log and store say of which pool they are, and how far they are."""

    def setUp(self) -> None:
        self.log: Any = MemoryLog(Clock(), lambda: 0.0)
        self.store: Any = MemoryStats()
        self.names = count()
        #: The plans that the store gets.
        self.plans: list[Plan] = []
        identify = self.store.identify

        def noted(plan: Plan) -> Deferred[None]:
            self.plans.append(plan)
            done: Deferred[None] = identify(plan)
            return done

        self.patch(self.store, "identify", noted)

    def new_id(self) -> str:
        return f"new{next(self.names)}"

    def comparing(self) -> Deferred[Comparison]:
        return Deferred.fromCoroutine(compare(self.log, self.store, self.new_id))

    def compare(self) -> Comparison:
        return self.successResultOf(self.comparing())

    def counted(self, position: int) -> None:
        """The store has counted a log of the pool up to a position."""
        self.successResultOf(self.store.identify(Plan(ONE, 0, 0, True)))
        batch = BatchCounts("b", b"", 0, ["alice"], position)
        self.successResultOf(self.store.apply([batch], {}, Mark(position, "b")))
        self.plans.clear()

    def appended(self, last: int) -> None:
        """The log of the pool has entries up to a position."""
        self.successResultOf(self.log.identify(ONE))
        for number in range(last):
            self.successResultOf(self.log.append(f"b{number}", b""))

    def identity_of_log(self) -> Identity | None:
        extent: Extent = self.successResultOf(self.log.extent(None, Mark(0)))
        return extent.identity

    def test_both_new(self) -> None:
        """Both get the same identity, and keep it."""
        found = self.compare()
        self.assertEqual(found.plan.identity, Identity("new0", (Epoch("new1", 0),)))
        self.assertEqual((found.changed, self.plans), (True, [found.plan]))
        self.assertEqual(self.identity_of_log(), found.plan.identity)
        again = self.compare()
        self.assertEqual((again.changed, again.plan.identity), (False, found.plan.identity))
        self.assertEqual(len(self.plans), 1)

    def test_the_store_is_behind(self) -> None:
        """It is told from where on to count, and that nothing is lost."""
        self.appended(9)
        self.counted(4)
        found = self.compare()
        self.assertEqual((found.plan.identity, found.plan.gap), (ONE, None))
        self.assertEqual(found.state.mark, Mark(4, "b"))
        self.assertEqual((found.extent.last, found.plan.resume), (9, 0))
        self.assertEqual((found.changed, len(self.plans)), (True, 1))

    def test_a_log_that_begins_later(self) -> None:
        """The gap is kept by the store."""
        self.appended(9)
        self.counted(4)
        del self.log._entries[:6]
        found = self.compare()
        self.assertEqual((found.plan.gap, found.plan.resume), (Gap(5, 6), 6))
        ((gap, _),) = self.successResultOf(self.store.gaps())
        self.assertEqual(gap, Gap(5, 6))

    def test_an_empty_log_that_gave_out_positions(self) -> None:
        """They are not given again, and what was at those not counted is lost."""
        for last, gap in ((4, None), (5, Gap(5, 5)), (9, Gap(5, 9))):
            self.setUp()
            self.counted(4)
            self.log._last = last
            found = self.compare()
            self.assertEqual(found.plan.gap, gap)
            self.assertEqual(found.plan.identity, ONE.with_epoch("new0", last))
            self.assertEqual(found.state.mark, Mark(last, "b"))
            self.assertIs(found.changed, True)
            gaps = [gap for gap, _ in self.successResultOf(self.store.gaps())]
            self.assertEqual(gaps, [gap] if gap else [])
            self.assertEqual(self.identity_of_log(), found.plan.identity)

    def test_a_store_that_fails(self) -> None:
        """The log is told nothing then, and the plan is made again."""
        self.store.identify = lambda plan: fail(OSError("the store is down"))
        self.failureResultOf(self.comparing(), OSError)
        self.assertIsNone(self.identity_of_log())
