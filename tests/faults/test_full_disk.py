"""A disk that is full: submissions are refused, the daemon stays, and recovers."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from kupool.backup import NoBar
from kupool.backup.verifying import verify_folder
from tests.servers.pool_load import counted
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon, StartFailed


class FullDiskTests(SynchronousTestCase):
    """K-35, K-52, K-53, K-72: on a file system of its own, that is really full."""

    def setUp(self) -> None:
        if os.geteuid():
            raise SkipTest("only root may mount a file system")
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        self.disk = Path(folder.name)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder.name],
            capture_output=True,
            text=True,
        )
        if mounted.returncode:
            raise SkipTest(f"no file system could be mounted: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "--lazy", folder.name], check=True)
        self.daemon = RunningDaemon("--interval=1h", *UNLIMITED, data=self.disk / "data")
        self.addCleanup(self.daemon.__exit__)
        self.daemon.start()
        self.client = LineClient(self.daemon)
        self.job = self.client.authorize("alice")
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.number = 0

    def fill(self) -> Path:
        ballast = self.disk / "ballast"
        with open(ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 65536)
            except OSError:
                pass
            try:
                while True:
                    file.write(b"\0" * 512)
            except OSError:
                pass
        return ballast

    def submit(self) -> bool:
        """Submit a new nonce; returns whether it was accepted, for good."""
        self.number += 1
        nonce = f"n{self.number}".ljust(64, ".")
        answer = self.client.submit(self.job, nonce)
        if answer["result"]:
            self.accepted.append(nonce)
            return True
        self.assertEqual((answer["error"], answer["code"]), ("Temporarily unavailable", 27))
        self.refused.append(nonce)
        return False

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while (found := self.daemon.get("/ready"))[0] != 200:
            self.assertLess(time.monotonic(), deadline, found)
            time.sleep(0.1)

    def test_submissions_are_refused_until_there_is_room(self) -> None:
        """K-52: what cannot be made durable is refused, and its nonce stays free."""
        for _ in range(5):
            self.assertTrue(self.submit())
        ballast = self.fill()
        while self.submit():
            self.assertLess(self.number, 50_000)
        for _ in range(5):
            self.submit()
        status, ready = self.daemon.get("/ready")
        self.assertEqual(status, 503)
        file = self.daemon.data / "log.sqlite"
        self.assertIn(f"log: database {file}: database or disk is full", ready["reasons"])
        self.assertEqual(self.daemon.get("/health")[0], 200)
        self.assertEqual(self.client.request("ping")["result"], True)
        ballast.unlink()
        # Ready again by itself: nobody sends submissions to what is not ready.
        self.wait_until_ready()
        for nonce in self.refused:
            answer = self.client.submit(self.job, nonce)
            self.assertEqual(answer["result"], True, answer)
        for nonce in self.accepted:
            self.assertEqual(self.client.submit(self.job, nonce)["error"], "Duplicate submission")
        total = len(self.accepted) + len(self.refused)
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(counted(self.daemon.data), {"alice": total})

    def test_jobs_go_on(self) -> None:
        """K-35: jobs are made and sent although none can be saved, and ids grow on."""
        self.assertTrue(self.submit())
        ballast = self.fill()
        while self.submit():
            self.assertLess(self.number, 50_000)
        # Other files may still have had room; rotate until there is none.
        seen = [self.job["job_id"]]
        while "jobs cannot be saved" not in str(self.daemon.get("/ready")[1]):
            self.daemon.post("/jobs/rotate", {})
            seen.append(self.client.job()["job_id"])
            self.assertLess(len(seen), 2000)
        self.daemon.post("/jobs/rotate", {})
        seen.append(self.client.job()["job_id"])
        self.assertEqual(seen, list(range(seen[0], seen[-1] + 1)))
        self.daemon.kill()
        ballast.unlink()
        self.daemon.start()
        self.wait_until_ready()
        self.assertGreater(LineClient(self.daemon).authorize("alice")["job_id"], seen[-1])
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(counted(self.daemon.data), {"alice": len(self.accepted)})

    def produce(self) -> int:
        """Write a record to a topic; returns the status, and checks what a refusal says."""
        value = {"topic": "orders", "value": "x" * 2000}
        status, answer = self.daemon.post("/api/log/produce", value)
        if status != 200:
            self.assertEqual((status, answer["code"]), (503, 27), answer)
            self.assertIn("Temporarily unavailable", answer["error"])
        return status

    def test_topics(self) -> None:
        """Q-15: appends fail with a clear error, reads go on, and it recovers by itself."""
        self.assertEqual(self.daemon.post("/api/topic/create", {"topic": "orders"})[0], 200)
        self.assertEqual(self.produce(), 200)
        ballast = self.fill()
        written = 1
        while self.produce() == 200:
            written += 1
            self.assertLess(written, 5000)
        self.assertEqual(self.produce(), 503)
        status, ready = self.daemon.get("/ready")
        self.assertEqual(status, 503)
        file = self.daemon.data / "topics.sqlite"
        self.assertIn(f"topics: database {file}: database or disk is full", ready["reasons"])
        self.assertEqual(self.records(), written)
        ballast.unlink()
        self.wait_until_ready()
        self.assertEqual(self.produce(), 200)
        self.assertEqual(self.records(), written + 1)
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(verify_folder(self.daemon.data, ("topics",), NoBar()).faults, [])

    def records(self) -> int:
        """Return how many records can be read from the topic."""
        where = {"topic": "orders", "partition": 0, "offset": 0, "max_bytes": 16_000_000}
        status, found = self.daemon.post("/api/log/fetch", where)
        self.assertEqual(status, 200, found)
        return len(found["records"])

    def test_a_start_on_a_full_disk(self) -> None:
        """K-88: a daemon that cannot open its files says so in one line."""
        self.assertEqual(self.daemon.stop(), 0)
        self.fill()
        other = RunningDaemon(data=self.disk / "other")
        self.addCleanup(other.__exit__)
        failure = self.assertRaises(StartFailed, other.start)
        (line,) = other.refusals
        self.assertIn("data: ", line)
        self.assertIn("status 1", str(failure))
        self.assertNotIn("Traceback", other.output)
