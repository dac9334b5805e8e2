"""The log in memory: how much it holds, and what it drops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import DeliveredEntry, Epoch, Identity, LogUnavailable, Mark
from kupool.log.groups import RetrySettings
from kupool.log.memory import MemoryLog

BODY = bytes(50)  # with 350 bytes beside it an entry has 400


class Taker:
    def __init__(self) -> None:
        self.deliveries: list[DeliveredEntry] = []

    def received(self, deliveries: Sequence[DeliveredEntry]) -> None:
        self.deliveries += deliveries


class MemoryLogTests(SynchronousTestCase):
    """K-77, K-82: bounded by bytes; what is not acknowledged is never dropped."""

    def setUp(self) -> None:
        self.clock = Clock()

    def log(self, entries: int, capacity: int = 4000) -> MemoryLog:
        log = MemoryLog(self.clock, lambda: 5.0, capacity, RetrySettings(1, 1.0))
        self.append(log, entries)
        return log

    def append(self, log: MemoryLog, count: int) -> None:
        for _ in range(count):
            self.successResultOf(log.append("e", BODY))

    def follow(self, log: MemoryLog, group: str = "g") -> tuple[Taker, Any]:
        taker = Taker()
        subscription = self.successResultOf(log.consume(group, taker, 1000))
        self.clock.pump([0] * 3)
        return taker, subscription

    def positions(self, log: MemoryLog) -> list[int]:
        return [entry.position for entry in self.successResultOf(log.read(0, 1000))]

    def test_what_it_is(self) -> None:
        log = self.log(0)
        self.assertEqual((log.persistent, log.instant, log.positional), (False, True, True))

    def test_its_usual_size(self) -> None:
        """64 MiB, with 350 bytes added for each entry."""
        log = MemoryLog(self.clock, lambda: 5.0)
        self.failureResultOf(log.append("e", bytes((64 << 20) - 349)), LogUnavailable)
        self.successResultOf(log.append("e", bytes((64 << 20) - 350)))

    def test_how_often_an_entry_comes(self) -> None:
        """As often as the settings say, and five times without any."""
        for retry, attempts in ((RetrySettings(2, 1.0), 2), (None, 5)):
            log = MemoryLog(self.clock, lambda: 5.0, 4000, retry)
            self.append(log, 1)
            taker, subscription = self.follow(log)
            for attempt in range(1, attempts + 1):
                self.assertEqual(log.status().dead_letters, 0)
                self.assertEqual(taker.deliveries[-1].attempt, attempt)
                subscription.nack(taker.deliveries[-1], "bad", True)
                self.clock.advance(1.0)
            self.assertEqual(log.status().dead_letters, 1)

    def test_without_entries(self) -> None:
        """Nothing waits, neither here nor in a spool, and nothing is wrong."""
        log = self.log(0)
        self.follow(log)
        self.assertEqual(tuple(log.status()), (0, 0, 0, "", 0, 0.0, ""))

    def test_full_to_the_byte(self) -> None:
        for capacity, fits in ((4000, 10), (3999, 9), (4001, 10)):
            log = self.log(fits, capacity)
            refused = self.failureResultOf(log.append("e", BODY), LogUnavailable)
            self.assertEqual(str(refused.value), "the memory log is full")
            self.assertEqual(log.status().appended, fits)

    def test_nothing_is_dropped_while_there_is_room(self) -> None:
        log = self.log(9)
        taker, subscription = self.follow(log)
        subscription.ack(taker.deliveries)
        self.append(log, 1)
        self.assertEqual(len(self.positions(log)), 10)
        log = self.log(10, 4350)
        taker, subscription = self.follow(log)
        subscription.ack(taker.deliveries)
        self.successResultOf(log.append("e", b""))
        self.assertEqual(len(self.positions(log)), 11)

    def test_room_is_made_of_what_is_acknowledged(self) -> None:
        """A tenth of the capacity at once, and as much as a large entry needs."""
        for body, left in ((BODY, 10), (bytes(1250), 7), (bytes(1650), 6)):
            log = self.log(10)
            taker, subscription = self.follow(log)
            subscription.ack(taker.deliveries[:5])
            self.successResultOf(log.append("e", body))
            self.assertEqual(len(self.positions(log)), left)
            self.assertEqual(self.positions(log)[-1], 11)
        log = self.log(1000, 400_000)
        taker, subscription = self.follow(log)
        self.clock.pump([0] * 5)
        subscription.ack(taker.deliveries)
        self.append(log, 1)
        self.assertEqual(self.positions(log), list(range(101, 1002)))

    def test_no_room_is_made_of_the_rest(self) -> None:
        log = self.log(10)
        taker, subscription = self.follow(log)
        slow, _ = self.follow(log, "slow")
        subscription.ack(taker.deliveries)
        self.failureResultOf(log.append("e", BODY), LogUnavailable)
        self.assertEqual(len(self.positions(log)), 10)
        self.assertEqual(len(slow.deliveries), 10)

    def test_consumers_are_told_a_moment_later(self) -> None:
        log = self.log(0)
        self.append(log, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        taker, _ = self.follow(log)
        self.append(log, 2)
        self.clock.advance(0.015)
        self.assertEqual(len(taker.deliveries), 1)
        self.clock.advance(0.005)
        self.assertEqual(len(taker.deliveries), 3)

    def test_closed_with_a_wake_on_its_way(self) -> None:
        log = self.log(0)
        _, subscription = self.follow(log)
        self.append(log, 1)
        self.successResultOf(log.close())
        self.successResultOf(log.close())
        self.successResultOf(subscription.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_thousand_dead_letters_are_kept(self) -> None:
        log = self.log(0)
        for number in range(1001):
            log.bury("g", DeliveredEntry(self.entry(number), 1), "bad")
        kept = [delivery.entry.position for _, delivery, _ in log.dead_letters]
        self.assertEqual(kept, list(range(1, 1001)))
        self.assertEqual(log.status().dead_letters, 1001)

    def entry(self, number: int) -> Any:
        log = self.log(1)
        (entry,) = self.successResultOf(log.read(0, 1))
        return entry._replace(position=number)

    def test_nothing_is_trimmed_without_a_consumer(self) -> None:
        log = self.log(2)
        self.assertEqual(self.successResultOf(log.trim(0.0, 0, 1)), 0)
        self.assertEqual(self.positions(log), [1, 2])

    def test_trimmed_again_and_again(self) -> None:
        """Each trim drops what was there the given time ago, however many there were."""
        log = self.log(0)
        taker, subscription = self.follow(log)
        for now in range(20):
            self.append(log, 1)
            self.clock.advance(1)
            subscription.ack(taker.deliveries)
            self.successResultOf(log.trim(float(now), 3, 0))
            self.assertEqual(self.positions(log), list(range(max(1, now - 1), now + 2)))
        self.assertLessEqual(len(log._ages), 5)

    def test_trimmed_again_and_again_without_a_new_entry(self) -> None:
        """K-82: what is remembered for the age of entries does not grow with the trims."""
        log = self.log(3)
        taker, subscription = self.follow(log)
        for now in range(100):
            self.assertEqual(self.successResultOf(log.trim(float(now), 1000, 0)), 0)
        self.assertEqual(len(log._ages), 1)
        subscription.ack(taker.deliveries)
        self.assertEqual(self.successResultOf(log.trim(1000.0, 1000, 0)), 3)
        self.assertEqual(len(log._ages), 0)

    def test_trimmed_by_size(self) -> None:
        log = self.log(10)
        taker, subscription = self.follow(log)
        subscription.ack(taker.deliveries[:8])
        for most, dropped, left in ((4000, 0, 10), (3999, 1, 9), (800, 7, 2), (1, 0, 2)):
            self.assertEqual(self.successResultOf(log.trim(0.0, 0, most)), dropped)
            self.assertEqual(len(self.positions(log)), left)
            self.assertEqual(self.successResultOf(log.trimmed()), 10 - left)
        self.append(log, 8)
        self.failureResultOf(log.append("e", BODY), LogUnavailable)

    def test_trimmed_by_age(self) -> None:
        """From the trim that first saw an entry; a clock that goes back ages nothing."""
        log = self.log(2)
        taker, subscription = self.follow(log)
        log.trim(1000.0, 10, 0)
        self.append(log, 1)
        self.clock.advance(1)
        subscription.ack(taker.deliveries)
        log.trim(1005.0, 10, 0)
        for now, left in ((1009.75, [1, 2, 3]), (900.0, [1, 2, 3]), (900.25, [3]), (905.25, [])):
            log.trim(now, 10, 0)
            self.assertEqual(self.positions(log), left, now)
        self.assertEqual(self.successResultOf(log.trimmed()), 3)

    def test_no_age_keeps_all(self) -> None:
        log = self.log(2)
        taker, subscription = self.follow(log)
        subscription.ack(taker.deliveries)
        for now in (0.0, 1e9):
            self.assertEqual(self.successResultOf(log.trim(now, 0, 0)), 0)
        self.assertEqual(len(self.positions(log)), 2)

    def test_its_extent(self) -> None:
        log = self.log(0)
        known = Identity("pool", (Epoch("one", 100),))
        extent = self.successResultOf(log.extent(None, Mark(0)))
        self.assertEqual((extent.first, extent.last, extent.holds_data), (1, 0, False))
        self.successResultOf(log.identify(known))
        self.assertEqual((log.status().appended, log.status().depth), (100, 0))
        self.append(log, 3)
        extent = self.successResultOf(log.extent(None, Mark(0)))
        self.assertEqual((extent.identity, extent.first, extent.last), (known, 101, 103))
        self.assertEqual((extent.holds_data, extent.acknowledged), (True, 0))
        taker, subscription = self.follow(log)
        subscription.ack(taker.deliveries[:2])
        self.assertEqual(log.status().depth, 1)
        extent = self.successResultOf(log.extent(None, Mark(0)))
        self.assertEqual(extent.acknowledged, 102)
        self.successResultOf(log.identify(Identity("pool", (Epoch("one", 50),))))
        self.assertEqual(log.status().appended, 103)

    def test_who_comes_again_goes_on_at_its_place(self) -> None:
        log = self.log(3)
        taker, subscription = self.follow(log)
        subscription.ack(taker.deliveries[:1])
        again, _ = self.follow(log)
        self.assertEqual([d.entry.position for d in again.deliveries], [2, 3])
        elsewhere = Taker()
        self.successResultOf(log.consume("g", elsewhere, 10, after=2))
        self.clock.advance(0)
        self.assertEqual([d.entry.position for d in elsewhere.deliveries], [3])
