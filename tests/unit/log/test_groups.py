"""A consumer's place in a log, whatever the order of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import DeliveredEntry, Entry
from kupool.log.groups import READ_CHUNK, LocalSubscription, RetrySettings


class FakeLog:
    """Entries in a list; saves and burials wait for the test, if it likes."""

    def __init__(self, count: int) -> None:
        self.entries = [Entry(n, f"e{n}", 0.0, b"") for n in range(1, count + 1)]
        self.places: list[int] = []
        self.buried: list[tuple[int, str]] = []
        self.reads = 0
        self.held: list[Deferred[None]] | None = None
        self.broken = self.keeps_no_place = False

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        self.reads += 1
        if self.broken:
            return fail(OSError("cannot read"))
        return succeed(self.entries[after : after + limit])

    def keep_place(self, group: str, position: int) -> Deferred[None]:
        if self.keeps_no_place:
            return fail(OSError("cannot keep"))
        self.places.append(position)
        if self.held is None:
            return succeed(None)
        self.held.append(Deferred())
        return self.held[-1]

    def bury(self, group: str, delivery: DeliveredEntry, reason: str) -> Deferred[None]:
        if self.broken:
            return fail(OSError("cannot bury"))
        self.buried.append((delivery.entry.position, reason))
        return succeed(None)


class Taker:
    def __init__(self) -> None:
        self.deliveries: list[DeliveredEntry] = []
        self.largest = 0

    def received(self, deliveries: Sequence[DeliveredEntry]) -> None:
        self.largest = max(self.largest, len(deliveries))
        self.deliveries += deliveries


class SubscriptionCase(SynchronousTestCase):
    def subscribe(self, count: int, prefetch: int = 1000) -> None:
        self.clock = Clock()
        self.source = FakeLog(count)
        self.taker: Any = Taker()
        self.subscription = LocalSubscription(
            self.source,
            self.clock,
            "g",
            self.taker,
            place=0,
            prefetch=prefetch,
            retry=RetrySettings(3, 1.0),
        )
        self.subscription.wake()
        self.clock.pump([0] * 20)

    def delivery(self, position: int) -> DeliveredEntry:
        return next(d for d in self.taker.deliveries if d.entry.position == position)


class PlaceTests(SubscriptionCase):
    """K-53: the place never passes an entry that is not settled."""

    @given(st.randoms(use_true_random=False), st.integers(1, 30), st.integers(1, 30))
    def test_any_order(self, random: Random, count: int, prefetch: int) -> None:
        """K-53, K-82: whatever is acknowledged in whatever order, and how often, the place
        is before the first that is open, what is ahead of it is bounded, and nothing is
        delivered twice.
        """
        self.subscribe(count, prefetch)
        settled: set[int] = set()
        while len(settled) < count:
            delivered = [d.entry.position for d in self.taker.deliveries]
            self.assertEqual(delivered, list(range(1, len(delivered) + 1)))
            self.assertLessEqual(len(delivered) - self.subscription.place, prefetch)
            waiting = [p for p in delivered if p not in settled]
            choice = random.sample(waiting, random.randint(1, len(waiting)))
            choice += random.sample(sorted(settled), min(2, len(settled)))
            if random.random() < 0.5:
                self.subscription.ack([self.delivery(p) for p in choice])
            else:
                for position in choice:
                    self.subscription.nack(self.delivery(position), "no", False)
            settled.update(choice)
            still_open = [p for p in range(1, count + 1) if p not in settled]
            self.assertEqual(self.subscription.place, min(still_open, default=count + 1) - 1)
            self.assertEqual((self.source.places or [0])[-1], self.subscription.place)
            self.clock.pump([0] * 3)
        self.assertEqual(self.subscription.unacknowledged, 0)

    def test_what_is_delivered(self) -> None:
        """issue 12: what is in this log is of its history, and not of an earlier epoch."""
        self.subscribe(1)
        (delivery,) = self.taker.deliveries
        self.assertEqual(tuple(delivery), (Entry(1, "e1", 0.0, b""), 1, False))

    def test_in_chunks(self) -> None:
        """K-82: a turn hands over so many entries and no more; in the end all."""
        self.subscribe(5 * READ_CHUNK, 10_000)
        self.assertEqual(len(self.taker.deliveries), 5 * READ_CHUNK)
        self.assertEqual(self.taker.largest, 250)

    def test_how_often_and_when(self) -> None:
        """K-80: five times a second apart, unless the settings say otherwise."""
        self.assertEqual((RetrySettings().attempts, RetrySettings().delay), (5, 1.0))
        self.subscribe(1)
        for attempt in (1, 2, 3):
            delivery = self.taker.deliveries[-1]
            self.assertEqual(delivery.attempt, attempt)
            self.subscription.nack(delivery, "bad", True)
            self.clock.advance(0.75)
            self.assertEqual(len(self.taker.deliveries), attempt)
            self.clock.advance(0.25)
        self.assertEqual(len(self.taker.deliveries), 3)
        self.assertEqual((self.source.buried, self.subscription.place), ([(1, "bad")], 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_settled_entry_stays_settled(self) -> None:
        self.subscribe(2)
        self.subscription.ack([self.delivery(2)])
        self.subscription.nack(self.delivery(2), "late", True)
        self.subscription.nack(self.delivery(2), "late", False)
        self.subscription.ack([DeliveredEntry(Entry(7, "e7", 0.0, b""), 1)])
        self.clock.advance(5.0)
        self.assertEqual((self.source.buried, len(self.taker.deliveries)), ([], 2))
        self.assertEqual((self.subscription.unacknowledged, self.subscription.place), (2, 0))
        self.subscription.ack([self.delivery(1)])
        self.assertEqual((self.subscription.unacknowledged, self.subscription.place), (0, 2))
        self.subscription.nack(self.delivery(1), "late", False)
        self.assertEqual(self.source.buried, [])

    def test_a_place_is_kept_once(self) -> None:
        self.subscribe(3)
        self.subscription.ack([self.delivery(2)])
        self.assertEqual(self.source.places, [])
        self.subscription.ack([self.delivery(1)])
        self.subscription.ack([self.delivery(1)])
        self.successResultOf(self.subscription.stop())
        self.assertEqual(self.source.places, [2])

    def test_exactly_as_many_as_the_prefetch(self) -> None:
        self.subscribe(10, prefetch=3)
        self.assertEqual((len(self.taker.deliveries), self.subscription.unacknowledged), (3, 3))
        self.subscription.ack([self.delivery(1)])
        self.assertEqual(len(self.taker.deliveries), 4)

    def test_a_log_is_not_read_for_nothing(self) -> None:
        """K-82: not without room for an entry, and not while a read is on its way."""
        self.subscribe(3, prefetch=3)
        reads = self.source.reads
        self.subscription.wake()
        self.assertEqual(self.source.reads, reads)
        self.subscription.ack([self.delivery(1)])
        reading: list[Deferred[Sequence[Entry]]] = []

        def read(after: int, limit: int) -> Deferred[Sequence[Entry]]:
            reading.append(Deferred())
            return reading[-1]

        self.patch(self.source, "read", read)
        for _ in range(3):
            self.subscription.wake()
        self.assertEqual(len(reading), 1)
        reading[0].callback([Entry(4, "e4", 0.0, b"")])
        self.assertEqual([d.entry.position for d in self.taker.deliveries], [1, 2, 3, 4])

    def test_stopped_before_the_next_turn(self) -> None:
        """K-85: a read that is due in the next turn is not made."""
        self.subscribe(1)
        self.source.entries.append(Entry(2, "e2", 0.0, b""))
        self.subscription.wake()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.successResultOf(self.subscription.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_after_another_attempt(self) -> None:
        """K-85: a timer that is over is not cancelled."""
        self.subscribe(1)
        self.subscription.nack(self.delivery(1), "bad", True)
        self.clock.advance(1.0)
        self.assertEqual(len(self.taker.deliveries), 2)
        self.successResultOf(self.subscription.stop())

    def test_stopped_with_everything_on_its_way(self) -> None:
        """A fetch, a delivery that is due and a dead letter: nothing comes of them."""
        self.subscribe(2)
        self.source.broken = True
        self.subscription.nack(self.delivery(1), "bad", False)
        reading: Deferred[Sequence[Entry]] = Deferred()
        self.patch(self.source, "read", lambda after, limit: reading)
        self.subscription.wake()
        self.successResultOf(self.subscription.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        reading.callback([Entry(3, "e3", 0.0, b"")])
        self.assertEqual((len(self.taker.deliveries), self.clock.getDelayedCalls()), (2, []))

    def test_stop_waits_for_the_newest_place(self) -> None:
        """K-85: a stop ends when the last place is kept, not an earlier one."""
        self.subscribe(3)
        self.source.held = held = []
        self.subscription.ack([self.delivery(1)])
        self.subscription.ack([self.delivery(2), self.delivery(3)])
        stopped = self.subscription.stop()
        self.assertEqual(self.source.places, [1])
        held[0].callback(None)
        self.assertNoResult(stopped)
        self.assertEqual(self.source.places, [1, 3])
        held[1].callback(None)
        self.successResultOf(stopped)

    def test_stop_tries_once_more(self) -> None:
        """K-85: a place that could not be kept is kept at the stop, if that is possible."""
        self.subscribe(2)
        self.source.keeps_no_place = True
        self.subscription.ack([self.delivery(1)])
        self.source.keeps_no_place = False
        self.successResultOf(self.subscription.stop())
        self.assertEqual(self.source.places, [1])

    def test_stop_without_a_place(self) -> None:
        self.subscribe(2)
        self.source.keeps_no_place = True
        self.subscription.ack(self.taker.deliveries)
        self.successResultOf(self.subscription.stop())

    def test_nothing_after_the_stop(self) -> None:
        """K-85: after the stop nothing is delivered, and no timer is left."""
        self.subscribe(3)
        self.subscription.nack(self.delivery(1), "later", True)
        self.successResultOf(self.subscription.stop())
        self.subscription.nack(self.delivery(2), "later", True)
        self.subscription.nack(self.delivery(2), "never", False)
        self.source.entries.append(Entry(4, "e4", 0.0, b""))
        self.subscription.wake()
        self.clock.advance(10)
        self.assertEqual(len(self.taker.deliveries), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.source.buried, [])


class TroubleTests(SubscriptionCase):
    def test_unreadable_for_a_while(self) -> None:
        """K-72: a log that cannot be read is read again."""
        self.subscribe(0)
        self.source.broken = True
        self.source.entries.append(Entry(1, "e1", 0.0, b""))
        self.subscription.wake()
        self.clock.advance(1.0)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)
        self.source.broken = False
        self.clock.advance(1.0)
        self.assertEqual(len(self.taker.deliveries), 1)

    def test_dead_letter_that_cannot_be_kept(self) -> None:
        """K-80: it is tried until it is kept; what follows goes on meanwhile."""
        self.subscribe(20, prefetch=10)
        self.source.broken = True
        self.subscription.nack(self.delivery(1), "bad", False)
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.subscription.place, 0)
        self.source.broken = False
        self.subscription.ack(self.taker.deliveries[1:])
        self.clock.advance(1.0)
        self.assertEqual(self.source.buried, [(1, "bad")])
        self.clock.advance(0)
        self.assertEqual(self.subscription.place, 10)
        self.assertEqual(len(self.taker.deliveries), 20)

    def test_dead_letter_that_cannot_be_settled(self) -> None:
        """K-80: an unexpected error of the log is in the log of the process."""
        self.subscribe(1)

        def broken(group: str, position: int) -> Deferred[None]:
            raise KeyError("place")

        self.patch(self.source, "keep_place", broken)
        self.subscription.nack(self.delivery(1), "bad", False)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_consumer_that_raises(self) -> None:
        """An exception of the consumer is logged, and others come to it still."""
        self.subscribe(0)

        def broken(deliveries: Sequence[DeliveredEntry]) -> None:
            raise KeyError("consumer")

        received, self.taker.received = self.taker.received, broken
        self.source.entries.append(Entry(1, "e1", 0.0, b""))
        self.subscription.wake()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.taker.received = received
        self.source.entries.append(Entry(2, "e2", 0.0, b""))
        self.clock.advance(0)
        self.assertEqual([d.entry.position for d in self.taker.deliveries], [2])
        self.assertEqual(self.subscription.place, 0)
