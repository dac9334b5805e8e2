"""The log in a SQLite file: what it hands over from memory, and what from the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import DeliveredEntry
from kupool.log.groups import WAKE_DELAY
from kupool.log.sqlite import SqliteLog
from tests.fakes.spool import SteppedDatabase


class Consumer:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def received(self, deliveries: Sequence[DeliveredEntry]) -> None:
        self.ids += [delivery.entry.entry_id for delivery in deliveries]


class NewestTests(SynchronousTestCase):
    """K-78: a consumer gets the newest entries from memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.database = SteppedDatabase(schema="log")
        self.log = SqliteLog(cast(Any, self.database), self.clock, lambda: 1.8e9)
        opening = self.log.open()
        self.database.work()
        self.successResultOf(opening)
        self.consumer = Consumer()
        self.successResultOf(self.log.consume("stats", self.consumer, 10, 0))
        self.clock.advance(0)
        self.database.work()

    def append(self, entry_id: str) -> None:
        done = self.log.append(entry_id, b"body")
        self.database.work()
        self.successResultOf(done)

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
