"""A spool with what is around it, on a fake clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from kupool.log import LogUnavailable
from kupool.log.spool import SpooledLog, SpoolSettings
from kupool.log.spool_file import SpoolFile
from tests.fakes.spool import ScriptedLog, SteppedDatabase, body_of

NOW = 1.8e9


class World:
    """A spool, the log behind it, and what was appended in all its runs."""

    def __init__(self, max_bytes: int = 1_000_000, **changes: Any) -> None:
        self.clock = Clock()
        self.settings = SpoolSettings(**changes)
        self.max_bytes = max_bytes
        self.remote = ScriptedLog()
        self.database = SteppedDatabase()
        self.appended: list[str] = []
        self.acknowledged: list[str] = []
        self.failed: list[str] = []
        #: Why each of those failed.
        self.reasons: list[str] = []
        self.run = 0
        self.start()

    def start(self) -> None:
        """Begin a run; the one before has been closed, or is simply not heard any more."""
        self.run += 1
        database: Any = self.database
        self.file = SpoolFile(
            database, self.clock, lambda: NOW + self.clock.seconds(), self.max_bytes
        )
        self.log = SpooledLog(self.remote, self.file, self.clock, self.settings, jitter=lambda: 0.0)
        self.opening = self.log.open()
        self.work()

    def append(self, count: int = 1) -> list[str]:
        ids = []
        for _ in range(count):
            entry_id = f"e{len(self.appended)}"
            ids.append(entry_id)
            self.appended.append(entry_id)
            run = self.run

            def answered(result: object, entry_id: str = entry_id, run: int = run) -> None:
                if run == self.run:  # else nobody hears it
                    failed = getattr(result, "value", None)
                    assert failed is None or isinstance(failed, LogUnavailable), result
                    (self.acknowledged if failed is None else self.failed).append(entry_id)
                    self.reasons += [] if failed is None else [str(failed)]

            self.log.append(entry_id, body_of(entry_id)).addBoth(answered)
        return ids

    def work(self) -> None:
        self.database.work()

    def wait(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass, with the disk at work."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.work()

    def kill(self) -> None:
        """End the process: what the disk was not done with is gone, and so are timers."""
        self.run += 1
        for call in list(self.clock.getDelayedCalls()):
            call.cancel()
        self.remote.waiting.clear()
        self.database = SteppedDatabase(self.database.connection)
        self.start()

    def close(self) -> None:
        done: Deferred[None] = self.log.close()
        self.work()
        assert done.called
        assert not self.clock.getDelayedCalls()

    def restart(self) -> None:
        self.close()
        self.remote.waiting.clear()
        self.database = SteppedDatabase(self.database.connection)
        self.start()

    def recover(self) -> None:
        """Mend everything, and wait until nothing is left to do."""
        self.remote.takes = self.remote.answers = True
        self.database.broken = False
        self.remote.answer_all()
        self.wait(120, 0.5)
