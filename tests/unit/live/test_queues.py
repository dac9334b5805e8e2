"""What waits for one slow subscription, and what is dropped of it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.publications import NewPublication, PublicationGap
from kupool.live.queues import QueueResult, SubscriptionQueue, WaitingPublication
from kupool.live.rules import QueueLimits, QueuePolicy


def entry(at: int, size: int = 1, **fields: Any) -> WaitingPublication:
    return WaitingPublication(b"x" * size, at - 1, at, NewPublication(data=b"1", **fields))


class Case(SynchronousTestCase):
    def make(self, policy: QueuePolicy, **limits: Any) -> SubscriptionQueue:
        return SubscriptionQueue(policy, QueueLimits(**{"messages": 3, "size": 100, **limits}))

    def drain(self, queue: SubscriptionQueue, now: float = 0.0) -> list[Any]:
        """Return what it hands out: positions, and gaps as (missed, first, last, reason)."""
        found: list[Any] = []
        while not queue.empty:
            gap, taken = queue.take(now)
            if gap is not None:
                found.append(tuple(gap[:4]))
            if taken is not None:
                found.append(taken.at)
        return found


class QueueTests(Case):
    """W-17, W-19: every policy, and how it tells what was dropped."""

    def test_in_order(self) -> None:
        queue = self.make(QueuePolicy.DROP_NEW)
        for at in (1, 2, 3):
            self.assertIs(queue.add(entry(at), 0.0), QueueResult.KEPT)
        self.assertEqual((len(queue), queue.size, queue.start), (3, 3, 0))
        self.assertEqual(self.drain(queue), [1, 2, 3])
        self.assertEqual((len(queue), queue.size, queue.drops), (0, 0, {}))

    def test_bytes_are_limited_too(self) -> None:
        """W-18: but one that is larger than all of it may wait alone."""
        queue = self.make(QueuePolicy.DROP_NEW)
        self.assertIs(queue.add(entry(1, 500), 0.0), QueueResult.KEPT)
        self.assertIs(queue.add(entry(2), 0.0), QueueResult.DROPPED)
        queue = self.make(QueuePolicy.DROP_OLDEST)
        for at in (1, 2, 3):
            queue.add(entry(at, 50), 0.0)
        self.assertEqual(self.drain(queue), [(1, 1, 1, "full"), 2, 3])

    def test_gaps_where_they_are(self) -> None:
        queue = self.make(QueuePolicy.DROP_NEW)
        for at in range(1, 6):
            queue.add(entry(at), 0.0)
        queue.take(0.0)
        queue.add(entry(6), 0.0)
        queue.add(entry(7), 0.0)
        self.assertEqual(self.drain(queue), [2, 3, (2, 4, 5, "full"), 6, (1, 7, 7, "full")])
        self.assertEqual(queue.drops, {"full": 3})

    def test_a_gap_from_elsewhere(self) -> None:
        queue = self.make(QueuePolicy.DROP_OLDEST)
        queue.add(entry(1), 0.0)
        queue.add_gap(PublicationGap(4, 2, 5, "overload"))
        queue.add(entry(6), 0.0)
        self.assertEqual(self.drain(queue), [1, (4, 2, 5, "overload"), 6])

    def test_replaced_by_key(self) -> None:
        """By the key, or else by device and type; the newer one is at the end."""
        queue = self.make(QueuePolicy.LATEST)
        queue.add(entry(1, key="a"), 0.0)
        queue.add(entry(2, device="d", event_type="t"), 0.0)
        queue.add(entry(3, key="a"), 0.0)
        queue.add(entry(4, device="d", event_type="t"), 0.0)
        queue.add(entry(5, device="d", event_type="u"), 0.0)
        self.assertEqual(self.drain(queue), [(2, 1, 2, "replaced"), 3, 4, 5])

    def test_many_keys(self) -> None:
        queue = self.make(QueuePolicy.LATEST)
        for at in range(1, 6):
            queue.add(entry(at, key=str(at)), 0.0)
        self.assertEqual(self.drain(queue), [(2, 1, 2, "full"), 3, 4, 5])

    def test_a_deadline(self) -> None:
        queue = self.make(QueuePolicy.WAIT, deadline=5.0)
        for at, now in ((1, 0.0), (2, 1.0), (3, 2.0), (4, 5.5)):
            queue.add(entry(at), now)
        self.assertEqual(self.drain(queue, 6.0), [(2, 1, 2, "late"), 3, 4])
        self.assertEqual(queue.drops, {"late": 2})

    def test_replay_and_disconnect(self) -> None:
        for policy, result in (
            (QueuePolicy.REPLAY, QueueResult.REPLAY),
            (QueuePolicy.DISCONNECT, QueueResult.DISCONNECT),
        ):
            queue = self.make(policy)
            results = [queue.add(entry(at), 0.0) for at in (8, 9, 10, 11)]
            self.assertEqual(results, [QueueResult.KEPT] * 3 + [result])
            self.assertEqual((queue.start, len(queue)), (7, 3))


class PriorityTests(Case):
    """W-21, W-61: an emergency (3) passes a queue that is full of high (2) and normal (1) ones."""

    def test_it_takes_the_place_of_a_lower_one(self) -> None:
        for policy in (QueuePolicy.DROP_NEW, QueuePolicy.DROP_OLDEST, QueuePolicy.WAIT):
            queue = self.make(policy)
            for at, priority in ((1, 2), (2, 1), (3, 1), (4, 3)):
                queue.add(entry(at, priority=priority), 0.0)
            self.assertEqual(queue.priority, 3)
            self.assertEqual(self.drain(queue), [1, (1, 2, 2, "full"), 3, 4], policy)
            self.assertEqual(queue.priority, 1)

    def test_a_lower_one_does_not_take_its_place(self) -> None:
        queue = self.make(QueuePolicy.DROP_OLDEST)
        for at in (1, 2, 3):
            queue.add(entry(at, priority=3), 0.0)
        self.assertIs(queue.add(entry(4), 0.0), QueueResult.DROPPED)
        self.assertIs(queue.add(entry(5, priority=3), 0.0), QueueResult.KEPT)
        self.assertEqual(self.drain(queue), [(1, 1, 1, "full"), 2, 3, (1, 4, 4, "full"), 5])


class AnyOrderTests(Case):
    """W-19, W-22: whatever is added and taken, each one comes in order or is counted."""

    @given(
        st.sampled_from(
            [
                QueuePolicy.DROP_NEW,
                QueuePolicy.DROP_OLDEST,
                QueuePolicy.LATEST,
                QueuePolicy.WAIT,
            ]
        ),
        st.lists(
            st.tuples(
                st.sampled_from(("add", "add", "add", "take", "wait")),
                st.integers(1, 3),
                st.integers(1, 40),
            ),
            max_size=200,
        ),
    )
    def test_all_are_accounted_for(self, policy: QueuePolicy, steps: Any) -> None:
        queue, at, now, found = self.make(policy), 0, 0.0, []
        for step, number, size in steps:
            if step == "add":
                at += 1
                queue.add(entry(at, size, priority=number, key=str(size % 5)), now)
            elif step == "take":
                gap, taken = queue.take(now)
                found += [] if gap is None else [tuple(gap[:4])]
                found += [] if taken is None else [taken.at]
            else:
                now += 2.0
            self.assertLessEqual(len(queue), 3)
            self.assertEqual(queue.empty, not queue._entries)
        found += self.drain(queue, now)
        known = 0
        for each in found:
            if isinstance(each, tuple):
                missed, first, last, _ = each
                self.assertEqual((first, last - first + 1), (known + 1, missed))
                known = last
            else:
                self.assertEqual(each, known + 1)
                known = each
        self.assertEqual((known, queue.size), (at, 0))
        gaps = sum(each[0] for each in found if isinstance(each, tuple))
        self.assertEqual(sum(queue.drops.values()), gaps)

    def test_places_of_dropped_ones_take_no_room(self) -> None:
        queue = self.make(QueuePolicy.LATEST, messages=10)
        queue.add(entry(1, key="first", priority=3), 0.0)
        for at in range(2, 5000):
            queue.add(entry(at, key=str(at % 7)), 0.0)
        self.assertLess(len(queue._entries), 100)
