"""The watch for handlers that never yield, on a fake clock; really hanging: test_bad_input.py."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.stalls import StallWatch
from tests.servers.own_process import wait_until
from tests.servers.running_daemon import ROOT

#: Never yields, while the watch writes its stacks a hundred times a second.
BUSY = """
import time
from twisted.internet.task import Clock
from kupool.net.stalls import StallWatch

def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)

with open("/dev/null", "w") as nowhere:
    clock = Clock()
    watches = [StallWatch(clock, 0.01 + n / 1000, nowhere) for n in range(5)]
    end = time.monotonic() + 3
    while time.monotonic() < end:
        for watch in watches:
            watch.start()
        begun = time.monotonic()
        while time.monotonic() < begun + 0.03:
            deep(200)
        for watch in watches:
            watch.stop()
print("well")
"""


class StallTests(SynchronousTestCase):
    """P-49: what holds the reactor up does not go unnoticed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.report = Path(self.mktemp())
        self.file = self.report.open("w")
        self.addCleanup(self.file.close)
        self.watch = self.make(0.2)

    def make(self, seconds: float) -> StallWatch:
        watch = StallWatch(self.clock, seconds, self.file)
        self.addCleanup(watch.stop)
        return watch

    def written(self) -> int:
        return self.report.read_text().count("The reactor has been blocked for 0.2 s:\n")

    def looked(self) -> bool:
        return "kupool-stalls" in {thread.name for thread in threading.enumerate()}

    def test_written_once_while_it_stands(self) -> None:
        self.watch.start()
        self.watch.start()
        wait_until(lambda: "test_stalls" in self.report.read_text(), "the stacks")
        threading.Event().wait(0.5)
        self.assertEqual((self.written(), self.watch.stalls), (1, 0))
        self.clock.advance(0.2)
        self.assertEqual(self.watch.stalls, 1)
        wait_until(lambda: self.written() == 2, "the stacks of the next stall")

    def test_nothing_is_written_while_the_reactor_goes(self) -> None:
        self.watch = self.make(2.0)
        self.watch.start()
        for _ in range(30):
            self.clock.advance(0.5)
            threading.Event().wait(0.1)
        self.assertEqual((self.report.read_text(), self.watch.stalls), ("", 0))

    def test_counted(self) -> None:
        self.watch = self.make(2.0)
        self.watch.start()
        self.clock.advance(1.9)
        self.clock.advance(2.1)
        self.clock.advance(0.5)
        self.assertEqual(self.watch.stalls, 1)

    def test_stopped(self) -> None:
        self.watch.stop()
        self.watch.start()
        self.assertTrue(self.looked())
        self.watch.stop()
        self.watch.stop()
        wait_until(lambda: not self.looked(), "the end of the thread")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertRaises(ValueError, StallWatch, self.clock, 0)

    def test_the_stacks_of_a_thread_that_runs(self) -> None:
        """P-49: to write them does not end the process, whatever it is about."""
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [sys.executable, "-c", BUSY], cwd=ROOT, stdout=output, stderr=output, timeout=60
            )
            output.seek(0)
            self.assertEqual((done.returncode, output.read()), (0, b"well\n"))
