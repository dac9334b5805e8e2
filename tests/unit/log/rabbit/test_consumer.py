"""A group's place in a queue: what a consumer is handed, and what the broker is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp import BrokerError
from kupool.amqp.channel import BrokerMessage
from kupool.log import DeliveredEntry, Epoch, Identity
from kupool.log.groups import READ_CHUNK, RetrySettings
from kupool.log.rabbit import consumer
from kupool.log.rabbit.consumer import RabbitSubscription
from kupool.log.rabbit.gauge import Gauge

RETRY = RetrySettings(attempts=3, delay=1.0)


class Queue:
    """A queue at a broker, with at most one consumer at a time."""

    def __init__(self) -> None:
        #: What nobody holds, the next first: (id, body, headers).
        self.waiting: list[tuple[str, bytes, dict[str, Any]]] = []
        self.connection: Connection | None = None

    def bring(self, *ids: str, body: bytes = b"", **headers: Any) -> None:
        self.waiting += [(entry_id, body, headers) for entry_id in ids]
        if self.connection is not None:
            self.connection.deliver()


class Connection:
    """A connection with one channel, which consumes a queue."""

    def __init__(self, queue: Queue, hangs: bool = False) -> None:
        self._queue = queue
        self._hangs = hangs
        self._limit = 0
        self._tag = 0
        self._next: Deferred[BrokerMessage] | None = None
        self._arrived: list[BrokerMessage] = []
        self.unacknowledged: dict[int, tuple[str, bytes, dict[str, Any]]] = {}
        self.consumed: str = ""
        self.open = True
        self.dropped: list[str] = []
        #: The tags of each acknowledgement, and whether it is for all up to that.
        self.acks: list[tuple[int, bool]] = []
        #: What the broker's answer to a consumer waits for, if anything.
        self.late: Deferred[None] | None = None

    @property
    def held(self) -> list[str]:
        """The ids of what the broker waits for."""
        return [entry_id for entry_id, _, _ in self.unacknowledged.values()]

    # -- the broker

    def deliver(self) -> None:
        waiting = self._queue.waiting
        while self.consumed and waiting and len(self.unacknowledged) < self._limit:
            self._tag += 1
            entry_id, body, headers = self.unacknowledged[self._tag] = waiting.pop(0)
            message = BrokerMessage(self._tag, entry_id, headers, body, False)
            if self._next is None:
                self._arrived.append(message)
            else:
                arriving, self._next = self._next, None
                arriving.callback(message)

    def end(self) -> None:
        """The connection breaks: what is unacknowledged goes back to the queue."""
        self.open = False
        self._queue.connection = None
        self._queue.waiting[:0] = self.unacknowledged.values()
        self.unacknowledged.clear()
        self.end_deliveries()

    def end_deliveries(self) -> None:
        """No more messages come, as when the queue was deleted."""
        ending, self._next = self._next, None
        if ending is not None:
            ending.errback(BrokerError("gone"))

    # -- what a client asks of a connection, a channel and its deliveries

    def drop(self, why: str) -> None:
        self.dropped.append(why)

    async def channel(self) -> Connection:
        return self

    async def prefetch(self, count: int) -> None:
        self._limit = count

    async def consume(self, queue: str) -> Connection:
        if self.late is not None:
            await self.late
        self.consumed = queue
        self._queue.connection = self
        self.deliver()
        return self

    def next(self) -> Deferred[BrokerMessage]:
        if self._arrived:
            return succeed(self._arrived.pop(0))
        if not self.open:
            return fail(BrokerError("gone"))
        self._next = Deferred()
        return self._next

    def ack(self, tag: int, multiple: bool = False) -> None:
        assert tag in self.unacknowledged, "a broker closes the channel for such a tag"
        self.acks.append((tag, multiple))
        for each in [t for t in self.unacknowledged if (t <= tag if multiple else t == tag)]:
            del self.unacknowledged[each]
        self.deliver()

    def requeue(self, tag: int) -> None:
        self._queue.waiting.insert(0, self.unacknowledged.pop(tag))
        self.deliver()

    def close(self) -> Deferred[None]:
        if self._hangs:
            return Deferred()
        self.end()
        return succeed(None)


class ConsumerCase(SynchronousTestCase):
    """A queue, its consumer, and the dead letters."""

    identity: Identity | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = Queue()
        self.gauge = Gauge()
        self.deliveries: list[DeliveredEntry] = []
        #: How many entries came at once.
        self.sizes: list[int] = []
        #: What the consumer raises, if anything.
        self.error: Exception | None = None
        self.buried: list[tuple[str, str, int]] = []
        #: What burying an entry ends with; for each the next, None for success.
        self.burials: list[Deferred[None]] = []

    def received(self, deliveries: Sequence[DeliveredEntry]) -> None:
        self.deliveries += deliveries
        self.sizes.append(len(deliveries))
        if self.error is not None:
            raise self.error

    def bury(self, delivery: DeliveredEntry, reason: str) -> Deferred[None]:
        self.buried.append((delivery.entry.entry_id, reason, delivery.attempt))
        return self.burials.pop(0) if self.burials else succeed(None)

    def subscribe(self, prefetch: int = 10) -> RabbitSubscription:
        self.subscription = RabbitSubscription(
            self.clock,
            "the queue",
            self.gauge,
            self,
            prefetch=prefetch,
            retry=RETRY,
            bury=self.bury,
            identity=lambda: self.identity,
        )
        return self.subscription

    def connect(self, hangs: bool = False) -> Connection:
        connection = Connection(self.queue, hangs)
        begun = Deferred.fromCoroutine(self.subscription.up(connection))  # type: ignore[arg-type]
        self.successResultOf(begun)
        self.clock.advance(0)
        return connection

    def one_turn(self) -> None:
        """Run what is due in this turn of the reactor, and not what it has run in the next."""
        due, self.clock.calls = self.clock.calls, []
        for call in due:
            call.func(*call.args, **call.kw)

    def lose(self, connection: Connection) -> None:
        connection.end()
        self.subscription.down()

    def bring(self, *ids: str, **headers: Any) -> None:
        self.queue.bring(*ids, **headers)
        self.clock.advance(0)

    @property
    def ids(self) -> list[str]:
        return [delivery.entry.entry_id for delivery in self.deliveries]

    @property
    def attempts(self) -> list[tuple[str, int]]:
        return [(delivery.entry.entry_id, delivery.attempt) for delivery in self.deliveries]


class DeliveryTests(ConsumerCase):
    """K-78, K-82: what a consumer is handed."""

    def test_what_an_entry_says(self) -> None:
        """An entry has its number, its id, its body, and when it was appended."""
        self.subscribe()
        connection = self.connect()
        self.bring("a", body=b"one", appended_at=1500)
        self.bring("b", body=b"two")
        self.assertEqual(connection.consumed, "the queue")
        self.assertEqual(
            [tuple(delivery.entry) for delivery in self.deliveries],
            [(1, "a", 1.5, b"one"), (2, "b", 0.0, b"two")],
        )
        self.assertEqual(self.attempts, [("a", 1), ("b", 1)])
        self.assertEqual({delivery.earlier for delivery in self.deliveries}, {False})

    def test_at_most_the_prefetch(self) -> None:
        """K-82: no more is handed over than the prefetch, and more as it is acknowledged."""
        self.queue.bring("a", "b", "c", "d", "e")
        subscription = self.subscribe(2)
        self.connect()
        self.assertEqual(self.ids, ["a", "b"])
        self.assertEqual(subscription.unacknowledged, 2)
        subscription.ack(self.deliveries[:1])
        self.clock.advance(0)
        self.assertEqual(self.ids, ["a", "b", "c"])
        subscription.ack(self.deliveries)
        self.clock.advance(0)
        self.assertEqual(self.ids, ["a", "b", "c", "d", "e"])

    def test_a_prefetch_that_no_broker_takes(self) -> None:
        """None means as many as there are to RabbitMQ, and more than 65535 is an error."""
        for asked, given in ((0, 1), (-5, 1), (1, 1), (65535, 65535), (100_000, 65535)):
            self.subscribe(asked)
            connection = self.connect()
            self.assertEqual(connection._limit, given)
            self.lose(connection)

    def test_a_turn_at_a_time(self) -> None:
        """A consumer gets so many entries in one turn that others have theirs in between."""
        count = 2 * READ_CHUNK + 1
        self.queue.bring(*(f"e{number}" for number in range(count)))
        self.subscribe(1000)
        self.connect()
        self.clock.pump([0, 0])
        self.assertEqual(self.sizes, [READ_CHUNK, READ_CHUNK, 1])
        self.assertEqual(self.ids, [f"e{number}" for number in range(count)])
        self.assertFalse(self.clock.getDelayedCalls())

    def test_a_consumer_that_fails(self) -> None:
        """Its error is logged; it holds what it got, and gets what comes next."""
        self.error = RuntimeError("broken")
        self.subscribe()
        connection = self.connect()
        self.bring("a")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.error = None
        self.bring("b")
        self.assertEqual(self.ids, ["a", "b"])
        self.subscription.ack(self.deliveries)
        self.assertEqual(connection.held, [])

    def test_messages_of_one_turn_come_together(self) -> None:
        self.subscribe()
        self.connect()
        self.queue.bring("a")
        self.queue.bring("b")
        self.clock.advance(0)
        self.assertEqual(self.sizes, [2])

    def test_how_many_wait(self) -> None:
        """K-79: what is delivered waits no more, and does again when it was not acknowledged."""
        self.gauge.seen(5)
        self.gauge.seen(5)
        self.subscribe()
        connection = self.connect()
        self.bring("a", "b", "c")
        self.assertEqual(self.gauge.waiting, 2)
        self.subscription.ack(self.deliveries[:1])
        self.assertEqual(self.gauge.waiting, 2)
        self.lose(connection)
        self.assertEqual(self.gauge.waiting, 4)
        self.assertEqual(self.subscription.unacknowledged, 0)

    def test_deliveries_that_end(self) -> None:
        """A queue that is gone ends the connection: the next one makes it again."""
        self.subscribe()
        connection = self.connect()
        connection.end_deliveries()
        (why,) = connection.dropped
        self.assertEqual(why, "no more deliveries from 'the queue': gone")

    def test_deliveries_that_end_with_their_connection(self) -> None:
        """The connection that came after it is left alone."""
        self.subscribe()
        connection = self.connect()
        self.subscription.down()
        again = self.connect()
        connection.end_deliveries()
        self.assertEqual((connection.dropped, again.dropped), ([], []))

    def test_what_comes_late_from_a_connection_that_is_gone(self) -> None:
        """It comes again on the next one, and only what comes there is handed over."""
        self.subscribe()
        connection = self.connect()
        self.subscription.down()
        self.bring("a")
        self.assertEqual(self.ids, [])
        connection.end()
        self.connect()
        self.assertEqual(self.ids, ["a"])


class PoolOfEntryTests(ConsumerCase):
    """issue 12: entries of other pools and of earlier epochs."""

    identity = Identity("mine", (Epoch("old", 0), Epoch("new", 7)))

    def test_another_pool(self) -> None:
        """What names another pool is buried with the reason, and no consumer sees it."""
        self.subscribe()
        connection = self.connect()
        self.queue.bring("a", pool="mine", epoch="new")
        self.queue.bring("b", pool="other", epoch="new")
        self.queue.bring("c")
        with capturedLogs() as events:
            self.clock.advance(0)
        self.assertEqual(self.ids, ["a", "c"])
        self.assertEqual(self.buried, [("b", "of pool other, not of mine", 1)])
        self.assertEqual(connection.held, ["a", "c"])
        said = [formatEvent(e) for e in events if e["log_level"] is LogLevel.error]
        self.assertEqual(said, ["Entry b: of pool other, not of mine"])

    def test_many_of_another_pool(self) -> None:
        """They count as entries of a turn: one does not go on for as long as they come."""
        self.queue.bring(*(f"e{number}" for number in range(READ_CHUNK + 1)), pool="other")
        self.subscribe(1000)
        connection: Any = Connection(self.queue)
        self.successResultOf(Deferred.fromCoroutine(self.subscription.up(connection)))
        self.one_turn()
        self.assertEqual(len(self.buried), READ_CHUNK)
        self.one_turn()
        self.assertEqual(len(self.buried), READ_CHUNK + 1)
        self.assertEqual(self.sizes, [])

    def test_an_earlier_epoch(self) -> None:
        self.subscribe()
        self.connect()
        self.bring("a", pool="mine", epoch="old")
        self.bring("b", pool="mine", epoch="new")
        self.assertEqual([delivery.earlier for delivery in self.deliveries], [True, False])


class AcknowledgementTests(ConsumerCase):
    """K-78: the broker is told of what is processed, and of nothing else."""

    def setUp(self) -> None:
        super().setUp()
        self.subscribe()
        self.connection = self.connect()
        self.bring("a", "b", "c", "d", "e")

    def ack(self, *places: int) -> None:
        self.subscription.ack([self.deliveries[place] for place in places])

    def test_in_order(self) -> None:
        self.ack(0, 1)
        self.assertEqual(self.connection.held, ["c", "d", "e"])
        self.assertEqual(self.subscription.unacknowledged, 3)
        self.ack(2, 3, 4)
        self.assertEqual(self.connection.held, [])
        self.assertEqual(self.subscription.unacknowledged, 0)

    def test_out_of_order(self) -> None:
        """K-79: what is processed behind something that is not does not come again."""
        self.ack(3)
        self.assertEqual(self.connection.held, ["a", "b", "c", "e"])
        self.ack(1, 0)
        self.assertEqual(self.connection.held, ["c", "e"])
        self.assertEqual(self.subscription.unacknowledged, 2)
        self.ack(4, 2)
        self.assertEqual(self.connection.held, [])
        self.assertEqual(self.subscription.unacknowledged, 0)

    def test_one_message_for_many(self) -> None:
        """The broker is told once of all at the start of the queue."""
        self.ack(0, 1, 2)
        self.assertEqual(self.connection.acks, [(3, True)])
        self.ack(4)
        self.assertEqual(self.connection.acks[1:], [(5, False)])

    def test_some_of_both(self) -> None:
        self.ack(0, 2, 4)
        self.assertEqual(self.connection.held, ["b", "d"])
        self.assertEqual(self.subscription.unacknowledged, 2)
        self.ack(3, 1)
        self.assertEqual(self.connection.held, [])

    def test_twice(self) -> None:
        self.ack(0)
        self.ack(0, 1)
        self.assertEqual(self.connection.held, ["c", "d", "e"])

    def test_what_was_refused(self) -> None:
        """It comes again, whatever is said of it later."""
        self.subscription.nack(self.deliveries[0], "bad", True)
        self.ack(0)
        self.assertEqual(self.connection.held, ["a", "b", "c", "d", "e"])

    def test_what_is_open_while_others_come(self) -> None:
        self.ack(1, 2, 3, 4)
        self.bring("f", "g")
        self.ack(5)
        self.assertEqual(self.connection.held, ["a", "g"])
        self.ack(0)
        self.assertEqual(self.connection.held, ["g"])
        self.ack(6)
        self.assertEqual(self.connection.held, [])


class RefusalTests(ConsumerCase):
    """K-79: what could not be processed comes again after a delay, or is buried."""

    def setUp(self) -> None:
        super().setUp()
        self.subscribe()
        self.connection = self.connect()
        self.bring("a", "b")

    def refuse(self, place: int = -1, retry: bool = True) -> None:
        self.subscription.nack(self.deliveries[place], "bad", retry)

    def test_again_after_a_delay(self) -> None:
        self.refuse(0)
        self.clock.advance(RETRY.delay - 0.01)
        self.assertEqual(self.ids, ["a", "b"])
        self.assertEqual(self.subscription.unacknowledged, 2)
        self.clock.advance(0.01)
        self.clock.advance(0)
        self.assertEqual(self.attempts, [("a", 1), ("b", 1), ("a", 2)])
        self.subscription.ack(self.deliveries)
        self.assertEqual(self.connection.held, [])
        self.assertEqual(self.buried, [])

    def test_until_no_attempt_is_left(self) -> None:
        for attempt in range(1, RETRY.attempts + 1):
            self.assertEqual((self.attempts[-1], self.buried), (("b", attempt), []))
            self.refuse()
            self.clock.pump([RETRY.delay, 0])
        self.assertEqual(self.buried, [("b", "bad", RETRY.attempts)])
        self.assertEqual(self.connection.held, ["a"])
        self.assertEqual(self.subscription.unacknowledged, 1)

    def test_at_once(self) -> None:
        """What is not to be tried again is buried at the first attempt."""
        self.refuse(0, retry=False)
        self.assertEqual(self.buried, [("a", "bad", 1)])
        self.assertEqual(self.connection.held, ["b"])

    def test_an_id_that_was_settled_begins_anew(self) -> None:
        """Another entry of the same id has all its attempts."""
        self.refuse()
        self.clock.pump([RETRY.delay, 0])
        self.subscription.ack(self.deliveries[-1:])
        self.bring("b")
        self.assertEqual(self.attempts[-1], ("b", 1))

    def test_how_many_attempts_are_remembered(self) -> None:
        """Those of the entries refused last: what was refused before them begins anew."""
        self.patch(consumer, "_REMEMBERED", 2)
        self.bring("c")
        for place in range(3):
            self.refuse(place)
        self.clock.pump([RETRY.delay, 0])
        self.assertEqual(sorted(self.attempts[3:]), [("a", 1), ("b", 2), ("c", 2)])

    def test_twice(self) -> None:
        """Refused once, it comes again once."""
        self.refuse(0)
        self.refuse(0, retry=False)
        self.clock.pump([RETRY.delay, 0])
        self.assertEqual(self.attempts, [("a", 1), ("b", 1), ("a", 2)])
        self.assertEqual(self.buried, [])

    def test_what_was_settled(self) -> None:
        self.subscription.ack(self.deliveries)
        self.refuse(0, retry=False)
        self.assertEqual(self.buried, [])

    def test_the_place_of_what_is_refused_is_taken(self) -> None:
        """K-82: an entry that waits to come again counts to the prefetch until it is given back."""
        self.lose(self.connection)
        self.queue.waiting.clear()
        self.deliveries.clear()
        self.subscribe(1)
        self.connection = self.connect()
        self.bring("x", "y")
        self.refuse(0)
        self.clock.advance(0)
        self.assertEqual(self.ids, ["x"])
        self.clock.pump([RETRY.delay, 0])
        self.assertEqual(self.attempts, [("x", 1), ("x", 2)])
        self.subscription.ack(self.deliveries[-1:])
        self.clock.advance(0)
        self.assertEqual(self.ids, ["x", "x", "y"])

    def test_how_many_wait(self) -> None:
        """What is given back waits in the queue until it is delivered again."""
        self.lose(self.connection)
        self.subscribe()
        gauge = self.gauge = self.subscription._gauge
        connection = self.connect()
        gauge.seen(3)
        gauge.seen(3)
        connection._limit = 0  # nothing more is delivered
        self.refuse()
        self.clock.advance(RETRY.delay)
        self.assertEqual(gauge.waiting, 4)

    def test_a_dead_letter_that_cannot_be_saved(self) -> None:
        """It is tried again after the delay, and unacknowledged until it is kept."""
        self.burials += [fail(BrokerError("full")), fail(BrokerError("full"))]
        with capturedLogs() as events:
            self.refuse(0, retry=False)
        self.assertEqual(len(self.buried), 1)
        said = [formatEvent(event) for event in events]
        self.assertEqual(said, ["A dead letter could not be saved, trying again: full"])
        self.clock.advance(RETRY.delay - 0.01)
        self.assertEqual(len(self.buried), 1)
        self.clock.advance(0.01)
        self.assertEqual(len(self.buried), 2)
        self.assertEqual(self.connection.held, ["a", "b"])
        self.clock.advance(RETRY.delay)
        self.assertEqual(self.buried, 3 * [("a", "bad", 1)])
        self.assertEqual(self.connection.held, ["b"])

    def test_no_dead_letter_of_what_is_settled(self) -> None:
        """K-79: a dead letter is of an entry that is not processed."""
        held = self.subscription._held[self.deliveries[0].entry.position]
        self.subscription.ack(self.deliveries[:1])
        self.subscription._bury(held, "bad")
        self.subscription._buried(held)
        self.assertEqual((self.buried, self.connection.held), ([], ["b"]))

    def test_what_is_said_while_a_dead_letter_is_saved(self) -> None:
        """K-79: an acknowledgement comes too late, and a second refusal changes nothing."""
        burial: Deferred[None] = Deferred()
        self.burials += [burial]
        self.refuse(0, retry=False)
        self.subscription.ack(self.deliveries[:1])
        self.refuse(0, retry=True)
        self.assertEqual(self.connection.held, ["a", "b"])
        burial.callback(None)
        self.assertEqual(self.connection.held, ["b"])
        self.assertEqual(self.buried, [("a", "bad", 1)])
        self.assertFalse(self.clock.getDelayedCalls())


class LostConnectionTests(ConsumerCase):
    """K-79: when the connection is gone, the broker delivers again what it was not told of."""

    def begin(self, prefetch: int = 10) -> None:
        self.subscribe(prefetch)
        self.connection = self.connect()

    def reconnect(self) -> None:
        self.lose(self.connection)
        self.connection = self.connect()

    def test_what_the_consumer_has(self) -> None:
        """It is not handed over twice, and acknowledged when it is processed."""
        self.begin()
        self.bring("a", "b")
        self.reconnect()
        self.bring("c")
        self.assertEqual(self.ids, ["a", "b", "c"])
        self.assertEqual(self.subscription.unacknowledged, 3)
        self.subscription.ack(self.deliveries[:2])
        self.assertEqual(self.connection.held, ["c"])

    def test_what_the_consumer_did_not_get(self) -> None:
        """What came and was not handed over yet is handed over once."""
        self.begin()
        self.queue.bring("a")
        self.reconnect()
        self.assertEqual(self.ids, ["a"])

    def test_what_was_processed_meanwhile(self) -> None:
        """It is acknowledged when it comes again, and not handed over; once."""
        self.begin()
        self.bring("a", "b")
        self.lose(self.connection)
        self.subscription.ack(self.deliveries)
        self.connection = self.connect()
        self.assertEqual(self.ids, ["a", "b"])
        self.assertEqual(self.connection.held, [])
        self.bring("a")
        self.assertEqual(self.ids, ["a", "b", "a"])

    def test_another_entry_of_the_same_id(self) -> None:
        """What the consumer has is known by its id and its body."""
        self.begin()
        self.bring("a", body=b"one")
        self.lose(self.connection)
        self.queue.waiting.clear()
        self.connection = self.connect()
        self.bring("a", body=b"two")
        self.assertEqual([delivery.entry.body for delivery in self.deliveries], [b"one", b"two"])

    def test_the_same_entry_twice(self) -> None:
        """Each is recognised, and acknowledged by itself."""
        self.begin()
        self.bring("a", "a", "b")
        self.reconnect()
        self.assertEqual(self.ids, ["a", "a", "b"])
        self.subscription.ack(self.deliveries[:1])
        self.assertEqual(self.connection.held, ["a", "b"])
        self.subscription.ack(self.deliveries[1:2])
        self.assertEqual(self.connection.held, ["b"])

    def test_lost_twice(self) -> None:
        """What has not come again by the next loss is recognised all the same."""
        self.begin()
        self.bring("a")
        self.lose(self.connection)
        self.reconnect_after_an_idle_one()
        self.assertEqual(self.ids, ["a"])
        self.subscription.ack(self.deliveries)
        self.assertEqual(self.connection.held, [])
        self.bring("a")  # another one, with the same content
        self.assertEqual(self.ids, ["a", "a"])

    def reconnect_after_an_idle_one(self) -> None:
        kept, self.queue.waiting = self.queue.waiting, []
        idle = self.connect()
        self.lose(idle)
        self.queue.waiting = kept
        self.connection = self.connect()

    def test_what_waited_to_be_given_back(self) -> None:
        """It comes again at once as the next attempt, and is not given back once more."""
        self.begin()
        self.bring("a")
        self.subscription.nack(self.deliveries[0], "bad", True)
        self.reconnect()
        self.assertEqual(self.attempts, [("a", 1), ("a", 2)])
        self.clock.pump([RETRY.delay, 0])
        self.assertEqual(self.attempts, [("a", 1), ("a", 2)])
        self.assertEqual(self.connection.held, ["a"])

    def test_what_waited_to_be_given_back_takes_no_place(self) -> None:
        """K-82: it comes again, although the prefetch has room for one entry only."""
        self.begin(1)
        self.bring("a")
        self.subscription.nack(self.deliveries[0], "bad", True)
        self.reconnect()
        self.assertEqual(self.attempts, [("a", 1), ("a", 2)])

    def test_what_is_refused_meanwhile(self) -> None:
        """It comes again by itself, as the next attempt."""
        self.begin(1)
        self.bring("a")
        self.lose(self.connection)
        self.subscription.nack(self.deliveries[0], "bad", True)
        self.assertFalse(self.clock.getDelayedCalls())
        self.connection = self.connect()
        self.assertEqual(self.attempts, [("a", 1), ("a", 2)])
        self.subscription.ack(self.deliveries[1:])
        self.assertEqual(self.connection.held, [])

    def lost_during_burial(self) -> Deferred[None]:
        """Lose the connection while an entry is buried; returns what ends its burial."""
        burial: Deferred[None] = Deferred()
        self.burials.append(burial)
        self.begin()
        self.bring("a")
        self.subscription.nack(self.deliveries[0], "bad", False)
        self.lose(self.connection)
        return burial

    def test_what_is_being_buried(self) -> None:
        """It is buried once, and acknowledged when it comes again."""
        for before in (True, False):
            self.deliveries.clear()
            self.buried.clear()
            burial = self.lost_during_burial()
            if before:
                burial.callback(None)
            self.connection = self.connect()
            if not before:
                burial.callback(None)
            self.assertEqual(self.ids, ["a"])
            self.assertEqual(self.connection.held, [])
            self.assertEqual(len(self.buried), 1)
            self.lose(self.connection)

    def test_what_is_buried_before_it_comes_again(self) -> None:
        """Nothing is acknowledged until it comes, and then it is."""
        burial = self.lost_during_burial()
        kept, self.queue.waiting = self.queue.waiting, []
        self.connection = self.connect()
        burial.callback(None)
        self.assertEqual(self.connection.acks, [])
        self.queue.waiting = kept
        self.connection.deliver()
        self.assertEqual((self.ids, self.connection.held), (["a"], []))

    def test_how_much_is_remembered(self) -> None:
        """Of what was processed without a broker, the newest are known, up to the prefetch."""
        self.begin(2)
        for pair in (("a", "b"), ("c", "d")):
            self.bring(*pair)
            self.lose(self.connection)
            self.queue.waiting.clear()  # another consumer of the group had them
            self.subscription.ack(self.deliveries[-2:])
            self.connection = self.connect()
        self.bring("c", "d")
        self.assertEqual(self.ids, ["a", "b", "c", "d"])
        self.assertEqual(self.connection.held, [])
        self.bring("a", "b")
        self.assertEqual(self.ids, ["a", "b", "c", "d", "a", "b"])

    def test_what_waits_behind_what_the_consumer_has(self) -> None:
        """K-82: the prefetch holds across connections, and what waits comes when there is room.

        Nothing runs until then: a timer of no delay would run again and again.
        """
        self.begin(2)
        self.bring("a", "b")
        self.lose(self.connection)
        self.queue.waiting.clear()  # another consumer of the group had them
        self.connection = self.connect()
        self.queue.bring("c")
        self.one_turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.ids, ["a", "b"])
        self.subscription.ack(self.deliveries[:1])
        self.clock.advance(0)
        self.assertEqual(self.ids, ["a", "b", "c"])
        self.bring("d")
        self.assertEqual(self.ids, ["a", "b", "c"])
        self.subscription.nack(self.deliveries[1], "bad", True)
        self.clock.advance(0)
        self.assertEqual(self.ids, ["a", "b", "c", "d"])


class StopTests(ConsumerCase):
    """K-85: a stop leaves nothing behind, and the broker has what was not acknowledged."""

    def test_everything_ends(self) -> None:
        """No timer is left: not of what comes, of what is given back, or of dead letters."""
        self.burials.append(fail(BrokerError("full")))
        subscription = self.subscribe()
        self.connect()
        self.bring("a", "b")
        subscription.nack(self.deliveries[0], "bad", True)
        subscription.nack(self.deliveries[1], "bad", False)
        self.queue.bring("c")
        self.successResultOf(subscription.stop())
        self.assertFalse(self.clock.getDelayedCalls())
        self.assertEqual([entry_id for entry_id, _, _ in self.queue.waiting], ["a", "b", "c"])
        self.assertEqual(self.ids, ["a", "b"])

    def test_after_what_was_given_back(self) -> None:
        """Timers that are over are not cancelled again."""
        self.burials.append(fail(BrokerError("full")))
        subscription = self.subscribe()
        self.connect()
        self.bring("a", "b")
        subscription.nack(self.deliveries[0], "bad", True)
        subscription.nack(self.deliveries[1], "bad", False)
        self.clock.pump([RETRY.delay, 0])
        self.assertEqual(self.attempts[-1], ("a", 2))
        self.successResultOf(subscription.stop())

    def test_how_many_wait(self) -> None:
        self.gauge.seen(3)
        self.gauge.seen(3)
        subscription = self.subscribe()
        self.connect()
        self.bring("a", "b")
        self.successResultOf(subscription.stop())
        self.assertEqual(self.gauge.waiting, 3)
        self.assertEqual(subscription.unacknowledged, 0)

    def test_a_broker_that_hangs(self) -> None:
        """A stop is over after some seconds, whatever the broker does."""
        subscription = self.subscribe()
        connection = self.connect(hangs=True)
        stopped = subscription.stop()
        self.clock.advance(1.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.successResultOf(stopped)
        self.bring("a")
        self.assertEqual((self.ids, connection.dropped), ([], []))

    def test_without_a_connection(self) -> None:
        subscription = self.subscribe()
        self.successResultOf(subscription.stop())
        self.assertEqual(self.connect().consumed, "")

    def test_the_end_of_the_deliveries(self) -> None:
        """It is no reason to end the connection, which others use."""
        subscription = self.subscribe()
        connection = self.connect()
        self.successResultOf(subscription.stop())
        self.assertEqual(connection.dropped, [])

    def test_twice(self) -> None:
        """The second stop finds nothing to end."""
        subscription = self.subscribe()
        self.connect()
        self.queue.bring("a")
        self.successResultOf(subscription.stop())
        self.successResultOf(subscription.stop())
        self.assertEqual(self.ids, [])

    def test_while_it_begins(self) -> None:
        """A queue that answers after the stop keeps its entries for the next consumer."""
        subscription = self.subscribe()
        connection = Connection(self.queue)
        connection.late = Deferred()
        begun = Deferred.fromCoroutine(subscription.up(connection))  # type: ignore[arg-type]
        self.successResultOf(subscription.stop())
        connection.late.callback(None)
        self.successResultOf(begun)
        self.bring("a")
        self.assertEqual((self.ids, connection.held, connection.dropped), ([], [], []))
        self.subscribe()
        self.connect()
        self.assertEqual(self.ids, ["a"])

    def test_what_the_consumer_says_later(self) -> None:
        """What it could not process comes again with the next start."""
        subscription = self.subscribe()
        self.connect()
        self.bring("a", "b", "c")
        self.successResultOf(subscription.stop())
        subscription.ack(self.deliveries[:1])
        subscription.nack(self.deliveries[1], "bad", False)
        subscription.nack(self.deliveries[2], "bad", True)
        self.assertEqual(self.buried, [])
        self.assertFalse(self.clock.getDelayedCalls())

    def test_what_came_and_was_not_handed_over(self) -> None:
        """It stays in the queue, also when an acknowledgement after the stop makes room."""
        subscription = self.subscribe(1)
        connection = self.connect()
        self.bring("a")
        self.lose(connection)
        self.queue.waiting.clear()  # another consumer of the group had it
        self.connect()
        self.bring("b")
        self.successResultOf(subscription.stop())
        subscription.ack(self.deliveries)
        self.clock.advance(0)
        self.assertEqual(self.ids, ["a"])

    def test_no_dead_letter_later(self) -> None:
        """K-79: the broker delivers the entry again, so it must not be a dead letter as well."""
        subscription = self.subscribe()
        self.connect()
        self.bring("a")
        (held,) = subscription._held.values()
        self.successResultOf(subscription.stop())
        subscription._bury(held, "bad")
        self.assertEqual(self.buried, [])

    def test_a_dead_letter_that_is_saved_later(self) -> None:
        """Saved or not after the stop: it is tried no more, and the broker has the entry."""
        for saved in (True, False):
            burial: Deferred[None] = Deferred()
            self.burials.append(burial)
            subscription = self.subscribe()
            self.connect()
            self.bring("a")
            subscription.nack(self.deliveries[-1], "bad", False)
            self.successResultOf(subscription.stop())
            if saved:
                burial.callback(None)
            else:
                burial.errback(BrokerError("full"))
            self.assertFalse(self.clock.getDelayedCalls())
            self.queue.waiting.clear()
