"""What the start does with a log and a store, by the table of kupool.log.identity."""

from __future__ import annotations

from itertools import count, product
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.log import (
    Epoch,
    Extent,
    Gap,
    Identity,
    IdentityMismatch,
    Mark,
    Plan,
    StoreState,
    reconcile,
)

ONE = Identity("pool", (Epoch("one", 0),))
TWO = ONE.with_epoch("two", 100)
FOREIGN = Identity("other", (Epoch("one", 0),))


def log(identity: Identity | None, last: int, first: int = 1, acknowledged: int = 10**9) -> Extent:
    return Extent(identity, first, last, last >= first, acknowledged)


def store(
    identity: Identity | None, mark: int, forgotten: int = 0, holds_data: bool = True
) -> StoreState:
    return StoreState(identity, Mark(mark, f"e{mark}"), forgotten, holds_data)


ADOPTED = "the log and the store of the release before are taken over"
BEHIND = "the store is behind the log: what is missing is counted"
LOST = "the log begins after what the store has counted: what lies between is lost"

EMPTY_LOG = Extent(None, 1, 0, False)
EMPTY_STORE = StoreState(None, Mark(0), 0, False)


class ReconcileTests(SynchronousTestCase):
    """Each case has one outcome; a safe one."""

    def plan(self, extent: Extent, state: StoreState) -> Plan:
        ids = count()
        return reconcile(extent, state, lambda: f"new{next(ids)}")

    def refused(self, extent: Extent, state: StoreState) -> str:
        with self.assertRaises(IdentityMismatch) as caught:
            self.plan(extent, state)
        return str(caught.exception)

    def test_both_new(self) -> None:
        plan = self.plan(EMPTY_LOG, EMPTY_STORE)
        self.assertEqual(plan, Plan(Identity("new0", (Epoch("new1", 0),)), 0, 0, True))

    def test_nothing_changed(self) -> None:
        self.assertEqual(self.plan(log(TWO, 150), store(TWO, 150)), Plan(TWO, 150, 150, True))

    def test_what_the_consumer_had_not_settled_comes_again(self) -> None:
        plan = self.plan(log(ONE, 150, acknowledged=140), store(ONE, 150))
        self.assertEqual((plan.resume, plan.fork, plan.keep_jobs), (140, 150, True))
        plan = self.plan(log(ONE, 150, acknowledged=140), store(ONE, 150, forgotten=145))
        self.assertEqual(plan.resume, 145)

    def test_what_a_log_of_which_nothing_is_settled_has_left(self) -> None:
        """Counting goes on with the first entry that there is."""
        plan = self.plan(log(ONE, 90, first=81, acknowledged=0), store(ONE, 85))
        self.assertEqual((plan.resume, plan.gap), (80, None))

    def test_release_before(self) -> None:
        """Both sides without marks are adopted: counting goes on where it stopped."""
        plan = self.plan(log(None, 50, acknowledged=48), store(None, 0))
        self.assertTrue(plan.adopt and plan.keep_jobs)
        self.assertEqual((plan.resume, plan.identity.begins_after), (48, 0))

    def test_release_before_and_its_store_is_gone(self) -> None:
        """What the lost store had acknowledged is counted again."""
        plan = self.plan(log(None, 50, first=11, acknowledged=48), EMPTY_STORE)
        self.assertEqual((plan.resume, plan.fork), (10, 10))
        self.assertEqual((plan.gap, plan.keep_jobs), (Gap(1, 10), False))

    def test_release_before_and_its_log_is_gone(self) -> None:
        plan = self.plan(EMPTY_LOG, store(None, 0))
        self.assertEqual((plan.resume, plan.fork, plan.keep_jobs), (0, 0, False))

    def test_log_missing(self) -> None:
        """Positions go on above what the store has counted, and the jobs are retired."""
        plan = self.plan(EMPTY_LOG, store(ONE, 70))
        self.assertEqual(plan.identity, ONE.with_epoch("new0", 70))
        self.assertEqual((plan.resume, plan.keep_jobs), (70, False))

    def test_log_emptied(self) -> None:
        """A file with marks and without entries is older than the store."""
        plan = self.plan(log(ONE, 0), store(ONE, 70))
        self.assertEqual(plan.identity, ONE.with_epoch("new0", 70))
        self.assertEqual((plan.resume, plan.fork, plan.keep_jobs), (0, 0, False))

    def test_log_older(self) -> None:
        plan = self.plan(log(ONE, 50), store(ONE, 70))
        self.assertEqual(plan.identity, ONE.with_epoch("new0", 70))
        self.assertEqual((plan.resume, plan.fork, plan.keep_jobs), (50, 50, False))

    def test_log_newer(self) -> None:
        plan = self.plan(log(ONE, 90), store(ONE, 70))
        self.assertEqual((plan.identity, plan.resume, plan.keep_jobs), (ONE, 70, True))

    def test_log_begins_after_the_mark(self) -> None:
        plan = self.plan(log(ONE, 90, first=81), store(ONE, 70))
        self.assertEqual((plan.gap, plan.resume), (Gap(71, 80), 80))

    def test_retention_is_no_gap(self) -> None:
        self.assertEqual(self.plan(log(ONE, 90, first=81), store(ONE, 80)).gap, None)

    def test_store_from_before_the_newest_epoch(self) -> None:
        plan = self.plan(log(TWO, 150), store(ONE, 80))
        self.assertEqual((plan.identity, plan.resume, plan.keep_jobs), (TWO, 80, False))

    def test_store_from_a_branch_that_the_log_left(self) -> None:
        """The store counted to 130 of the first epoch, of which the log goes on at 100."""
        plan = self.plan(log(TWO, 150), store(ONE, 130))
        self.assertEqual((plan.identity, plan.resume, plan.fork), (TWO, 100, 100))
        plan = self.plan(log(TWO, 120), store(ONE, 130))
        self.assertEqual(plan.identity, TWO.with_epoch("new0", 130))
        self.assertEqual((plan.resume, plan.keep_jobs), (100, False))

    def test_log_from_before_the_newest_epoch(self) -> None:
        """What that log holds beyond the fork was never counted, or is known by its id."""
        plan = self.plan(log(ONE, 140), store(TWO, 170))
        self.assertEqual(plan.identity, TWO.with_epoch("new0", 170))
        self.assertEqual((plan.resume, plan.keep_jobs), (100, False))
        self.assertEqual(self.plan(log(ONE, 140), store(TWO, 170, forgotten=120)).resume, 120)

    def test_new_store(self) -> None:
        plan = self.plan(log(TWO, 150), EMPTY_STORE)
        self.assertEqual((plan.identity, plan.resume, plan.gap), (TWO, 0, None))
        self.assertFalse(plan.keep_jobs)
        plan = self.plan(log(TWO, 150, first=31), EMPTY_STORE)
        self.assertEqual((plan.resume, plan.gap), (30, Gap(1, 30)))

    def test_an_identity_without_an_epoch(self) -> None:
        none = Identity("pool", ())
        self.assertEqual((none.epoch, none.begins_after), ("", 0))
        self.assertEqual((TWO.epoch, TWO.begins_after), ("two", 100))
        three = TWO.with_epoch("three", 200)
        self.assertEqual((three.epoch, three.begins_after), ("three", 200))

    def test_what_is_not_said(self) -> None:
        """A mark may name no entry; nobody has acknowledged anything; nothing is taken over."""
        self.assertEqual(Mark(5).entry_id, "")
        self.assertEqual(Extent(ONE, 1, 5, True).acknowledged, 0)
        self.assertFalse(self.plan(log(TWO, 150), store(TWO, 150)).adopt)

    def test_histories_that_part_and_meet_by_chance(self) -> None:
        """What comes after the first difference is not shared, whatever it is called."""
        one = ONE.with_epoch("here", 50).with_epoch("same", 100)
        other = ONE.with_epoch("there", 60).with_epoch("same", 100)
        self.assertEqual(self.plan(log(one, 150), store(other, 150)).fork, 50)

    def test_the_edge_of_a_gap(self) -> None:
        """One position that was lost is a gap, and none is not."""
        for first, gap in ((1, None), (2, Gap(1, 1))):
            self.assertEqual(self.plan(log(None, 50, first=first), EMPTY_STORE).gap, gap)
            self.assertEqual(self.plan(log(ONE, 50, first=first), EMPTY_STORE).gap, gap)
        for first, lost in ((71, None), (72, Gap(71, 71))):
            plan = self.plan(log(ONE, 90, first=first), store(ONE, 70))
            self.assertEqual((plan.gap, plan.resume), (lost, first - 1))

    def test_what_is_said(self) -> None:
        """Nothing where nothing is to be said; what was found where something is."""
        new_store = "the store is new: everything that the log holds is counted"
        older_store = "the store is older than the log's newest epoch"
        older_log = "the log is older than the store: a new epoch begins"
        missing = ", and what is missing in the store is counted"
        cases = (
            (EMPTY_LOG, EMPTY_STORE, ""),
            (EMPTY_LOG, store(None, 0), "the log is new: the store was counted from another"),
            (log(None, 50), EMPTY_STORE, new_store),
            (log(None, 50), store(None, 0), ADOPTED),
            (log(TWO, 150), store(TWO, 150), ""),
            (log(TWO, 151), store(TWO, 150), BEHIND),
            (log(TWO, 100, first=101), EMPTY_STORE, ""),
            (log(TWO, 101, first=101), EMPTY_STORE, new_store),
            (EMPTY_LOG, store(ONE, 0, holds_data=False), ""),
            (EMPTY_LOG, store(ONE, 0), "the log is missing: a new one begins"),
            (log(TWO, 150), store(ONE, 80), older_store + missing),
            (log(TWO, 100), store(ONE, 100), older_store),
            (log(ONE, 50), store(ONE, 70), older_log),
            (log(ONE, 140), store(TWO, 170), older_log + missing),
            (log(ONE, 90, first=81), store(ONE, 70), LOST),
        )
        for extent, state, said in cases:
            self.assertEqual(self.plan(extent, state).text, said)

    def test_a_new_log_for_an_empty_store(self) -> None:
        """Nothing was given out for it, so nothing is retired."""
        self.assertTrue(self.plan(EMPTY_LOG, store(ONE, 0, holds_data=False)).keep_jobs)
        plan = self.plan(EMPTY_LOG, store(TWO, 70))
        self.assertEqual(plan.identity, TWO.with_epoch("new0", 100))

    def test_the_release_before_says_no_more_than_its_log_holds(self) -> None:
        plan = self.plan(log(None, 50, acknowledged=60), store(None, 0))
        self.assertEqual((plan.resume, plan.fork), (50, 50))

    def test_refusals(self) -> None:
        for text in (
            self.refused(log(FOREIGN, 50), store(ONE, 50)),
            self.refused(log(ONE, 50), store(None, 0)),
            self.refused(log(None, 50), store(ONE, 50)),
        ):
            self.assertIn("pool", text)
            self.assertIn("put back", text)

    def test_the_table_is_whole(self) -> None:
        """Whatever is found: no position is used twice, and nothing that was forgotten counts."""
        identities: Any = (None, ONE, TWO, ONE.with_epoch("three", 60))
        places = (0, 60, 100, 130)
        for of_log, of_store in product(identities, identities):
            for last, mark, forgotten in product(places, places, (0, 50)):
                extent = log(of_log, max(last, of_log.begins_after if of_log else 0))
                state = store(of_store, mark, min(forgotten, mark))
                try:
                    plan = self.plan(extent, state)
                except IdentityMismatch:
                    continue
                with_marks = [identity for identity in (of_log, of_store) if identity is not None]
                if with_marks and plan.identity not in with_marks:
                    known = max(extent.last, mark, *(i.begins_after for i in with_marks))
                    self.assertGreaterEqual(plan.identity.begins_after, known)
                    self.assertFalse(plan.keep_jobs)
                if of_store is not None:
                    self.assertGreaterEqual(plan.resume, state.forgotten)
                    # A crash after the store took the plan, and before the log did.
                    after = store(plan.identity, plan.resume, state.forgotten)
                    again = self.plan(extent, after)
                    self.assertLessEqual(again.resume, max(plan.resume, state.forgotten))
                    self.assertGreaterEqual(again.identity.begins_after, plan.identity.begins_after)
