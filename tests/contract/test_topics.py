"""What every engine of topics does.

An engine is added by a subclass of :class:`TopicsContract` that makes engines.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from kupool.storage.database import Database
from kupool.storage.probing import PROBE_DELAY
from kupool.topics.errors import (
    InvalidTopic,
    OffsetOutOfRange,
    SequenceTooOld,
    TopicExists,
    TopicsUnavailable,
    UnknownPartition,
    UnknownTopic,
)
from kupool.topics.interfaces import (
    Append,
    Content,
    DelayedBatch,
    DelayPlace,
    ITopicEngine,
    PartitionExtent,
    StoredBatch,
)
from kupool.topics.memory import BATCH_BYTES, MemoryTopics
from kupool.topics.partition import Partition
from kupool.topics.records import Stamp
from kupool.topics.settings import TopicSettings
from kupool.topics.sqlite import FLUSH_INTERVAL, LONGEST_PAUSE, SqliteTopics
from tests.servers.reactor import the_reactor

P0, P1 = Partition("t", 0), Partition("t", 1)


class TopicsContract:
    """Q-38: the suite; mixed into a TestCase by each engine."""

    #: Whether topics are still there for another engine on the same place.
    persistent = True
    #: The offsets that each batch takes; 0 if as many as it has records.
    stride = 0

    def at(self, batch: int, dense: int) -> int:
        """Return the offset of a partition's batch; ``dense`` without gaps between batches."""
        return batch * self.stride if self.stride else dense

    def holds(self, low: int, high: int, size: int) -> PartitionExtent:
        """Return what a partition holds, where sizes are known with its size."""
        return PartitionExtent(low, high, 0 if self.stride else size)

    def make_engine(self) -> Any:
        """Return an engine on a place of its own, or on that of the one before."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.now = 1_800_000_000.0
        self.opened: list[Any] = []

    def wall(self) -> float:
        return self.now

    async def engine(self, **settings: Any) -> Any:
        """Return an open engine with a topic ``t``."""
        engine = self.make_engine()
        self.opened.append(engine)
        await engine.open()
        if "t" not in engine.topics():
            await engine.create("t", TopicSettings(**{"partitions": 2, **settings}))
        return engine

    def tearDown(self) -> Any:
        return gatherResults([engine.close() for engine in self.opened])

    async def again(self, engine: Any) -> Any:
        """Close an engine, and return another one on its place."""
        await engine.close()
        return await self.engine()

    # -- topics

    async def test_interface(self) -> None:
        engine = await self.engine()
        self.assertTrue(verifyObject(ITopicEngine, engine))
        self.assertEqual(engine.capabilities.persistent, self.persistent)
        self.assertEqual(engine.capabilities.dense, not self.stride)
        self.assertEqual(engine.capabilities.stride, self.stride or 1)
        self.assertEqual(engine.problem(), "")

    async def test_topics_are_created_once(self) -> None:
        """Q-26, Q-27."""
        engine = await self.engine(retention_bytes=77)
        with self.assertRaisesRegex(TopicExists, "topic t exists already"):
            await engine.create("t", TopicSettings())
        both = [engine.create("u", TopicSettings()) for _ in range(2)]
        await both[0]
        with self.assertRaises(TopicExists):
            await both[1]
        self.assertEqual(
            engine.topics(),
            {"t": TopicSettings(partitions=2, retention_bytes=77), "u": TopicSettings()},
        )
        self.assertEqual(engine.topic("t"), TopicSettings(partitions=2, retention_bytes=77))
        self.assertIs(engine.topic("no"), None)

    async def test_a_topic_made_again_is_another_one(self) -> None:
        """W-75: so that a reader of the first one does not take the second one for it."""
        engine = await self.engine()
        first = engine.identity("t")
        self.assertTrue(first)
        self.assertEqual(engine.identity("none"), "")
        if engine.capabilities.persistent:
            engine = await self.again(engine)
            self.assertEqual(engine.identity("t"), first)
        await engine.delete("t")
        self.now += 1
        await engine.create("t", TopicSettings())
        self.assertNotEqual(engine.identity("t"), first)

    async def test_what_is_not_there_is_named(self) -> None:
        """Q-27."""
        engine = await self.engine()
        nowhere, third = Partition("no", 0), Partition("t", 2)
        for call in (
            lambda: engine.append([Append(nowhere, 1, b"x")]),
            lambda: engine.read(nowhere, 0, 100),
            lambda: engine.find(nowhere, 0),
            lambda: engine.extents("no"),
            lambda: engine.delete("no"),
            lambda: engine.change("no", TopicSettings()),
            lambda: engine.commit("g", {nowhere: 1}),
        ):
            with self.assertRaisesRegex(UnknownTopic, "there is no topic no"):
                await call()
        for call in (
            lambda: engine.append([Append(third, 1, b"x")]),
            lambda: engine.append([Append(Partition("t", -1), 1, b"x")]),
            lambda: engine.read(third, 0, 100),
            lambda: engine.find(third, 0),
            lambda: engine.commit("g", {third: 1}),
        ):
            with self.assertRaisesRegex(UnknownPartition, "has no partition (2|-1): it has 2"):
                await call()

    async def test_a_batch_keeps_its_time(self) -> None:
        """Q-37: one that is brought from elsewhere; times do not go back in a partition."""
        engine = await self.engine()
        for at in (1000, 3000, 2000, None):
            await engine.append([Append(P0, 1, b"x", at=at)])
        now = int(self.now * 1000)
        found = await engine.read(P0, 0, 100)
        self.assertEqual([batch.at for batch in found], [1000, 3000, 3000, now])
        self.assertEqual(await engine.find(P0, 1001), self.at(1, 1))

    async def test_a_deleted_topic_leaves_nothing(self) -> None:
        """Q-26: neither records, nor what groups and producers have of it, come back."""
        engine = await self.engine()
        await engine.append([Append(P0, 3, b"abc", Stamp("p", 1))])
        await engine.commit("g", {P0: 2})
        await engine.delete("t")
        self.assertEqual(engine.topics(), {})
        with self.assertRaises(UnknownTopic):
            await engine.read(P0, 0, 100)
        await engine.create("t", TopicSettings(partitions=2))
        self.assertEqual(await engine.extents("t"), [self.holds(0, 0, 0)] * 2)
        self.assertEqual(await engine.read(P0, 0, 100), [])
        self.assertEqual(await engine.committed("g"), {})
        self.assertEqual(await engine.append([Append(P0, 1, b"new", Stamp("p", 1))]), [0])
        self.assertEqual([b.body for b in await engine.read(P0, 0, 100)], [b"new"])

    async def test_partitions_are_added_and_never_removed(self) -> None:
        """Q-29."""
        engine = await self.engine(retention_time=9)
        await engine.append([Append(P1, 1, b"one")])
        changed = TopicSettings(partitions=3, retention_time=9, max_record=7)
        await engine.change("t", changed)
        self.assertEqual(engine.topics()["t"], changed)
        self.assertEqual(await engine.append([Append(Partition("t", 2), 1, b"two")]), [0])
        high = self.at(1, 1)
        self.assertEqual([e.high for e in await engine.extents("t")], [0, high, high])
        with self.assertRaisesRegex(InvalidTopic, "the topic has 3, none can be removed"):
            await engine.change("t", TopicSettings(partitions=2, retention_time=9))
        self.assertEqual(engine.topics()["t"].partitions, 3)

    async def test_retention_is_changed_where_a_trim_applies_it(self) -> None:
        """Q-11, Q-38: an engine of which the broker applies it says so."""
        engine = await self.engine(retention_time=9)
        changed = TopicSettings(partitions=2, retention_time=8)
        if engine.capabilities.trims:
            await engine.change("t", changed)
            self.assertEqual(engine.topic("t"), changed)
            return
        for settings in (changed, TopicSettings(partitions=2, retention_time=9, replicas=3)):
            with self.assertRaisesRegex(InvalidTopic, "keeps what it was made with"):
                await engine.change("t", settings)
        self.assertEqual(engine.topic("t").retention_time, 9)

    # -- append and read

    async def test_offsets_grow_in_each_partition(self) -> None:
        """Q-01, Q-02: without gaps in a dense engine."""
        engine = await self.engine()
        self.assertEqual(await engine.append([Append(P0, 3, b"a")]), [0])
        second, third = self.at(1, 3), self.at(2, 5)
        both = await engine.append([Append(P0, 2, b"b"), Append(P1, 7, b"c")])
        self.assertEqual(both, [second, 0])
        self.assertEqual(await engine.append([Append(P0, 1, b"d")]), [third])
        at = int(self.now * 1000)
        self.assertEqual(
            await engine.read(P0, 0, 100),
            [
                StoredBatch(0, 3, at, b"a"),
                StoredBatch(second, 2, at, b"b"),
                StoredBatch(third, 1, at, b"d"),
            ],
        )
        self.assertEqual(await engine.read(P1, 0, 100), [StoredBatch(0, 7, at, b"c")])
        self.assertEqual(
            await engine.extents("t"),
            [self.holds(0, self.at(3, 6), 3), self.holds(0, self.at(1, 7), 1)],
        )

    async def test_appends_under_way_keep_their_order(self) -> None:
        """Q-01, Q-06: reads between them change nothing."""
        engine = await self.engine()
        appends = []
        for number in range(300):
            appends.append(engine.append([Append(P0, 1, b"%d" % number)]))
            if number % 50 == 0:
                await engine.read(P0, 0, 10)
        offsets = [[self.at(number, number)] for number in range(300)]
        self.assertEqual(await gatherResults(appends), offsets)
        found = await engine.read(P0, 0, 10_000)
        self.assertEqual([b.body for b in found], [b"%d" % number for number in range(300)])

    async def test_a_read_begins_with_the_batch_of_its_offset(self) -> None:
        """Q-03."""
        engine = await self.engine()
        await engine.append([Append(P0, 3, b"a" * 10), Append(P0, 3, b"b" * 10)])
        await engine.append([Append(P0, 3, b"c" * 10)])
        bases = [0, self.at(1, 3), self.at(2, 6)]
        for batch, index, first in ((0, 0, 0), (0, 2, 0), (1, 0, 1), (1, 2, 1), (2, 2, 2)):
            offset = bases[batch] + index
            found = await engine.read(P0, offset, 1000)
            self.assertEqual([b.base for b in found], bases[first:], offset)
        # Behind the last record of a batch is the next batch.
        for batch in range(2):
            found = await engine.read(P0, bases[batch] + 3, 1000)
            self.assertEqual([b.base for b in found], bases[batch + 1 :])

    async def test_a_read_returns_whole_batches_up_to_a_size(self) -> None:
        """Q-03: the first one whatever its size."""
        engine = await self.engine()
        for body in (b"a" * 10, b"b" * 10, b"c" * 10):
            await engine.append([Append(P0, 1, body)])
        for size, count in ((1, 1), (10, 1), (19, 1), (20, 2), (29, 2), (30, 3), (1000, 3)):
            self.assertEqual(len(await engine.read(P0, 0, size)), count, size)

    async def test_behind_the_last_record_there_is_nothing(self) -> None:
        """Q-04."""
        engine = await self.engine()
        self.assertEqual(await engine.read(P0, 0, 100), [])
        await engine.append([Append(P0, 2, b"a")])
        self.assertEqual(await engine.read(P0, 2, 100), [])
        self.assertEqual(await engine.read(P0, self.at(99, 99), 100), [])
        self.assertEqual(len(await engine.read(P0, 1, 100)), 1)

    async def test_below_the_oldest_record_the_range_is_told(self) -> None:
        """Q-04."""
        engine = await self.engine()
        await engine.append([Append(P0, 2, b"a"), Append(P0, 2, b"b")])
        await engine.drop_below(P0, self.at(1, 2))
        low, high = self.at(1, 2), self.at(2, 4)
        text = f"no offset 1: read from {low} .* to {high}"
        with self.assertRaisesRegex(OffsetOutOfRange, text) as caught:
            await engine.read(P0, 1, 100)
        self.assertEqual((caught.exception.low, caught.exception.high), (low, high))
        with self.assertRaises(OffsetOutOfRange):
            await engine.read(P0, -1, 100)
        self.assertEqual([b.base for b in await engine.read(P0, low, 100)], [low])

    async def test_one_bad_batch_keeps_the_others_away(self) -> None:
        """Q-53: all or none."""
        engine = await self.engine()
        if not engine.capabilities.atomic:
            return
        for number in range(1, 7):
            await engine.append([Append(P1, 1, b"x", Stamp("p", number))])
        with self.assertRaises(SequenceTooOld):
            await engine.append([Append(P0, 1, b"a"), Append(P1, 1, b"b", Stamp("p", 0))])
        self.assertEqual(await engine.append([Append(P0, 1, b"c")]), [0])
        self.assertEqual([b.body for b in await engine.read(P0, 0, 100)], [b"c"])

    async def test_records_are_found_by_time(self) -> None:
        """Q-17: also when the clock was set back between them."""
        engine = await self.engine()
        start = int(self.now * 1000)
        self.assertEqual(await engine.find(P0, 0), 0)
        for step in (0, 10, 5, 20):  # the third one counts as appended at 10
            self.now = 1_800_000_000.0 + step
            await engine.append([Append(P0, 4, b"x")])
        times = {-1: 0, 0: 0, 1: 1, 10_000: 1, 10_001: 3, 20_000: 3, 20_001: 4}
        for after, batch in times.items():
            offset = self.at(batch, 4 * batch)
            self.assertEqual(await engine.find(P0, start + after), offset, after)

    # -- producers

    async def test_a_batch_sent_again_keeps_its_offset(self) -> None:
        """Q-24: for the newest five of a producer; gaps and other producers do not matter."""
        engine = await self.engine()
        for sequence, batch in ((1, 0), (2, 1), (5, 2), (6, 3), (7, 4), (1, 0), (5, 2)):
            found = await engine.append([Append(P0, 1, b"x", Stamp("p", sequence))])
            self.assertEqual(found, [self.at(batch, batch)], sequence)
        fifth = [self.at(5, 5)]
        self.assertEqual(await engine.append([Append(P0, 1, b"x", Stamp("q", 1))]), fifth)
        self.assertEqual(await engine.append([Append(P1, 1, b"x", Stamp("p", 1))]), [0])
        sixth = [self.at(6, 6)]
        self.assertEqual(await engine.append([Append(P0, 1, b"x", Stamp("p", 8))]), sixth)
        with self.assertRaisesRegex(SequenceTooOld, "p sent sequence 1 again, the oldest .* is 2"):
            await engine.append([Append(P0, 1, b"x", Stamp("p", 1))])
        first = [self.at(1, 1)]
        self.assertEqual(await engine.append([Append(P0, 1, b"x", Stamp("p", 2))]), first)
        self.assertEqual((await engine.extents("t"))[0].high, self.at(7, 7))

    async def test_a_batch_sent_again_with_the_first_is_appended_once(self) -> None:
        """Q-24."""
        engine = await self.engine()
        both = [Append(P0, 2, b"x", Stamp("p", 1))] * 2
        self.assertEqual(await engine.append(both), [0, 0])
        self.assertEqual((await engine.extents("t"))[0].high, self.at(1, 2))

    async def test_a_repeated_content_is_dropped(self) -> None:
        """Q-23: within a window of offsets and of time; each partition by itself."""
        engine = await self.engine()

        async def append(digest: bytes, partition: Partition = P0, *, count: int = 3) -> int:
            content = Content(digest, count, 10)
            (base,) = await engine.append([Append(partition, 1, b"x", content=content)])
            return int(base) // (self.stride or 1)

        found = [await append(digest) for digest in (b"a", b"b", b"a", b"c", b"a")]
        self.assertEqual(found, [0, 1, 0, 2, 0])
        self.assertEqual(await append(b"d"), 3)
        self.assertEqual(await append(b"a"), 4)  # three others are between
        self.assertEqual(await append(b"a"), 4)
        self.assertEqual(await append(b"a", P1), 0)
        self.now += 10
        self.assertEqual(await append(b"a"), 4)
        self.now += 0.001
        self.assertEqual(await append(b"a"), 5)
        found = [await append(digest) for digest in (b"b", b"c", b"a", b"d", b"a")]
        self.assertEqual(found, [6, 7, 5, 8, 9])
        self.assertEqual((await engine.extents("t"))[0].high, self.at(10, 10))

    async def test_a_window_without_a_limit(self) -> None:
        """Q-23."""
        engine = await self.engine()
        for number in range(50):
            await engine.append([Append(P0, 1, b"x", content=Content(b"%d" % number, 0, 0))])
            self.now += 1000
        again = await engine.append([Append(P0, 1, b"x", content=Content(b"0", 0, 0))])
        self.assertEqual(again, [0])

    async def test_repeated_contents_of_one_order(self) -> None:
        """Q-23, Q-24: with and without a stamp; an order that fails leaves nothing."""
        engine = await self.engine()
        one = Append(P0, 1, b"x", content=Content(b"a", 9, 9))
        self.assertEqual(await engine.append([one, one]), [0, 0])
        stamped = one._replace(stamp=Stamp("p", 1))
        self.assertEqual(await engine.append([stamped]), [0])
        self.assertEqual(await engine.append([stamped]), [0])
        if engine.capabilities.atomic:
            for number in range(2, 8):
                await engine.append([Append(P1, 1, b"x", Stamp("p", number))])
            other = one._replace(content=Content(b"b", 9, 9))
            with self.assertRaises(SequenceTooOld):
                await engine.append([other, Append(P1, 1, b"x", Stamp("p", 1))])
            self.assertEqual(await engine.append([other]), [1])

    # -- retention

    async def nothing_is_trimmed(self, engine: Any) -> None:
        """Q-11, Q-38: an engine of which the broker applies the retention trims nothing."""
        await engine.append([Append(P0, 2, b"x" * 10), Append(P0, 2, b"x" * 10)])
        self.assertEqual([await engine.trim(now) for now in (self.now, self.now + 1e6)], [0, 0])
        self.assertEqual(len(await engine.read(P0, 0, 100)), 2)

    async def test_the_oldest_batches_above_a_size_are_dropped(self) -> None:
        """Q-11."""
        engine = await self.engine(retention_bytes=30)
        if not engine.capabilities.trims:
            await self.nothing_is_trimmed(engine)
            return
        for _ in range(5):
            await engine.append([Append(P0, 2, b"x" * 10)])
        await engine.append([Append(P1, 2, b"x" * 30)])
        self.assertEqual(await engine.trim(self.now), 4)
        self.assertEqual(
            await engine.extents("t"), [PartitionExtent(4, 10, 30), PartitionExtent(0, 2, 30)]
        )
        self.assertEqual(await engine.trim(self.now), 0)

    async def test_the_newest_batch_stays(self) -> None:
        """Q-11: so offsets go on behind it."""
        engine = await self.engine(retention_bytes=1, retention_time=10)
        if not engine.capabilities.trims:
            await self.nothing_is_trimmed(engine)
            return
        await engine.append([Append(P0, 2, b"x" * 10)])
        await engine.trim(self.now)
        await engine.trim(self.now + 100)
        self.assertEqual((await engine.extents("t"))[0], PartitionExtent(0, 2, 10))
        self.assertEqual(await engine.append([Append(P0, 1, b"y")]), [2])

    async def test_old_batches_are_dropped(self) -> None:
        """Q-11: the age begins with the first trim that finds a batch."""
        engine = await self.engine(retention_time=100, retention_bytes=0)
        if not engine.capabilities.trims:
            await self.nothing_is_trimmed(engine)
            return
        await engine.append([Append(P0, 1, b"a"), Append(P1, 1, b"b")])
        await engine.trim(1000)
        await engine.append([Append(P0, 1, b"c")])
        self.assertEqual(await engine.trim(1099), 0)
        await engine.append([Append(P0, 1, b"d")])
        self.assertEqual(await engine.trim(1100), 1)
        self.assertEqual((await engine.extents("t"))[0], PartitionExtent(1, 3, 2))
        self.assertEqual(await engine.trim(1198), 0)
        self.assertEqual(await engine.trim(1199), 1)
        self.assertEqual([e.low for e in await engine.extents("t")], [2, 0])

    async def test_a_clock_that_is_set_back_drops_nothing(self) -> None:
        """Q-11."""
        engine = await self.engine(retention_time=100)
        if not engine.capabilities.trims:
            await self.nothing_is_trimmed(engine)
            return
        await engine.append([Append(P0, 1, b"a"), Append(P0, 1, b"b")])
        await engine.trim(1000)
        self.assertEqual(await engine.trim(10), 0)
        self.assertEqual(await engine.trim(109), 0)
        self.assertEqual(await engine.trim(110), 1)

    async def test_nothing_is_dropped_without_limits(self) -> None:
        engine = await self.engine(retention_time=0)
        if not engine.capabilities.trims:
            await self.nothing_is_trimmed(engine)
            return
        await engine.append([Append(P0, 1, b"a" * 1000), Append(P0, 1, b"b")])
        self.assertEqual([await engine.trim(now) for now in (0, 1e9)], [0, 0])

    async def test_many_batches_are_dropped_in_one_trim(self) -> None:
        """Q-11: however many parts it takes."""
        engine = await self.engine(retention_bytes=5)
        if not engine.capabilities.trims:
            await self.nothing_is_trimmed(engine)
            return
        await gatherResults([engine.append([Append(P0, 3, b"x")]) for _ in range(1005)])
        self.assertEqual(await engine.trim(self.now), 3000)
        self.assertEqual((await engine.extents("t"))[0], PartitionExtent(3000, 3015, 5))

    async def test_what_is_below_an_offset_is_dropped(self) -> None:
        """Q-51: whole batches; offsets go on behind the last one, also if nothing is left."""
        engine = await self.engine()
        await gatherResults([engine.append([Append(P0, 3, b"x")]) for _ in range(450)])
        await engine.append([Append(P1, 3, b"y")])
        one, end = self.at(1, 3), self.at(450, 1350)
        self.assertEqual(await engine.drop_below(P0, one + 2), 3)
        self.assertEqual((await engine.extents("t"))[0], self.holds(one, end, 449))
        self.assertEqual(await engine.drop_below(P0, one + 2), 0)
        self.assertEqual(await engine.drop_below(P0, end), 1347)
        self.assertEqual(
            await engine.extents("t"), [self.holds(end, end, 0), self.holds(0, one, 1)]
        )
        self.assertEqual(await engine.read(P0, end, 100), [])
        with self.assertRaises(OffsetOutOfRange):
            await engine.read(P0, end - 1, 100)
        self.assertEqual(await engine.append([Append(P0, 1, b"z")]), [end])
        with self.assertRaises(UnknownPartition):
            await engine.drop_below(Partition("t", 2), 1)
        with self.assertRaises(UnknownTopic):
            await engine.drop_below(Partition("no", 0), 1)

    # -- delays

    async def test_delayed_batches(self) -> None:
        """Q-52: appended when they are due, in that order; queried and cancelled before."""
        engine = await self.engine()
        self.assertIs(await engine.next_due(), None)
        late = await engine.delay([Append(P0, 2, b"late")], 2000)
        both = await engine.delay([Append(P0, 1, b"a"), Append(P1, 3, b"b")], 1000)
        cancelled = await engine.delay([Append(P0, 1, b"x")], 500)
        self.assertEqual(len({*late, *both, *cancelled}), 4)
        self.assertEqual(await engine.next_due(), 500)
        await engine.create("other", TopicSettings())
        self.assertFalse(await engine.cancel("other", cancelled[0]))
        self.assertTrue(await engine.cancel("t", cancelled[0]))
        self.assertFalse(await engine.cancel("t", cancelled[0]))
        with self.assertRaises(UnknownTopic):
            await engine.cancel("no", both[0])
        second = await engine.delayed("t", DelayPlace(1000, both[1]), 1)
        self.assertEqual([each.delay_id for each in second], [both[1]])
        self.assertEqual(
            list(await engine.delayed("t")),
            [
                DelayedBatch(both[0], 1000, P0, 1),
                DelayedBatch(both[1], 1000, P1, 3),
                DelayedBatch(late[0], 2000, P0, 2),
            ],
        )
        self.assertEqual(await engine.append_due(999), {})
        self.assertEqual(await engine.read(P0, 0, 100), [])
        self.assertEqual(await engine.append_due(1000), {P0: 1, P1: 3})
        self.assertFalse(await engine.cancel("t", both[0]))
        self.assertEqual(await engine.append_due(5000), {P0: 2})
        self.assertEqual(await engine.append_due(5000), {})
        found = await engine.read(P0, 0, 100)
        self.assertEqual([(b.base, b.body) for b in found], [(0, b"a"), (self.at(1, 1), b"late")])
        self.assertEqual((await engine.extents("t"))[1], self.holds(0, self.at(1, 3), 1))
        self.assertEqual(list(await engine.delayed("t")), [])

    async def test_those_due_first_are_first(self) -> None:
        """Q-52: and in parts, however many are due."""
        engine = await self.engine()
        await gatherResults(
            [engine.delay([Append(P0, 1, b"%d" % due)], due) for due in range(450, 0, -1)]
        )
        self.assertEqual(await engine.append_due(10_000), {P0: 450})
        found = await engine.read(P0, 0, 100_000)
        self.assertEqual([b.body for b in found], [b"%d" % due for due in range(1, 451)])

    async def test_what_cannot_be_delayed(self) -> None:
        engine = await self.engine()
        with self.assertRaisesRegex(ValueError, "cannot have a stamp"):
            await engine.delay([Append(P0, 1, b"a"), Append(P0, 1, b"a", Stamp("p", 1))], 1)
        with self.assertRaises(UnknownPartition):
            await engine.delay([Append(P0, 1, b"a"), Append(Partition("t", 2), 1, b"a")], 1)
        with self.assertRaises(UnknownTopic):
            await engine.delay([Append(Partition("no", 0), 1, b"a")], 1)
        with self.assertRaises(UnknownTopic):
            await engine.delayed("no")
        self.assertIs(await engine.next_due(), None)

    async def test_a_deleted_topic_takes_its_delayed_batches_along(self) -> None:
        engine = await self.engine()
        await engine.create("u", TopicSettings())
        await engine.delay([Append(P0, 1, b"a"), Append(Partition("u", 0), 1, b"b")], 1)
        await engine.delete("t")
        self.assertEqual(await engine.append_due(10), {Partition("u", 0): 1})

    # -- groups

    async def test_positions_of_groups(self) -> None:
        """Q-41, Q-45."""
        engine = await self.engine()
        self.assertEqual(await engine.committed("g"), {})
        await engine.commit("g", {})
        self.assertEqual(await engine.groups(), [])
        await engine.commit("g", {P0: 5, P1: 2})
        await engine.commit("h", {P1: 1})
        await engine.commit("g", {P0: 3})
        self.assertEqual(await engine.committed("g"), {P0: 3, P1: 2})
        self.assertEqual(await engine.groups(), ["g", "h"])
        await engine.forget_group("g")
        self.assertEqual(await engine.committed("g"), {})
        self.assertEqual(await engine.groups(), ["h"])

    async def test_a_commit_is_all_or_none(self) -> None:
        engine = await self.engine()
        with self.assertRaises(UnknownPartition):
            await engine.commit("g", {P0: 5, Partition("t", 9): 2})
        self.assertEqual(await engine.committed("g"), {})

    async def test_generations_are_never_used_twice(self) -> None:
        """Q-46: not even by a group that was forgotten."""
        engine = await self.engine()
        self.assertEqual([await engine.next_generation("g") for _ in range(3)], [1, 2, 3])
        await engine.commit("g", {P0: 1})
        await engine.forget_group("g")
        self.assertEqual(await engine.next_generation("g"), 4)
        self.assertEqual(await engine.next_generation("h"), 1)

    async def test_everything_is_there_after_a_restart(self) -> None:
        """Q-06, Q-11, Q-24, Q-45, Q-46."""
        engine = await self.engine(retention_time=100)
        if not engine.capabilities.persistent:
            return
        await engine.append([Append(P0, 2, b"a", Stamp("p", 4)), Append(P0, 1, b"b")])
        await engine.append([Append(P1, 3, b"c", content=Content(b"c", 9, 0))])
        await engine.commit("g", {P1: 2})
        await engine.next_generation("g")
        await engine.trim(1000)
        await engine.trim(1060)
        await engine.drop_below(P1, self.at(1, 3))
        (first,) = await engine.delay([Append(P1, 1, b"due")], 1)
        before = await engine.extents("t"), engine.topics()
        engine = await self.again(engine)
        self.assertEqual((await engine.extents("t"), engine.topics()), before)
        self.assertEqual([b.body for b in await engine.read(P0, 0, 100)], [b"a", b"b"])
        self.assertEqual(await engine.append([Append(P0, 2, b"a", Stamp("p", 4))]), [0])
        self.assertEqual(await engine.append([Append(P0, 1, b"d")]), [self.at(2, 3)])
        repeated = Append(P1, 3, b"c", content=Content(b"c", 9, 0))
        self.assertEqual(await engine.append([repeated]), [0])
        self.assertEqual(await engine.committed("g"), {P1: 2})
        self.assertEqual(await engine.next_generation("g"), 2)
        # The time between two processes makes nothing older; 40 seconds more do.
        if engine.capabilities.trims:
            self.assertEqual(await engine.trim(900_000), 0)
            self.assertEqual(await engine.trim(900_039), 0)
            self.assertEqual(await engine.trim(900_040), 3)
        self.assertEqual(await engine.append_due(5), {P1: 1})
        self.assertEqual(await engine.append([Append(P1, 1, b"e")]), [self.at(2, 4)])
        (second,) = await engine.delay([Append(P1, 1, b"due")], 1)
        self.assertGreater(second, first)


class MemoryTopicsTests(TopicsContract, TestCase):
    """The engine in memory."""

    persistent = False

    def make_engine(self) -> MemoryTopics:
        return MemoryTopics(self.wall)

    async def test_a_full_memory_takes_nothing_until_there_is_room(self) -> None:
        """Q-15."""
        engine = MemoryTopics(self.wall, capacity=3 * (BATCH_BYTES + 10))
        await engine.create("t", TopicSettings(retention_bytes=10))
        for _ in range(3):
            await engine.append([Append(P0, 1, b"x" * 10)])
        self.assertEqual(engine.problem(), "")
        with self.assertRaisesRegex(TopicsUnavailable, "memory of topics is full"):
            await engine.append([Append(P0, 1, b"x")])
        self.assertIn("full", engine.problem())
        self.assertEqual(len(await engine.read(P0, 0, 100)), 3)
        await engine.trim(self.now)
        self.assertEqual(engine.problem(), "")
        self.assertEqual(await engine.append([Append(P0, 1, b"x")]), [3])

    async def test_what_is_delayed_takes_memory(self) -> None:
        """Q-15, Q-52: and has room when it is due."""
        engine = MemoryTopics(self.wall, capacity=3 * (BATCH_BYTES + 10))
        await engine.create("t", TopicSettings())
        ids = [(await engine.delay([Append(P0, 1, b"x" * 10)], 1000))[0] for _ in range(3)]
        for late in (
            engine.delay([Append(P0, 1, b"x")], 1000),
            engine.append([Append(P0, 1, b"x")]),
        ):
            with self.assertRaisesRegex(TopicsUnavailable, "memory of topics is full"):
                await late
        await engine.cancel("t", ids[0])
        self.assertEqual(await engine.append([Append(P0, 1, b"x")]), [0])
        self.assertEqual(await engine.append_due(1000), {P0: 2})


class SlowClock:
    """A clock on which pieces of work take these times, and others none; nobody waits for it."""

    def __init__(self, *durations: float) -> None:
        self._durations = list(durations)
        self._now = 0.0
        self._looks = 0
        self.waits: list[float] = []

    def seconds(self) -> float:
        """Return the time; every second look is at the end of a piece of work."""
        self._looks += 1
        if self._looks % 2 == 0 and self._durations:
            self._now += self._durations.pop(0)
        return self._now

    def callLater(self, delay: float, call: Any, *values: Any) -> Any:
        """Note the delay, and call at once."""
        self.waits.append(round(delay, 6))
        return the_reactor().callLater(0, call, *values)


class SqliteTopicsTests(TopicsContract, TestCase):
    """The engine in a SQLite file."""

    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp())
        self.clock = Clock()

    def make_engine(self) -> SqliteTopics:
        self.database = Database(the_reactor(), self.path, "topics")
        return SqliteTopics(self.database, self.clock, self.wall)

    def rows(self, sql: str) -> list[Any]:
        """Return what another process would find in the file."""
        with sqlite3.connect(self.path) as connection:
            found = connection.execute(sql).fetchall()
        connection.close()
        return found

    async def test_a_caller_that_gives_up(self) -> None:
        """Q-26: what it asked for is done, and the engine knows what the file has."""
        engine = await self.engine()
        for asked in (
            engine.create("u", TopicSettings()),
            engine.change("t", TopicSettings(partitions=3)),
        ):
            asked.cancel()
            with self.assertRaises(CancelledError):
                await asked
        await engine.next_generation("g")  # behind them
        self.assertEqual(sorted(engine.topics()), ["t", "u"])
        self.assertEqual(engine.topic("t"), TopicSettings(partitions=3))
        asked = engine.delete("u")
        asked.cancel()
        with self.assertRaises(CancelledError):
            await asked
        await engine.next_generation("g")
        self.assertEqual(sorted(engine.topics()), ["t"])
        await engine.create("u", TopicSettings())

    async def test_a_deleted_topic_frees_its_storage(self) -> None:
        """Q-26: its records and the ids of its partitions, also after a kill in the middle."""
        engine = await self.engine()
        await gatherResults([engine.append([Append(P0, 1, b"x")]) for _ in range(450)])
        await engine.append([Append(P1, 1, b"y")])
        await engine.trim(0)
        await engine.delete("t")
        for table in ("batches", "ages", "deleted_partitions", "partitions"):
            self.assertEqual(self.rows(f"SELECT count(*) FROM {table}"), [(0,)], table)
        await engine.create("u", TopicSettings(partitions=2))
        self.assertEqual(self.rows("SELECT id FROM partitions"), [(1,), (2,)])
        # As a killed process leaves it: deleted, and the records not removed yet.
        await engine.append([Append(Partition("u", 1), 1, b"z")])
        await engine.close()
        with sqlite3.connect(self.path) as connection:
            connection.execute("PRAGMA foreign_keys=OFF")
            connection.execute("DELETE FROM partitions")
            connection.execute("DELETE FROM topics")
            connection.execute("INSERT INTO deleted_partitions VALUES (1), (2)")
        connection.close()
        engine = await self.engine()
        await engine.next_generation("g")  # behind the removal
        self.assertEqual(self.rows("SELECT count(*) FROM batches"), [(0,)])

    async def test_a_full_partition_delays_no_other_batch(self) -> None:
        """Q-52: what it cannot take stays delayed by another day."""
        engine = await self.engine()
        (full,) = await engine.delay([Append(P0, 2, b"a")], 1000)
        await engine.delay([Append(P1, 1, b"b")], 2000)
        last = (1 << 43) - 1
        await self.database.run(
            lambda c: c.execute("UPDATE partitions SET next = ? WHERE id = 1", (last,)).rowcount
        )
        with capturedLogs() as events:
            self.assertEqual(await engine.append_due(3000), {P1: 1})
        self.assertEqual(
            list(await engine.delayed("t")), [DelayedBatch(full, 3000 + 86_400_000, P0, 2)]
        )
        self.assertIn(
            "2 delayed records stay delayed by another day: partition t/0",
            str([formatEvent(event) for event in events]),
        )

    async def test_half_of_the_time_is_for_those_who_append(self) -> None:
        """Q-11: after each part that is dropped the engine waits as long as that took."""
        engine = await self.engine(retention_bytes=1)
        await gatherResults([engine.append([Append(P0, 1, b"x")]) for _ in range(50)])
        slow = SlowClock(0.03, 9.0)
        self.patch(engine, "_clock", slow)
        self.assertEqual(await engine.trim(self.now), 49)
        self.assertEqual(slow.waits, [0.03, LONGEST_PAUSE])

    async def test_when_a_topic_was_created(self) -> None:
        await self.engine()
        self.assertEqual(
            self.rows("SELECT name, created_at FROM topics"), [("t", 1_800_000_000_000)]
        )

    async def test_contents_that_are_too_old_are_forgotten(self) -> None:
        """Q-25: no more are kept than the window has, nor after it has become smaller."""
        engine = await self.engine()
        for count in (50, 5):
            for number in range(60):
                content = Content(b"%d/%d" % (count, number), count, 0)
                await engine.append([Append(P0, 1, b"x", content=content)])
            self.assertEqual(self.rows("SELECT count(*) FROM contents"), [(count,)])

    async def test_while_records_are_removed_their_place_is_not_used(self) -> None:
        """Q-26: a topic created meanwhile gets other partitions."""
        engine = await self.engine()
        await engine.append([Append(P0, 1, b"old")])
        gone = engine.delete("t")
        created = engine.create("t", TopicSettings())
        await created
        self.assertEqual(await engine.read(P0, 0, 100), [])
        await gone
        self.assertEqual(await engine.append([Append(P0, 1, b"new")]), [0])
        self.assertEqual([b.body for b in await engine.read(P0, 0, 100)], [b"new"])

    async def test_a_disk_that_takes_nothing(self) -> None:
        """Q-15: a clear error, reads go on, and so do appends once there is room."""
        engine = await self.engine()
        await engine.append([Append(P0, 1, b"a")])
        await self.database.run(lambda c: c.execute("PRAGMA max_page_count=1").fetchone())
        with self.assertRaisesRegex(TopicsUnavailable, "full"):
            await engine.append([Append(P0, 1, b"b" * 100_000)])
        self.assertIn("full", engine.problem())
        self.assertEqual([b.body for b in await engine.read(P0, 0, 100)], [b"a"])
        await self.database.run(lambda c: c.execute("PRAGMA max_page_count=1000000").fetchone())
        self.assertEqual(await engine.append([Append(P0, 1, b"c")]), [1])
        self.assertEqual(engine.problem(), "")

    async def test_a_disk_that_takes_something_again(self) -> None:
        """Q-15: that is noticed though nobody appends, as they do not to what is not ready."""
        engine = await self.engine()
        await self.database.run(lambda c: c.execute("PRAGMA max_page_count=1").fetchone())
        with self.assertRaises(TopicsUnavailable):
            await engine.append([Append(P0, 1, b"b" * 100_000)])
        await self.database.run(lambda c: c.execute("PRAGMA max_page_count=1000000").fetchone())
        self.assertIn("full", engine.problem())
        self.clock.advance(PROBE_DELAY)
        await self.database.run(lambda c: None)
        self.assertEqual(engine.problem(), "")

    async def test_a_closed_engine_does_not_look_again(self) -> None:
        engine = await self.engine()
        await self.database.run(lambda c: c.execute("PRAGMA max_page_count=1").fetchone())
        with self.assertRaises(TopicsUnavailable):
            await engine.append([Append(P0, 1, b"b" * 100_000)])
        await engine.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_only_commits_that_have_to_wait_for_the_disk(self) -> None:
        """Q-10: always; within five seconds; when the system likes."""
        engine = await self.engine(durability="os")
        await engine.create("soon", TopicSettings(durability="interval"))
        await engine.create("now", TopicSettings(durability="always"))
        waits: list[int] = []

        def note(connection: sqlite3.Connection) -> None:
            waits.append(connection.execute("PRAGMA synchronous").fetchone()[0])

        async def append(topic: str) -> int:
            """Append to a topic; returns how the commit waited: 1 NORMAL, 2 FULL."""
            await engine.append([Append(Partition(topic, 0), 1, b"x")])
            await self.database.run(note, durable=self.database_waits())
            return waits[-1]

        self.assertEqual(await append("t"), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(await append("now"), 2)
        self.assertEqual(await append("soon"), 1)
        await append("soon")
        self.assertEqual([call.getTime() for call in self.clock.getDelayedCalls()], [5.0])
        self.clock.advance(FLUSH_INTERVAL)
        await self.database.run(note, durable=self.database_waits())
        self.assertEqual(waits[-1], 2)

    async def test_how_late_they_are_on_the_disk(self) -> None:
        """Q-10: ``flush_interval`` is a setting."""
        self.make_engine()
        engine = SqliteTopics(self.database, self.clock, self.wall, flush_interval=2.0)
        self.opened.append(engine)
        await engine.open()
        await engine.create("soon", TopicSettings(durability="interval"))
        await engine.append([Append(Partition("soon", 0), 1, b"x")])
        self.assertEqual([call.getTime() for call in self.clock.getDelayedCalls()], [2.0])

    async def test_a_changed_durability_counts_at_once(self) -> None:
        """Q-10."""
        engine = await self.engine(durability="os")
        for durability, waits in (("os", False), ("always", True), ("os", False)):
            await engine.change("t", TopicSettings(partitions=2, durability=durability))
            await engine.append([Append(P0, 1, b"x")])
            self.assertEqual(self.database_waits(), waits)

    def database_waits(self) -> bool:
        """Whether the last commit waited for the disk: a look must not change that."""
        return self.database._waits

    async def test_a_damaged_file_is_refused_by_name(self) -> None:
        """Q-08: a file whose first page is not that of a database."""
        engine = await self.engine()
        await engine.append([Append(P0, 1, b"a" * 10_000)])
        await engine.close()
        self.opened.clear()
        data = bytearray(self.path.read_bytes())
        data[:100] = b"\xff" * 100
        self.path.write_bytes(data)
        with self.assertRaisesRegex(Exception, f"{self.path.name} is damaged"):
            await self.make_engine().open()

    async def test_readers_do_not_wait_for_the_writer(self) -> None:
        """Q-07, Q-16: a read is answered while a transaction is under way."""
        engine = await self.engine()
        await engine.append([Append(P0, 1, b"a")])
        hold = threading.Event()
        held = self.database.run(lambda connection: hold.wait(60))
        try:
            self.assertEqual([b.body for b in await engine.read(P0, 0, 100)], [b"a"])
            self.assertFalse(held.called)
        finally:
            hold.set()
        await held
