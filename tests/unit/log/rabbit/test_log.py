"""The log in RabbitMQ, on a broker in memory: what it says, accepts, delivers and creates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp import BrokerError, links
from kupool.amqp.links import LinkSettings
from kupool.amqp.publisher import PublisherSettings
from kupool.log import DeliveredEntry, Epoch, Identity, LogStatus, LogUnavailable, Mark
from kupool.log.groups import RetrySettings
from kupool.log.rabbit import BrokerRefused, LogBrokerUnreachable
from kupool.log.rabbit.log import RabbitLog, RabbitSettings
from kupool.log.rabbit.topology import Topology
from tests.fakes.rabbit_broker import RabbitBroker, Stored

WALL = 1_800_000_000.5

OURS = Identity("ours", (Epoch("first", 0),))

NOT_COMPARED = "the stream has not been compared with the counts yet"


class Consumer:
    """Holds what it gets, until a test acknowledges it."""

    subscription: Any

    def __init__(self) -> None:
        self.deliveries: list[DeliveredEntry] = []

    def received(self, deliveries: Sequence[DeliveredEntry]) -> None:
        self.deliveries += deliveries

    @property
    def ids(self) -> list[str]:
        return [delivery.entry.entry_id for delivery in self.deliveries]


class LogCase(SynchronousTestCase):
    """A broker, and logs in it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.broker = RabbitBroker()
        self.patch(links, "connect", self.broker.connect)

    def make(self, **settings: Any) -> RabbitLog:
        settings = {
            "topology": Topology("q"),
            "link": LinkSettings(first_wait=0.01, longest_wait=0.01),
            "retry": RetrySettings(attempts=2, delay=1.0),
        } | settings
        return RabbitLog(self.clock, lambda: WALL, "amqp://broker", RabbitSettings(**settings))

    def open(self, **settings: Any) -> RabbitLog:
        log = self.make(**settings)
        self.result(log.open())
        self.addCleanup(lambda: self.result(log.close()))
        return log

    def run_for(self, seconds: float) -> None:
        """Let some time pass, in steps."""
        self.clock.pump([0.01] * round(seconds * 100))

    def result(self, done: Deferred[Any]) -> Any:
        """What something returns that waits for at most a fifth of a second."""
        self.run_for(0.2)
        return self.successResultOf(done)

    def follow(self, log: RabbitLog, group: str = "stats", prefetch: int = 100) -> Consumer:
        consumer = Consumer()
        consumer.subscription = self.result(log.consume(group, consumer, prefetch))
        self.run_for(0.01)
        return consumer

    def fill(self, log: RabbitLog, *ids: str) -> None:
        for entry_id in ids:
            self.successResultOf(log.append(entry_id, b"body of " + entry_id.encode()))
        self.run_for(0.01)

    def refused(self, log: RabbitLog) -> str:
        """Why it accepts no entry."""
        return str(self.failureResultOf(log.append("no", b""), LogUnavailable).value)

    def assertEnded(self) -> None:
        """Nothing is left: no connection, and nothing that waits for a time."""
        self.assertEqual(self.broker.connections, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StartTests(LogCase):
    """K-79: what a start waits for, and when it fails."""

    def test_what_it_is(self) -> None:
        log = self.make()
        self.assertEqual((log.persistent, log.instant, log.positional), (True, False, False))

    def test_three_connections(self) -> None:
        """Flow control of one connection does not stop the others."""
        self.open()
        purposes = [connection.purpose for connection in self.broker.connections]
        self.assertEqual(purposes, ["publishing", "consuming", "reading"])

    def test_what_is_created(self) -> None:
        self.open()
        self.assertEqual(set(self.broker.queues), {"q", "q.stream", "q.dead"})
        self.assertEqual(self.broker.exchanges, {"q": ["q.stream", "q"]})

    def test_what_is_there_already(self) -> None:
        """The numbers of a new process are those that the broker has."""
        first = self.open()
        self.fill(first, "a", "b", "c")
        consumer = self.follow(first)
        consumer.subscription.nack(consumer.deliveries[0], "bad", False)
        self.result(first.close())
        again = self.open()
        self.assertEqual(again.status(), LogStatus(3, 0, 1, ""))
        self.follow(again, prefetch=1)
        self.assertEqual(again.status(), LogStatus(3, 2, 1, ""))

    def test_no_broker(self) -> None:
        """A start that requires a broker ends with the reason, and leaves nothing."""
        self.broker.up = False
        log = self.make()
        opening = log.open()
        error = self.failureResultOf(opening, LogBrokerUnreachable)
        self.assertEqual(str(error.value), "nobody there")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_broker_is_required_by_default(self) -> None:
        self.assertTrue(RabbitSettings().required)

    def test_no_broker_is_required(self) -> None:
        """The log opens, says what is wrong, and works when the broker comes."""
        self.broker.up = False
        log = self.open(required=False)
        self.assertEqual(log.status().problem, "nobody there")
        self.assertEqual(self.refused(log), "nobody there")
        self.broker.up = True
        self.run_for(0.1)
        self.fill(log, "a")
        self.assertEqual(log.status(), LogStatus(1, 0, 0, ""))

    def test_a_refused_account(self) -> None:
        """A broker that refuses the account fails every start."""
        self.broker.refusal = "wrong password"
        for required in (True, False):
            opening = self.make(required=required).open()
            self.run_for(0.02)
            error = self.failureResultOf(opening, BrokerRefused)
            self.assertEqual(str(error.value), "wrong password")
            self.assertEnded()

    def test_a_broker_that_does_not_answer(self) -> None:
        """A start waits for it, but no longer than the patience if it is not required."""
        self.broker.hangs = True
        waiting = self.make(required=True)
        opening = waiting.open()
        self.clock.pump([0.1] * 100)
        self.assertNoResult(opening)
        self.result(waiting.close())
        self.failureResultOf(opening, LogBrokerUnreachable)
        log = self.make(required=False, patience=3.0)
        opening = log.open()
        self.clock.advance(2.9)
        self.assertNoResult(opening)
        self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(opening))
        self.result(log.close())
        self.assertEnded()

    def test_the_usual_patience(self) -> None:
        self.broker.hangs = True
        log = self.make(required=False)
        opening = log.open()
        self.clock.advance(5.9)
        self.assertNoResult(opening)
        self.clock.advance(0.1)
        self.successResultOf(opening)
        self.result(log.close())


class EndTests(LogCase):
    """K-79: what an end waits for."""

    def test_an_end_leaves_nothing(self) -> None:
        log = self.open()
        consumer = self.follow(log)
        self.fill(log, "a")
        consumer.subscription.nack(consumer.deliveries[0], "not now", True)
        self.result(log.close())
        self.assertEnded()
        self.assertEqual(self.refused(log), "the log is closed")

    def test_a_second_end(self) -> None:
        log = self.open()
        self.result(log.close())
        self.assertIsNone(self.successResultOf(log.close()))

    def test_a_connection_that_takes_long_to_close(self) -> None:
        """An end waits for it: the process may be over after that."""
        log = self.open()
        reading = self.broker.of("reading")
        self.patch(reading, "close", lambda: None)
        closing = log.close()
        self.assertNoResult(closing)
        reading.end(BrokerError("closed"))
        self.successResultOf(closing)
        self.assertEnded()

    def test_a_second_end_during_the_first(self) -> None:
        """Only the first one waits for the confirms."""
        log = self.open()
        self.broker.confirms = False
        appended = log.append("a", b"")
        closing = log.close()
        self.assertIsNone(self.successResultOf(log.close()))
        self.assertNoResult(closing)
        self.broker.confirm_all()
        self.successResultOf(appended)
        self.result(closing)
        self.assertEnded()

    def test_an_end_before_the_start(self) -> None:
        log = self.make()
        self.assertIsNone(self.successResultOf(log.close()))
        self.assertEqual(self.refused(log), "the log is closed")
        self.assertEnded()

    def test_unconfirmed_entries(self) -> None:
        """An end waits for the confirms of what was sent."""
        log = self.open()
        self.broker.confirms = False
        appended = log.append("a", b"")
        closing = log.close()
        self.clock.advance(4.9)
        self.assertNoResult(closing)
        self.broker.confirm_all()
        self.successResultOf(appended)
        self.assertIsNone(self.successResultOf(closing))

    def test_a_broker_that_confirms_nothing(self) -> None:
        """It waits for five seconds, and then says that the entry was not confirmed."""
        log = self.open()
        self.broker.confirms = False
        appended = log.append("a", b"")
        closing = log.close()
        self.clock.pump([0.1] * 50)
        self.failureResultOf(appended, LogUnavailable)
        self.successResultOf(closing)
        self.assertEnded()

    def test_what_was_delivered_and_not_processed(self) -> None:
        """It is in the queue again."""
        log = self.open()
        self.fill(log, "a", "b")
        consumer = self.follow(log)
        self.assertEqual(consumer.ids, ["a", "b"])
        self.result(log.close())
        self.assertEqual(self.broker.ids("q"), ["a", "b"])


class AppendTests(LogCase):
    """K-53, K-79: what is accepted, and what is said of it."""

    def test_what_is_stored(self) -> None:
        """Each queue and the stream get the entry, with the pool and the time in its headers."""
        log = self.open(topology=Topology("q", groups=("stats", "alerts")))
        self.successResultOf(log.identify(OURS))
        self.fill(log, "a")
        headers = {"appended_at": 1_800_000_000_500, "pool": "ours", "epoch": "first"}
        stored = Stored("a", headers, b"body of a")
        self.assertEqual(self.broker.queues["q"].ready, [stored])
        self.assertEqual(self.broker.queues["q.alerts"].ready, [stored])
        (entry,) = self.result(log.read(0, 10))
        self.assertEqual(entry, (1, "a", WALL, b"body of a"))

    def test_it_counts_when_every_queue_is_there(self) -> None:
        """An entry is not accepted while one of the queues or the stream is missing."""
        for missing in ("q", "q.alerts", "q.stream"):
            log = self.open(topology=Topology("q", groups=("stats", "alerts")))
            self.broker.delete(missing)
            appended = log.append(missing, b"")
            self.assertNoResult(appended)
            self.run_for(0.1)
            self.successResultOf(appended)  # it was created again, and the entry sent again
            self.assertIn(missing, self.broker.ids(missing))
            self.result(log.close())

    def test_refusing(self) -> None:
        """A reason to refuse entries holds until it is taken back."""
        log = self.open()
        log.refuse("another pool's")
        self.assertEqual(self.refused(log), "another pool's")
        self.assertEqual(log.status().problem, "another pool's")
        log.refuse("")
        self.fill(log, "a")
        self.assertEqual(log.status().problem, "")

    def test_the_limits_of_the_publisher(self) -> None:
        log = self.open(publisher=PublisherSettings(entries=1))
        self.broker.confirms = False
        appended = log.append("a", b"")
        self.assertEqual(self.refused(log), "too many entries wait for RabbitMQ's confirm")
        self.broker.confirm_all()
        self.successResultOf(appended)

    def test_trimming(self) -> None:
        """K-76: nothing is dropped by us, and the broker does not say what it drops."""
        log = self.open()
        self.assertEqual(self.successResultOf(log.trim(1, 1, 1)), 0)
        self.assertIsNone(self.successResultOf(log.trimmed()))


class DepthTests(LogCase):
    """K-82: how much waits, by what this process knows and by what the broker says."""

    def test_appended_and_not_acknowledged(self) -> None:
        log = self.open()
        self.assertEqual(log.status().depth, 0)
        consumer = self.follow(log, prefetch=2)
        self.fill(log, "a", "b", "c", "d", "e")
        self.assertEqual(consumer.ids, ["a", "b"])
        self.assertEqual(log.status(), LogStatus(5, 5, 0, ""))
        consumer.subscription.ack(consumer.deliveries[:1])
        self.run_for(0.01)
        self.assertEqual(log.status().depth, 4)

    def test_the_slowest_group_counts(self) -> None:
        log = self.open(topology=Topology("q", groups=("stats", "alerts")))
        slow, fast = self.follow(log), self.follow(log, "alerts")
        self.fill(log, "a", "b")
        fast.subscription.ack(fast.deliveries)
        self.assertEqual(log.status().depth, 2)
        slow.subscription.ack(slow.deliveries)
        self.assertEqual(log.status().depth, 0)

    def test_what_others_append_and_take(self) -> None:
        """The broker is asked twice a second."""
        log = self.make()
        opening = log.open()
        while not opening.called:  # the first look is at the end of this
            self.clock.advance(0.01)
        self.addCleanup(lambda: self.result(log.close()))
        consumer = Consumer()
        consumer.subscription = self.successResultOf(log.consume("stats", consumer, 1))
        self.fill(log, "a")
        self.assertEqual(log.status().depth, 1)
        for number in range(4):
            self.broker.put("", "q", Stored(f"other{number}", {}, b""))
        self.broker.put("", "q.dead", Stored("dead", {}, b""))
        self.clock.advance(0.48)
        self.assertEqual((log.status().depth, log.status().dead_letters), (1, 0))
        self.clock.advance(0.01)
        self.assertEqual((log.status().depth, log.status().dead_letters), (5, 1))
        self.assertEqual(consumer.ids, ["a"])

    def test_dead_letters(self) -> None:
        """What cannot be processed says why, of which group, and after how many attempts."""
        log = self.open()
        self.successResultOf(log.identify(OURS))
        consumer = self.follow(log)
        self.fill(log, "a")
        consumer.subscription.nack(consumer.deliveries[0], "bad", False)
        self.assertEqual(log.status(), LogStatus(1, 0, 1, ""))
        headers = {
            "reason": "bad",
            "group": "stats",
            "deliveries": 1,
            "appended_at": 1_800_000_000_500,
            "pool": "ours",
            "epoch": "first",
        }
        dead = self.broker.queues["q.dead"].ready
        self.assertEqual(dead, [Stored("a", headers, b"body of a")])

    def test_another_attempt(self) -> None:
        """The delay and the number of attempts are those of the settings."""
        log = self.open()
        consumer = self.follow(log)
        self.fill(log, "a")
        consumer.subscription.nack(consumer.deliveries[0], "not now", True)
        self.run_for(1.01)
        self.assertEqual([d.attempt for d in consumer.deliveries], [1, 2])
        consumer.subscription.nack(consumer.deliveries[1], "never", True)
        self.assertEqual(self.broker.ids("q.dead"), ["a"])


class GroupTests(LogCase):
    """K-78, K-82: who gets which entries."""

    def test_before_and_after_the_start_of_the_log(self) -> None:
        """Whoever consumes before there is a broker gets the entries when there is one."""
        self.broker.up = False
        log = self.open(required=False)
        consumer = self.follow(log)
        self.broker.up = True
        self.run_for(0.1)
        self.fill(log, "a")
        self.assertEqual(consumer.ids, ["a"])

    def test_a_new_group(self) -> None:
        """A group that the log did not know gets what is appended from now on."""
        log = self.open()
        self.fill(log, "a")
        connections = list(self.broker.connections)
        consumer = self.follow(log, "more")
        self.fill(log, "b")
        self.assertEqual(consumer.ids, ["b"])
        self.assertEqual(self.broker.connections, connections)
        self.assertEqual(self.broker.ids("q"), ["a", "b"])

    def test_a_new_group_without_a_broker(self) -> None:
        """Its queue is created when there is one."""
        self.broker.up = False
        log = self.open(required=False)
        consumer = self.follow(log, "more")
        self.broker.up = True
        self.run_for(0.1)
        self.fill(log, "a")
        self.assertEqual(consumer.ids, ["a"])
        self.assertEqual(self.broker.ids("q"), ["a"])

    def test_a_second_consumer_of_a_group(self) -> None:
        """The first one is ended, and what it holds goes to the second."""
        log = self.open()
        first = self.follow(log)
        self.fill(log, "a")
        second = self.follow(log)
        self.assertEqual((first.ids, second.ids), (["a"], ["a"]))
        self.assertEqual(log.status().depth, 1)

    def test_a_lost_connection(self) -> None:
        """What a consumer still holds does not come twice, and counts once."""
        log = self.open()
        consumer = self.follow(log)
        self.fill(log, "a", "b")
        self.broker.of("consuming").drop("cut")
        self.assertEqual(log.status().depth, 2)
        self.run_for(0.1)
        self.assertEqual(consumer.ids, ["a", "b"])
        consumer.subscription.ack(consumer.deliveries)
        self.fill(log, "c")
        self.assertEqual(consumer.ids, ["a", "b", "c"])
        self.assertEqual(log.status().depth, 1)

    def test_a_queue_that_answers_late(self) -> None:
        """It is waited for as long as the patience, and used when it answers."""
        log = self.open(patience=2.0)
        self.broker.lets_consume = False
        consuming = log.consume("stats", Consumer(), 10)
        self.clock.advance(1.9)
        self.assertNoResult(consuming)
        self.clock.advance(0.1)
        self.successResultOf(consuming)

    def test_a_queue_that_was_deleted(self) -> None:
        """The next look finds it out: the connection ends, and the queue is created again."""
        log = self.open()
        consumer = self.follow(log)
        before = self.broker.of("consuming")
        self.broker.delete("q.dead")
        self.clock.advance(0.5)
        why = str(before.why)
        self.assertEqual(why, "looking at the queues: no queue 'q.dead'")
        self.run_for(0.1)
        self.assertIn("q.dead", self.broker.queues)
        self.fill(log, "a")
        self.assertEqual(consumer.ids, ["a"])

    def test_a_queue_that_cannot_be_consumed(self) -> None:
        """The connection is tried again."""
        log = self.open()
        before = self.broker.of("consuming")
        self.broker.delete("q")
        consumer = Consumer()
        consuming = log.consume("stats", consumer, 10)
        self.assertFalse(before.is_open)
        self.run_for(0.1)
        self.assertIn("q", self.broker.queues)
        self.fill(log, "a")
        self.assertEqual(consumer.ids, ["a"])
        self.clock.advance(6)
        self.successResultOf(consuming)


class HeldTests(LogCase):
    """Issue 11, point 1: a log that is to hold accepts and delivers nothing without a pool."""

    def test_not_by_default(self) -> None:
        log = self.open()
        consumer = self.follow(log)
        self.fill(log, "a")
        self.assertEqual(consumer.ids, ["a"])

    def test_nothing_before(self) -> None:
        self.broker.queues.clear()
        log = self.open(hold=True)
        consumer = self.follow(log)
        self.broker.put("q", "", Stored("earlier", {}, b""))
        self.run_for(0.1)
        self.assertEqual(log.status().problem, NOT_COMPARED)
        self.assertEqual(self.refused(log), NOT_COMPARED)
        self.assertEqual(consumer.ids, [])
        self.result(log.identify(OURS))
        self.assertEqual(consumer.ids, ["earlier"])
        self.fill(log, "a")
        self.assertEqual(consumer.ids, ["earlier", "a"])

    def test_a_better_reason(self) -> None:
        """A refusal, and a broker that is not there, are said before that."""
        log = self.open(hold=True)
        log.refuse("another pool's")
        self.assertEqual(log.status().problem, "another pool's")
        log.refuse("")
        self.broker.fall()
        self.assertEqual(log.status().problem, "RabbitMQ at broker:5672: the broker is gone")

    def test_a_new_connection_before(self) -> None:
        """A connection that comes back does not deliver either."""
        log = self.open(hold=True)
        consumer = self.follow(log)
        self.broker.put("q", "", Stored("earlier", {}, b""))
        self.broker.of("consuming").drop("cut")
        self.run_for(0.1)
        self.assertEqual(consumer.ids, [])
        self.result(log.identify(OURS))
        self.assertEqual(consumer.ids, ["earlier"])

    def test_a_second_identity(self) -> None:
        """What is delivered already is not begun again."""
        log = self.open(hold=True)
        consumer = self.follow(log)
        self.result(log.identify(OURS))
        self.result(log.identify(OURS.with_epoch("second", 0)))
        self.fill(log, "a")
        self.assertEqual(consumer.ids, ["a"])
        (queue,) = [self.broker.queues["q"]]
        self.assertEqual(len(queue.consumers), 1)

    def test_a_queue_that_answers_late(self) -> None:
        """The identity is set all the same, after the patience."""
        log = self.open(hold=True)
        self.follow(log)
        self.broker.lets_consume = False
        identified = log.identify(OURS)
        self.clock.advance(5.9)
        self.assertNoResult(identified)
        self.clock.advance(0.1)
        self.successResultOf(identified)

    def test_after_a_lost_connection(self) -> None:
        """Nothing is asked of the connection that is gone."""
        log = self.open(hold=True)
        consumer = self.follow(log)
        self.broker.put("q", "", Stored("earlier", {}, b""))
        self.broker.fall()
        self.successResultOf(log.identify(OURS))
        self.run_for(0.1)
        self.assertEqual(consumer.ids, [])
        self.broker.up = True
        self.run_for(0.1)
        self.assertEqual(consumer.ids, ["earlier"])

    def test_without_a_connection(self) -> None:
        """The identity is set, and entries are delivered when there is a connection."""
        self.broker.up = False
        log = self.open(hold=True, required=False)
        consumer = self.follow(log)
        self.successResultOf(log.identify(OURS))
        self.broker.up = True
        self.run_for(0.1)
        self.fill(log, "a")
        self.assertEqual(consumer.ids, ["a"])


class IdentityTests(LogCase):
    """Issue 11, point 1: positions follow the epoch before; other pools are left out."""

    def test_positions_after_an_epoch(self) -> None:
        log = self.open()
        self.successResultOf(log.identify(Identity("ours", (Epoch("second", 1000),))))
        self.assertEqual(log.status().appended, 1000)
        self.fill(log, "a", "b")
        self.assertEqual([e.position for e in self.result(log.read(0, 10))], [1001, 1002])
        self.assertEqual(log.status().appended, 1002)

    def test_a_process_that_goes_on(self) -> None:
        """A stream that is the store's has the positions that the store knows."""
        begun = Identity("ours", (Epoch("second", 1000),))
        before = self.open()
        self.successResultOf(before.identify(begun))
        self.fill(before, "a", "b", "c")
        self.result(before.close())
        log = self.open()
        self.result(log.extent(begun, Mark(1002, "b")))
        self.assertEqual(log.status().appended, 1003)
        self.assertEqual([e.position for e in self.result(log.read(1002, 10))], [1003])

    def test_what_is_appended_after_a_comparison(self) -> None:
        """It stays appended, whatever was found before."""
        log = self.open()
        self.successResultOf(log.identify(OURS))
        self.fill(log, "a")
        self.result(log.extent(OURS, Mark(1, "a")))
        self.fill(log, "b")
        self.successResultOf(log.identify(OURS))
        self.assertEqual(log.status().appended, 2)

    def test_an_entry_that_is_not_stored_yet(self) -> None:
        """It does not count before it is confirmed."""
        log = self.open()
        self.successResultOf(log.identify(OURS))
        self.broker.stores = self.broker.confirms = False
        self.assertNoResult(log.append("a", b""))
        self.result(log.extent(OURS, Mark(0)))
        self.assertEqual(log.status().appended, 0)
        self.broker.confirm_all()

    def test_the_same_identity_again(self) -> None:
        """What was appended stays appended."""
        log = self.open()
        self.successResultOf(log.identify(OURS))
        self.fill(log, "a", "b")
        self.successResultOf(log.identify(OURS))
        self.assertEqual(log.status().appended, 2)

    def test_another_pool(self) -> None:
        """Its entries are not read, and go from the queue to the dead letters."""
        log = self.open()
        self.successResultOf(log.identify(OURS))
        consumer = self.follow(log)
        self.broker.put("q", "", Stored("x", {"pool": "theirs"}, b""))
        self.fill(log, "a")
        self.assertEqual([e.entry_id for e in self.result(log.read(0, 10))], ["a"])
        self.assertEqual(consumer.ids, ["a"])
        self.assertEqual(self.broker.ids("q.dead"), ["x"])

    def test_the_extent(self) -> None:
        """What the stream holds is compared with what the store has counted."""
        log = self.open()
        self.successResultOf(log.identify(OURS))
        self.fill(log, "a", "b", "c")
        found = self.result(log.extent(OURS, Mark(2, "b")))
        self.assertEqual((found.identity, found.first, found.last), (OURS, 1, 3))
        self.assertEqual(log.status().appended, 3)

    def test_the_extent_without_a_broker(self) -> None:
        """It says at once why there is none."""
        log = self.open()
        self.broker.fall()
        error = self.failureResultOf(log.extent(OURS, Mark(0)), LogBrokerUnreachable)
        self.assertEqual(str(error.value), "RabbitMQ at broker:5672: the broker is gone")

    def test_a_stream_that_nothing_was_appended_to(self) -> None:
        """It is empty because it is new, and not because somebody has deleted it."""
        log = self.open()
        begun = OURS.with_epoch("second", 500)
        self.successResultOf(log.identify(begun))
        found = self.result(log.extent(begun, Mark(500)))
        self.assertEqual((found.identity, found.last), (begun, 500))
        other = OURS.with_epoch("other", 500)
        self.assertIsNone(self.result(log.extent(other, Mark(500))).identity)

    def test_a_stream_that_was_made_again(self) -> None:
        """What was appended to the one before is not taken to be in it."""
        log = self.open()
        self.successResultOf(log.identify(OURS))
        self.fill(log, "a")
        self.broker.delete("q.stream")
        self.broker.of("reading").drop("cut")
        self.run_for(0.1)
        self.assertIsNone(self.result(log.extent(OURS, Mark(0))).identity)

    def test_a_stream_that_goes_on(self) -> None:
        """A new epoch of a stream that reaches back to it keeps the positions of its entries."""
        log = self.open()
        self.successResultOf(log.identify(OURS))
        self.fill(log, "a", "b", "c")
        self.result(log.extent(OURS, Mark(2, "b")))
        self.successResultOf(log.identify(OURS.with_epoch("second", 3)))
        self.assertEqual([e.position for e in self.result(log.read(0, 10))], [1, 2, 3])
        self.assertEqual(log.status().appended, 3)

    def test_a_new_epoch_of_a_stream_that_was_made_again(self) -> None:
        """Its positions begin after the epoch's start, and what was before is not counted."""
        log = self.open()
        self.successResultOf(log.identify(OURS))
        self.fill(log, "a", "b", "c")
        self.broker.delete("q.stream")
        self.broker.of("reading").drop("cut")
        self.run_for(0.1)
        self.assertIsNone(self.result(log.extent(OURS, Mark(0))).identity)
        self.successResultOf(log.identify(OURS.with_epoch("second", 3)))
        self.assertEqual(log.status().appended, 3)
        self.fill(log, "d")
        self.assertEqual(log.status().appended, 4)
        self.assertEqual([e.position for e in self.result(log.read(0, 10))], [4])

    def test_the_extent_without_a_pool(self) -> None:
        """A store that has no pool yet has none in common with the stream."""
        log = self.open()
        self.broker.put("q", "", Stored("x", {}, b""))
        found = self.result(log.extent(None, Mark(0)))
        self.assertEqual((found.identity, log.status().appended), (None, 0))

    def test_a_stream_that_ends_before_the_epoch(self) -> None:
        """Its positions begin after the epoch's start."""
        log = self.open()
        self.successResultOf(log.identify(OURS))
        self.fill(log, "a", "b", "c")
        self.result(log.extent(OURS, Mark(2, "b")))
        self.successResultOf(log.identify(OURS.with_epoch("second", 4)))
        self.assertEqual([e.position for e in self.result(log.read(0, 10))], [5, 6, 7])
        self.assertEqual(log.status().appended, 7)

    def test_entries_on_their_way_while_comparing(self) -> None:
        """They count when they are confirmed, and not twice."""
        log = self.open()
        self.successResultOf(log.identify(OURS))
        self.fill(log, "a")
        self.broker.confirms = False
        self.assertNoResult(log.append("b", b""))
        self.result(log.extent(OURS, Mark(1, "a")))
        self.assertEqual(log.status().appended, 1)
        self.broker.confirm_all()
        self.assertEqual(log.status().appended, 2)


class WatchTests(LogCase):
    """Issue 11, point 1: who compares the stream with the counts is told when to do it again."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[float] = []

    def watched(self) -> RabbitLog:
        log = self.make()
        log.watch(lambda: self.told.append(self.clock.seconds()))
        self.result(log.open())
        self.addCleanup(lambda: self.result(log.close()))
        return log

    def test_each_new_connection(self) -> None:
        self.watched()
        self.assertEqual(len(self.told), 1)
        self.broker.of("reading").drop("cut")
        self.run_for(0.1)
        self.assertEqual(len(self.told), 2)
        self.broker.of("publishing").drop("cut")
        self.run_for(0.1)
        self.assertEqual(len(self.told), 2)

    def test_a_stream_that_was_made_again(self) -> None:
        """Somebody has deleted it: that is an error in the log of the process, too."""
        log = self.watched()
        self.successResultOf(log.identify(OURS))
        self.broker.delete("q.stream")
        with capturedLogs() as events:
            self.broker.of("publishing").drop("cut")
            self.run_for(0.1)
        self.assertEqual(len(self.told), 2)
        errors = [e["log_format"] for e in events if e["log_level"] is LogLevel.error]
        self.assertIn("The stream {name!r} was deleted by somebody, and was made again", errors)

    def test_the_first_start_is_no_loss(self) -> None:
        """The stream of a log that has no identity yet is only created."""
        with capturedLogs() as events:
            self.watched()
        self.assertEqual([e for e in events if e["log_level"] is LogLevel.error], [])

    def test_a_connection_that_finds_the_stream(self) -> None:
        """Nothing was made again, so nothing is said."""
        log = self.watched()
        self.successResultOf(log.identify(OURS))
        with capturedLogs() as events:
            self.broker.of("publishing").drop("cut")
            self.run_for(0.1)
        self.assertEqual(len(self.told), 1)
        said = [e["log_format"] for e in events if e["log_level"] is LogLevel.error]
        self.assertEqual([line for line in said if "stream" in line], [])

    def test_after_the_end(self) -> None:
        """A connection that comes back just before the end does not tell any more."""
        log = self.watched()
        self.told.clear()

        async def connect(*arguments: Any) -> Any:
            self.clock.callLater(0, log.close)
            return await self.broker.connect(*arguments)

        self.patch(links, "connect", connect)
        self.broker.of("reading").drop("cut")
        self.run_for(0.1)
        self.assertEnded()
        self.assertEqual(self.told, [])
