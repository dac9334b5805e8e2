"""What clients that came and went leave behind: nothing. The large run is by hand."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.events import KEPT_IN_MEMORY
from tests.servers.running_daemon import UNLIMITED, RunningDaemon
from tools import memory
from tools.process import complaints, descriptors, rss, wait_until

CONNECTS = 10_000


class DescriptorTests(SynchronousTestCase):
    """K-86: sockets are closed when their sessions end."""

    def test_connects(self) -> None:
        """K-86: after 10,000 connects the daemon has the descriptors that it had before."""
        with RunningDaemon(*UNLIMITED) as daemon:
            # The newest events are kept, up to a number that these reach.
            memory.visit(daemon.port, KEPT_IN_MEMORY)
            self.assertTrue(wait_until(lambda: not daemon.get("/stats")[1]["sessions"]))
            fds, size = descriptors(daemon), rss(daemon)
            memory.visit(daemon.port, CONNECTS)
            self.assertTrue(wait_until(lambda: descriptors(daemon) <= fds), "some are left")
            self.assertEqual(0, daemon.get("/stats")[1]["sessions"])
            self.assertLess(rss(daemon) - size, 500 * CONNECTS)
            self.assertEqual([], complaints(daemon))


class MemoryTests(SynchronousTestCase):
    """K-50, issue 12: remembered nonces vanish with their jobs."""

    def test_small(self) -> None:
        """K-50, issue 12: their memory is used again: what was accepted once more, and
        retired, adds less than five percent.
        """
        with tempfile.TemporaryDirectory() as folder:
            report = memory.run(
                memory.Load(Path(folder), compiled=False),
                submissions=60_000,
                connects=200,
                rounds=1,
                warm=1.0,
                folder=Path(folder),
            )
        self.assertEqual([accepted for accepted, _, _ in report.rounds], [60_000])
        self.assertEqual([], report.problems)
