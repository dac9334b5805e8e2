"""Issue 14: how the tests run: with a worker that dies, and started with SIGINT ignored."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.running_daemon import ROOT

_DYING = """
import os, signal

def test_before():
    pass

def test_that_dies():
    {end}
"""

_ASK = "import tests, signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"


class WorkerTests(SynchronousTestCase):
    """A worker of the test runner that dies makes the run fail at once, and is no riddle."""

    def check(self, end: str) -> None:
        (flag,) = re.findall(r"^DIE\s*:= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "test_dying.py").write_text(_DYING.format(end=end))
            command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "1")
            done = subprocess.run(
                [*command, "--dist", "loadfile", flag, folder],
                capture_output=True,
                text=True,
                timeout=120,
                cwd=folder,
            )
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertRegex(done.stdout, r"crashed while running '\S*test_dying.py::test_that_dies'")

    def test_ended_by_a_test(self) -> None:
        self.check("os._exit(0)")

    def test_killed(self) -> None:
        self.check("os.kill(os.getpid(), signal.SIGKILL)")

    def test_every_run_with_workers_has_the_flag(self) -> None:
        runs = re.findall(r"-m pytest -n .*", (ROOT / "Makefile").read_text())
        self.assertEqual(len(runs), 2)
        for run in runs:
            self.assertIn("$(DIE)", run)


class SignalTests(SynchronousTestCase):
    def test_sigint_that_was_ignored(self) -> None:
        """As by `nohup` or a shell's `&`: what the tests start must still end with SIGINT."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            done = subprocess.run(
                [sys.executable, "-c", _ASK],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        finally:
            signal.signal(signal.SIGINT, before)
        self.assertEqual(done.stdout, "False\n", done.stderr)
