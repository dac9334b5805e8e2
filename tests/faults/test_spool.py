"""A process with a spool is killed, again and again."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.running_daemon import ROOT

ROUNDS = 12


class KillTests(SynchronousTestCase):
    """K-53, K-81: ``kill -9`` of a process that uses a spool."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        self.files = [f"{folder.name}/spool.sqlite", f"{folder.name}/lines"]

    def begin(self, action: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.spool_process", *self.files, action],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "open\n")
        return process

    def test_nothing_acknowledged_is_lost(self) -> None:
        """K-53, K-81: what was acknowledged in any round is in the log at the end, and for
        the last time in the order of the appends of its round.
        """
        rounds: list[list[str]] = []
        for _ in range(ROUNDS):
            process = self.begin("fill")
            time.sleep(random.uniform(0.05, 0.5))
            process.kill()
            rounds.append(process.communicate()[0].split())
        self.assertGreater(sum(map(len, rounds)), 100)
        drained = self.begin("drain")
        self.assertEqual(drained.communicate(timeout=60)[0], "")
        self.assertEqual(drained.returncode, 0)
        lines = Path(self.files[1]).read_text().split()
        last = {entry_id: place for place, entry_id in enumerate(lines)}
        for acknowledged in rounds:
            self.assertEqual([i for i in acknowledged if i not in last], [])
            appended = sorted(acknowledged, key=lambda i: int(i.partition("-")[2]))
            places = [last[entry_id] for entry_id in appended]
            self.assertEqual(places, sorted(places))
        self.assertGreater(len(lines), len(last), "nothing was ever sent twice")
