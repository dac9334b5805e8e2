"""Delayed records, on topics in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.delays import DelayedRecords
from kupool.topics.errors import RecordTooLarge, TopicsUnavailable, UnknownTopic
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.settings import TopicSettings
from tests.fakes.topics import topics_in_memory

P0 = Partition("t", 0)


class DelayedRecordsTests(SynchronousTestCase):
    """Q-52."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.step = 1_000_000.0
        self.topics = topics_in_memory(self.clock, self.wall)
        self.engine: Any = self.topics.engine
        self.settle(self.topics.create("t", TopicSettings(max_record=10)))
        self.delays = self.make()
        self.delays.start()

    def make(self) -> DelayedRecords:
        delays = DelayedRecords(self.topics, self.clock, self.wall)
        self.addCleanup(delays.stop)
        return delays

    def wall(self) -> float:
        return self.step + self.clock.seconds()

    def settle(self, done: Deferred[Any]) -> Any:
        return self.successResultOf(done)

    def schedule(self, value: bytes, seconds: float) -> int:
        """Have a record written in so many seconds; returns its id."""
        (found,) = self.settle(self.delays.schedule("t", [NewRecord(value)], self.wall() + seconds))
        return int(found)

    def values(self) -> list[bytes]:
        return [r.value for r in self.settle(self.topics.fetch(P0, 0)).records]

    def test_records_come_when_they_are_due(self) -> None:
        self.schedule(b"later", 10)
        self.schedule(b"sooner", 0.5)
        self.clock.advance(0.49)
        self.assertEqual(self.values(), [])
        self.clock.advance(0.01)
        self.assertEqual(self.values(), [b"sooner"])
        self.clock.pump([0.5] * 18)
        self.assertEqual(self.values(), [b"sooner"])
        self.clock.advance(0.5)
        self.assertEqual(self.values(), [b"sooner", b"later"])

    def test_one_of_the_past_comes_at_once(self) -> None:
        self.schedule(b"now", -5)
        self.clock.advance(0)
        self.assertEqual(self.values(), [b"now"])

    def test_while_nothing_is_delayed_nothing_is_looked_for(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.schedule(b"a", 3)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([1] * 4)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_clock_that_is_set(self) -> None:
        """Forwards it is due within a second; back it is not early."""
        self.schedule(b"a", 100)
        self.step += 90
        self.clock.pump([1] * 9)
        self.assertEqual(self.values(), [])
        self.step -= 50
        self.clock.pump([1] * 49)
        self.assertEqual(self.values(), [])
        self.clock.pump([1] * 2)
        self.assertEqual(self.values(), [b"a"])

    def test_those_who_wait_for_records_get_them(self) -> None:
        waiting = self.topics.fetch(P0, 0, wait=30)
        self.schedule(b"a", 2)
        self.clock.pump([1, 1])
        self.assertEqual(len(self.settle(waiting).records), 1)

    def test_what_was_delayed_before_a_restart(self) -> None:
        self.schedule(b"a", 5)
        self.delays.stop()
        self.clock.advance(60)
        self.assertEqual((self.values(), self.clock.getDelayedCalls()), ([], []))
        self.make().start()
        self.assertEqual(self.values(), [b"a"])

    def test_query_and_cancel(self) -> None:
        one, two = self.schedule(b"a", 5), self.schedule(b"b", 3)
        found = self.settle(self.delays.waiting("t"))
        self.assertEqual(
            [(each.delay_id, each.due, each.records) for each in found],
            [(two, 1_000_003_000, 1), (one, 1_000_005_000, 1)],
        )
        self.assertTrue(self.settle(self.delays.cancel("t", two)))
        self.assertFalse(self.settle(self.delays.cancel("t", two)))
        self.clock.pump([1] * 6)
        self.assertEqual(self.values(), [b"a"])

    def test_what_is_not_valid_is_not_kept(self) -> None:
        def schedule(topic: str, *values: bytes) -> Deferred[list[int]]:
            return self.delays.schedule(topic, [NewRecord(value) for value in values], 0)

        self.failureResultOf(schedule("t", b"x" * 11), RecordTooLarge)
        self.failureResultOf(schedule("no", b"x"), UnknownTopic)
        self.failureResultOf(schedule("t"), ValueError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_engine_that_is_away_for_a_while(self) -> None:
        """It is asked again each second, and a record that comes meanwhile is not lost."""
        append = self.engine.append_due
        self.patch(self.engine, "append_due", lambda now: fail(TopicsUnavailable("away")))
        self.schedule(b"a", 1)
        self.clock.pump([1] * 5)
        self.assertEqual(self.values(), [])
        self.patch(self.engine, "append_due", append)
        self.clock.advance(1)
        self.assertEqual(self.values(), [b"a"])

    def test_one_that_is_scheduled_while_another_look_is_under_way(self) -> None:
        slow: Deferred[Any] = Deferred()
        append = self.engine.append_due
        self.patch(self.engine, "append_due", lambda now: slow)
        self.schedule(b"a", 0.1)
        self.schedule(b"b", 0.2)
        self.patch(self.engine, "append_due", append)
        self.clock.advance(0.3)
        slow.callback({})
        self.clock.advance(0)
        self.assertEqual(self.values(), [b"a", b"b"])

    def test_a_long_failure(self) -> None:
        """Q-35: why records cannot be written is logged once, and again after it went well."""
        append_due, said = self.engine.append_due, []
        self.patch(
            self.engine, "append_due", lambda now: fail(TopicsUnavailable("the broker is away"))
        )
        with capturedLogs() as logs:
            self.clock.pump([1.0] * 5)
            self.delays.start()
            self.clock.pump([1.0] * 5)
            said.append(len(logs))
            self.patch(self.engine, "append_due", append_due)
            self.schedule(b"x", 100)
            self.clock.pump([1.0] * 5)
            self.patch(
                self.engine, "append_due", lambda now: fail(TopicsUnavailable("the broker is away"))
            )
            self.clock.pump([1.0] * 5)
            said.append(len(logs))
        self.assertEqual(said, [1, 2])
