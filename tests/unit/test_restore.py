"""Which nonces are known after a restart, from the log and from a spool before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kupool.log import Entry, ISpool, LogStatus, LogUnavailable
from kupool.pool.jobs import Job, JobBook
from kupool.pool.restore import CHUNK, remember_used
from kupool.wire.batches import VERSION, Batch, encode_batch

NOW = 1.8e9


def entry(position: int, job_id: int, *nonces: str) -> Entry:
    batch = Batch(
        VERSION,
        f"b{position}",
        int(NOW * 1000),
        ["alice.rig1"] * len(nonces),
        [job_id] * len(nonces),
        list(nonces),
    )
    return Entry(position, batch.batch, NOW, encode_batch(batch))


class Readable:
    """A log to be read; notes where it was."""

    def __init__(self, *entries: Entry) -> None:
        self.entries = list(entries)
        self.away = ""

    def status(self) -> LogStatus:
        return LogStatus(0, 0, 0, "", away=self.away)

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        return succeed([e for e in self.entries if e.position > after][:limit])

    def position_at(self, time: float) -> Deferred[int]:
        return succeed(0)


@implementer(ISpool)
class Spooled(Readable):
    """The same with a spool before it, from which one entry moves on at each read."""

    def __init__(self, *entries: Entry, spool: Sequence[Entry] = ()) -> None:
        super().__init__(*entries)
        self.spool = list(spool)

    def read_spool(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        found = [e for e in self.spool if e.position > after][:limit]
        if self.spool:
            gone = self.spool.pop(0)
            self.entries.append(gone._replace(position=len(self.entries) + 1))
        return succeed(found)


class RememberTests(SynchronousTestCase):
    """K-47: a nonce is a duplicate after a restart too."""

    def setUp(self) -> None:
        self.book = JobBook(600.0, 100, 1_000_000)
        self.book.restore([Job(1, "aa", 0.0, NOW), Job(2, "bb", 1.0, NOW)], 2)

    def remember(self, log: Any) -> int:
        done = Deferred.fromCoroutine(remember_used(log, self.book, "user"))
        return int(self.successResultOf(done))

    def used(self, job_id: int) -> set[str]:
        return set(self.book.jobs[job_id].nonces.scope("alice").used)

    def test_from_the_log(self) -> None:
        found = self.remember(Readable(entry(1, 1, "x", "y"), entry(2, 2, "x"), entry(3, 9, "z")))
        self.assertEqual(found, 3)
        self.assertEqual((self.used(1), self.used(2)), ({"x", "y"}, {"x"}))

    def test_twice_in_the_log(self) -> None:
        """K-50: what was sent twice is remembered, and weighs, once."""
        found = self.remember(Readable(entry(1, 1, "x", "y"), entry(2, 1, "x", "y")))
        self.assertEqual((found, self.book.jobs[1].remembered), (2, 2))

    def test_what_cannot_be_read(self) -> None:
        poison = Entry(1, "p", NOW, b"{")
        found = self.remember(Spooled(poison, entry(2, 1, "x"), spool=[poison]))
        self.assertEqual(found, 1)

    def test_from_the_spool(self) -> None:
        """K-47: what waits in the spool was accepted as well."""
        log = Spooled(entry(1, 1, "x"), spool=[entry(1, 1, "y"), entry(2, 2, "z")])
        self.assertEqual(self.remember(log), 3)
        self.assertEqual((self.used(1), self.used(2)), ({"x", "y"}, {"z"}))

    def test_a_log_that_cannot_be_read(self) -> None:
        """K-47: nobody knows then what was used, so nobody may submit for these jobs."""
        log = Spooled(entry(1, 1, "x"), spool=[entry(1, 2, "y")])
        self.patch(log, "position_at", lambda time: fail(LogUnavailable("away")))
        self.assertEqual(self.remember(log), 0)
        self.assertEqual(list(self.book), [])

    def test_a_log_that_is_away(self) -> None:
        """K-47: it is not asked, as a start would wait for it."""
        log = Spooled(entry(1, 1, "x"), spool=[entry(1, 2, "y")])
        log.away = "RabbitMQ is away"
        self.patch(log, "read", lambda after, limit: self.fail("it was asked"))
        self.assertEqual(self.remember(log), 0)
        self.assertEqual(list(self.book), [])

    def test_from_a_spool_that_drains_meanwhile(self) -> None:
        """K-47: an entry on its way from the spool to the log is in one of the two."""
        count = 3 * CHUNK
        spool = [entry(n, 1, f"s{n}") for n in range(1, count + 1)]
        self.assertEqual(self.remember(Spooled(entry(1, 1, "x"), spool=spool)), count + 1)
        self.assertEqual(len(self.used(1)), count + 1)
