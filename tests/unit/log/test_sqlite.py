"""The log in a SQLite file: what it hands over from memory, and what from the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import DeliveredEntry, LogUnavailable, sqlite
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

    def append(self, entry_id: str) -> None:
        done = self.log.append(entry_id, b"body")
        self.database.work()
        self.successResultOf(done)


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

    def test_an_end_before_an_append_has_failed(self) -> None:
        """K-85: it is not tried any more whether the file can be written."""
        self.successResultOf(self.subscription.stop())
        self.database.broken = True
        failed = self.log.append("a", b"body")
        self.successResultOf(self.log.close())
        self.failureResultOf(failed, LogUnavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])
