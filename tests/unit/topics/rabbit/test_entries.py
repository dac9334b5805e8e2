"""Batches as messages of a stream, whoever published them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.batches import Compression, RecordCodec
from kupool.topics.partition import Partition
from kupool.topics.rabbit.entries import STRIDE, entry_of, max_age, stream_name
from kupool.topics.records import NewRecord
from kupool.topics.settings import TopicSettings


class NameTests(SynchronousTestCase):
    """Q-27: every valid name of a topic has streams of its own, which RabbitMQ takes."""

    def test_names(self) -> None:
        self.assertEqual(stream_name("p", Partition("a.b", 7)), "p.a.b.7")
        long = [stream_name("p" * 20, Partition("x" * 248 + each, 999)) for each in "ab"]
        self.assertNotEqual(*long)
        for name in long:
            self.assertLessEqual(len(name.encode()), 255)

    def test_ages(self) -> None:
        """Q-11: in whole seconds, and never none by mistake."""
        times = {0.0: "", 0.4: "1s", 60.0: "60s", 604_800.0: "604800s"}
        for seconds, text in times.items():
            self.assertEqual(max_age(TopicSettings(retention_time=seconds)), text)


class EntryTests(SynchronousTestCase):
    """Q-03, Q-08: what a stream holds is read, also what others have published."""

    def test_an_own_message(self) -> None:
        headers = {"records": 3, "appended_at": 1500, "repeated": True}
        entry = entry_of(2, "id", headers, b"body")
        self.assertEqual(tuple(entry.batch), (2 * STRIDE, 3, 1500, b"body"))
        self.assertEqual((entry.message_id, entry.repeated, entry.size), ("id", True, 4))

    def test_a_message_without_headers(self) -> None:
        """A batch says how many records it has."""
        body = RecordCodec().encode([NewRecord(b"a"), NewRecord(b"b")], "x", 1, Compression())
        entry = entry_of(0, "", {}, body)
        self.assertEqual((entry.batch.records, entry.batch.at, entry.repeated), (2, 0, False))

    def test_a_message_that_is_no_batch(self) -> None:
        """It has an offset, so that its reader is told of it."""
        for records in (None, "3", 0, -1, STRIDE):
            entry = entry_of(0, "", {"records": records, "appended_at": "now"}, b"?")
            self.assertEqual((entry.batch.records, entry.batch.at), (1, 0))
