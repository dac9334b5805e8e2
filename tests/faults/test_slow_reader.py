"""A client that never reads: closed in time, within bounds, and nobody else notices."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.framing import OP_CLOSE
from tests.faults.crowd import Crowd
from tests.faults.process import complaints, rss
from tests.faults.slow_reader import SlowReader, Stage
from tests.running_daemon import UNLIMITED, RunningDaemon

LISTENERS = 60
WRITE_TIMEOUT = 2.0
LIMIT = 65536

FLAGS = (
    *UNLIMITED,
    "--interval=200ms",
    f"--write-timeout={WRITE_TIMEOUT:g}s",
    f"--outbox-limit={LIMIT}",
)


class SlowReaderTests(SynchronousTestCase):
    """K-27, K-28: a slow reader delays nobody."""

    def test_others_get_every_job(self) -> None:
        """K-27: while one client does not read, all others get all jobs, in order."""
        with RunningDaemon(*FLAGS) as daemon, Crowd() as crowd:
            stage = Stage(daemon, crowd, LISTENERS)
            before = rss(daemon)
            stage.keep_slow(True)
            slow = stage.slow
            assert slow is not None
            self.assertTrue(crowd.run(lambda: slow.blocked_at, 20), "it was never stopped")
            begin = max(one.job_ids[-1] for one in stage.listeners)
            self.assertTrue(
                crowd.run(lambda: all(o.job_ids[-1] >= begin + 10 for o in stage.listeners), 20)
            )
            self.assertEqual([], [one.reason for one in stage.listeners if one.ended])
            for one in stage.listeners:
                first, last = one.job_ids[0], one.job_ids[-1]
                self.assertEqual(list(range(first, last + 1)), one.job_ids)
            # It asked without end; what waits for it is bounded, the daemon's memory too.
            self.assertLess(rss(daemon) - before, 20_000_000)
            self.assertEqual([], complaints(daemon))

    def test_slow_one_is_closed(self) -> None:
        """K-08: what a peer does not take within the write timeout is its end, 4100."""
        with RunningDaemon(*FLAGS) as daemon, Crowd() as crowd:
            stage = Stage(daemon, crowd, 2)
            slow = SlowReader(crowd, daemon.port)
            self.assertTrue(crowd.run(lambda: slow.blocked_at, 20), "it was never stopped")
            crowd.run_for(WRITE_TIMEOUT + 1.5)
            # The answers it never read are still in the kernel; the close is behind them.
            asked = slow.asked
            slow.read_on()
            self.assertTrue(crowd.run(lambda: slow.ended, 20))
            self.assertEqual([(OP_CLOSE, b"slow reader")], slow.last_words)
            self.assertGreater(asked, 1000)
            self.assertEqual([], [one.reason for one in stage.listeners if one.ended])
            self.assertEqual([], complaints(daemon))

    def test_cut_off_when_it_never_reads(self) -> None:
        """K-08, K-86: one that does not take its close either is cut off, and gone."""
        with RunningDaemon(*FLAGS) as daemon, Crowd() as crowd:
            stage = Stage(daemon, crowd, 2)
            slow = SlowReader(crowd, daemon.port)
            self.assertTrue(crowd.run(lambda: slow.blocked_at, 20))
            self.assertTrue(crowd.run(lambda: _connections(daemon) == 2, 20), "it is still there")
            self.assertEqual([], [one.reason for one in stage.listeners if one.ended])
            self.assertGreaterEqual(time.monotonic() - slow.blocked_at, WRITE_TIMEOUT)


def _connections(daemon: RunningDaemon) -> int:
    connections: int = daemon.get("/shutdown/status")[1]["connections"]
    return connections
