"""A start that fails says why in one line, whichever of its steps it is that fails."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.service import Daemon
from kupool.log import LogUnavailable
from kupool.net.testing import MemoryNetwork
from kupool.settings import load
from kupool.storage.database import DatabaseUnusable
from kupool.storage.postgres import DatabaseUnavailable

LOCKED = "database /data/store.sqlite: database is locked"
AWAY = "PostgreSQL at 127.0.0.1:5432, database x: Connection refused"


class LaterStepTests(SynchronousTestCase):
    """K-88, issue 11: what could be opened goes away before the start is done."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        loaded = load({"store": "memory", "mq": "memory", "addr": ["127.0.0.1:8000"]}, {})
        self.failures: list[str] = []
        self.daemon = Daemon(self.network, loaded, failed=self.failures.append)
        self.addCleanup(lambda: self.network.run(self.daemon.stop(), patience=40))

    def start(self, part: object, step: str, error: Exception) -> str:
        def fails(*args: object) -> Deferred[object]:
            return fail(error)

        self.patch(part, step, fails)
        with capturedLogs() as events:
            self.daemon.start()
            self.network.settle()
        self.flushLoggedErrors()
        levels = [event["log_level"] for event in events if "log_failure" in event]
        self.assertEqual(levels, [LogLevel.debug])  # a traceback for whoever asks for it
        self.assertNotEqual(self.daemon.status.phase, "running")
        (line,) = self.failures
        return line

    def test_comparing(self) -> None:
        line = self.start(self.daemon.parts.stats, "state", DatabaseUnusable(LOCKED))
        self.assertEqual(line, f"data: {LOCKED} (from default)")

    def test_restoring(self) -> None:
        line = self.start(self.daemon.parts.coordinator, "load", DatabaseUnusable(LOCKED))
        self.assertEqual(line, f"data: {LOCKED} (from default)")

    def test_the_database_goes_away(self) -> None:
        line = self.start(self.daemon.parts.stats, "gaps", DatabaseUnavailable(AWAY))
        self.assertEqual(line, f"pg_dsn: {AWAY} (from default)")

    def test_the_log(self) -> None:
        line = self.start(self.daemon.parts.log, "identify", LogUnavailable("it is read only"))
        self.assertEqual(line, "data: it is read only (from default)")
