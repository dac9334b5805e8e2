"""The writer of the daemon's events."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.errors import TopicExists, TopicsUnavailable
from kupool.topics.events import (
    AT_ONCE,
    DELAY,
    DROPPED,
    EVENTS,
    KEPT_IN_MEMORY,
    MOST_WAITING,
    RETRY,
    SETTINGS,
    EventWriter,
)
from kupool.topics.partition import Partition
from tests.fakes.topics import topics_in_memory


class EventWriterTests(SynchronousTestCase):
    """Issue 16, build 2 and 6: events are written a batch a moment, and delay nobody."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.topics = topics_in_memory(self.clock, run_in_thread=maybeDeferred)
        self.engine = self.topics.engine
        self.writer = EventWriter(
            self.topics, self.engine, self.clock, self.clock.seconds, instance="i"
        )

    def read(self) -> list[dict[str, Any]]:
        """Return the events in the topic."""
        fetched = self.successResultOf(self.topics.fetch(Partition(EVENTS, 0), 0))
        return [json.loads(record.value) for record in fetched.records]

    def batches(self) -> list[int]:
        """Return how many records each batch in the topic has."""
        stored = self.successResultOf(self.engine.read(Partition(EVENTS, 0), 0, 1 << 30))
        return [batch.records for batch in stored]

    def break_engine(self) -> None:
        self.patch(self.engine, "append", lambda appends: fail(TopicsUnavailable("no disk")))

    def mend_engine(self) -> None:
        self.patch(self.engine, "append", type(self.engine).append.__get__(self.engine))

    def test_an_event_that_somebody_waits_for(self) -> None:
        """Issue 18, build 7: it is written at once, or it is told that it is not."""
        self.writer.tell("a", {})
        self.successResultOf(self.writer.write("b", {"x": 1}))
        self.assertEqual(self.read(), [{"type": "b", "id": "i-2", "at": 0, "x": 1}])
        self.break_engine()
        self.failureResultOf(self.writer.write("c", {}), TopicsUnavailable)

    def test_events_of_a_moment_are_one_batch(self) -> None:
        self.writer.tell("a", {"x": 1})
        self.clock.advance(DELAY / 2)
        self.writer.tell("b", {"at": 77}, "alice")
        self.assertIs(self.engine.topic(EVENTS), None)
        self.clock.advance(DELAY / 2)
        self.assertEqual(
            self.read(),
            [
                {"type": "a", "id": "i-1", "at": 0, "x": 1},
                {"type": "b", "id": "i-2", "at": 77},
            ],
        )
        self.assertEqual(self.batches(), [2])
        self.assertEqual(self.engine.topic(EVENTS), SETTINGS)
        fetched = self.successResultOf(self.topics.fetch(Partition(EVENTS, 0), 0))
        self.assertEqual([record.key for record in fetched.records], [None, b"alice"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_topic_is_there_from_the_start(self) -> None:
        self.successResultOf(self.writer.open())
        self.assertEqual(self.engine.topic(EVENTS), SETTINGS)
        self.successResultOf(self.writer.open())

    def test_a_topic_that_cannot_be_made(self) -> None:
        """Q-15: that keeps the daemon from nothing, and the first event tries again."""
        create = self.engine.create
        self.patch(self.engine, "create", lambda *_: fail(TopicsUnavailable("no disk")))
        with capturedLogs() as logs:
            self.successResultOf(self.writer.open())
        self.assertEqual(
            [formatEvent(event) for event in logs],
            ["Topic events could not be created, trying again later: no disk"],
        )
        self.patch(self.engine, "create", create)
        self.writer.tell("a", {})
        self.clock.advance(DELAY)
        self.assertEqual(len(self.read()), 1)

    def test_one_batch_at_a_time(self) -> None:
        """While one is being written, the next one gathers."""
        held: list[Deferred[Any]] = []

        def append(appends: Any) -> Deferred[Any]:
            held.append(Deferred())
            return held[-1]

        self.patch(self.engine, "append", append)
        for number in range(3):
            self.writer.tell("a", {"n": number})
            self.clock.advance(DELAY)
        self.assertEqual(len(held), 1)
        held[0].callback([0])
        self.clock.advance(DELAY)
        self.assertEqual(len(held), 2)

    def test_many_take_several_turns(self) -> None:
        for number in range(AT_ONCE * 2 + 1):
            self.writer.tell("a", {"n": number})
        later = self.clock.callLater
        turns: list[float] = []

        def call_later(delay: float, call: Any) -> Any:
            turns.append(delay)
            return later(delay, call)

        self.patch(self.clock, "callLater", call_later)
        self.clock.advance(DELAY)
        self.assertEqual(self.batches(), [AT_ONCE, AT_ONCE])
        self.assertEqual(turns, [0.0, DELAY])  # each in a turn of its own
        self.clock.advance(DELAY)
        self.assertEqual(self.batches(), [AT_ONCE, AT_ONCE, 1])
        self.assertEqual([e["n"] for e in self.read()], list(range(AT_ONCE * 2 + 1)))

    def test_while_the_topic_cannot_be_written(self) -> None:
        """They are dropped and counted, and the next one that is written tells of it."""
        self.break_engine()
        with capturedLogs() as logs:
            for _ in range(2):
                for _ in range(3):
                    self.writer.tell("lost", {})
                self.clock.advance(RETRY)
        self.assertEqual(self.writer.dropped, 6)
        (line,) = [formatEvent(event) for event in logs]
        self.assertEqual(
            line, "Events are dropped, because topic events cannot be written: no disk"
        )
        self.writer.tell("kept", {})
        self.mend_engine()
        self.clock.advance(RETRY)
        first, second = self.read()
        self.assertEqual((first["type"], first["count"]), (DROPPED, 6))
        self.assertEqual(second["type"], "kept")
        self.assertEqual(len({first["id"], second["id"]}), 2)
        self.writer.tell("more", {})
        self.clock.advance(DELAY)
        self.assertEqual([event["type"] for event in self.read()][2:], ["more"])

    def test_the_topic_is_tried_again_by_itself(self) -> None:
        """Q-15: so that a problem of the engine is over once it is, though nothing happens."""
        self.break_engine()
        self.writer.tell("lost", {})
        self.clock.advance(DELAY)
        self.clock.advance(RETRY)
        self.mend_engine()
        self.clock.advance(RETRY)
        (event,) = self.read()
        self.assertEqual((event["type"], event["count"]), (DROPPED, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_waits_is_bounded(self) -> None:
        """As if the engine never answers."""
        self.patch(self.engine, "append", lambda appends: Deferred())
        self.writer.tell("first", {})
        self.clock.advance(DELAY)
        for _ in range(MOST_WAITING + 7):
            self.writer.tell("a", {})
        self.assertEqual(self.writer.dropped, 7)

    def test_few_are_kept_in_memory(self) -> None:
        """K-86: a crowd that comes and goes leaves no more behind than that."""
        for number in range(KEPT_IN_MEMORY // AT_ONCE + 3):
            for _ in range(AT_ONCE):
                self.writer.tell("a", {"n": number})
            self.clock.pump([DELAY, 0.0])
        [extent] = self.successResultOf(self.engine.extents(EVENTS))
        self.assertEqual(extent.high - extent.low, KEPT_IN_MEMORY)
        self.assertGreater(extent.low, 0)

    def test_another_node_makes_the_topic_first(self) -> None:
        create = self.engine.create

        def slower(name: str, settings: Any) -> Deferred[None]:
            self.successResultOf(create(name, settings))
            return fail(TopicExists(name))

        self.patch(self.engine, "create", slower)
        self.writer.tell("a", {})
        self.clock.advance(DELAY)
        self.assertEqual(len(self.read()), 1)

    def test_close(self) -> None:
        """What waits is written at once, whatever there is of it; later events are not taken."""
        for number in range(AT_ONCE + 1):
            self.writer.tell("a", {"n": number})
        self.successResultOf(self.writer.close())
        self.assertEqual(len(self.read()), AT_ONCE + 1)
        self.writer.tell("late", {})
        self.assertEqual(self.writer.dropped, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_while_nothing_waits(self) -> None:
        self.successResultOf(self.writer.close())
        self.assertIs(self.engine.topic(EVENTS), None)

    def test_close_while_the_engine_does_not_answer(self) -> None:
        """It is waited for a moment."""
        self.patch(self.engine, "append", lambda appends: Deferred())
        self.writer.tell("a", {})
        done = self.writer.close(3)
        self.clock.advance(2.9)
        self.assertNoResult(done)
        self.clock.advance(0.1)
        self.successResultOf(done)

    def test_close_while_the_topic_cannot_be_written(self) -> None:
        self.break_engine()
        self.writer.tell("a", {})
        self.successResultOf(self.writer.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_while_a_batch_is_written(self) -> None:
        held: Deferred[Any] = Deferred()
        append = self.engine.append
        self.patch(self.engine, "append", lambda appends: held)
        self.writer.tell("a", {})
        self.clock.advance(DELAY)
        self.writer.tell("b", {})
        done = self.writer.close()
        self.assertNoResult(done)
        self.patch(self.engine, "append", append)
        held.callback([0])
        self.successResultOf(done)
        self.assertEqual([event["type"] for event in self.read()], ["b"])
