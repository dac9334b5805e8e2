"""Records in parallel, those of one key in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.lanes import DeliveredRecord, KeyLanes
from kupool.topics.partition import Partition
from kupool.topics.records import Record

P0, P1 = Partition("t", 0), Partition("t", 1)


def delivery(offset: int, key: bytes | None, partition: Partition = P0) -> DeliveredRecord:
    return DeliveredRecord(partition, Record(offset, 0, key, b"", {}))


def offsets(lanes: KeyLanes) -> list[int]:
    """Begin all that may be begun; returns the offsets."""
    found = []
    while (one := lanes.next()) is not None:
        found.append(one.record.offset)
    return found


class KeyLanesTests(SynchronousTestCase):
    """Q-49."""

    def test_a_key_has_one_record_at_a_time(self) -> None:
        """W-49: records of a key, such as a device, are processed in order."""
        lanes = KeyLanes(10)
        all_of = [delivery(0, b"a"), delivery(1, b"a"), delivery(2, b"b"), delivery(3, b"a")]
        for each in all_of:
            lanes.add(each)
        self.assertEqual(offsets(lanes), [0, 2])
        lanes.done(all_of[2])
        self.assertEqual(offsets(lanes), [])
        lanes.done(all_of[0])
        self.assertEqual(offsets(lanes), [1])
        lanes.done(all_of[1])
        self.assertEqual(offsets(lanes), [3])

    def test_so_many_at_a_time(self) -> None:
        lanes = KeyLanes(2)
        for offset in range(4):
            lanes.add(delivery(offset, b"%d" % offset))
        self.assertEqual(offsets(lanes), [0, 1])
        self.assertEqual((lanes.running, lanes.waiting), (2, 2))
        lanes.done(delivery(1, b"1"))
        self.assertEqual(offsets(lanes), [2])

    def test_keys_take_turns(self) -> None:
        """W-53: no key waits for another one."""
        lanes = KeyLanes(1)
        for offset, key in enumerate((b"a", b"a", b"a", b"b")):
            lanes.add(delivery(offset, key))
        found = []
        while (one := lanes.next()) is not None:
            found.append(one.record.offset)
            lanes.done(one)
        self.assertEqual(found, [0, 3, 1, 2])

    def test_without_a_key_there_is_no_order(self) -> None:
        lanes = KeyLanes(10)
        for offset in range(3):
            lanes.add(delivery(offset, None))
        self.assertEqual(offsets(lanes), [0, 1, 2])

    def test_the_same_key_of_another_partition(self) -> None:
        lanes = KeyLanes(10)
        lanes.add(delivery(0, b"a", P0))
        lanes.add(delivery(0, b"a", P1))
        self.assertEqual(offsets(lanes), [0, 0])

    def test_a_dropped_partition(self) -> None:
        """What is being processed goes on; nothing of it follows."""
        lanes = KeyLanes(2)
        begun = delivery(0, b"a", P0)
        for each in (
            begun,
            delivery(1, b"a", P0),
            delivery(2, b"b", P0),
            delivery(3, b"c", P0),
            delivery(7, b"a", P1),
        ):
            lanes.add(each)
        self.assertEqual(offsets(lanes), [0, 2])
        lanes.drop(P0)
        self.assertEqual((lanes.running, lanes.waiting), (2, 1))
        lanes.done(begun)
        self.assertEqual(offsets(lanes), [7])
        lanes.done(delivery(2, b"b", P0))
        self.assertEqual((lanes.running, lanes.waiting, offsets(lanes)), (1, 0, []))

    @given(
        st.lists(st.tuples(st.sampled_from((None, b"a", b"b", b"c")), st.booleans()), max_size=40),
        st.integers(1, 4),
        st.randoms(use_true_random=False),
    )
    def test_any_course(
        self, wanted: list[tuple[bytes | None, bool]], workers: int, chance: object
    ) -> None:
        """Each once, the order of each key, never more than the workers."""
        lanes, running, begun = KeyLanes(workers), [], []
        for offset, (key, end) in enumerate(wanted):
            lanes.add(delivery(offset, key))
            while (one := lanes.next()) is not None:
                self.assertNotIn(one.record.key, {r.record.key for r in running} - {None})
                running.append(one)
                begun.append(one)
            self.assertLessEqual(len(running), workers)
            if end and running:
                lanes.done(running.pop(chance.randrange(len(running))))  # type: ignore[attr-defined]
        while True:
            while (one := lanes.next()) is not None:
                running.append(one)
                begun.append(one)
            if not running:
                break
            lanes.done(running.pop())
        self.assertEqual(sorted(d.record.offset for d in begun), list(range(len(wanted))))
        for key in (b"a", b"b", b"c"):
            mine = [d.record.offset for d in begun if d.record.key == key]
            self.assertEqual(mine, sorted(mine))
        self.assertEqual((lanes.running, lanes.waiting), (0, 0))
