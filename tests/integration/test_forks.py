"""Daemons and commands that are forks are what new interpreters would be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.forks import COMMANDS, DAEMON, Fork, can_fork, forks
from tests.servers.running_daemon import ROOT

#: Prints what a process has from whoever started it.
TELL = """
import json, os, random, signal, sys, threading
print(json.dumps({
    "arguments": sys.argv,
    "cwd": os.getcwd(),
    "descriptors": sorted(os.listdir("/proc/self/fd")),
    "env": dict(os.environ),
    "name": __name__,
    "path": sys.path,
    "reactor": "twisted.internet.reactor" in sys.modules,
    "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGCHLD)],
    "threads": threading.active_count(),
    "wakeup": signal.set_wakeup_fd(-1),
}))
print(random.random(), file=sys.stderr)
"""


class ForkTests(SynchronousTestCase):
    """Issue 14, item 7: the tests start real daemons and commands, without their imports."""

    def setUp(self) -> None:
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "KUP_INTERVAL": "3s"}
        self.cwd = Path(self.mktemp()).absolute()
        self.cwd.mkdir(parents=True)
        self.output = self.enterContext(tempfile.TemporaryFile("w+"))
        self.errors = self.enterContext(tempfile.TemporaryFile("w+"))

    def fork(self, *command: str, modules: tuple[str, ...] = DAEMON) -> Fork:
        fork = forks(*modules).start(
            *command,
            env=self.env,
            stdout=self.output.fileno(),
            stderr=self.errors.fileno(),
            cwd=self.cwd,
        )
        self.addCleanup(fork.kill)
        return fork

    def test_as_a_new_interpreter(self) -> None:
        new = subprocess.run(
            [sys.executable, "-c", TELL, "a", "-b"],
            env=self.env,
            cwd=self.cwd,
            capture_output=True,
            check=True,
        )
        chance = {new.stderr.decode()}
        for modules in (DAEMON, DAEMON, COMMANDS):
            for file in (self.output, self.errors):
                file.seek(0)
                file.truncate()
            self.assertEqual(self.fork(TELL, "a", "-b", modules=modules).wait(60), 0)
            self.output.seek(0)
            self.errors.seek(0)
            self.assertEqual(json.load(self.output), json.loads(new.stdout))
            chance.add(self.errors.read())
        self.assertEqual(len(chance), 4, "none has the random numbers of another")

    def test_how_it_ends(self) -> None:
        self.assertEqual(self.fork("import sys; sys.exit(3)").wait(60), 3)
        self.assertEqual(self.fork("raise ValueError").wait(60), 1)
        fork = self.fork("import signal; signal.pause()")
        self.assertIs(fork.poll(), None)
        self.assertRaises(subprocess.TimeoutExpired, fork.wait, 0.01)
        fork.send_signal(signal.SIGTERM)
        self.assertEqual(fork.wait(60), -signal.SIGTERM)
        fork.kill()
        self.assertEqual(fork.poll(), -signal.SIGTERM)

    def test_what_only_a_new_interpreter_can_be(self) -> None:
        """What is read when an interpreter starts has to be the same."""
        self.assertTrue(can_fork(self.env))
        self.assertFalse(can_fork({**self.env, "LD_PRELOAD": "libfaketime.so.1"}))
        self.assertFalse(can_fork({**self.env, "PYTHONPATH": "/elsewhere"}))
        self.assertFalse(can_fork({"PYTHONHASHSEED": "0", **self.env}))
