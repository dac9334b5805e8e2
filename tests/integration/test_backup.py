"""Backup and restore as commands, beside a daemon and in its place."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.backup.switching import NOTE
from tests.fakes.data_folder import query
from tests.servers.commands import KUPOOL, environment, kupool
from tests.servers.pool_load import counted
from tests.servers.running_daemon import ROOT, UNLIMITED, LineClient, RunningDaemon, StartFailed
from tests.terminal import terminal


class BackupCommandTests(SynchronousTestCase):
    """Issue 11, point 7: a backup while it runs, and a restore that begins a new epoch."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.data, self.target = self.root / "data", self.root / "b"
        self.daemon = self.start(self.data)
        self.job = self.submit(self.daemon, "before", 5)

    def start(self, data: Path, *flags: str) -> RunningDaemon:
        daemon = RunningDaemon(
            "--interval=1h", "--flush-interval=50ms", *UNLIMITED, *flags, data=data
        )
        self.addCleanup(daemon.__exit__)
        return daemon.start()

    def submit(self, daemon: RunningDaemon, prefix: str, count: int) -> Any:
        """Submit, wait until it is counted, and return the job."""
        wanted = counted(daemon.data).get("alice", 0) + count
        client = LineClient(daemon)
        job = client.authorize("alice")
        for number in range(count):
            self.assertIs(client.submit(job, f"{prefix}{number}")["result"], True)
            self.assertEqual(
                client.submit(job, f"{prefix}{number}")["error"], "Duplicate submission"
            )
        client.close()
        deadline = time.monotonic() + 20
        while counted(daemon.data) != {"alice": wanted}:
            self.assertLess(time.monotonic(), deadline, counted(daemon.data))
            time.sleep(0.05)
        return job

    def backup(self, *flags: str) -> str:
        made = kupool("backup", f"--data={self.data}", *flags, str(self.target))
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        return made.stdout

    def test_restored_elsewhere(self) -> None:
        """Counts are those of the backup, jobs of before are gone, ids go on, audit is clean."""
        said = self.backup()
        self.assertRegex(said, rf"^Made {self.target} in [\d.]+ s: log.sqlite, store.sqlite, ")
        self.assertIn("log positions 1 to 5; counted up to position 5", said)
        self.submit(self.daemon, "after", 3)
        rejections = query(self.data, "store", "SELECT sum(rejection_count) FROM rejections")
        self.assertNotEqual(rejections, [(None,)])
        self.daemon.kill()
        new = self.root / "new"
        done = kupool("restore", f"--data={new}", str(self.target))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("a new epoch begins after 5\n", done.stdout)
        self.assertIn("Submissions accepted after position 5 are not in the backup", done.stdout)
        other = self.start(new)
        self.assertEqual(counted(new), {"alice": 5})
        client = LineClient(other)
        job = client.authorize("alice")
        self.assertGreater(job["job_id"], self.job["job_id"] + 1_000_000)
        self.assertLess(job["job_id"], 2**31)
        for nonce in ("before0", "after0", "after2", "never"):
            answer = client.submit(self.job, nonce)
            self.assertEqual(answer["error"], "Task does not exist", nonce)
        client.close()
        self.submit(other, "before", 4)
        self.assertEqual(other.stop(), 0)
        self.assertEqual(counted(new), {"alice": 9})
        audit = kupool("audit", f"--data={new}")
        self.assertEqual((audit.returncode, audit.stderr), (0, ""))
        positions = query(new, "log", "SELECT position FROM entries ORDER BY position")
        self.assertEqual(positions, [(n,) for n in range(1, 10)])

    def test_the_backup_can_be_looked_into(self) -> None:
        """Audit and stats work on it, and it is still good thereafter."""
        self.backup()
        data = f"--data={self.target}"
        self.assertEqual(kupool("audit", data).returncode, 0)
        self.assertIn("Accepted in all: 5", kupool("stats", data).stdout)
        checked = kupool("backup", "--check", str(self.target))
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))
        self.assertIn(f"{self.target} is good: log.sqlite, store.sqlite, ", checked.stdout)
        with open(self.target / "log.sqlite", "r+b") as file:
            file.seek(6000)
            file.write(b"!")
        checked = kupool("backup", "--check", str(self.target))
        self.assertEqual((checked.returncode, checked.stdout), (1, ""))
        self.assertIn("log.sqlite: its SHA-256 differs from the manifest", checked.stderr)

    def test_a_restore_beside_the_daemon(self) -> None:
        """It is refused, naming the daemon."""
        self.backup()
        done = kupool("restore", f"--data={self.data}", "--force", str(self.target))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("in use by", done.stderr)
        self.assertIn(f"pid {self.daemon.pid}", done.stderr)

    def test_newer_data(self) -> None:
        """Without force it is refused; with force the old files are kept, and ids go on."""
        self.backup()
        self.submit(self.daemon, "after", 3)
        self.assertEqual(self.daemon.stop(), 0)
        done = kupool("restore", f"--data={self.data}", str(self.target))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(
            "its log ends at position 8, that of the backup at 5: 3 more; --force replaces it",
            done.stderr,
        )
        self.assertEqual(counted(self.data), {"alice": 8})
        done = kupool("restore", f"--data={self.data}", "--force", str(self.target))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("a new epoch begins after 8\n", done.stdout)
        self.assertIn("Positions 6 to 8 of the old log are not in the backup", done.stdout)
        replaced = Path(done.stdout.strip().rpartition("What was there before is in ")[2])
        self.assertEqual(counted(replaced), {"alice": 8})
        self.daemon.start()
        self.assertEqual(counted(self.data), {"alice": 5})
        self.submit(self.daemon, "before", 2)
        self.assertEqual(
            query(self.data, "log", "SELECT position FROM entries ORDER BY position")[-2:],
            [(9,), (10,)],
        )
        audit = kupool("audit", f"--data={self.data}")
        self.assertEqual((audit.returncode, audit.stderr), (0, ""))

    def test_the_log_alone_put_back_by_hand(self) -> None:
        """Without the command: the daemon notices, and what it counts stays right."""
        self.backup()
        self.submit(self.daemon, "after", 3)
        self.assertEqual(self.daemon.stop(), 0)
        for name in ("log.sqlite", "log.sqlite-wal", "log.sqlite-shm"):
            (self.data / name).unlink(missing_ok=True)
        (self.data / "log.sqlite").write_bytes((self.target / "log.sqlite").read_bytes())
        self.daemon.start()
        self.assertIn("The log is older than the store: a new epoch begins", self.daemon.output)
        client = LineClient(self.daemon)
        client.authorize("alice")
        for nonce in ("before0", "after0"):
            self.assertEqual(client.submit(self.job, nonce)["error"], "Task does not exist")
        client.close()
        self.assertEqual(counted(self.data), {"alice": 8})

    def test_a_restore_that_was_interrupted(self) -> None:
        """The daemon does not start on it, and the next restore finishes it."""
        self.backup()
        self.assertEqual(self.daemon.stop(), 0)
        script = (
            "import os, sys; from kupool.backup import switching; from kupool.cli import main\n"
            "real, left = os.rename, [4]\n"
            "def rename(*arguments):\n"
            "    left[0] -= 1\n"
            "    if not left[0]: os.kill(os.getpid(), 9)\n"
            "    real(*arguments)\n"
            "os.rename = rename; sys.exit(main())"
        )
        arguments = ["restore", f"--data={self.data}", str(self.target)]
        killed = subprocess.run([KUPOOL[0], "-c", script, *arguments], env=environment())
        self.assertEqual(killed.returncode, -signal.SIGKILL)
        self.assertTrue((self.data / NOTE).exists())
        self.assertRaises(StartFailed, self.daemon.start)
        (line,) = self.daemon.refusals
        self.assertIn("a restore was interrupted, and its files are from two moments", line)
        self.assertIn(f"'kupool restore {self.target}' finishes it", line)
        made = kupool("backup", f"--data={self.data}", str(self.root / "second"))
        self.assertIn("a restore was interrupted", made.stderr)
        done = kupool(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("Finished the interrupted restore of ", done.stdout)
        self.daemon.start()
        self.assertEqual(counted(self.data), {"alice": 5})
        self.submit(self.daemon, "new", 2)

    def test_the_page(self) -> None:
        """The commands of docs/backup.md for SQLite, as they stand there, in their order."""
        text = (ROOT / "docs" / "backup.md").read_text("utf-8")
        sections = text.partition("## SQLite: make")[2].partition("## PostgreSQL and RabbitMQ")[0]
        commands = re.findall(r"^ *\$ kupool (.*)$", sections, re.M)
        self.assertEqual(
            [command.split()[0] for command in commands],
            ["backup", "backup", "log", "stats", "restore", "audit"],
        )
        os.rename(self.data, self.root / "kupool-data")
        self.daemon.kill()
        self.daemon.data = self.root / "kupool-data"
        self.daemon.start()
        for command in commands:
            if command.startswith("restore"):
                self.assertEqual(self.daemon.stop(), 0)
            done = subprocess.run(
                [*KUPOOL, *command.split()],
                cwd=self.root,
                env=environment(),
                capture_output=True,
                text=True,
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""), command)
            if command.startswith("restore"):
                self.daemon.start()

    def test_files_that_are_missing(self) -> None:
        made = kupool("backup", f"--data={self.root}", str(self.target))
        self.assertEqual(made.returncode, 1)
        self.assertIn("log.sqlite: no such file; is --data the daemon's", made.stderr)
        done = kupool("restore", f"--data={self.root / 'new'}", str(self.data))
        self.assertIn("not a backup: it has no backup.json", done.stderr)
        self.assertEqual(done.returncode, 1)

    def test_on_a_terminal(self) -> None:
        """A progress bar with an estimate; without a terminal there is none."""
        ours, theirs = terminal()
        self.addCleanup(os.close, ours)
        process = subprocess.Popen(
            [*KUPOOL, "backup", f"--data={self.data}", str(self.target)],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=environment({"TERM": "xterm"}),
        )
        os.close(theirs)
        said = process.communicate(timeout=60)[0]
        shown = os.read(ours, 1_000_000).decode()
        self.assertEqual(process.returncode, 0)
        self.assertTrue(said.startswith(b"Made "), said)
        self.assertRegex(shown, r"sqlite .*\d+\.\d/\d+\.\d [kM]?B.*\d:\d\d:\d\d")


class EnginesTests(SynchronousTestCase):
    """Issue 11, point 7: what the files do not hold is named, with the page about it."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.data, self.target = self.root / "data", self.root / "b"
        with RunningDaemon(*UNLIMITED, data=self.data) as daemon:
            self.assertEqual(daemon.stop(), 0)

    def test_counts_in_postgresql(self) -> None:
        flags = ("--store=pg", "--pg-dsn=host=127.0.0.1", f"--data={self.data}")
        made = kupool("backup", *flags, str(self.target))
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        self.assertIn(
            "Not in it: the counts and the jobs in PostgreSQL; docs/backup.md", made.stdout
        )
        manifest = json.loads((self.target / "backup.json").read_bytes())
        self.assertEqual(
            (list(manifest["files"]), manifest["store"]), (["log.sqlite", "topics.sqlite"], "pg")
        )
        flags = (*flags[:2], f"--data={self.root / 'new'}")
        done = kupool("restore", *flags, str(self.target))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("Not restored: the counts and the jobs in PostgreSQL", done.stdout)

    def test_nothing_in_files(self) -> None:
        flags = ("--store=pg", "--pg-dsn=host=x", "--mq=rabbit", "--mq-url=amqp://x", "--spool=off")
        for command in ("backup", "restore"):
            done = kupool(command, *flags, f"--data={self.data}", str(self.target))
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(
                "the queue and the stream in RabbitMQ and the counts and the jobs in PostgreSQL "
                "are not in the data folder; docs/backup.md says what to do",
                done.stderr,
            )
        self.assertFalse(self.target.exists())

    def test_in_memory(self) -> None:
        made = kupool("backup", "--mq=memory", f"--data={self.data}", str(self.target))
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        self.assertIn("Not in it: the log in memory", made.stdout)
