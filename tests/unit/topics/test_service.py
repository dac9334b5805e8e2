"""Topics for those who write and read, on the engine in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.batch_maker import IN_THREAD, MANY_BATCHES, Writing
from kupool.topics.errors import (
    BatchTooLarge,
    CorruptBatch,
    InvalidTopic,
    OffsetOutOfRange,
    RecordTooLarge,
    TooManyTopics,
    TopicExists,
    UnknownPartition,
    UnknownTopic,
    UnreadableBatch,
)
from kupool.topics.interfaces import Append
from kupool.topics.partition import Partition
from kupool.topics.partitioners import fnv1a
from kupool.topics.records import NewRecord, Record, Stamp
from kupool.topics.service import (
    Fetched,
    TopicDescription,
    Written,
)
from kupool.topics.settings import TopicSettings
from tests.fakes.topics import topics_in_memory

P0, P1 = Partition("t", 0), Partition("t", 1)


class Threads:
    """Runs what is given to a thread when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def run(self, call: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, call))
        return done

    def finish(self) -> None:
        """Do the oldest piece of work."""
        done, call = self.waiting.pop(0)
        done.callback(call())


def places(written: Sequence[Written]) -> list[tuple[int, int]]:
    return [(each.partition, each.offset) for each in written]


class TopicsTestCase(SynchronousTestCase):
    """Topics in memory, with a topic ``t`` of two partitions."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.threads = Threads()
        self.make()
        self.settle(self.topics.create("t", TopicSettings(partitions=2)))

    def make(self, **limits: int) -> None:
        self.topics = topics_in_memory(self.clock, run_in_thread=self.threads.run, **limits)
        self.engine: Any = self.topics.engine

    def settle(self, done: Deferred[Any]) -> Any:
        return self.successResultOf(done)

    def produce(self, topic: str, records: Sequence[NewRecord], **where: Any) -> list[Any]:
        """Write records; returns (partition, offset) of each."""
        return places(self.settle(self.topics.produce(topic, records, **where)))

    def write(self, *values: bytes, **where: Any) -> list[Any]:
        """Write records to ``t``; returns (partition, offset) of each."""
        return self.produce("t", [NewRecord(value) for value in values], **where)

    def values(self, partition: Partition, offset: int = 0, **how: Any) -> list[bytes]:
        fetched = self.settle(self.topics.fetch(partition, offset, **how))
        return [record.value for record in fetched.records]


class AdminTests(TopicsTestCase):
    """Q-14, Q-26, Q-27, Q-29, Q-59."""

    def test_create_list_describe_and_delete(self) -> None:
        self.settle(self.topics.create("a.b", TopicSettings(retention_time=5)))
        self.write(b"abc", partition=1)
        self.assertEqual(self.topics.names(), ["a.b", "t"])
        found = self.settle(self.topics.describe("t"))
        self.assertEqual(found[:2], TopicDescription("t", TopicSettings(partitions=2), [])[:2])
        self.assertEqual([extent[:2] for extent in found.partitions], [(0, 0), (0, 1)])
        self.settle(self.topics.delete("t"))
        self.assertEqual(self.topics.names(), ["a.b"])
        for call in (self.topics.describe, self.topics.delete):
            self.failureResultOf(call("t"), UnknownTopic)

    def test_names_and_settings_are_checked(self) -> None:
        self.failureResultOf(self.topics.create("a/b", TopicSettings()), InvalidTopic)
        self.failureResultOf(self.topics.create("n", TopicSettings(partitions=0)), InvalidTopic)
        self.failureResultOf(self.topics.change("t", TopicSettings(partitions=1001)), InvalidTopic)
        self.failureResultOf(self.topics.change("no", TopicSettings()), UnknownTopic)
        self.assertEqual(self.topics.names(), ["t"])

    def test_so_many_topics(self) -> None:
        self.make(topics=2)
        self.settle(self.topics.create("a", TopicSettings()))
        self.settle(self.topics.create("b", TopicSettings()))
        self.failureResultOf(self.topics.create("b", TopicSettings()), TopicExists)
        error = self.failureResultOf(self.topics.create("c", TopicSettings()), TooManyTopics)
        self.assertIn("there are 2 topics already: delete one", str(error.value))
        self.settle(self.topics.delete("a"))
        self.settle(self.topics.create("c", TopicSettings()))

    def test_so_many_partitions(self) -> None:
        """Q-14: no topic is created with more, or gets more; other settings may change."""
        self.make(partitions=3)
        error = self.failureResultOf(
            self.topics.create("a", TopicSettings(partitions=4)), InvalidTopic
        )
        self.assertIn("expected 3 at most, not 4", str(error.value))
        self.settle(self.topics.create("a", TopicSettings(partitions=3)))
        self.failureResultOf(self.topics.change("a", TopicSettings(partitions=4)), InvalidTopic)
        # One from before the limit was lowered.
        self.settle(self.engine.create("large", TopicSettings(partitions=9)))
        self.settle(self.topics.change("large", TopicSettings(partitions=9, max_record=5)))

    def test_topics_that_are_being_created_count(self) -> None:
        self.make(topics=2)
        under_way: Deferred[None] = Deferred()
        self.patch(self.engine, "create", lambda name, settings: under_way)
        for name in ("a", "b"):
            self.topics.create(name, TopicSettings())
        self.failureResultOf(self.topics.create("c", TopicSettings()), TooManyTopics)
        under_way.callback(None)
        self.settle(self.topics.create("c", TopicSettings()))

    def test_a_changed_partitioner_is_used(self) -> None:
        """Q-28."""
        record = NewRecord(b"x", key=b"k")
        found = self.produce("t", [record] * 4)
        self.assertEqual(len({number for number, _ in found}), 1)
        settings = TopicSettings(partitions=2, partitioner="round-robin")
        self.settle(self.topics.change("t", settings))
        found = self.produce("t", [record] * 4)
        self.assertEqual([number for number, _ in found], [0, 1, 0, 1])


class ProduceTests(TopicsTestCase):
    """Q-02, Q-13, Q-24, Q-28, Q-56."""

    def test_places_are_in_the_order_of_the_records(self) -> None:
        records = [NewRecord(b"%d" % n, key=b"%d" % n) for n in range(20)]
        found = self.produce("t", records)
        following = {0: 0, 1: 0}
        for record, place in zip(records, found, strict=True):
            number = fnv1a(record.key or b"") % 2
            self.assertEqual(place, (number, following[number]))
            following[number] += 1
        for number in (0, 1):
            fetched = self.settle(self.topics.fetch(Partition("t", number), 0))
            self.assertEqual(
                [each.value for each in fetched.records],
                [r.value for r, p in zip(records, found, strict=True) if p[0] == number],
            )

    def test_records_without_a_key_take_turns(self) -> None:
        self.assertEqual(self.write(b"a", b"b", b"c"), [(0, 0), (1, 0), (0, 1)])
        self.assertEqual(self.write(b"d"), [(1, 1)])

    def test_a_partition_by_number(self) -> None:
        self.assertEqual(self.write(b"a", b"b", partition=1), [(1, 0), (1, 1)])
        self.assertEqual(self.write(b"c", partition=0), [(0, 0)])
        for number in (-1, 2):
            call = self.topics.produce("t", [NewRecord(b"x")], partition=number)
            self.failureResultOf(call, UnknownPartition)
        self.assertEqual(self.write(b"d"), [(0, 1)])

    def test_nothing_is_written_of_nothing(self) -> None:
        self.assertEqual(self.produce("t", []), [])
        self.failureResultOf(self.topics.produce("no", []), UnknownTopic)

    def test_a_record_that_is_too_large_keeps_all_away(self) -> None:
        """Q-13: key, value and headers count, in bytes of UTF-8."""
        self.settle(self.topics.change("t", TopicSettings(partitions=2, max_record=10)))
        fits = NewRecord(b"12345", key=b"67", headers={"8": "ä"})
        self.produce("t", [fits], partition=0)
        large = NewRecord(b"12345", key=b"67", headers={"89": "ä"})
        error = self.failureResultOf(
            self.topics.produce("t", [fits, large], partition=0), RecordTooLarge
        )
        self.assertIn(
            "a record of 11 bytes is too large for topic t: it takes 10", str(error.value)
        )
        self.assertEqual(len(self.values(P0)), 1)

    def test_many_records_become_several_batches(self) -> None:
        """Up to the records and the bytes of a batch."""
        self.make(batch_records=3, batch_bytes=20)
        self.settle(self.topics.create("t", TopicSettings()))
        self.write(*[b""] * 7)
        self.write(*[b"x" * 10] * 3)
        self.write(b"x" * 50, b"x" * 50)
        found = self.settle(self.engine.read(P0, 0, 10_000))
        self.assertEqual([batch.records for batch in found], [3, 3, 1, 2, 1, 1, 1])
        self.assertEqual(len(self.values(P0)), 12)

    def test_the_same_stamp_writes_once(self) -> None:
        """Q-24: also where each record would take its turn."""
        first = self.write(b"a", b"b", stamp=Stamp("p", 7))
        self.assertEqual(first, [(1, 0), (1, 1)])
        self.write(b"other")
        self.assertEqual(self.write(b"a", b"b", stamp=Stamp("p", 7)), first)
        self.assertEqual(self.values(P1), [b"a", b"b"])
        self.settle(self.topics.change("t", TopicSettings(partitions=2, partitioner="random")))
        records = [NewRecord(b"%d" % n, key=b"%d" % n) for n in range(9)]
        for _ in range(2):
            found = self.produce("t", records, stamp=Stamp("p", 8))
            self.assertEqual(found, [(0, n) for n in range(1, 10)])

    def test_keys_with_a_stamp_go_by_their_hash(self) -> None:
        """Q-24, Q-28."""
        records = [NewRecord(b"", key=b"%d" % n) for n in range(9)]
        found = self.produce("t", records, stamp=Stamp("p", 1))
        self.assertEqual([number for number, _ in found], [fnv1a(b"%d" % n) % 2 for n in range(9)])
        self.assertEqual(self.produce("t", records, stamp=Stamp("p", 1)), found)

    def test_with_a_stamp_it_has_to_be_one_batch(self) -> None:
        self.make(batch_records=3)
        self.settle(self.topics.create("t", TopicSettings(partitions=2)))
        self.write(b"", b"", b"", stamp=Stamp("p", 1))
        call = self.topics.produce("t", [NewRecord(b"")] * 4, stamp=Stamp("p", 2))
        error = self.failureResultOf(call, BatchTooLarge)
        self.assertIn(
            "partition 0 of topic t: with a producer's sequence number 3 records", str(error.value)
        )
        self.assertEqual(self.values(P0), [])

    def test_repeated_records_are_not_written(self) -> None:
        """Q-23: they get the place of the first; key and value count, headers do not."""
        self.settle(self.topics.change("t", TopicSettings(partitions=2, dedup_window=100)))
        a, b = NewRecord(b"a", key=b"k"), NewRecord(b"b", key=b"k")
        first = self.produce("t", [a, b, a])
        self.assertEqual(first[0], first[2])
        self.assertNotEqual(first[0], first[1])
        again = [NewRecord(b"b", key=b"k", headers={"h": "x"}), a]
        self.assertEqual(self.produce("t", again, stamp=Stamp("p", 1)), [first[1], first[0]])
        others = [
            NewRecord(b"a"),
            NewRecord(b"a", key=b""),
            NewRecord(b"ka", key=b""),
            NewRecord(b""),
        ]
        places = self.produce("t", others)
        self.assertEqual(len({*places, *first}), 6)
        self.assertEqual(self.produce("t", others), places)

    def test_compaction_keeps_the_last_record_of_each_key(self) -> None:
        """Q-12: record by record; without a value or a key it goes with the age."""
        self.settle(self.topics.create("c", TopicSettings(compaction="key", retention_time=50)))
        records = [
            NewRecord(b"1", key=b"a"),
            NewRecord(b"2", key=b"b"),
            NewRecord(b"3"),
            NewRecord(b"4"),
            NewRecord(b"", key=b""),
            NewRecord(b"5", key=b"a"),
            NewRecord(b"6", key=b"c"),
        ]
        self.assertEqual([offset for _, offset in self.produce("c", records)], list(range(7)))
        self.settle(self.engine.trim(0))

        def values() -> list[tuple[int, bytes]]:
            found: Fetched = self.settle(self.topics.fetch(Partition("c", 0), 0))
            self.assertEqual(found.next_offset, 7)
            return [(record.offset, record.value) for record in found.records]

        self.assertEqual(
            values(), [(1, b"2"), (2, b"3"), (3, b"4"), (4, b""), (5, b"5"), (6, b"6")]
        )
        self.settle(self.engine.trim(50))
        self.assertEqual(values(), [(1, b"2"), (5, b"5"), (6, b"6")])

    def test_an_engine_without_compaction(self) -> None:
        """Q-12, Q-38: such a topic is refused, since it would keep everything."""
        self.engine.capabilities = self.engine.capabilities._replace(compacts=False)
        refused = self.topics.create("c", TopicSettings(compaction="key"))
        self.assertIn("compaction: this engine", str(self.failureResultOf(refused, InvalidTopic)))
        self.settle(self.topics.create("c", TopicSettings()))

    def test_a_stamp_is_for_one_record_of_a_partition_that_is_compacted(self) -> None:
        """Q-12, Q-24."""
        self.settle(self.topics.create("c", TopicSettings(partitions=2, compaction="key")))
        stamp = Stamp("p", 1)
        one, other = NewRecord(b"x", key=b"a"), NewRecord(b"y", key=b"b")
        self.assertNotEqual(fnv1a(b"a") % 2, fnv1a(b"b") % 2)
        first = self.produce("c", [one, other], stamp=stamp)
        self.assertEqual(self.produce("c", [one, other], stamp=stamp), first)
        refused = self.topics.produce("c", [one, one], stamp=Stamp("p", 2))
        self.failureResultOf(refused, BatchTooLarge)

    def test_repeated_records_without_a_key_meet(self) -> None:
        """Q-23: also where others would take turns, and with a partition of their own."""
        for partitioner in ("fnv1a", "round-robin", "random"):
            settings = TopicSettings(partitions=2, dedup_time=60, partitioner=partitioner)
            self.settle(self.topics.change("t", settings))
            records = [NewRecord(f"{partitioner}{n}".encode()) for n in range(20)]
            found = self.produce("t", records)
            self.assertEqual({number for number, _ in found}, {0, 1})
            self.assertEqual(self.produce("t", records), found)
        place = self.produce("t", [NewRecord(b"x")], partition=1)
        self.assertEqual(self.produce("t", [NewRecord(b"x")], partition=1), place)
        self.clock.advance(61)
        self.assertNotEqual(self.produce("t", [NewRecord(b"x")], partition=1), place)

    def test_a_record_has_the_time_of_its_writing(self) -> None:
        self.produce("t", [NewRecord(b"a"), NewRecord(b"b", timestamp=5)], partition=0)
        fetched = self.settle(self.topics.fetch(P0, 0))
        self.assertEqual([each.timestamp for each in fetched.records], [1_800_000_000_000, 5])

    def test_batches_have_ids_of_their_own(self) -> None:
        self.write(*[b"x"] * 2)
        self.write(b"x", partition=0)
        bodies = [batch.body for batch in self.settle(self.engine.read(P0, 0, 1000))]
        bodies += [batch.body for batch in self.settle(self.engine.read(P1, 0, 1000))]
        self.assertEqual(len(set(bodies)), 3)

    def test_compression_runs_in_a_thread_and_keeps_the_order(self) -> None:
        """Q-20: small writes wait behind a large one of the same topic, and not behind others'."""
        self.settle(self.topics.change("t", TopicSettings(partitions=2, compression="zstd")))
        self.settle(self.topics.create("u", TopicSettings()))
        small = self.topics.produce("t", [NewRecord(b"x" * (IN_THREAD - 100))], partition=0)
        self.assertEqual(places(self.settle(small)), [(0, 0)])
        large = self.topics.produce("t", [NewRecord(b"y" * IN_THREAD)], partition=0)
        behind = [self.topics.produce("t", [NewRecord(b"z%d" % n)], partition=0) for n in (1, 2)]
        other = self.topics.produce("u", [NewRecord(b"other")])
        self.assertEqual(places(self.settle(other)), [(0, 0)])
        for waiting in (large, *behind):
            self.assertNoResult(waiting)
        self.threads.finish()
        self.assertEqual(places(self.settle(large)), [(0, 1)])
        for number, waiting in enumerate(behind, 2):
            self.assertNoResult(waiting)
            self.threads.finish()
            self.assertEqual(places(self.settle(waiting)), [(0, number)])
        self.assertEqual(self.write(b"at once", partition=0), [(0, 4)])
        self.assertEqual(self.threads.waiting, [])

    def test_the_order_is_kept_when_compression_is_turned_off_meanwhile(self) -> None:
        """Q-20."""
        self.settle(self.topics.change("t", TopicSettings(partitions=2, compression="zstd")))
        large = self.topics.produce("t", [NewRecord(b"y" * IN_THREAD)], partition=0)
        self.settle(self.topics.change("t", TopicSettings(partitions=2)))
        behind = self.topics.produce("t", [NewRecord(b"z")], partition=0)
        self.assertNoResult(behind)
        self.threads.finish()
        self.threads.finish()
        self.assertEqual(places(self.settle(large)), [(0, 0)])
        self.assertEqual(places(self.settle(behind)), [(0, 1)])

    def test_an_append_that_takes_long_lets_the_next_begin(self) -> None:
        """Q-60: those behind it are in the same group commit."""
        self.settle(self.topics.change("t", TopicSettings(partitions=2, compression="lz4")))
        begun: list[Any] = []
        never: Deferred[list[int]] = Deferred()

        def append(appends: Any) -> Deferred[list[int]]:
            begun.append(appends)
            return never

        self.patch(self.engine, "append", append)
        for _ in range(2):
            self.topics.produce("t", [NewRecord(b"x" * IN_THREAD)], partition=0)
        self.threads.finish()
        self.threads.finish()
        self.assertEqual(len(begun), 2)

    def test_a_write_that_fails_lets_the_next_have_its_turn(self) -> None:
        self.settle(self.topics.change("t", TopicSettings(partitions=2, compression="lz4")))
        lost = self.topics.produce("t", [NewRecord(b"x" * IN_THREAD)])
        following = self.topics.produce("t", [NewRecord(b"y")], partition=1)
        self.threads.waiting.pop(0)[0].errback(MemoryError("no memory"))
        self.failureResultOf(lost, MemoryError)
        self.threads.finish()
        self.assertEqual(places(self.settle(following)), [(1, 0)])

    def test_many_batches_are_encoded_in_a_thread(self) -> None:
        """Q-25: where each record is a batch, many of them do not keep others waiting."""
        self.settle(self.topics.create("d", TopicSettings(dedup_window=1000)))
        few = self.topics.produce("d", [NewRecord(b"%d" % n) for n in range(MANY_BATCHES - 1)])
        self.assertEqual(len(self.settle(few)), MANY_BATCHES - 1)
        many = self.topics.produce("d", [NewRecord(b"x%d" % n) for n in range(MANY_BATCHES)])
        self.assertNoResult(many)
        self.threads.finish()
        self.assertEqual(len(self.settle(many)), MANY_BATCHES)

    def test_a_write_that_is_given_up_leaves_no_topic_behind(self) -> None:
        """Q-16, Q-53: one that waits for its turn in a second topic has that in the first."""
        self.settle(self.topics.change("t", TopicSettings(partitions=2, compression="lz4")))
        self.settle(self.topics.create("u", TopicSettings(compression="lz4")))
        large = [NewRecord(b"x" * IN_THREAD)]
        busy = self.topics.produce("u", large)
        given_up = self.topics.produce_all([Writing("t", large), Writing("u", large)])
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        following = self.topics.produce("t", large)
        self.threads.finish()
        self.settle(busy)
        self.threads.finish()
        self.assertEqual(len(self.settle(following)), 1)


class CompressedFetchTests(SynchronousTestCase):
    """Q-22, Q-39: a fetch of compressed records is limited by their size after decompression."""

    def test_a_limit(self) -> None:
        clock = Clock()
        topics = topics_in_memory(clock)
        settings = TopicSettings(compression="gzip", max_record=10_000)
        self.successResultOf(topics.create("t", settings))
        for _ in range(5):
            self.successResultOf(topics.produce("t", [NewRecord(b"x" * 10_000)]))
        for size, count in ((1, 1), (25_000, 2), (60_000, 5)):
            fetched = self.successResultOf(topics.fetch(P0, 0, max_bytes=size))
            self.assertEqual((len(fetched.records), fetched.next_offset), (count, count))


class FetchTests(TopicsTestCase):
    """Q-03, Q-04, Q-17, Q-39, Q-40."""

    def test_from_an_offset_in_the_middle_of_a_batch(self) -> None:
        self.write(b"a", b"b", b"c", partition=0)
        self.write(b"d", partition=0)
        at = 1_800_000_000_000
        self.assertEqual(
            self.settle(self.topics.fetch(P0, 2)),
            Fetched([Record(2, at, None, b"c", {}), Record(3, at, None, b"d", {})], 4),
        )
        self.assertEqual(self.values(P0, 0), [b"a", b"b", b"c", b"d"])

    def test_a_read_of_so_many_bytes(self) -> None:
        for _ in range(3):
            self.write(b"x" * 100, partition=0)
        self.assertEqual(len(self.values(P0, max_bytes=1)), 1)
        self.assertEqual(len(self.values(P0, max_bytes=350)), 2)
        self.assertEqual(len(self.values(P0)), 3)

    def test_at_the_end_there_is_nothing(self) -> None:
        self.assertEqual(self.settle(self.topics.fetch(P0, 0)), Fetched([], 0))
        self.write(b"a", partition=0)
        self.assertEqual(self.settle(self.topics.fetch(P0, 9)), Fetched([], 9))

    def test_below_the_oldest_record(self) -> None:
        self.failureResultOf(self.topics.fetch(P0, -1), OffsetOutOfRange)
        self.failureResultOf(self.topics.fetch(P0, -1, wait=5), OffsetOutOfRange)
        self.failureResultOf(self.topics.fetch(Partition("no", 0), 0), UnknownTopic)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_long_poll_ends_with_the_first_record(self) -> None:
        waiting = self.topics.fetch(P0, 0, wait=30)
        self.write(b"elsewhere", partition=1)
        self.clock.advance(29)
        self.assertNoResult(waiting)
        self.write(b"a", b"b", partition=0)
        self.assertEqual(len(self.settle(waiting).records), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.topics._waiting, {})

    def test_a_long_poll_ends_without_records(self) -> None:
        waiting = self.topics.fetch(P0, 0, wait=30)
        self.clock.advance(29.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.assertEqual(self.settle(waiting), Fetched([], 0))
        self.assertEqual(self.topics._waiting, {})

    def test_what_is_written_below_the_offset_does_not_end_a_long_poll(self) -> None:
        waiting = self.topics.fetch(P0, 2, wait=30)
        self.write(b"a", b"b", partition=0)
        self.clock.advance(20)
        self.assertNoResult(waiting)
        self.write(b"c", partition=0)
        self.assertEqual([r.value for r in self.settle(waiting).records], [b"c"])

    def test_what_is_written_while_a_long_poll_reads_is_not_missed(self) -> None:
        read, first = self.engine.read, Deferred[Any]()
        self.patch(self.engine, "read", lambda *_: first)
        waiting = self.topics.fetch(P0, 0, wait=30)
        self.patch(self.engine, "read", read)
        self.write(b"a", partition=0)
        first.callback([])
        self.assertEqual([r.value for r in self.settle(waiting).records], [b"a"])

    def test_those_who_wait_do_not_take_from_each_other(self) -> None:
        """Q-07: one of them ends early."""
        both = [self.topics.fetch(P0, 0, wait=wait) for wait in (5, 30)]
        self.clock.advance(5)
        self.assertEqual(self.settle(both[0]), Fetched([], 0))
        self.write(b"a", partition=0)
        self.assertEqual(len(self.settle(both[1]).records), 1)

    def test_a_topic_that_is_deleted_ends_a_long_poll(self) -> None:
        waiting = self.topics.fetch(P0, 0, wait=30)
        self.settle(self.topics.delete("t"))
        self.failureResultOf(waiting, UnknownTopic)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_corrupt_batch_is_named(self) -> None:
        """Q-08: where it is, and where reading goes on; what is before it is read."""
        self.write(b"a", partition=0)
        self.settle(self.engine.append([Append(P0, 5, b"\x01garbage")]))
        self.write(b"z", partition=0)
        self.assertEqual(self.settle(self.topics.fetch(P0, 0)).next_offset, 1)
        for offset in (1, 3):
            error = self.failureResultOf(self.topics.fetch(P0, offset), CorruptBatch)
            self.assertEqual(
                str(error.value),
                "partition 0 of topic t, batch at offset 1: its checksum is wrong: "
                "bytes of it have changed; read on from 6",
            )
        self.assertEqual(self.values(P0, 6), [b"z"])

    def test_a_batch_of_a_codec_that_is_not_known(self) -> None:
        """Q-08: of a later release, for example; it is named like a corrupt one."""
        body = msgspec.msgpack.encode(["id", 5, "zip9", 1, 1, b"x"])
        spoiled = b"\x01" + crc32(body).to_bytes(4, "big") + body
        self.settle(self.engine.append([Append(P0, 1, spoiled)]))
        error = self.failureResultOf(self.topics.fetch(P0, 0), UnreadableBatch).value
        self.assertEqual((error.partition, error.offset, error.next_offset), (P0, 0, 1))

    def test_large_batches_are_decoded_in_a_thread(self) -> None:
        self.write(b"x" * IN_THREAD, partition=0)
        fetched = self.topics.fetch(P0, 0)
        self.assertNoResult(fetched)
        self.threads.finish()
        self.assertEqual(len(self.settle(fetched).records), 1)

    def test_where_to_start(self) -> None:
        """Q-17, Q-40."""
        self.settle(self.topics.change("t", TopicSettings(partitions=2, retention_bytes=1)))
        self.write(b"a", b"b", partition=0)
        self.clock.advance(10)
        self.write(b"c", partition=0)
        self.settle(self.engine.trim(0))
        self.assertEqual(self.settle(self.topics.earliest(P0)), 2)
        self.assertEqual(self.settle(self.topics.latest(P0)), 3)
        self.assertEqual(self.settle(self.topics.earliest(P1)), 0)
        for at, offset in ((0.0, 2), (1_800_000_010.0, 2), (1_800_000_010.001, 3)):
            self.assertEqual(self.settle(self.topics.at_time(P0, at)), offset, at)
        for number in (-1, 2):
            self.failureResultOf(self.topics.latest(Partition("t", number)), UnknownPartition)
        self.failureResultOf(self.topics.earliest(Partition("no", 0)), UnknownTopic)
