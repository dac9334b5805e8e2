"""A log with a spool before it is a log like any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import TestCase

from kupool.log import Entry, LogUnavailable
from kupool.log.memory import MemoryLog
from kupool.log.spool import SpooledLog, SpoolSettings
from kupool.log.spool_file import SpoolFile
from kupool.storage.database import Database
from tests.contract.test_log import RETRY, LogContract
from tests.servers.reactor import the_reactor


class ShakyLog:
    """Of the appends to the log behind, every third is refused, one of two times after it
    was taken.
    """

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        self._count += 1
        if self._count % 6 == 0:
            self._log.append(entry_id, body)
        if self._count % 3 == 0:
            return fail(LogUnavailable("shaken"))
        return self._log.append(entry_id, body)


class SpooledLogTests(LogContract, TestCase):
    """K-78: the contract, where the log behind takes everything."""

    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp())

    def make_log(self) -> SpooledLog:
        reactor = the_reactor()
        file = SpoolFile(Database(reactor, self.path, "spool"), reactor, self.wall)
        remote: Any = self.make_remote(MemoryLog(reactor, self.wall, retry=RETRY))
        return SpooledLog(remote, file, reactor, SpoolSettings(backoff=0.001))

    def make_remote(self, log: MemoryLog) -> Any:
        return log

    async def dead_letters(self, log: Any) -> list[tuple[str, str, int]]:
        return [
            (delivery.entry.entry_id, reason, delivery.attempt)
            for _, delivery, reason in log._remote.dead_letters
        ]


class ShakySpooledLogTests(TestCase):
    """K-81: a real file, and a log that fails again and again."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    async def test_everything_arrives_in_order(self) -> None:
        """K-81: at least once each, and for the last time in the order of the appends."""
        reactor = the_reactor()
        memory = MemoryLog(reactor, reactor.seconds)
        remote: Any = ShakyLog(memory)
        file = SpoolFile(Database(reactor, self.path, "spool"), reactor, reactor.seconds)
        log = SpooledLog(remote, file, reactor, SpoolSettings(backoff=0.001, in_flight=5))
        self.addCleanup(log.close)
        await log.open()
        ids = [f"e{n}" for n in range(500)]
        waiting = [log.append(i, i.encode()) for i in ids]
        for done in waiting:
            await done
        for _ in range(3000):
            if not log.status().spooled:
                break
            done = Deferred()
            reactor.callLater(0.01, done.callback, None)
            await done
        entries: Sequence[Entry] = await log.read(0, 100_000)
        last = {entry.entry_id: entry.position for entry in entries}
        self.assertEqual(sorted(last, key=last.__getitem__), ids)
        self.assertEqual([e.body for e in entries], [e.entry_id.encode() for e in entries])
