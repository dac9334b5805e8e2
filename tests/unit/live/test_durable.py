"""A durable channel whose storage fails, is slow, or loses what nobody has read."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.breaker import BreakerLimits, BreakerState
from kupool.live.durable import (
    READ_WAIT,
    DurableHistory,
    failure_of,
    publication_of,
    record_of,
    topic_breaker,
)
from kupool.live.failures import (
    HistoryUnavailable,
    InvalidPublication,
    SinkUnavailable,
    TopicUnusable,
)
from kupool.live.publications import StreamPosition
from kupool.topics.errors import ReservedTopic
from kupool.topics.interfaces import Append
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Record
from kupool.topics.settings import TopicSettings
from tests.fakes.live import SlowEngine, new, offsets, topics_on


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.engine = SlowEngine(self.clock.seconds)
        self.engine.create("t", TopicSettings())
        self.topics = topics_on(self.engine, self.clock, self.clock.seconds)
        self.store = DurableHistory(
            self.topics,
            Partition("t", 0),
            "e",
            clock=self.clock,
            wall=self.clock.seconds,
            breaker=topic_breaker("t", self.clock, BreakerLimits()),
        )
        self.heard: list[Any] = []
        self.skipped: list[int] = []
        #: What the one who follows makes the store wait for.
        self.busy: Deferred[None] | None = None

    def hear(self, record: Any) -> Deferred[None] | None:
        self.heard.append(record)
        return self.busy

    def follow(self) -> StreamPosition:
        return self.successResultOf(self.store.follow(self.hear, self.skipped.append))


class FailureTests(Case):
    """W-75: a storage that fails."""

    def test_the_publisher_hears_of_it(self) -> None:
        self.follow()
        self.engine.broken = OSError("disk full")
        failure = self.failureResultOf(self.store.append(new(1)), HistoryUnavailable)
        self.assertIn("disk full", str(failure.value))
        for call in (self.store.position(), self.store.after(0, 1), self.store.count_after(0)):
            self.failureResultOf(call, HistoryUnavailable)
        for call in (self.store.newest(1), self.store.forget()):
            self.failureResultOf(call, HistoryUnavailable)
        self.failureResultOf(self.store.follow(self.hear, self.hear), HistoryUnavailable)
        self.assertEqual(self.heard, [])

    def test_a_topic_that_does_not_exist(self) -> None:
        """W-75: who uses the channel is told which topic to create, and does not try again."""
        self.engine.delete("t")
        calls = (
            lambda: self.store.append(new(1)),
            self.store.position,
            lambda: self.store.after(0, 1),
            lambda: self.store.follow(self.hear, self.hear),
        )
        for call in calls:
            error = self.failureResultOf(call(), TopicUnusable).value
            self.assertEqual(str(error), "there is no topic t: create it first")
            self.assertFalse(error.temporary)

    def test_a_topic_of_the_daemon_itself(self) -> None:
        """W-75: nobody else publishes to the channel of the submissions, and the error says so."""
        self.assertIsInstance(failure_of(ReservedTopic("submissions")), TopicUnusable)

    def test_reading_is_tried_again(self) -> None:
        """What is written meanwhile comes late, and not at all twice."""
        self.follow()
        self.engine.broken = OSError("gone")
        self.clock.advance(READ_WAIT)  # the read that waits ends, and the next one fails
        self.clock.advance(0.1)
        self.engine.broken = None
        published = self.store.append(new(1))
        self.assertNoResult(published)
        self.clock.advance(0.2)
        self.assertEqual(self.successResultOf(published).offset, 1)
        self.assertEqual(offsets(self.heard), [1])
        self.store.unfollow()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_end_while_it_waits_to_try_again(self) -> None:
        self.follow()
        self.engine.broken = OSError("gone")
        self.clock.advance(READ_WAIT)
        self.store.unfollow()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_records_that_are_lost_before_they_were_read(self) -> None:
        """Those who published are told, and the channel that it has missed some."""
        self.follow()
        self.engine.slow = True
        published = self.store.append(new(1))
        self.engine.drop_below(Partition("t", 0), 1)
        self.engine.slow = False
        self.engine.answer()
        self.assertEqual(self.successResultOf(published).offset, 1)
        self.assertEqual((self.skipped, self.heard), ([1], []))
        self.store.append(new(2))
        self.assertEqual(offsets(self.heard), [2])


class BreakerOfTopicTests(Case):
    """W-46: a topic that fails or hangs is not written to for a while."""

    def setUp(self) -> None:
        super().setUp()
        self.breaker = topic_breaker("t", self.clock, BreakerLimits(failures=2, timeout=10.0))
        self.stores = [
            DurableHistory(
                self.topics,
                Partition("t", 0),
                "e",
                clock=self.clock,
                wall=self.clock.seconds,
                breaker=self.breaker,
            )
            for _ in range(2)
        ]

    def test_a_topic_that_fails(self) -> None:
        """All channels of the topic are refused at once then, until it works again."""
        self.engine.broken = OSError("disk full")
        for store in self.stores:
            self.failureResultOf(store.append(new(1)), HistoryUnavailable)
        self.engine.broken = None
        error = self.failureResultOf(self.stores[0].append(new(1)), SinkUnavailable).value
        self.assertIn("topic t does not work at the moment: try again in 1 s", str(error))
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(self.stores[1].append(new(2))).offset, 1)
        self.assertIs(self.breaker.state, BreakerState.CLOSED)

    def test_a_topic_that_hangs(self) -> None:
        """What is written later is published still; others are refused without waiting."""
        self.engine.slow = True
        slow = [store.append(new(1)) for store in self.stores]
        self.clock.advance(10)
        self.failureResultOf(self.stores[0].append(new(2)), SinkUnavailable)
        self.engine.slow = False
        self.engine.answer()
        for each in slow:
            self.successResultOf(each)

    def test_a_record_that_is_too_large(self) -> None:
        """Is not the fault of the topic."""
        self.engine.create("small", TopicSettings(max_record=100))
        store = DurableHistory(
            self.topics,
            Partition("small", 0),
            "e",
            clock=self.clock,
            wall=self.clock.seconds,
            breaker=self.breaker,
        )
        for _ in range(5):
            failure = self.failureResultOf(store.append(new("x" * 200)), InvalidPublication)
            self.assertIn("too large for topic small", str(failure.value))
        self.assertIs(self.breaker.state, BreakerState.CLOSED)


class UnreadableTests(Case):
    """Q-08, W-19: a batch that cannot be read is lost like one that was dropped."""

    def setUp(self) -> None:
        super().setUp()
        self.follow()
        self.store.append(new(1))
        self.engine.append([Append(Partition("t", 0), 2, b"\x01garbage")])
        self.store.append(new(4))

    def test_those_who_follow_are_told_and_go_on(self) -> None:
        """Whoever publishes behind it is answered."""
        self.follow()
        self.topics.tell(Partition("t", 0))
        self.skipped.clear()
        self.heard.clear()
        with capturedLogs() as events:
            self.engine.append([Append(Partition("t", 0), 2, b"\x01garbage")])
            published = self.store.append(new(7))
        self.assertEqual(self.successResultOf(published).offset, 7)
        self.assertEqual((self.skipped, offsets(self.heard)), ([6], [7]))
        (line,) = [formatEvent(each) for each in events if each["log_level"] is LogLevel.error]
        self.assertIn("partition 0 of topic t, batch at offset 4", line)

    def test_the_history_counts_it(self) -> None:
        """Those who read from before it get what follows, and how many they miss."""
        part = self.successResultOf(self.store.after(1, 10))
        self.assertEqual((offsets(part.publications), part.missed, part.exact), ([4], 2, True))
        part = self.successResultOf(self.store.newest(10))
        self.assertEqual(offsets(part.publications), [1, 4])


class PaceTests(Case):
    """W-44: what is fanned out slowly is read slowly."""

    def test_the_next_read_waits_until_everybody_has_the_last_one(self) -> None:
        self.follow()
        self.busy = Deferred()
        self.topics.produce("t", [NewRecord(b"1")])
        self.topics.produce("t", [NewRecord(b"2")])
        self.assertEqual(offsets(self.heard), [1])
        self.busy.callback(None)
        self.assertEqual(offsets(self.heard), [1, 2])

    def test_the_end_lets_publishers_go(self) -> None:
        self.follow()
        self.busy = Deferred()
        self.store.append(new(1))
        second = self.store.append(new(2))
        self.assertNoResult(second)
        self.store.unfollow()
        self.assertEqual(self.successResultOf(second).offset, 2)
        self.busy.callback(None)
        self.assertEqual(offsets(self.heard), [1])


class GapTests(Case):
    """W-19: in an engine whose offsets have gaps, records are counted, never subtracted."""

    def setUp(self) -> None:
        super().setUp()
        self.engine.capabilities = self.engine.capabilities._replace(dense=False)
        for each in range(5):
            self.store.append(new(each))

    def test_counted(self) -> None:
        self.assertEqual(self.successResultOf(self.store.count_after(2)), (3, True))
        self.assertEqual(self.successResultOf(self.store.count_after(5)), (0, True))

    def test_what_is_gone_is_a_lower_bound(self) -> None:
        self.engine.drop_below(Partition("t", 0), 3)
        self.assertEqual(self.successResultOf(self.store.count_after(0)), (3, False))
        part = self.successResultOf(self.store.after(0, 10))
        self.assertEqual((offsets(part.publications), part.missed, part.exact), ([4, 5], 1, False))

    def test_newest(self) -> None:
        """W-75: as many as are wanted, wherever the gaps are."""
        for limit, before, expected in ((2, None, [4, 5]), (2, 4, [2, 3]), (0, None, [])):
            part = self.successResultOf(self.store.newest(limit, before))
            self.assertEqual(offsets(part.publications), expected)

    def test_newest_across_a_gap(self) -> None:
        """W-75: it goes on before the gap, and reads no more than it has to."""
        self.engine.capabilities = self.engine.capabilities._replace(dense=True)
        for _ in range(300):
            self.store.append(new("old"))
        self.engine.drop_below(Partition("t", 0), 6)
        self.engine.append([Append(Partition("t", 0), 40, b"\x01garbage")])
        self.store.append(new("last"))
        part = self.successResultOf(self.store.newest(3))
        self.assertEqual(offsets(part.publications), [304, 305, 346])
        part = self.successResultOf(self.store.newest(3, 346))
        self.assertEqual(offsets(part.publications), [303, 304, 305])
        part = self.successResultOf(self.store.newest(1000))
        self.assertEqual(offsets(part.publications), [*range(7, 306), 346])


class RecordTests(SynchronousTestCase):
    """W-34: records of others, and of ours."""

    def test_no_more_than_needed_is_written(self) -> None:
        record = record_of(new(1))
        self.assertEqual((record.value, record.key, record.headers), (b"1", None, {"live": "{}"}))
        self.assertEqual(record_of(new(1, device="d", event_id="e")).key, b"d")

    def test_headers_of_others(self) -> None:
        for headers in ({}, {"live": "yes"}, {"live": '{"e":7}'}, {"live": "[" * 100_000}):
            found = publication_of(Record(4, 2500, None, b"nothing", headers))
            self.assertEqual((found.offset, found.time), (5, 2.5))
            self.assertEqual((found.data, found.event_id), (b'"nothing"', ""))
