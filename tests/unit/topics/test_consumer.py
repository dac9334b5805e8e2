"""Members of consumer groups, on topics in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.topics.consumer import GroupConsumer, IGroupClient, MemberSettings
from kupool.topics.errors import TopicsUnavailable, UnknownTopic, UnreadableBatch
from kupool.topics.groups import ConsumerGroups, GroupLimits
from kupool.topics.interfaces import Append
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.local import LocalGroupClient
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.settings import TopicSettings
from tests.fakes.topics import topics_in_memory

P0, P1 = Partition("t", 0), Partition("t", 1)


class Handler:
    """Takes records; those in ``held`` are processed when the test says so."""

    def __init__(self, *held: bytes) -> None:
        self.seen: list[bytes] = []
        self.held = set(held)
        self.open: dict[bytes, Deferred[None]] = {}
        self.fails: dict[bytes, int] = {}

    def __call__(self, delivery: DeliveredRecord) -> object:
        value = delivery.record.value
        self.seen.append(value)
        if self.fails.get(value, 0):
            self.fails[value] -= 1
            raise RuntimeError(f"{value.decode()} fails")
        if value in self.held:
            return self.open.setdefault(value, Deferred())
        return None

    def end(self, value: bytes, result: Any = None) -> None:
        self.held.discard(value)
        self.open.pop(value).callback(result)


class ConsumerTestCase(SynchronousTestCase):
    """A topic of two partitions, and groups."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.topics = topics_in_memory(self.clock)
        self.engine: Any = self.topics.engine
        self.groups = ConsumerGroups(self.engine, self.clock, self.clock.seconds, GroupLimits())
        self.addCleanup(self.groups.close)
        self.client = LocalGroupClient(self.topics, self.groups)
        self.settle(self.topics.create("t", TopicSettings(partitions=2)))
        self.given_away: list[tuple[bytes, str, int]] = []

    def settle(self, done: Deferred[Any]) -> Any:
        return self.successResultOf(done)

    def write(self, *values: bytes, key: bytes | None = None, partition: int = 0) -> None:
        records = [NewRecord(value, key=key) for value in values]
        self.settle(self.topics.produce("t", records, partition=partition))

    def make(
        self, handler: Callable[[DeliveredRecord], object], member: str = "a", **settings: Any
    ) -> GroupConsumer:
        return GroupConsumer(
            self.client,
            self.clock,
            ("g", member),
            topics=frozenset(("t",)),
            handler=handler,
            give_away=self.give_away,
            settings=MemberSettings(**settings),
        )

    def start(
        self, handler: Callable[[DeliveredRecord], object], member: str = "a", **settings: Any
    ) -> GroupConsumer:
        consumer = self.make(handler, member, **settings)
        self.settle(consumer.start())
        return consumer

    async def give_away(self, delivery: DeliveredRecord, failure: Failure) -> None:
        self.given_away.append((delivery.record.value, failure.getErrorMessage(), delivery.attempt))

    def committed(self) -> Any:
        return self.settle(self.groups.committed("g"))

    def run_for(self, seconds: float) -> None:
        self.clock.pump([0.25] * int(seconds * 4))


class DefaultTests(ConsumerTestCase):
    """What holds unless something else is said."""

    def test_so_many_in_flight(self) -> None:
        handler = Handler(b"0")
        consumer = self.start(handler)
        for number in range(1100):
            self.write(b"%d" % number)
        self.assertEqual((consumer.in_flight, handler.seen), (1000, [b"0"]))

    def test_as_many_at_once_as_there_are(self) -> None:
        """Q-58: a thousand records whose handler is done at once are no deep recursion."""
        values = [b"%d" % number for number in range(1000)]
        self.write(*values)
        handler = Handler()
        self.start(handler)
        self.run_for(2)
        self.assertEqual(handler.seen, values)
        self.assertEqual(self.committed(), {P0: 1000})

    def test_reads(self) -> None:
        """A mebibyte at once; at the end of a partition each waits five seconds."""
        reads: list[dict[str, Any]] = []
        fetch = self.topics.fetch

        def noted(partition: Partition, offset: int, **how: Any) -> Any:
            reads.append(how)
            return fetch(partition, offset, **how)

        self.patch(self.topics, "fetch", noted)
        self.start(Handler())
        self.assertEqual(reads, [{"max_bytes": 1_048_576, "wait": 5.0}] * 2)

    def test_times(self) -> None:
        """Heartbeats each 2 s, commits each second, a session of 10 s, five attempts from 0.5 s."""
        beats: list[float] = []
        heartbeat = self.groups.heartbeat

        def noted(*args: Any) -> Any:
            beats.append(self.clock.seconds())
            return heartbeat(*args)

        self.patch(self.groups, "heartbeat", noted)
        handler = Handler()
        handler.fails = {b"a": 99}
        self.start(handler)
        self.write(b"a")
        self.write(b"b", partition=1)
        self.assertEqual(self.settle(self.groups.describe("g")).members["a"].session_timeout, 10)
        self.run_for(0.75)
        self.assertEqual(self.committed(), {})
        self.run_for(0.25)
        self.assertEqual(self.committed(), {})
        self.run_for(6.25)
        self.assertEqual(self.given_away, [])
        self.run_for(0.25)
        self.assertEqual(self.given_away, [(b"a", "a fails", 5)])
        self.assertEqual(beats, [2.0, 4.0, 6.0])
        self.run_for(0.75)
        self.assertEqual(self.committed(), {P0: 1, P1: 1})


class ReadingTests(ConsumerTestCase):
    """Q-39, Q-40, Q-45, Q-58."""

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IGroupClient, self.client))

    def test_old_and_new_records_in_order(self) -> None:
        self.write(b"a", b"b")
        handler = Handler()
        consumer = self.start(handler)
        self.assertEqual(consumer.assigned, {P0, P1})
        self.assertEqual(handler.seen, [b"a", b"b"])
        self.write(b"c", partition=1)
        self.run_for(20)
        self.write(b"d")
        self.assertEqual(handler.seen, [b"a", b"b", b"c", b"d"])
        self.run_for(1)
        self.assertEqual(self.committed(), {P0: 3, P1: 1})
        self.settle(consumer.stop())

    def test_a_group_that_cannot_be_joined(self) -> None:
        self.settle(self.topics.delete("t"))
        self.failureResultOf(self.make(Handler()).start(), UnknownTopic)

    def test_it_goes_on_where_the_group_was(self) -> None:
        """Q-40: committed; else the oldest, or the next one."""
        self.write(b"a", b"b")
        first = self.start(Handler())
        self.settle(first.stop())
        self.assertEqual(self.committed(), {P0: 2})
        self.write(b"c")
        self.write(b"x", partition=1)
        handler = Handler()
        second = self.start(handler, latest=True)
        self.assertEqual(handler.seen, [b"c"])
        self.write(b"y", partition=1)
        self.assertEqual(handler.seen, [b"c", b"y"])
        self.settle(second.stop())
        self.assertEqual(self.committed(), {P0: 3, P1: 2})

    def test_records_that_were_dropped_are_passed(self) -> None:
        """Q-04."""
        self.write(b"a")
        self.settle(self.engine.commit("g", {P0: 0}))
        self.settle(self.topics.change("t", TopicSettings(partitions=2, retention_bytes=1)))
        self.write(b"b")
        self.settle(self.engine.trim(0))
        handler = Handler()
        consumer = self.start(handler)
        self.assertEqual(handler.seen, [b"b"])
        self.settle(consumer.stop())
        self.assertEqual(self.committed(), {P0: 2})

    def test_an_engine_that_is_away_for_a_while(self) -> None:
        self.write(b"a")
        read = self.engine.read
        self.patch(self.engine, "read", lambda *_: fail(TopicsUnavailable("away")))
        handler = Handler()
        consumer = self.start(handler)
        self.run_for(3)
        self.assertEqual(handler.seen, [])
        self.patch(self.engine, "read", read)
        self.run_for(4)
        self.assertEqual(handler.seen, [b"a"])
        self.settle(consumer.stop())
        self.assertEqual([c for c in self.clock.getDelayedCalls() if c.getTime() > 1000], [])

    def test_pause_and_resume(self) -> None:
        """Q-49."""
        handler = Handler()
        consumer = self.start(handler)
        self.write(b"a")
        consumer.pause()
        self.write(b"b")  # the read that waits already still gets it
        self.write(b"c")
        self.run_for(30)
        self.assertEqual(handler.seen, [b"a", b"b"])
        consumer.resume()
        self.assertEqual(handler.seen, [b"a", b"b", b"c"])
        self.settle(consumer.stop())

    def test_so_many_records_in_flight(self) -> None:
        """Q-49, Q-58: back-pressure."""
        handler = Handler(b"1")
        consumer = self.start(handler, in_flight=3)
        for number in range(1, 8):
            self.write(b"%d" % number)
        self.assertEqual(handler.seen, [b"1"])
        self.assertEqual(consumer.in_flight, 3)
        handler.end(b"1")
        self.assertEqual(handler.seen, [b"%d" % number for number in range(1, 8)])
        self.assertEqual(consumer.in_flight, 0)
        self.settle(consumer.stop())


class ProcessingTests(ConsumerTestCase):
    """Q-45, Q-49, Q-51."""

    def test_keys_in_parallel(self) -> None:
        handler = Handler(b"a1", b"a2", b"b1")
        consumer = self.start(handler, workers=2)
        self.write(b"a1", b"a2", key=b"a")
        self.write(b"b1", key=b"b")
        self.assertEqual(handler.seen, [b"a1", b"b1"])
        handler.end(b"b1")
        self.assertEqual(handler.seen, [b"a1", b"b1"])
        self.run_for(1)
        self.assertEqual(self.committed(), {})  # a1 comes before it
        handler.end(b"a1")
        self.run_for(1)
        self.assertEqual(self.committed(), {P0: 1})
        handler.end(b"a2")
        self.run_for(1)
        self.assertEqual(self.committed(), {P0: 3})
        self.settle(consumer.stop())

    def test_a_record_that_fails_is_tried_again(self) -> None:
        """Each time after twice the time; its key waits, others do not."""
        handler = Handler()
        handler.fails = {b"a": 2}
        consumer = self.start(handler, workers=2, retry_delay=1)
        self.write(b"a", b"behind", key=b"k")
        self.write(b"other")
        self.assertEqual(handler.seen, [b"a", b"other"])
        self.run_for(0.75)
        self.assertEqual(handler.seen.count(b"a"), 1)
        self.run_for(0.25)
        self.assertEqual(handler.seen.count(b"a"), 2)
        self.run_for(1.75)
        self.assertEqual(handler.seen.count(b"a"), 2)
        self.run_for(0.25)
        self.assertEqual(handler.seen, [b"a", b"other", b"a", b"a", b"behind"])
        self.settle(consumer.stop())
        self.assertEqual((self.committed(), self.given_away), ({P0: 3}, []))

    def test_one_that_always_fails_is_given_away(self) -> None:
        """Q-51: with the reason and the number of attempts."""
        handler = Handler()
        handler.fails = {b"a": 99}
        consumer = self.start(handler, attempts=3, retry_delay=1)
        self.write(b"a", b"b")
        self.run_for(3)
        self.assertEqual(self.given_away, [(b"a", "a fails", 3)])
        self.assertEqual(handler.seen, [b"a", b"a", b"a", b"b"])
        self.settle(consumer.stop())
        self.assertEqual(self.committed(), {P0: 2})

    def test_what_cannot_be_given_away_is_not_lost(self) -> None:
        """Q-51."""
        handler = Handler()
        handler.fails = {b"a": 99}
        consumer = self.make(handler, attempts=1, retry_delay=1)
        outcomes = iter((fail(TopicsUnavailable("full")), None))
        self.patch(consumer, "_give_away", lambda delivery, failure: next(outcomes))
        self.settle(consumer.start())
        self.write(b"a")
        self.run_for(0.75)
        self.assertEqual(handler.seen, [b"a"])
        self.assertEqual(self.committed(), {})
        self.run_for(2)
        self.settle(consumer.stop())
        self.assertEqual(self.committed(), {P0: 1})

    def test_a_stop_waits_for_handlers(self) -> None:
        """And has the session kept meanwhile."""
        handler = Handler(b"a")
        consumer = self.start(handler, session_timeout=5)
        self.write(b"a", b"b")
        stopped = consumer.stop()
        self.run_for(30)
        self.assertNoResult(stopped)
        self.assertEqual(list(self.settle(self.groups.describe("g")).members), ["a"])
        handler.end(b"a")
        self.settle(stopped)
        self.assertEqual((handler.seen, self.committed()), ([b"a"], {P0: 1}))
        self.assertEqual(self.settle(self.groups.describe("g")).members, {})
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_stop_waits_for_a_handler_that_fails(self) -> None:
        """Q-51: its record is not committed, and is read again later."""
        handler = Handler(b"a")
        consumer = self.start(handler)
        self.write(b"a")
        stopped = consumer.stop()
        self.assertNoResult(stopped)
        handler.open.pop(b"a").errback(RuntimeError("a fails"))
        self.settle(stopped)
        self.assertEqual((handler.seen, self.committed()), ([b"a"], {}))
        self.start(handler, "b")
        self.run_for(3)
        self.assertEqual(handler.seen, [b"a", b"a"])


class RebalanceTests(ConsumerTestCase):
    """Q-42, Q-43, Q-44, W-51: a partition has one consumer at a time."""

    def test_partitions_move_without_a_record_twice(self) -> None:
        first = Handler(b"p", b"q")
        one = self.start(first, workers=4)
        self.write(b"p", partition=0)
        self.write(b"q", partition=1)
        second = Handler()
        other = self.start(second, "b")
        self.run_for(2.5)
        self.assertEqual(len(one.assigned), 1)
        (moved,) = {P0, P1} - one.assigned
        self.assertEqual(other.assigned, set())  # it is still being worked on
        value = b"p" if moved == P0 else b"q"
        first.end(value)
        self.run_for(2.5)
        self.assertEqual(other.assigned, {moved})
        self.assertEqual(self.committed(), {moved: 1})
        self.write(b"new", partition=moved.number)
        self.assertEqual((second.seen, first.seen), ([b"new"], [b"p", b"q"]))
        first.end(b"q" if moved == P0 else b"p")
        for consumer in (one, other):
            self.settle(consumer.stop())
        self.assertEqual(self.committed(), {moved: 2, P0 if moved == P1 else P1: 1})

    def test_one_that_left_is_taken_over(self) -> None:
        one = self.start(Handler())
        other = self.start(Handler(), "b")
        self.run_for(5)
        self.assertEqual((len(one.assigned), len(other.assigned)), (1, 1))
        self.settle(one.stop())
        self.run_for(2.5)
        self.assertEqual(other.assigned, {P0, P1})
        self.settle(other.stop())

    def test_one_whose_session_timed_out_joins_again(self) -> None:
        """Q-44, Q-46: what it processes meanwhile is not committed by it."""
        handler = Handler(b"a")
        consumer = self.start(handler)
        self.write(b"a")
        self.groups.leave("g", "a")  # as the group sees it
        self.run_for(2.5)
        self.assertEqual(consumer.assigned, {P0, P1})
        self.assertEqual(handler.seen, [b"a"])  # the record is with the handler still
        handler.end(b"a")
        self.assertEqual(handler.seen, [b"a", b"a"])
        self.write(b"b")
        self.assertEqual(handler.seen, [b"a", b"a", b"b"])
        self.run_for(2)
        self.settle(consumer.stop())
        self.assertEqual(self.committed(), {P0: 2})

    def test_a_generation_that_has_ended_is_learnt_at_once(self) -> None:
        consumer = self.start(Handler(), heartbeat_interval=1000)
        self.write(b"a")
        self.start(Handler(), "b")
        self.run_for(1)  # the commit is refused, and a heartbeat follows
        self.assertEqual(len(consumer.assigned), 1)
        self.run_for(2)
        self.assertEqual(self.committed(), {P0: 1})


class UnreadableBatchTests(ConsumerTestCase):
    """Q-08: a batch that cannot be read is an error that names it, and is never left out by
    itself.
    """

    def setUp(self) -> None:
        super().setUp()
        self.told: list[UnreadableBatch] = []
        self.handler = Handler()

    def spoil(self, partition: Partition = P0, records: int = 3) -> None:
        """Write a batch that cannot be read."""
        self.settle(self.engine.append([Append(partition, records, b"\x01garbage")]))

    def member(
        self, member: str = "a", told: Callable[[UnreadableBatch], object] | None = None
    ) -> GroupConsumer:
        """Start a member; ``told`` is called with what cannot be read."""
        consumer = GroupConsumer(
            self.client,
            self.clock,
            ("g", member),
            topics=frozenset(("t",)),
            handler=self.handler,
            give_away=self.give_away,
            settings=MemberSettings(),
            unreadable=told or self.told.append,
        )
        self.settle(consumer.start())
        return consumer

    def test_the_partition_stands_and_others_go_on(self) -> None:
        """It is told once, and what is before it is committed."""
        self.write(b"a")
        self.spoil()
        self.write(b"b")
        with capturedLogs() as events:
            consumer = self.member()
            self.run_for(60)
            self.write(b"c", partition=1)
            self.run_for(60)
        self.assertEqual(self.handler.seen, [b"a", b"c"])
        self.assertEqual(self.committed(), {P0: 1, P1: 1})
        (told,) = self.told
        self.assertEqual((told.partition, told.offset, told.next_offset), (P0, 1, 4))
        self.assertEqual(consumer.unreadable, {P0: told})
        (line,) = [formatEvent(each) for each in events if each["log_level"] is LogLevel.error]
        self.assertIn("Group g does not read on in t/0, as a batch cannot be read", line)
        self.assertIn("partition 0 of topic t, batch at offset 1", line)

    def test_it_is_left_out_when_it_is_said_so(self) -> None:
        """The offset behind it is committed, also if nothing follows."""
        self.spoil()
        consumer = self.member()
        self.assertIs(consumer.skip(P1), False)
        self.assertIs(consumer.skip(P0), True)
        self.assertIs(consumer.skip(P0), False)
        self.assertEqual(consumer.unreadable, {})
        self.run_for(2)
        self.assertEqual(self.committed(), {P0: 3})
        self.write(b"b")
        self.run_for(2)
        self.assertEqual((self.handler.seen, self.committed()), ([b"b"], {P0: 4}))

    def test_what_is_before_it_is_committed_first(self) -> None:
        """A record that is being processed is not passed by the offset."""
        self.handler.held = {b"a"}
        self.write(b"a")
        self.spoil()
        consumer = self.member()
        consumer.skip(P0)
        self.run_for(3)
        self.assertEqual(self.committed(), {})
        self.handler.end(b"a")
        self.run_for(3)
        self.assertEqual(self.committed(), {P0: 4})

    def test_each_is_told_and_left_out_by_itself(self) -> None:
        """The callback may leave it out at once."""
        found: list[int] = []

        def leave_out(error: UnreadableBatch) -> None:
            found.append(error.offset)
            members[0].skip(error.partition)

        self.write(b"a")
        members = [self.member(told=leave_out)]
        self.spoil(records=1)
        self.spoil(records=1)
        self.write(b"b")
        self.run_for(2)
        self.assertEqual((found, self.handler.seen), ([1, 2], [b"a", b"b"]))
        self.assertEqual(self.committed(), {P0: 4})

    def test_the_next_owner_is_told_too(self) -> None:
        """A member that stands before one can stop, and give the partition back."""
        self.spoil()
        first = self.member()
        self.settle(first.stop())
        self.assertEqual(first.unreadable, {})
        self.assertEqual(self.committed(), {})
        self.member("b")
        self.assertEqual([each.offset for each in self.told], [0, 0])

    def test_a_callback_that_fails(self) -> None:
        def wrong(error: UnreadableBatch) -> None:
            raise RuntimeError("wrong")

        self.spoil()
        self.write(b"c", partition=1)
        consumer = self.member(told=wrong)
        self.assertEqual((list(consumer.unreadable), self.handler.seen), ([P0], [b"c"]))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
