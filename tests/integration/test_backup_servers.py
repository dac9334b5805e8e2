"""A pool with its log in RabbitMQ and its counts in PostgreSQL, put back as the page says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.commands import kupool
from tests.servers.running_daemon import ROOT, UNLIMITED, LineClient, RunningDaemon
from tests.servers.services import postgres, rabbit

#: The connection string on the page.
DSN = "host=db dbname=kupool user=kupool"


class ServersTests(SynchronousTestCase):
    """Issue 11, point 7: docs/backup.md, "PostgreSQL is lost, RabbitMQ is not"."""

    def setUp(self) -> None:
        for program in ("pg_dump", "pg_restore", "psql"):
            if shutil.which(program) is None:
                raise SkipTest(f"{program} is not installed")
        self.broker, self.database = rabbit(), postgres()
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.engines = [
            "--mq=rabbit",
            f"--mq-url={self.broker.new_vhost()}",
            "--store=pg",
            f"--data={self.root / 'data'}",
        ]

    def on_the_page(self, command: str, dsn: str) -> None:
        """Run a command of the page, on the database of this test."""
        text = (ROOT / "docs" / "backup.md").read_text("utf-8").replace("\\\n", "")
        (found,) = re.findall(rf"^ *\$ ({command} .*)$", text, re.M)
        arguments = [re.sub(re.escape(DSN), lambda _: dsn, part) for part in shlex.split(found)]
        subprocess.run(arguments, cwd=self.root, check=True, capture_output=True)

    def start(self, dsn: str) -> RunningDaemon:
        daemon = RunningDaemon(
            "--interval=1h", "--flush-interval=50ms", *UNLIMITED, *self.engines, f"--pg-dsn={dsn}",
            data=self.root / "data",
        )  # fmt: skip
        self.addCleanup(daemon.__exit__)
        return daemon.start()

    def submit(self, daemon: RunningDaemon, prefix: str, count: int) -> Any:
        client = LineClient(daemon)
        job = client.authorize("alice")
        for number in range(count):
            self.assertIs(client.submit(job, f"{prefix}{number}")["result"], True)
        client.close()
        return job

    def wait_for(self, dsn: str, wanted: int) -> None:
        deadline = time.monotonic() + 60
        query = "SELECT coalesce(sum(submission_count), 0) FROM submissions"
        while (found := int(self.database.execute(query, dsn=dsn)[0][0])) != wanted:
            self.assertLess(time.monotonic(), deadline, found)
            time.sleep(0.1)

    def test_a_dump_is_brought_up_to_date_from_the_stream(self) -> None:
        """Counts are complete, audit is clean, nothing is accepted twice, no id comes again."""
        before, after = self.database.new_database(), self.database.new_database()
        daemon = self.start(before)
        job = self.submit(daemon, "a", 5)
        self.wait_for(before, 5)
        made = kupool("backup", *self.engines, f"--pg-dsn={before}", str(self.root / "spool"))
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        self.assertIn(
            "Not in it: the queue and the stream in RabbitMQ and the counts and the jobs in "
            "PostgreSQL; docs/backup.md says what to do",
            made.stdout,
        )
        self.on_the_page("pg_dump", before)
        daemon.post("/jobs/rotate", {})
        newest = self.submit(daemon, "b", 3)
        self.wait_for(before, 8)
        self.assertEqual(daemon.stop(), 0)
        self.on_the_page("pg_restore", after)
        self.on_the_page("psql", after)
        daemon = self.start(after)
        self.wait_for(after, 8)
        client = LineClient(daemon)
        next_job = client.authorize("alice")
        self.assertGreater(next_job["job_id"], newest["job_id"])
        for old, nonce in ((job, "a0"), (newest, "b0")):
            self.assertEqual(client.submit(old, nonce)["error"], "Task does not exist")
        client.close()
        self.submit(daemon, "a", 2)
        self.wait_for(after, 10)
        audit = kupool("audit", *self.engines, f"--pg-dsn={after}")
        self.assertEqual((audit.returncode, audit.stderr), (0, ""), audit.stdout)
