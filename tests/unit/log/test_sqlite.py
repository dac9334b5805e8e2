"""The log in a SQLite file: what it hands over from memory, and what from the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import (
    DeliveredEntry,
    Entry,
    Epoch,
    Extent,
    Identity,
    LogStatus,
    LogUnavailable,
    Mark,
    sqlite,
)
from kupool.log.groups import WAKE_DELAY
from kupool.log.sqlite import SqliteLog
from tests.fakes.spool import SteppedDatabase


class Consumer:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.deliveries: list[DeliveredEntry] = []

    @property
    def ids(self) -> list[str]:
        return [delivery.entry.entry_id for delivery in self.deliveries]

    def received(self, deliveries: Sequence[DeliveredEntry]) -> None:
        self.deliveries += deliveries


class SqliteCase(SynchronousTestCase):
    """A log whose file works only when told to, and a consumer."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.database = SteppedDatabase(schema="log")
        self.log = SqliteLog(cast(Any, self.database), self.clock, lambda: 1.8e9)
        opening = self.log.open()
        self.database.work()
        self.successResultOf(opening)
        self.consumer = Consumer()
        self.subscription = self.successResultOf(self.log.consume("stats", self.consumer, 10, 0))
        self.clock.advance(0)
        self.database.work()

    def done(self, work: Deferred[Any]) -> Any:
        """What some work of the file ends with."""
        self.database.work()
        return self.successResultOf(work)

    def append(self, *ids: str) -> None:
        for entry_id in ids:
            self.done(self.log.append(entry_id, b"body"))

    def take(self, *ids: str) -> None:
        """Append some entries, which the consumer processes."""
        self.append(*ids)
        self.clock.advance(WAKE_DELAY)
        self.database.work()
        self.subscription.ack(self.consumer.deliveries)
        self.clock.pump([0] * 3)
        self.database.work()

    def positions(self) -> list[int]:
        """The positions in the file."""
        found = self.database.connection.execute("SELECT position FROM entries ORDER BY position")
        return [position for (position,) in found]


class NewestTests(SqliteCase):
    """K-78: a consumer gets the newest entries from memory."""

    def test_without_the_file(self) -> None:
        self.append("a")
        self.append("b")
        self.clock.advance(WAKE_DELAY)
        self.assertTrue(self.database.idle)
        self.assertEqual(self.consumer.ids, ["a", "b"])

    def test_one_that_is_only_in_the_file(self) -> None:
        """K-53: an entry whose append got no answer is not passed over."""
        self.append("a")
        self.database.connection.execute(
            "INSERT INTO entries (entry_id, appended_at, body) VALUES ('unanswered', 0, x'')"
        )
        self.append("b")
        self.clock.advance(WAKE_DELAY)
        self.database.work()
        self.assertEqual(self.consumer.ids, ["a", "unanswered", "b"])

    def test_how_many_are_kept(self) -> None:
        """What is processed takes no place from what comes next."""
        self.patch(sqlite, "TAIL_BYTES", 2 * len(b"body"))
        self.append("a")
        self.clock.advance(WAKE_DELAY)
        self.subscription.ack(self.consumer.deliveries)
        self.clock.pump([1.0] * 3)
        self.database.work()
        self.append("b")
        self.append("c")
        self.clock.advance(WAKE_DELAY)
        self.assertTrue(self.database.idle)
        self.assertEqual(self.consumer.ids, ["a", "b", "c"])

    def test_how_much_is_kept(self) -> None:
        """The oldest make room, whether they are processed or not: they are in the file."""
        self.patch(sqlite, "TAIL_BYTES", 2 * len(b"body"))
        self.append("a", "b", "c")
        self.assertEqual(len(self.successResultOf(self.log.read(1, 9))), 2)
        reading = self.log.read(0, 9)
        self.assertNoResult(reading)
        self.assertEqual(len(self.done(reading)), 3)

    def test_what_was_there_before_the_consumer(self) -> None:
        """It comes in the next turn, and not only with the next append."""
        self.append("a", "b")
        late = Consumer()
        self.successResultOf(self.log.consume("late", late, 10, 1))
        self.assertEqual(late.ids, [])
        self.clock.advance(0)
        self.database.work()
        self.assertEqual(late.ids, ["b"])

    def test_from_anywhere_in_them(self) -> None:
        """A read begins behind the position that it names, and ends at its limit."""
        self.append("a", "b", "c", "d")
        for after, limit, ids in ((0, 1, "a"), (1, 2, "bc"), (3, 5, "d"), (0, 9, "abcd")):
            entries = self.successResultOf(self.log.read(after, limit))
            self.assertEqual([entry.entry_id for entry in entries], list(ids))
        self.assertEqual(entries[0], Entry(1, "a", 1.8e9, b"body"))

    def test_until_every_group_has_processed_them(self) -> None:
        """What the slowest group has not processed is in memory; what is before it is not."""
        slow = Consumer()
        other = self.successResultOf(self.log.consume("slow", slow, 10, 0))
        self.take("a", "b", "c")
        self.successResultOf(self.log.read(0, 3))
        other.ack(slow.deliveries[:1])
        self.database.work()
        self.successResultOf(self.log.read(1, 3))
        reading = self.log.read(0, 3)
        self.assertNoResult(reading)
        self.assertEqual(len(self.done(reading)), 3)

    def test_who_has_read_everything(self) -> None:
        """The file is not asked for what comes after the newest entry, nor before it comes."""
        self.assertEqual(self.successResultOf(self.log.read(0, 1)), [])
        self.take("a")
        self.assertEqual(self.successResultOf(self.log.read(1, 1)), [])

    def test_one_timer_for_many(self) -> None:
        """Consumers are told once of all that comes within a moment, and not after the end."""
        self.append("a", "b")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(WAKE_DELAY)
        self.assertEqual(self.consumer.ids, ["a", "b"])
        self.successResultOf(self.subscription.stop())
        done = self.log.append("c", b"")
        self.successResultOf(self.log.close())
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_end_before_consumers_are_told(self) -> None:
        """K-85: no timer is left, also after a second end."""
        self.append("a")
        self.successResultOf(self.subscription.stop())
        self.successResultOf(self.log.close())
        self.successResultOf(self.log.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FileTests(SqliteCase):
    """What is in the file, and what is said of it."""

    def test_before_it_is_opened(self) -> None:
        database: Any = SteppedDatabase(schema="log")
        log = SqliteLog(database, Clock(), lambda: 1.8e9)
        self.assertEqual(log.status(), LogStatus(0, 0, 0, ""))

    def test_how_often_an_entry_comes(self) -> None:
        """K-80: five times a second apart, if nothing else is set."""
        self.append("a")
        self.clock.advance(WAKE_DELAY)
        for attempt in (1, 2, 3, 4, 5):
            self.assertEqual(self.consumer.deliveries[-1].attempt, attempt)
            self.subscription.nack(self.consumer.deliveries[-1], "bad", True)
            self.clock.advance(1.0)
        self.database.work()
        self.assertEqual((len(self.consumer.ids), self.log.status().dead_letters), (5, 1))

    def test_a_dead_letter(self) -> None:
        """K-80: it says of which group it is, where it was, why, and when that was found."""
        self.append("a", "b")
        self.clock.advance(WAKE_DELAY)
        self.subscription.nack(self.consumer.deliveries[1], "bad", False)
        self.database.work()
        found = self.database.connection.execute("SELECT * FROM dead_letters").fetchall()
        self.assertEqual(found, [(1, "stats", 2, "b", "bad", 1, 1_800_000_000_000, b"body")])

    def test_its_extent(self) -> None:
        """An empty log begins behind its epoch; a log begins with its first entry."""
        known = Identity("pool", (Epoch("one", 0), Epoch("two", 70)))
        self.assertEqual(self.extent(), Extent(None, 1, 0, False, 0))
        self.append("a")
        self.assertEqual(self.extent(), Extent(None, 1, 1, True, 0))
        self.done(self.log.identify(known))
        self.assertEqual(self.extent(), Extent(known, 1, 70, True, 0))
        self.take("b")
        self.assertEqual(self.extent(), Extent(known, 1, 71, True, 71))

    def extent(self) -> Extent:
        found: Extent = self.done(self.log.extent(None, Mark(0)))
        return found

    def test_a_start_before_the_first_entry_of_an_epoch(self) -> None:
        """New entries come after its beginning, although the file has none there yet."""
        self.append("a")
        self.done(self.log.identify(Identity("pool", (Epoch("one", 70),))))
        again: Any = SteppedDatabase(self.database.connection, "log")
        self.database, self.log = again, SqliteLog(again, self.clock, lambda: 1.8e9)
        self.done(self.log.open())
        self.assertEqual(self.log.status(), LogStatus(70, 0, 0, ""))
        self.append("b", "c")
        self.assertEqual(self.positions(), [1, 71, 72])

    def test_an_entry_that_is_written_together_with_the_epoch(self) -> None:
        """Those that come later have positions above the beginning of the epoch all the same."""
        self.append("a")
        identified = self.log.identify(Identity("pool", (Epoch("one", 70),)))
        appended = self.log.append("b", b"")
        self.database.share()
        self.successResultOf(identified)
        self.successResultOf(appended)
        self.append("c", "d")
        self.assertEqual(self.positions(), [1, 2, 71, 72])


class TrimTests(SqliteCase):
    """K-76: what is dropped, and what is known of it later."""

    def trim(self, now: float = 0.0, max_age: float = 0.0, max_bytes: int = 0) -> int:
        dropped: int = self.done(self.log.trim(now, max_age, max_bytes))
        return dropped

    def test_in_chunks(self) -> None:
        """A trim takes a transaction of its own for each, and goes on after a full one."""
        self.patch(sqlite, "TRIM_CHUNK", 3)
        self.take(*"abcdefg")
        self.trim()
        self.database.alones.clear()
        self.assertEqual(self.trim(10.0, 5.0), 6)
        self.assertEqual(self.positions(), [7])
        self.assertEqual(self.database.alones, [False, True, True, True])

    def test_exactly_as_old(self) -> None:
        """An entry is dropped as soon as it has the age, by the time since it was first seen."""
        self.take("a")
        self.trim(1000.0)
        self.take("b", "c")
        for now, dropped in ((1004.75, 0), (1005.0, 1), (1009.5, 0), (1009.75, 1), (2000.0, 0)):
            self.assertEqual(self.trim(now, 5.0), dropped, now)

    def test_ages_that_are_remembered(self) -> None:
        """K-82: those of entries that are still there."""
        for number in range(20):
            self.take(f"e{number}")
            self.trim(float(number), 3.0)
        ages = self.database.connection.execute("SELECT position FROM ages").fetchall()
        self.assertEqual(ages, [(17,), (18,), (19,), (20,)])

    def test_exactly_as_large(self) -> None:
        """A file of the size that is allowed loses nothing, and of a byte more all but one."""
        self.done(self.log.append("large", bytes(100_000)))
        self.take("a", "b", "c")
        self.assertEqual(self.trim(max_bytes=1), 3)  # which leaves room in the file
        self.take("d", "e")
        size, free, page = (
            self.database.connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        self.assertGreater(free, 20)
        self.assertEqual(self.trim(max_bytes=page * (size - free)), 0)
        self.assertEqual(self.trim(max_bytes=page * (size - free) - 1), 2)
        self.assertEqual(self.positions(), [6])

    def test_the_newest_that_was_dropped(self) -> None:
        """None at first, and it stays known when nothing more is dropped."""
        self.assertEqual(self.done(self.log.trimmed()), 0)
        self.take("a", "b", "c")
        for max_bytes in (1, 1):
            self.trim(max_bytes=max_bytes)
            self.assertEqual(self.done(self.log.trimmed()), 2)


class BrokenDiskTests(SqliteCase):
    """K-52: a file that cannot be written accepts nothing, until it can be."""

    def test_until_it_can_be_written(self) -> None:
        """It is tried once a second."""
        self.database.broken = True
        failed = self.log.append("a", b"body")
        self.database.work()
        self.failureResultOf(failed, LogUnavailable)
        for broken in (True, True, False):
            self.assertIn("readonly", self.log.status().problem)
            self.database.broken = broken
            self.clock.advance(0.5)
            self.assertTrue(self.database.idle)
            self.clock.advance(0.5)
            self.database.work()
        self.assertEqual(self.log.status().problem, "")
        self.append("b")
        self.clock.advance(WAKE_DELAY)
        self.assertEqual(self.consumer.ids, ["b"])

    def test_one_attempt_for_many(self) -> None:
        """However many appends have failed; and none when one has succeeded meanwhile."""
        self.database.broken = True
        for entry_id in ("a", "b"):
            failed = self.log.append(entry_id, b"body")
            self.database.work()
            self.failureResultOf(failed, LogUnavailable)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.database.broken = False
        self.successResultOf(self.subscription.stop())
        self.append("c")
        self.assertEqual(self.log.status().problem, "")
        self.clock.advance(1.0)
        self.assertTrue(self.database.idle)

    def test_an_end_before_the_next_attempt(self) -> None:
        """K-85: it is not made, also after a second end."""
        self.successResultOf(self.subscription.stop())
        self.database.broken = True
        failed = self.log.append("a", b"body")
        self.database.work()
        self.failureResultOf(failed, LogUnavailable)
        self.successResultOf(self.log.close())
        self.successResultOf(self.log.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_end_before_an_append_has_failed(self) -> None:
        """K-85: it is not tried any more whether the file can be written."""
        self.successResultOf(self.subscription.stop())
        self.database.broken = True
        failed = self.log.append("a", b"body")
        self.successResultOf(self.log.close())
        self.failureResultOf(failed, LogUnavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])
