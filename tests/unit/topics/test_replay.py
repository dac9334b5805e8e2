"""Replay of topics in memory."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.errors import OffsetOutOfRange, UnknownTopic
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.replay import ReplaySettings, TopicReplay
from kupool.topics.settings import TopicSettings
from tests.fakes.topics import topics_in_memory

P0, P1 = Partition("t", 0), Partition("t", 1)


class ReplayTests(SynchronousTestCase):
    """Q-50."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.topics = topics_in_memory(self.clock)
        self.settle(self.topics.create("t", TopicSettings(partitions=2)))
        self.found: list[bytes] = []
        #: A Deferred that the reader waits for after each record.
        self.busy: Deferred[None] | None = None

    def settle(self, done: Deferred[Any]) -> Any:
        return self.successResultOf(done)

    def write(self, partition: Partition, *seconds: float) -> None:
        """Write a record with each of these timestamps; its value names the partition, too."""
        for each in seconds:
            value = b"%d/%g" % (partition.number, each)
            record = NewRecord(value, timestamp=int(each * 1000))
            self.settle(self.topics.produce("t", [record], partition=partition.number))

    def replay(self, place: Any = None, **settings: Any) -> Deferred[None]:
        """Read records into ``found``."""
        replay = TopicReplay(
            self.topics,
            self.clock,
            "t",
            place or self.topics.earliest,
            settings=ReplaySettings(**settings),
        )

        async def read() -> None:
            async for delivery in replay:
                self.assertTrue(delivery.record.value.startswith(b"%d/" % delivery.partition[1]))
                self.found.append(delivery.record.value[2:])
                if self.busy is not None:
                    await self.busy

        return Deferred.fromCoroutine(read())

    def test_partitions_are_merged_by_time(self) -> None:
        """Each in its order, whatever its timestamps; small fetches change nothing."""
        self.write(P0, 1, 4, 3, 9)
        self.write(P1, 2, 5, 6)
        for size in (1, 1 << 20):
            self.found.clear()
            self.settle(self.replay(max_bytes=size))
            self.assertEqual(self.found, [b"1", b"2", b"4", b"3", b"5", b"6", b"9"])

    def test_nothing_and_a_topic_that_is_not_there(self) -> None:
        self.settle(self.replay())
        self.assertEqual(self.found, [])
        self.settle(self.topics.delete("t"))
        self.failureResultOf(self.replay(), UnknownTopic)

    def test_from_an_offset_and_from_a_time(self) -> None:
        for step in (100, 200, 300):
            self.clock.rightNow = step
            self.write(P0, step)
        self.settle(self.replay(lambda partition: self.topics.latest(partition)))
        self.assertEqual(self.found, [])
        self.settle(self.replay(partial(self.topics.at_time, at=150)))
        self.assertEqual(self.found, [b"200", b"300"])

    def test_it_ends_where_the_topic_ended_when_it_began(self) -> None:
        self.write(P0, 1, 2)
        self.busy = Deferred()
        done = self.replay(max_bytes=1)
        self.write(P0, 3)
        self.busy.callback(None)
        self.settle(done)
        self.assertEqual(self.found, [b"1", b"2"])

    def test_later_records_in_the_last_fetch_are_left_out(self) -> None:
        self.settle(self.topics.produce("t", [NewRecord(b"0/" + b"x" * 300)], partition=0))
        self.write(P0, 1)
        self.busy = Deferred()
        done = self.replay(max_bytes=300)
        self.write(P0, 2)
        self.busy.callback(None)
        self.settle(done)
        self.assertEqual(self.found, [b"x" * 300, b"1"])

    def test_the_speed_of_the_timestamps(self) -> None:
        """A factor divides the time between two records; one that is earlier does not wait."""
        self.write(P0, 1000, 1010, 1005, 1011)
        done = self.replay(speed=2)
        self.assertEqual(self.found, [b"1000"])
        self.clock.advance(4.99)
        self.assertEqual(len(self.found), 1)
        self.clock.advance(0.01)
        self.assertEqual(self.found, [b"1000", b"1010", b"1005"])
        self.clock.advance(0.5)
        self.settle(done)
        self.assertEqual(len(self.found), 4)

    def test_a_slow_reader_does_not_make_the_replay_longer(self) -> None:
        self.write(P0, 10, 11, 12)
        self.busy = Deferred()
        done = self.replay(speed=1)
        self.clock.advance(1.5)
        busy, self.busy = self.busy, None
        busy.callback(None)
        self.assertEqual(self.found, [b"10", b"11"])
        self.clock.advance(0.5)
        self.settle(done)

    def test_the_longest_wait(self) -> None:
        self.write(P0, 1, 1_000_000, 1_000_001)
        done = self.replay(speed=1, longest_wait=5)
        self.clock.advance(5)
        self.assertEqual(len(self.found), 2)
        self.clock.advance(1)
        self.settle(done)

    def test_nothing_is_read_ahead_of_its_reader(self) -> None:
        self.write(P0, 1, 2, 3)
        read, reads = self.topics.engine.read, []

        def counting(partition: Partition, offset: int, size: int) -> Any:
            reads.append(offset)
            return read(partition, offset, size)

        self.patch(self.topics.engine, "read", counting)
        self.busy = Deferred()
        done = self.replay(max_bytes=1)
        self.assertEqual(reads, [0])
        self.busy.callback(None)
        self.settle(done)
        self.assertEqual(reads, [0, 1, 2])

    def test_what_is_dropped_meanwhile_is_left_out(self) -> None:
        self.write(P0, 1, 2, 3)
        self.busy = Deferred()
        done = self.replay(max_bytes=1)
        self.settle(self.topics.engine.drop_below(P0, 2))
        self.busy.callback(None)
        self.settle(done)
        self.assertEqual(self.found, [b"1", b"3"])

    def test_an_offset_that_cannot_be_read_ends_it(self) -> None:
        self.write(P0, 1)
        error = OffsetOutOfRange("t", 0, 0, low=0, high=1)
        self.patch(self.topics.engine, "read", lambda *_: Deferred.fromCoroutine(_raise(error)))
        self.failureResultOf(self.replay(), OffsetOutOfRange)

    def test_a_wait_can_be_cancelled(self) -> None:
        self.write(P0, 1, 100)
        done = self.replay(speed=1)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_groups_are_not_touched(self) -> None:
        self.write(P0, 1)
        self.settle(self.topics.engine.commit("g", {P0: 0}))
        self.settle(self.replay())
        self.assertEqual(self.settle(self.topics.engine.committed("g")), {P0: 0})
        self.assertEqual(self.settle(self.topics.engine.groups()), ["g"])


async def _raise(error: Exception) -> None:
    raise error
