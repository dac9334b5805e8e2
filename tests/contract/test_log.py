"""What every log does, whatever engine it has.

An engine is added by a subclass of :class:`LogContract` that makes logs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kupool.log import (
    DeliveredEntry,
    Entry,
    Epoch,
    Extent,
    IConsumer,
    Identity,
    ILog,
    ILogReader,
    ISubscription,
    LogStatus,
    LogUnavailable,
    Mark,
)
from kupool.log.groups import RetrySettings
from kupool.log.memory import MemoryLog
from kupool.log.sqlite import SqliteLog
from kupool.storage.database import Database
from tests.servers.reactor import the_reactor

RETRY = RetrySettings(attempts=3, delay=0.01)


@implementer(IConsumer)
class Collector:
    """Takes entries, and acknowledges them at once unless it is told not to."""

    def __init__(self, ack: bool = True) -> None:
        self.deliveries: list[DeliveredEntry] = []
        self.subscription: Any = None
        self._ack = ack

    def received(self, deliveries: Sequence[DeliveredEntry]) -> None:
        self.deliveries += deliveries
        if self._ack:
            self.subscription.ack(deliveries)

    @property
    def ids(self) -> list[str]:
        return [delivery.entry.entry_id for delivery in self.deliveries]


class LogContract:
    """K-78: the suite; mixed into a TestCase by each engine."""

    #: Whether entries are still there for another log on the same place.
    durable = False

    #: Whether what was acknowledged behind something that was not comes again, too.
    place_is_before_the_first_open = True

    #: Seconds in which what should happen does.
    patience = 30.0

    def make_log(self) -> Any:
        """Return a log on a place of its own, or on that of the one before."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.now = 1_800_000_000.0
        self.opened: list[Any] = []
        self.subscriptions: list[Any] = []

    def wall(self) -> float:
        return self.now

    async def open_log(self) -> Any:
        log = self.make_log()
        self.opened.append(log)
        await log.open()
        self.addCleanup(log.close)  # type: ignore[attr-defined]
        return log

    async def follow(
        self,
        log: Any,
        group: str = "g",
        prefetch: int = 1000,
        ack: bool = True,
        after: int | None = None,
    ) -> Collector:
        consumer = Collector(ack)
        consumer.subscription = await log.consume(group, consumer, prefetch, after)
        self.addCleanup(consumer.subscription.stop)  # type: ignore[attr-defined]
        return consumer

    async def fill(self, log: Any, count: int, start: int = 0) -> list[str]:
        ids = [f"e{n}" for n in range(start, start + count)]
        for entry_id in ids:
            await log.append(entry_id, b"body of " + entry_id.encode())
        return ids

    async def until(self, condition: Any, what: str = "") -> None:
        for _ in range(int(self.patience * 100)):
            if condition():
                return
            await deferLater(the_reactor(), 0.01)
        self.fail(f"waited too long: {what}")  # type: ignore[attr-defined]

    async def quiet(self) -> None:
        """Long enough for whatever should not happen to happen."""
        await deferLater(the_reactor(), 0.1)

    async def test_interfaces(self) -> None:
        log = await self.open_log()
        verifyObject(ILog, log)
        consumer = await self.follow(log)
        verifyObject(ISubscription, consumer.subscription)
        verifyObject(IConsumer, consumer)
        self.assertIs(log.persistent, self.durable)  # type: ignore[attr-defined]

    async def test_read(self) -> None:
        """K-77: what was appended is read back, in order, as often as one likes."""
        log = await self.open_log()
        self.assertEqual(list(await log.read(0, 10)), [])
        ids = await self.fill(log, 25)
        for _ in range(2):
            found, position = [], 0
            while entries := await log.read(position, 10):
                self.assertLessEqual(len(entries), 10)
                found += entries
                position = entries[-1].position
            self.assertEqual([e.entry_id for e in found], ids)
            self.assertEqual([e.body for e in found], [b"body of " + i.encode() for i in ids])
            self.assertEqual({e.appended_at for e in found}, {self.now})
            positions = [e.position for e in found]
            self.assertEqual(positions, sorted(set(positions)))

    async def test_any_bytes(self) -> None:
        log = await self.open_log()
        bodies = [b"", b"\x00\xff" * 1000, "名".encode()]
        for n, body in enumerate(bodies):
            await log.append(f"'; DROP TABLE entries;-- {n}", body)
        self.assertEqual([e.body for e in await log.read(0, 10)], bodies)

    async def test_consume(self) -> None:
        """K-78: a consumer gets what was there and what comes, in order, once."""
        log = await self.open_log()
        ids = await self.fill(log, 30)
        consumer = await self.follow(log)
        await self.until(lambda: len(consumer.deliveries) == 30)
        ids += await self.fill(log, 600, 30)
        await self.until(lambda: len(consumer.deliveries) >= 630)
        await self.quiet()
        self.assertEqual(consumer.ids, ids)
        self.assertEqual({d.attempt for d in consumer.deliveries}, {1})
        await self.until(lambda: log.status().depth == 0)

    async def test_prefetch(self) -> None:
        """K-82: no more than the prefetch is handed out ahead of what is acknowledged."""
        log = await self.open_log()
        ids = await self.fill(log, 50)
        consumer = await self.follow(log, prefetch=7, ack=False)
        await self.until(lambda: len(consumer.deliveries) >= 7)
        await self.quiet()
        self.assertEqual(consumer.ids, ids[:7])
        consumer.subscription.ack(consumer.deliveries[:3])
        await self.until(lambda: len(consumer.deliveries) >= 10)
        await self.quiet()
        self.assertEqual(consumer.ids, ids[:10])
        await self.until(lambda: log.status().depth == 47)

    async def test_many_with_a_prefetch_of_one(self) -> None:
        """K-82: acknowledging at once, one by one, is no recursion."""
        log = await self.open_log()
        ids = await self.fill(log, 1500)
        consumer = await self.follow(log, prefetch=1)
        await self.until(lambda: len(consumer.deliveries) >= 1500)
        self.assertEqual(consumer.ids, ids)

    async def test_place(self) -> None:
        """K-53: what was not acknowledged comes again, and nothing else."""
        log = await self.open_log()
        ids = await self.fill(log, 10)
        consumer = await self.follow(log, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 10)
        consumer.subscription.ack(consumer.deliveries[:4] + consumer.deliveries[6:8])
        await consumer.subscription.stop()
        await self.fill(log, 1, 10)
        await self.quiet()
        self.assertEqual(len(consumer.deliveries), 10)
        again = await self.follow(log)
        await self.until(lambda: "e10" in again.ids)
        await self.quiet()
        left = ids[4:] if self.place_is_before_the_first_open else [*ids[4:6], *ids[8:]]
        self.assertEqual(again.ids, [*left, "e10"])

    async def test_groups(self) -> None:
        """K-78: each group has a place of its own."""
        log = await self.open_log()
        ids = await self.fill(log, 5)
        one, two = await self.follow(log, "one"), await self.follow(log, "two", ack=False)
        await self.until(lambda: one.ids == ids and two.ids == ids)
        await self.until(lambda: log.status().depth == 5)
        two.subscription.ack(two.deliveries)
        await self.until(lambda: log.status().depth == 0)

    async def test_retry(self) -> None:
        """K-79, K-80: a refused entry comes again after a delay, so many times; then it is
        a dead letter. What follows is processed meanwhile.
        """
        log = await self.open_log()
        ids = await self.fill(log, 3)
        consumer = await self.follow(log, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 3)
        first, *rest = consumer.deliveries
        consumer.subscription.ack(rest)
        consumer.subscription.nack(first, "not today", True)
        for attempt in (2, 3):
            await self.until(lambda n=attempt: len(consumer.deliveries) >= 2 + n, "attempt")
            again = consumer.deliveries[-1]
            self.assertEqual((again.entry.entry_id, again.attempt), (ids[0], attempt))
            consumer.subscription.nack(again, "not today", True)
        await self.until(lambda: log.status().dead_letters == 1)
        await self.until(lambda: log.status().depth == 0)
        self.assertEqual(await self.dead_letters(log), [(ids[0], "not today", 3)])
        self.assertEqual(len(consumer.deliveries), 5)

    async def test_dead_letter(self) -> None:
        """K-80: without a retry it is a dead letter at once, with the reason and the body."""
        log = await self.open_log()
        ids = await self.fill(log, 3)
        consumer = await self.follow(log, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 3)
        consumer.subscription.nack(consumer.deliveries[1], "cannot be read", False)
        consumer.subscription.nack(consumer.deliveries[1], "twice", False)
        consumer.subscription.ack(consumer.deliveries)
        consumer.subscription.nack(consumer.deliveries[2], "too late", False)
        await self.until(lambda: log.status().depth == 0)
        await self.quiet()
        letters = await self.dead_letters(log)
        self.assertEqual({entry_id for entry_id, _, _ in letters}, {ids[1]})
        self.assertEqual(letters[0][1], "cannot be read")

    async def dead_letters(self, log: Any) -> list[tuple[str, str, int]]:
        """Return (entry id, reason, deliveries) of the dead letters."""
        raise NotImplementedError

    async def reader(self, log: Any) -> Any:
        reader = log.reader()
        await reader.open()
        self.addCleanup(reader.close)  # type: ignore[attr-defined]
        return reader

    async def read_all(self, reader: Any, max_bytes: int) -> list[Entry]:
        """Return all entries, read in parts of so many bytes."""
        found: list[Entry] = []
        position = 0
        while entries := await reader.read(position, max_bytes):
            found += entries
            position = entries[-1].position
        return found

    async def test_reader(self) -> None:
        """Q-03, Q-07: a reader beside the log sees what is durable, in parts of some bytes."""
        log = await self.open_log()
        reader = await self.reader(log)
        verifyObject(ILogReader, reader)
        self.assertEqual(list(await reader.read(0, 1000)), [])
        ids = await self.fill(log, 25)
        entries = await self.read_all(reader, 1_000_000)
        self.assertEqual([e.entry_id for e in entries], ids)
        self.assertEqual([e.body for e in entries], [b"body of " + i.encode() for i in ids])
        self.assertEqual({e.appended_at for e in entries}, {self.now})
        for max_bytes in (0, 1, 25, 30):
            self.assertEqual(await self.read_all(reader, max_bytes), entries)
        self.assertEqual(list(await reader.read(0, 0)), entries[:1])
        self.assertEqual(list(await reader.read(entries[3].position, 20)), entries[4:6])

    async def test_bounds(self) -> None:
        """Q-04, Q-26: a reader knows from where to where there is something."""
        log = await self.open_log()
        reader = await self.reader(log)
        first, last, _ = await reader.bounds()
        self.assertEqual(first, last + 1)
        await self.fill(log, 5)
        positions = [entry.position for entry in await self.read_all(reader, 1000)]
        bounds = await reader.bounds()
        self.assertEqual((bounds.first, bounds.last), (positions[0], positions[-1]))
        self.assertGreaterEqual(bounds.size, 0)

    async def test_find(self) -> None:
        """Q-17: the first entry appended at a time or later; behind the last, what comes next."""
        log = await self.open_log()
        reader = await self.reader(log)
        empty = await reader.bounds()
        self.assertEqual(await reader.find(self.now), empty.last + 1)
        begun = self.now
        for n in range(9):
            self.now = begun + n // 3 * 10
            await self.fill(log, 1, n)
        positions = [entry.position for entry in await self.read_all(reader, 1000)]
        found = [await reader.find(begun + seconds) for seconds in (-1, 0, 1, 10, 20)]
        self.assertEqual(found, [positions[n] for n in (0, 0, 3, 3, 6)])
        self.assertEqual(await reader.find(begun + 21), positions[-1] + 1)

    async def test_those_who_watch_are_told(self) -> None:
        """Q-04: soon after an entry is durable, whether somebody consumes the log or not."""
        log = await self.open_log()
        reader = await self.reader(log)
        told: list[int] = []

        async def look() -> None:
            told.append(len(await self.read_all(reader, 1000)))

        reader.watch(lambda: Deferred.fromCoroutine(look()))
        await self.fill(log, 2)
        await self.until(lambda: 2 in told)
        await self.follow(log)
        await self.fill(log, 1, 2)
        await self.until(lambda: 3 in told)
        await reader.close()
        await self.quiet()  # the last look ends

    async def test_trim_by_age(self) -> None:
        """K-76: only what is acknowledged and old goes, by the clock that is given."""
        log = await self.open_log()
        await self.fill(log, 10)
        self.assertEqual(await log.trim(1000.0, 50, 0), 0)  # here since now, by that clock
        await self.fill(log, 10, 10)
        self.assertEqual(await log.trim(1100.0, 50, 0), 0)  # nobody has read anything
        consumer = await self.follow(log, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 20)
        consumer.subscription.ack(consumer.deliveries[:5])
        await consumer.subscription.stop()
        self.assertEqual(await log.trim(1100.0, 0, 0), 0)
        self.assertEqual(await log.trim(1100.0, 50, 0), 5)
        again = await self.follow(log)
        await self.until(lambda: log.status().depth == 0)
        await again.subscription.stop()
        self.assertEqual(again.ids, [f"e{n}" for n in range(5, 20)])
        self.assertEqual(await log.trim(1100.0, 50, 0), 5)
        self.assertEqual((await log.read(0, 1))[0].entry_id, "e10")

    async def test_trim_by_size(self) -> None:
        """K-76: beyond the size the oldest that are acknowledged go, whatever their age."""
        log = await self.open_log()
        for n in range(40):
            await log.append(f"e{n}", b"x" * 10_000)
        consumer = await self.follow(log)
        await self.until(lambda: log.status().depth == 0)
        await consumer.subscription.stop()
        self.assertEqual(await log.trim(0, 0, 1_000_000_000), 0)
        self.assertGreater(await log.trim(0, 0, 100_000), 20)
        await self.fill(log, 1, 40)
        self.assertEqual((await log.read(0, 100))[-1].entry_id, "e40")

    async def test_append_while_trimmed(self) -> None:
        """K-53: positions only grow, also over a trim of all there is."""
        log = await self.open_log()
        await self.fill(log, 5)
        last = (await log.read(0, 10))[-1].position
        consumer = await self.follow(log)
        await self.until(lambda: log.status().depth == 0)
        await consumer.subscription.stop()
        await log.trim(0, 0, 1)
        await self.fill(log, 1, 5)
        entries = await log.read(last, 10)
        self.assertEqual([e.entry_id for e in entries], ["e5"])

    async def test_close(self) -> None:
        """K-85: may be closed twice, and before anything happened."""
        log = await self.open_log()
        await self.follow(log)
        await self.fill(log, 1)
        await log.close()
        await log.close()

    async def test_concurrent_appends(self) -> None:
        """K-52: each of many appends at once is answered by itself, and kept."""
        log = await self.open_log()
        waiting: list[Deferred[None]] = [log.append(f"e{n}", b"x") for n in range(1000)]
        for done in waiting:
            await done
        entries = await log.read(0, 2000)
        self.assertEqual([e.entry_id for e in entries], [f"e{n}" for n in range(1000)])


class LocalLogContract(LogContract):
    """More of it, for a log that holds its identity and its consumers' places itself."""

    async def test_trim_by_no_other_clock(self) -> None:
        """What was appended on a wrong clock, in 1970 or 2099, stays as long as anything else."""
        log = await self.open_log()
        for self.now in (0.0, 4e9, 1.8e9):
            await self.fill(log, 1, int(self.now))
        consumer = await self.follow(log)
        await self.until(lambda: log.status().depth == 0)
        await consumer.subscription.stop()
        self.assertEqual(await log.trim(1.8e9, 600, 0), 0)
        self.assertEqual(await log.trim(1.8e9 + 599, 600, 0), 0)
        # The clock is set back: nothing gets older or younger by that.
        self.assertEqual(await log.trim(1.7e9, 600, 0), 0)
        self.assertEqual(await log.trim(1.7e9 + 0.5, 600, 0), 0)
        self.assertGreaterEqual(await log.trim(1.7e9 + 1, 600, 0), 2)

    async def test_identity(self) -> None:
        """Positions go on above what a new epoch begins after, and are still there later."""
        log = await self.open_log()
        nothing = await log.extent(None, Mark(0))
        self.assertEqual(nothing, Extent(None, 1, 0, False, 0))
        identity = Identity("pool", (Epoch("one", 0), Epoch("two", 70)))
        await log.identify(identity)
        self.assertEqual(await log.extent(None, Mark(0)), Extent(identity, 71, 70, False, 0))
        await self.fill(log, 3)
        self.assertEqual(await log.extent(None, Mark(0)), Extent(identity, 71, 73, True, 0))
        self.assertEqual([e.position for e in await log.read(0, 10)], [71, 72, 73])
        later = identity.with_epoch("three", 90)
        await log.identify(later)
        await log.identify(later)  # as each start says it again
        await self.fill(log, 2, 3)
        self.assertEqual(log.status().appended, 92)
        self.assertEqual([e.position for e in await log.read(72, 10)], [73, 91, 92])
        consumer = await self.follow(log, "stats")
        await self.until(lambda: log.status().depth == 0)
        await consumer.subscription.stop()
        self.assertEqual(consumer.ids, [f"e{n}" for n in range(5)])
        self.assertEqual((await log.extent(None, Mark(0))).acknowledged, 92)

    async def test_consume_after(self) -> None:
        """The store says from where on it has to count, whatever was acknowledged here."""
        log = await self.open_log()
        await self.fill(log, 6)
        first = await self.follow(log)
        await self.until(lambda: log.status().depth == 0)
        await first.subscription.stop()
        again = await self.follow(log, after=2)
        await self.until(lambda: log.status().depth == 0)
        await again.subscription.stop()
        self.assertEqual(again.ids, ["e2", "e3", "e4", "e5"])

    async def test_an_append_that_is_given_up(self) -> None:
        """K-53: who waits for an append no more keeps nobody's entry from the consumer."""
        log = await self.open_log()
        consumer = await self.follow(log, ack=False)
        ids = await self.fill(log, 1)
        await self.until(lambda: len(consumer.ids) == 1)
        given_up = log.append("given up", b"x")
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        for number in range(1, 5):
            ids += await self.fill(log, 1, number)
            await self.until(lambda last=ids[-1]: last in consumer.ids)  # type: ignore[misc]
        await consumer.subscription.stop()
        self.assertEqual([name for name in consumer.ids if name != "given up"], ids)

    async def test_bounds_of_a_trimmed_log(self) -> None:
        """Q-04: what was dropped, and what an epoch leaves out, is not there."""
        log = await self.open_log()
        reader = await self.reader(log)
        await log.identify(Identity("pool", (Epoch("one", 0), Epoch("two", 70))))
        self.assertEqual((await reader.bounds())[:2], (71, 70))
        for n in range(5):
            await log.append(f"e{n}", b"x" * 10_000)
        self.assertEqual((await reader.bounds())[:2], (71, 75))
        self.assertGreaterEqual((await reader.bounds()).size, 50_000)
        consumer = await self.follow(log)
        await self.until(lambda: log.status().depth == 0)
        await consumer.subscription.stop()
        dropped = await log.trim(0, 0, 25_000)
        self.assertGreater(dropped, 0)
        self.assertEqual((await reader.bounds())[:2], (71 + dropped, 75))
        self.assertEqual((await reader.read(0, 0))[0].position, 71 + dropped)

    async def test_nothing_waits_below_an_epoch(self) -> None:
        """Positions that a new epoch leaves out are no entries that wait to be counted."""
        log = await self.open_log()
        await self.fill(log, 2)
        await log.identify(Identity("pool", (Epoch("one", 0), Epoch("two", 70))))
        self.assertEqual((log.status().appended, log.status().depth), (70, 0))
        consumer = await self.follow(log, after=1)
        await self.until(lambda: consumer.ids == ["e1"] and log.status().depth == 0)
        await self.fill(log, 1, 2)
        await self.until(lambda: consumer.ids == ["e1", "e2"] and log.status().depth == 0)
        await consumer.subscription.stop()


class MemoryLogTests(LocalLogContract, TestCase):
    """The contract, for the log in memory."""

    def make_log(self) -> MemoryLog:
        return MemoryLog(the_reactor(), self.wall, retry=RETRY)

    async def dead_letters(self, log: MemoryLog) -> list[tuple[str, str, int]]:
        return [
            (delivery.entry.entry_id, reason, delivery.attempt)
            for _, delivery, reason in log.dead_letters
        ]

    async def test_bounded(self) -> None:
        """K-83: full of what nobody has processed, it refuses; what is processed gives way."""
        log = MemoryLog(the_reactor(), self.wall, 100_000)
        self.addCleanup(log.close)
        consumer = await self.follow(log, prefetch=10, ack=False)
        kept = 0
        with self.assertRaises(LogUnavailable):
            for _ in range(1000):
                await log.append(f"e{kept}", b"x" * 1000)
                kept += 1
        self.assertGreater(kept, 50)
        self.assertLess(kept, 100)
        await self.until(lambda: len(consumer.deliveries) == 10)
        consumer.subscription.ack(consumer.deliveries)
        await log.append("more", b"x" * 1000)
        with self.assertRaises(LogUnavailable):
            await log.append("too large", b"x" * 100_000)
        self.assertLessEqual(len(await log.read(0, 1000)), kept)

    async def test_dead_letters_bounded(self) -> None:
        """K-83: so many dead letters are kept; all are counted."""
        log = await self.open_log()
        await self.fill(log, 1500)
        consumer = await self.follow(log, prefetch=2000, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 1500)
        for delivery in consumer.deliveries:
            consumer.subscription.nack(delivery, "no", False)
        self.assertEqual(len(log.dead_letters), 1000)
        self.assertEqual(log.status().dead_letters, 1500)
        self.assertEqual(log.status().depth, 0)


class SqliteLogTests(LocalLogContract, TestCase):
    """The contract, for the log in a SQLite file."""

    durable = True

    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp())

    def make_log(self) -> SqliteLog:
        return SqliteLog(Database(the_reactor(), self.path, "log"), the_reactor(), self.wall, RETRY)

    async def dead_letters(self, log: SqliteLog) -> list[tuple[str, str, int]]:
        return await log._database.run(
            lambda c: c.execute("SELECT entry_id, reason, deliveries FROM dead_letters").fetchall()
        )

    async def test_what_a_new_one_is(self) -> None:
        """K-53: an append takes a moment, in which others come and share the write."""
        log = await self.open_log()
        self.assertEqual((log.persistent, log.instant, log.positional), (True, False, True))
        self.assertEqual(log.status(), LogStatus(0, 0, 0, ""))

    async def test_no_age_between_runs(self) -> None:
        """The retention clock is kept in the store, which may be an older copy at the next run."""
        log = await self.open_log()
        await self.fill(log, 3)
        consumer = await self.follow(log)
        await self.until(lambda: log.status().depth == 0)
        await consumer.subscription.stop()
        for now in (1000.0, 1100.0):
            self.assertEqual(await log.trim(now, 200, 0), 0)
        await log.close()
        again = await self.open_log()
        self.assertEqual(await again.trim(1e9, 200, 0), 0)
        self.assertEqual(await again.trim(1e9 + 99, 200, 0), 0)
        self.assertEqual(await again.trim(1e9 + 100, 200, 0), 2)

    async def test_reopen(self) -> None:
        """K-53, K-34: entries, places and dead letters outlive the process."""
        log = await self.open_log()
        ids = await self.fill(log, 10)
        consumer = await self.follow(log, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 10)
        consumer.subscription.ack(consumer.deliveries[:3])
        consumer.subscription.nack(consumer.deliveries[3], "bad", False)
        await self.until(lambda: log.status().dead_letters == 1)
        await consumer.subscription.stop()
        await log.close()
        again = await self.open_log()
        self.assertEqual(again.status().appended, 10)
        self.assertEqual(again.status().dead_letters, 1)
        self.assertEqual([e.entry_id for e in await again.read(0, 100)], ids)
        ids += await self.fill(again, 5, 10)
        consumer = await self.follow(again)
        await self.until(lambda: again.status().depth == 0)
        self.assertEqual(consumer.ids, ids[4:])

    async def test_crash_before_the_place_is_kept(self) -> None:
        """K-53: what was processed and not yet acknowledged comes again after a crash."""
        log = await self.open_log()
        ids = await self.fill(log, 5)
        consumer = await self.follow(log, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 5)
        again = await self.open_log()  # another process, and nothing was said to the first
        second = await self.follow(again)
        await self.until(lambda: len(second.deliveries) == 5)
        self.assertEqual(second.ids, ids)

    async def test_refused_append(self) -> None:
        """K-52: an append that cannot be kept fails as unavailable; the log says why."""
        log = await self.open_log()
        await log._database.run(lambda c: c.execute("PRAGMA max_page_count=20").fetchone())
        with self.assertRaises(LogUnavailable):
            for n in range(100):
                await log.append(f"e{n}", b"x" * 5000)
        self.assertIn("full", log.status().problem)
        kept = await log.read(0, 1000)
        await log._database.run(lambda c: c.execute("PRAGMA max_page_count=100000").fetchone())
        await log.append("after", b"x" * 5000)
        self.assertEqual(log.status().problem, "")
        ids = [e.entry_id for e in await log.read(0, 1000)]
        self.assertEqual(ids, [*[e.entry_id for e in kept], "after"])

    async def test_append_after_close(self) -> None:
        """K-52: a closed log takes nothing, and says so."""
        log = await self.open_log()
        await log.close()
        with self.assertRaises(LogUnavailable):
            await log.append("e", b"x")

    async def test_dead_letter_on_a_full_disk(self) -> None:
        """K-80: a dead letter that cannot be kept is tried again, and holds nobody up for
        good.
        """
        log = await self.open_log()
        await self.fill(log, 3)
        consumer = await self.follow(log, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 3)
        pages = await log._database.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        large = consumer.deliveries[0].entry._replace(body=b"x" * 100_000)
        await log._database.run(lambda c: c.execute(f"PRAGMA max_page_count={pages}").fetchone())
        consumer.subscription.nack(DeliveredEntry(large, 1), "bad", False)
        consumer.subscription.ack(consumer.deliveries[1:])
        await self.quiet()
        self.assertEqual(log.status().dead_letters, 0)
        self.assertEqual(log.status().depth, 3)
        await log._database.run(
            lambda c: c.execute("PRAGMA max_page_count=100000").fetchone(), alone=True
        )
        await self.until(lambda: log.status().dead_letters == 1)
        await self.until(lambda: log.status().depth == 0)

    async def test_durable_settings(self) -> None:
        """K-52: the file is written ahead, and synced at each commit."""
        log = await self.open_log()
        found = await log._database.run(
            lambda c: [
                c.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous")
            ]
        )
        self.assertEqual(found, ["wal", 2])

    async def test_wall_clock_of_entries(self) -> None:
        self.now = time.time()
        log = await self.open_log()
        await self.fill(log, 1)
        (entry,) = await log.read(0, 1)
        self.assertAlmostEqual(entry.appended_at, self.now, places=2)
