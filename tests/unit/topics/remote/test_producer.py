"""A producer: batches, order, retries, back-pressure, and the outcome of each record."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from kupool.errors import FORBIDDEN, INTERNAL_ERROR, TOO_MANY_REQUESTS, UNAVAILABLE
from kupool.topics.partitioners import fnv1a
from kupool.topics.records import NewRecord
from kupool.topics.remote.failures import (
    AnswerLost,
    BufferFull,
    NotProduced,
    NotSent,
    ProducerClosed,
    RefusedByServer,
    WriteState,
)
from kupool.topics.remote.producer import Producer, ProducerSettings
from kupool.topics.service import Written
from kupool.topics.settings import TopicSettings
from tests.fakes.remote_topics import RemoteCase

WRITTEN, NOT_WRITTEN, UNKNOWN = WriteState.WRITTEN, WriteState.NOT_WRITTEN, WriteState.UNKNOWN


def records(*values: bytes) -> list[NewRecord]:
    return [NewRecord(value) for value in values]


class ProducerCase(RemoteCase):
    def producer(self, *, max_request: int = 64 * 1024, **settings: Any) -> Producer:
        producer = Producer(
            self.topics(max_request=max_request), ProducerSettings(**settings), random=Random(1)
        )
        self.addCleanup(lambda: self.network.run(producer.close(), patience=100))
        return producer

    def hold(self) -> list[Deferred[Any]]:
        """Have the server answer ``log.produce`` when the test says so."""
        held: list[Deferred[Any]] = []

        def later(params: Any) -> Deferred[Any]:
            answer: Deferred[Any] = Deferred()
            answer.addCallback(lambda _: self.server.produce(params))
            held.append(answer)
            return answer

        self.server.answers["log.produce"] = later
        return held

    def state(self, asked: Deferred[Any]) -> tuple[WriteState, Exception]:
        error = self.failureResultOf(asked, NotProduced).value
        return error.state, error.__cause__


class OutcomeTests(ProducerCase):
    def test_places(self) -> None:
        """Q-56: one, and several; the places are those of the records."""
        producer = self.producer()
        one = self.result(producer.produce("t", records(b"a"), partition=1), 1.0)
        self.assertEqual(one, [Written(1, 0)])
        more = self.result(producer.produce("t", records(b"b", b"c"), partition=1), 1.0)
        self.assertEqual(more, [Written(1, 1), Written(1, 2)])
        self.assertEqual(self.stored(1), [b"a", b"b", b"c"])

    def test_no_success_before_the_acknowledgement(self) -> None:
        """Q-57."""
        producer, held = self.producer(), self.hold()
        told: list[object] = []
        asked = producer.produce("t", records(b"a"), partition=0)
        self.result(producer.send("t", NewRecord(b"b"), partition=0, told=told.append))
        self.network.advance(5.0)
        self.assertNoResult(asked)
        self.assertEqual((told, producer.waiting), ([], 2))
        held[0].callback(None)
        self.network.settle()
        self.assertEqual(self.successResultOf(asked), [Written(0, 0)])
        self.assertEqual((told, producer.waiting), ([Written(0, 1)], 0))

    def test_each_outcome_is_told(self) -> None:
        """Q-57: a failure, too, and what the callback raises is its own fault."""
        producer = self.producer()
        told: list[Any] = []

        def tell(outcome: object) -> None:
            told.append(outcome)
            raise RuntimeError("mine")

        self.server.answers["log.produce"] = lambda params: FORBIDDEN
        for value in (b"a", b"b"):
            self.result(producer.send("t", NewRecord(value), told=tell))
        self.result(producer.send("t", NewRecord(b"c")))
        self.network.advance(1.0)
        self.assertEqual([each.state for each in told], [NOT_WRITTEN] * 2)
        self.assertIn("the records were not written: forbidden", str(told[0]))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_refused(self) -> None:
        """Q-56: it was not written, and is not sent again."""
        producer = self.producer()
        self.server.answers["log.produce"] = lambda params: FORBIDDEN
        asked = producer.produce("t", records(b"a"))
        self.network.advance(60.0)
        state, cause = self.state(asked)
        self.assertIs(state, NOT_WRITTEN)
        self.assertIsInstance(cause, RefusedByServer)
        self.assertEqual(self.server.times("log.produce"), 1)

    def test_nobody_there(self) -> None:
        """Q-56: it is tried until its time is over, and was not written."""
        self.stop()
        producer = self.producer(delivery_timeout=30.0)
        asked = producer.produce("t", records(b"a"))
        self.network.advance(19.0)
        self.assertNoResult(asked)
        self.network.advance(12.0)
        state, cause = self.state(asked)
        self.assertIs(state, NOT_WRITTEN)
        self.assertIsInstance(cause, NotSent)

    def test_what_is_no_request(self) -> None:
        producer = self.producer()
        for given in ([], records(b"x" * 70_000)):
            self.assertIs(self.state(producer.produce("t", given))[0], NOT_WRITTEN)
        self.assertEqual((self.server.asked, producer.waiting), ([], 0))
        with self.assertRaisesRegex(ValueError, "when_full"):
            ProducerSettings(when_full="block")
        with self.assertRaisesRegex(ValueError, "routing"):
            ProducerSettings(routing="nowhere")
        with self.assertRaisesRegex(ValueError, "batch_bytes: expected at most"):
            self.producer(batch_bytes=64 * 1024)


class RetryTests(ProducerCase):
    """Q-56, Q-24: a batch is sent again, and is written once."""

    def test_an_answer_that_was_lost(self) -> None:
        producer = self.producer()
        times = 0

        def lost(params: Any) -> Any:
            nonlocal times
            times += 1
            done = self.server.produce(params)
            return Deferred() if times == 1 else done

        self.server.answers["log.produce"] = lost
        asked = producer.produce("t", records(b"a", b"b"), partition=0)
        self.network.advance(0.1)
        self.network.cut()
        self.assertEqual(self.result(asked, 5.0), [Written(0, 0), Written(0, 1)])
        self.assertEqual((times, self.stored()), (2, [b"a", b"b"]))

    def test_a_request_that_was_lost(self) -> None:
        """With the same number, behind what was written before."""
        producer = self.producer()
        self.result(producer.produce("t", records(b"a"), partition=0), 1.0)
        held = self.hold()
        asked = producer.produce("t", records(b"b"), partition=0)
        self.network.advance(0.1)
        self.server.answers.clear()
        self.network.cut()
        self.assertEqual(self.result(asked, 5.0), [Written(0, 1)])
        sent = [params for method, params in self.server.asked if method == "log.produce"]
        self.assertEqual([each["sequence"] for each in sent], [0, 1, 1])
        self.assertEqual(len({each["producer"] for each in sent}), 1)
        self.assertEqual(len(held), 1)

    def test_with_back_off(self) -> None:
        """What passes by itself is sent again, each time after twice the time."""
        producer = self.producer(retry_first=1.0, retry_most=4.0)
        self.result(producer.produce("t", records(b"0"), partition=0), 1.0)
        rows = [UNAVAILABLE, TOO_MANY_REQUESTS.about("x"), INTERNAL_ERROR, UNAVAILABLE]
        times: list[float] = []

        def refuse(params: Any) -> Any:
            times.append(self.network.seconds())
            return rows.pop(0) if rows else self.server.produce(params)

        self.server.answers["log.produce"] = refuse
        asked = producer.produce("t", records(b"a"), partition=0)
        self.assertEqual(self.result(asked, 20.0), [Written(0, 1)])
        waits = [round(b - a, 3) for a, b in pairwise(times)]
        self.assertEqual(waits, [1.0, 2.0, 4.0, 4.0])

    def test_unknown(self) -> None:
        """If no answer comes, nobody knows; a later refusal does not change that."""
        producer = self.producer(delivery_timeout=15.0)
        self.server.answers["log.produce"] = lambda params: Deferred()
        asked = producer.produce("t", records(b"a"))
        self.network.advance(16.0)
        state, cause = self.state(asked)
        self.assertIs(state, UNKNOWN)
        self.assertIsInstance(cause, AnswerLost)
        asked = producer.produce("t", records(b"b"))
        self.network.advance(1.0)
        self.server.answers["log.produce"] = lambda params: FORBIDDEN
        self.network.cut()
        self.network.advance(5.0)
        self.assertIs(self.state(asked)[0], UNKNOWN)

    def test_an_engine_without_sequence_numbers(self) -> None:
        """It is said that nothing is known, instead of writing twice."""
        self.server.answers["log.capabilities"] = lambda params: {"idempotent": False}
        producer = self.producer()
        self.server.answers["log.produce"] = lambda params: Deferred()
        asked = producer.produce("t", records(b"a"))
        self.network.advance(0.1)
        self.network.cut()
        self.network.advance(5.0)
        self.assertIs(self.state(asked)[0], UNKNOWN)
        self.assertEqual(self.server.times("log.produce"), 1)
        self.assertNotIn("producer", self.server.asked[-1][1])
        # What was certainly not written is sent again.
        rows: list[Any] = [UNAVAILABLE]
        self.server.answers["log.produce"] = lambda params: (
            rows.pop() if rows else self.server.produce(params)
        )
        asked = producer.produce("t", records(b"b"), partition=0)
        self.assertEqual(self.result(asked, 5.0), [Written(0, 0)])

    def test_a_number_that_is_too_old(self) -> None:
        """It was written; the offset is forgotten."""
        producer = self.producer(producer="p", first_sequence=10)
        for _ in range(6):
            self.result(producer.produce("t", records(b"a"), partition=0), 1.0)
        again = self.producer(producer="p", first_sequence=10)
        asked = again.produce("t", records(b"a"), partition=0)
        self.network.advance(1.0)
        self.assertIs(self.state(asked)[0], WRITTEN)
        self.assertEqual(len(self.stored()), 6)


class BatchTests(ProducerCase):
    def sizes(self) -> list[int]:
        return [
            len(params["records"])
            for method, params in self.server.asked
            if method == "log.produce"
        ]

    def test_by_time(self) -> None:
        """Q-56, Q-93: a record waits for others, but not for long."""
        producer = self.producer(linger=0.5)
        asked = [producer.produce("t", records(b"a")) for _ in range(3)]
        self.network.advance(0.4)
        self.assertEqual(self.sizes(), [])
        self.network.advance(0.2)
        self.assertEqual(self.sizes(), [3])
        for each in asked:
            self.successResultOf(each)

    def test_by_number(self) -> None:
        producer, held = self.producer(linger=9.0, batch_records=4), self.hold()
        for number in range(10):
            self.result(producer.send("t", NewRecord(b"%d" % number), partition=0))
        self.network.settle()
        self.assertEqual(self.sizes(), [4])
        while held:
            held.pop().callback(None)
            self.network.settle()
        self.assertEqual(self.sizes(), [4, 4, 2])
        self.assertEqual(self.stored(), [b"%d" % number for number in range(10)])

    def test_by_size(self) -> None:
        producer = self.producer(linger=9.0, batch_bytes=2000)
        for _ in range(5):
            self.result(producer.send("t", NewRecord(b"x" * 700)))
        self.result(producer.flush(), 1.0)
        self.assertEqual((sum(self.sizes()), max(self.sizes())), (5, 2))

    def test_one_batch_of_a_lane_at_a_time(self) -> None:
        """Q-56: so its order is kept; other partitions do not wait."""
        producer, held = self.producer(linger=0.0), self.hold()
        for value in (b"a", b"b", b"c"):
            self.result(producer.send("t", NewRecord(value), partition=0))
            self.network.advance(1.0)
        self.result(producer.send("t", NewRecord(b"other"), partition=1))
        self.network.advance(1.0)
        self.assertEqual(self.sizes(), [1, 1])
        held[1].callback(None)
        self.network.settle()
        self.assertEqual((self.stored(1), self.stored()), ([b"other"], []))
        held[0].callback(None)
        self.network.settle()
        self.assertEqual(self.sizes(), [1, 1, 2])
        held[2].callback(None)
        self.network.settle()
        self.assertEqual(self.stored(), [b"a", b"b", b"c"])

    def test_order_over_a_lost_connection(self) -> None:
        """Q-56: what comes later stays behind what is sent again."""
        producer, held = self.producer(linger=0.0, batch_records=1), self.hold()
        for number in range(5):
            self.result(producer.send("t", NewRecord(b"%d" % number), partition=0))
        self.network.advance(0.1)
        self.server.answers.clear()
        self.network.cut()
        self.result(producer.flush(), 10.0)
        self.assertEqual(self.stored(), [b"0", b"1", b"2", b"3", b"4"])
        self.assertEqual(len(held), 1)


class RoutingTests(ProducerCase):
    """Q-28, Q-56: the server chooses partitions, or the producer does in the same way."""

    def test_the_same_partitions(self) -> None:
        self.result(self.server.topics.create("k", TopicSettings(partitions=7)))
        keys = [b"key-%d" % number for number in range(40)]
        keyed = [NewRecord(b"x", key) for key in keys]
        found = [
            self.result(self.producer(routing=routing).produce("k", keyed), 1.0)
            for routing in ("server", "client")
        ]
        wanted = [fnv1a(key) % 7 for key in keys]
        for written in found:
            self.assertEqual([each.partition for each in written], wanted)

    def test_a_share_that_fails(self) -> None:
        """Of all records together nothing can be said then."""
        producer = self.producer(routing="client")
        self.server.answers["log.produce"] = lambda params: (
            FORBIDDEN if params["partition"] else self.server.produce(params)
        )
        asked = producer.produce("t", records(b"a", b"b"))
        self.network.advance(1.0)
        self.assertIs(self.state(asked)[0], UNKNOWN)
        self.server.answers["log.produce"] = lambda params: FORBIDDEN
        asked = producer.produce("t", records(b"a", b"b"))
        self.network.advance(1.0)
        self.assertIs(self.state(asked)[0], NOT_WRITTEN)

    def test_shares_that_fail_in_different_ways(self) -> None:
        producer = self.producer(routing="client", delivery_timeout=5.0)
        self.server.answers["log.produce"] = lambda params: (
            Deferred() if params["partition"] else FORBIDDEN
        )
        asked = producer.produce("t", records(b"a", b"b"))
        self.network.advance(10.0)
        self.assertIs(self.state(asked)[0], UNKNOWN)

    def test_a_topic_that_is_gone(self) -> None:
        """Q-61: what was known of it is forgotten."""
        producer = self.producer(routing="client")
        self.result(producer.produce("t", records(b"a")), 1.0)
        self.result(self.server.topics.delete("t"))
        for _ in range(2):
            asked = producer.produce("t", records(b"a"))
            self.network.advance(1.0)
            self.assertIs(self.state(asked)[0], NOT_WRITTEN)
        self.assertEqual(self.server.times("topic.describe"), 2)


class BufferTests(ProducerCase):
    """Q-57, Q-58: what waits is bounded, and the caller is told."""

    def test_a_full_buffer_makes_the_caller_wait(self) -> None:
        producer, held = self.producer(buffer_records=2, linger=0.0), self.hold()
        for value in (b"a", b"b"):
            self.result(producer.send("t", NewRecord(value), partition=0))
        waiting = [producer.send("t", NewRecord(value), partition=0) for value in (b"c", b"d")]
        self.network.advance(1.0)
        self.assertNoResult(waiting[0])
        self.assertEqual(producer.waiting, 2)
        held[0].callback(None)
        self.network.settle()
        self.successResultOf(waiting[0])
        self.assertNoResult(waiting[1])
        held[1].callback(None)
        self.network.settle()
        self.successResultOf(waiting[1])
        held[2].callback(None)
        self.network.settle()
        self.assertEqual(self.stored(), [b"a", b"b", b"c", b"d"])

    def test_or_refuses(self) -> None:
        producer, held = self.producer(buffer_bytes=100, when_full="refuse"), self.hold()
        self.result(producer.send("t", NewRecord(b"x" * 80)))
        asked = producer.send("t", NewRecord(b"x" * 80))
        state, cause = self.state(asked)
        self.assertIs(state, NOT_WRITTEN)
        self.assertIsInstance(cause, BufferFull)
        self.network.advance(1.0)
        held[0].callback(None)
        self.network.settle()
        self.result(producer.send("t", NewRecord(b"x" * 80)))
        self.server.answers.clear()

    def test_room_for_bytes(self) -> None:
        """Each outcome makes room, also while others wait for theirs."""
        producer = self.producer(buffer_bytes=200, when_full="refuse", linger=0.0, batch_records=1)
        held = self.hold()
        for partition in (0, 1):
            self.result(producer.send("t", NewRecord(b"x" * 80), partition=partition))
        self.network.settle()
        held[0].callback(None)
        self.network.settle()
        self.result(producer.send("t", NewRecord(b"x" * 80), partition=0))
        self.state(producer.send("t", NewRecord(b"x" * 80), partition=0))
        self.server.answers.clear()
        held[1].callback(None)

    def test_only_so_many_wait(self) -> None:
        """Nothing grows without a limit."""
        producer, held = self.producer(buffer_records=1, most_waiting=3), self.hold()
        self.result(producer.send("t", NewRecord(b"a")))
        waiting = [producer.send("t", NewRecord(b"b")) for _ in range(4)]
        self.assertIsInstance(self.state(producer.send("t", NewRecord(b"c")))[1], BufferFull)
        self.network.advance(1.0)
        self.server.answers.clear()
        held[0].callback(None)
        self.network.advance(10.0)
        for each in waiting:
            self.successResultOf(each)

    def test_close_flushes(self) -> None:
        """Q-57: what was taken is written, and what waits for room is refused."""
        producer, held = self.producer(buffer_records=2, linger=60.0), self.hold()
        told: list[object] = []
        for value in (b"a", b"b"):
            self.result(producer.send("t", NewRecord(value), partition=0, told=told.append))
        waiting = producer.send("t", NewRecord(b"c"), partition=0)
        closing = producer.close()
        self.network.settle()
        self.assertIsInstance(self.state(waiting)[1], ProducerClosed)
        self.assertNoResult(closing)
        held[0].callback(None)
        self.network.settle()
        self.successResultOf(closing)
        self.assertEqual(told, [Written(0, 0), Written(0, 1)])
        late = producer.produce("t", records(b"d"))
        self.assertIsInstance(self.state(late)[1], ProducerClosed)

    def test_its_client_is_closed(self) -> None:
        """It ends at once, and says what is known."""
        topics = self.topics()
        producer, held = Producer(topics, random=Random(1)), self.hold()
        sent = producer.produce("t", records(b"a"), partition=0)
        self.network.advance(1.0)
        self.result(topics.close())
        self.network.advance(1.0)
        self.assertIs(self.state(sent)[0], UNKNOWN)
        waiting = producer.produce("t", records(b"b"), partition=0)
        self.network.advance(1.0)
        self.assertIs(self.state(waiting)[0], NOT_WRITTEN)
        self.assertEqual(len(held), 1)

    def test_a_caller_that_does_not_wait_any_more(self) -> None:
        producer, held = self.producer(), self.hold()
        asked = producer.produce("t", records(b"a"), partition=0)
        self.network.advance(1.0)
        asked.cancel()
        self.failureResultOf(asked)
        held[0].callback(None)
        self.network.settle()
        self.assertEqual((self.stored(), producer.waiting), ([b"a"], 0))
