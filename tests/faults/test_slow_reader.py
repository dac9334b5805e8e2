"""A client that never reads: closed in time, within bounds, and nobody else notices."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.framing import OP_CLOSE
from tests.servers.running_daemon import UNLIMITED, RunningDaemon
from tools.crowd import Crowd
from tools.process import complaints, rss
from tools.slow_reader import SlowReader, Stage

LISTENERS = 60
WRITE_TIMEOUT = 2.0
LIMIT = 65536

#: Requests that it sends at once, so that the kernel's buffers are soon full.
AT_ONCE = 5000

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
            slow = SlowReader(crowd, daemon.port, AT_ONCE)
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
        """K-08: what a peer does not take within the write timeout is its end, 4100.

        It is told so if it begins to read before it is cut off, a write timeout later.
        """
        timeout = 8.0
        flags = [flag for flag in FLAGS if "write-timeout" not in flag]
        with RunningDaemon(*flags, f"--write-timeout={timeout:g}s") as daemon, Crowd() as crowd:
            stage = Stage(daemon, crowd, 2)
            slow = SlowReader(crowd, daemon.port, AT_ONCE)
            self.assertTrue(crowd.run(lambda: slow.blocked_at, 20), "it was never stopped")
            # Its own buffers were full a little later than the daemon's outbox, and the sweep comes
            # once a second: so it reads on in the middle between the close and the cut.
            crowd.run_for(timeout * 1.5)
            slow.read_on()
            self.assertTrue(crowd.run(lambda: slow.ended, 20))
            self.assertEqual([(OP_CLOSE, b"slow reader")], slow.last_words)
            self.assertEqual([], [one.reason for one in stage.listeners if one.ended])
            self.assertEqual([], complaints(daemon))

    def test_goes_on_when_it_reads_again(self) -> None:
        """K-08: one that reads again in time gets every answer, and stays."""
        with RunningDaemon(*FLAGS) as daemon, Crowd() as crowd:
            slow = SlowReader(crowd, daemon.port, AT_ONCE)
            self.assertTrue(crowd.run(lambda: slow.blocked_at, 20), "it was never stopped")
            slow.read_on()
            # The request that was cut in two when it stopped asking is the last one.
            self.assertTrue(crowd.run(lambda: slow.answers >= slow.taken, 20))
            self.assertFalse(slow.ended)
            self.assertEqual([], complaints(daemon))

    def test_cut_off_when_it_never_reads(self) -> None:
        """K-08, K-86: one that does not take its close either is cut off, and gone."""
        with RunningDaemon(*FLAGS) as daemon, Crowd() as crowd:
            stage = Stage(daemon, crowd, 2)
            slow = SlowReader(crowd, daemon.port, AT_ONCE)
            self.assertTrue(crowd.run(lambda: _connections(daemon) == 3, 20))
            self.assertTrue(crowd.run(lambda: _connections(daemon) == 2, 30), "it is still there")
            # One write timeout until it is closed, another until it is cut off.
            self.assertGreaterEqual(time.monotonic() - slow.began, 2 * WRITE_TIMEOUT)
            self.assertEqual([], [one.reason for one in stage.listeners if one.ended])
            self.assertEqual([], complaints(daemon))


def _connections(daemon: RunningDaemon) -> int:
    connections: int = daemon.get("/shutdown/status")[1]["connections"]
    return connections
