"""Batches of records that wait."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.remote.batching import BatchLane, WaitingWrite


class LaneTests(SynchronousTestCase):
    """Q-56: batches by number and by size, in order."""

    def write(self, *values: bytes, deadline: float = 9.0) -> WaitingWrite:
        records = [msgspec.Raw(value) for value in values]
        return WaitingWrite(records, sum(map(len, values)), deadline, Deferred())

    def taken(self, lane: BatchLane) -> list[bytes]:
        return [bytes(record) for record in lane.take().records]

    def test_by_number(self) -> None:
        lane = BatchLane(3, 1000)
        for value in (b"a", b"b"):
            lane.add(self.write(value))
        self.assertFalse(lane.full)
        lane.add(self.write(b"c"))
        self.assertTrue(lane.full)
        lane.add(self.write(b"d"))
        self.assertEqual((self.taken(lane), len(lane), lane.full), ([b"a", b"b", b"c"], 1, False))
        self.assertEqual((self.taken(lane), len(lane)), ([b"d"], 0))

    def test_by_size(self) -> None:
        lane = BatchLane(100, 10)
        for value in (b"aaaa", b"bbbbbb", b"c"):
            lane.add(self.write(value))
        self.assertTrue(lane.full)
        self.assertEqual(self.taken(lane), [b"aaaa", b"bbbbbb"])
        self.assertFalse(lane.full)
        self.assertEqual(self.taken(lane), [b"c"])

    def test_a_write_is_not_divided(self) -> None:
        lane = BatchLane(3, 10)
        for values in ((b"a", b"b"), (b"c", b"d"), (b"1234567890123",)):
            lane.add(self.write(*values))
        batches = [self.taken(lane) for _ in range(3)]
        self.assertEqual(batches, [[b"a", b"b"], [b"c", b"d"], [b"1234567890123"]])

    def test_the_first_deadline_counts(self) -> None:
        lane = BatchLane(3, 10)
        for deadline in (5.0, 3.0, 7.0):
            lane.add(self.write(b"x", deadline=deadline))
        batch = lane.take()
        self.assertEqual((batch.deadline, len(batch.writes)), (3.0, 3))
