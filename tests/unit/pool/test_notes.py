"""Notes about jobs in the log, and who reads them."""

from __future__ import annotations

import json

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.pool.notes import JobNotes
from kupool.stats.fold import as_rows, fold_entry, fold_rows
from kupool.wire.batches import VERSION, Batch, decode_batch, encode_batch
from tests.fakes.pool_fixture import WALL, KeptLog


class BatchOfTheReleaseBefore(msgspec.Struct, gc=False):
    """What that release reads a log entry as."""

    v: int
    batch: str
    at: int
    usernames: list[str]
    job_ids: list[int]
    client_nonces: list[str]


class NoteTests(SynchronousTestCase):
    """Issue 11: the log knows of ids that no store may know."""

    def setUp(self) -> None:
        self.log = KeptLog(Clock())
        self.notes = JobNotes(self.log, lambda: WALL, "run")

    def bodies(self) -> list[bytes]:
        return [entry.body for entry in self.successResultOf(self.log.read(0, 100))]

    def test_a_note(self) -> None:
        self.successResultOf(self.notes.write(700))
        (body,) = self.bodies()
        note = decode_batch(body)
        self.assertEqual((note.batch, note.at), ("run-jobs-1", WALL * 1000))
        self.assertEqual(note.jobs_until, 700)
        self.assertTrue(self.notes.durable)
        self.assertEqual(self.notes.position, 1)

    def test_each_has_an_id_of_its_own(self) -> None:
        for job_id in (700, 700):
            self.successResultOf(self.notes.write(job_id))
        self.assertEqual(len({decode_batch(body).batch for body in self.bodies()}), 2)

    def test_nothing_is_counted(self) -> None:
        self.successResultOf(self.notes.write(700))
        counts = [fold_entry(body) for body in self.bodies()]
        self.assertEqual(as_rows(fold_rows(counts)), [])

    def test_the_release_before_reads_it(self) -> None:
        """It is a batch without submissions there, with a field more."""
        self.successResultOf(self.notes.write(700))
        (body,) = self.bodies()
        read = msgspec.json.decode(body, type=BatchOfTheReleaseBefore)
        self.assertEqual((read.v, read.usernames, read.job_ids), (VERSION, [], []))

    def test_a_batch_is_what_it_was(self) -> None:
        """Batches of submissions have no further field."""
        body = encode_batch(Batch(VERSION, "b", 5, ["a"], [1], ["x"]))
        self.assertEqual(
            list(json.loads(body)), ["v", "batch", "at", "usernames", "job_ids", "client_nonces"]
        )
