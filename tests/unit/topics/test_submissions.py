"""What the topic of the submissions refuses, and what it says if the log cannot be read."""

from __future__ import annotations

import sqlite3
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import LogUnavailable
from kupool.storage.database import DatabaseClosed, DatabaseUnusable
from kupool.topics.errors import CorruptBatch, TopicsUnavailable
from kupool.topics.partition import Partition
from kupool.topics.settings import TopicSettings
from kupool.topics.submissions import PER_ENTRY, SUBMISSIONS, SubmissionTopic
from kupool.wire.batches import VERSION, Batch, encode_batch


class BrokenReader:
    """A reader of a log all of whose calls fail with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: fail(self._error)


class UnavailableTests(SynchronousTestCase):
    """Q-15: the error of the log is named, as one that passes."""

    def calls(self, error: Exception) -> list[Deferred[Any]]:
        source = SubmissionTopic(BrokenReader(error), TopicSettings())
        place = Partition(SUBMISSIONS, 0)
        return [source.read(place, 0, 1), source.extent(), source.find(0)]

    def test_what_passes(self) -> None:
        for kind in (LogUnavailable, DatabaseClosed, DatabaseUnusable, sqlite3.OperationalError):
            for call in self.calls(kind("the disk is away")):
                error = self.failureResultOf(call, TopicsUnavailable)
                self.assertEqual(error.getErrorMessage(), "the disk is away")

    def test_a_mistake_of_ours_is_shown_as_such(self) -> None:
        for call in self.calls(ZeroDivisionError("x")):
            self.failureResultOf(call, ZeroDivisionError)


class DecodeTests(SynchronousTestCase):
    """Q-08: what cannot be shown as records is named with its position."""

    def setUp(self) -> None:
        self.source = SubmissionTopic(BrokenReader(OSError()), TopicSettings())

    def batch(self, count: int) -> bytes:
        return encode_batch(Batch(VERSION, "b", 5, ["u"] * count, [1] * count, ["n"] * count))

    def test_as_many_as_there_are_offsets(self) -> None:
        batch_id, records = self.source.decode(self.batch(PER_ENTRY), 7 * PER_ENTRY)
        self.assertEqual((batch_id, len(records)), ("b", PER_ENTRY))
        self.assertEqual(records[-1].offset, 8 * PER_ENTRY - 1)

    def test_more_submissions_than_offsets(self) -> None:
        with self.assertRaisesRegex(CorruptBatch, "position 7 of the log: it has 65537 subm"):
            self.source.decode(self.batch(PER_ENTRY + 1), 7 * PER_ENTRY)

    def test_poison(self) -> None:
        """Whatever the bytes are."""
        for body in (b"", b"[]", b"\xff", b'{"v":2,"batch":"b","at":1,"usernames":[]}'):
            with self.assertRaisesRegex(CorruptBatch, "position 7 of the log: "):
                self.source.decode(body, 7 * PER_ENTRY)
