"""Data of the release before is taken over: counts, jobs, used nonces and the log."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pika
from twisted.trial.unittest import SynchronousTestCase

from kupool.log.rabbit.topology import Topology
from tests.servers.running_daemon import ROOT, LineClient, RunningDaemon
from tests.servers.services import postgres, rabbit

LEFT = ROOT / "tests" / "data" / "release_0"

#: Jobs of that release are older than any history is; here they are still submitted for.
FLAGS = ("--history-window=500000h", "--submit-interval=0", "--attempts-rate=0")


def make_file(script: Path, path: Path) -> None:
    """Make a SQLite file as the release before left it."""
    connection = sqlite3.connect(path)
    connection.executescript(script.read_text())
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


class TakeoverTests(SynchronousTestCase):
    """A data folder, a PostgreSQL and a RabbitMQ of the release before go on."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "data"
        self.folder.mkdir()
        self.flags: list[str] = list(FLAGS)

    def start(self) -> RunningDaemon:
        daemon = RunningDaemon(*self.flags, data=self.folder)
        self.addCleanup(daemon.__exit__)
        return daemon.start()

    def audit(self) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "kupool.cli", "audit", f"--data={self.folder}", *self.flags],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    def check(self, submissions: list[Any]) -> None:
        """Everything is counted once, and nothing of it is accepted again."""
        daemon = self.start()
        newest = max(job_id for _, job_id, _, _ in submissions)
        for username in sorted({submission[0] for submission in submissions}):
            client = LineClient(daemon)
            job = client.authorize(username)
            self.assertGreater(job["job_id"], newest)
            for name, job_id, server_nonce, nonce in submissions:
                if name == username:
                    old = {"job_id": job_id, "server_nonce": server_nonce}
                    self.assertEqual(client.submit(old, nonce)["error"], "Duplicate submission")
            self.assertIs(client.submit(job, f"fresh {username}")["result"], True)
            client.close()
        users = len({submission[0] for submission in submissions})
        self.assertEqual(0, daemon.stop())
        again = self.start()
        status, found = again.get("/stats")
        self.assertEqual((status, found["accepted_total"]), (200, len(submissions) + users))
        self.assertEqual((200, {"ready": True, "reasons": []}), again.get("/ready"))
        self.assertEqual(0, again.stop())
        status, text = self.audit()
        self.assertEqual(0, status, text)
        self.assertIn(f"{len(submissions) + users}", text)

    def test_folder(self) -> None:
        for name in ("log", "store"):
            make_file(LEFT / f"{name}.sql", self.folder / f"{name}.sqlite")
        self.check(json.loads((LEFT / "submissions.json").read_text()))

    def test_postgres(self) -> None:
        self.use_postgres()
        make_file(LEFT / "postgres-log.sql", self.folder / "log.sqlite")
        self.check(json.loads((LEFT / "postgres-submissions.json").read_text()))

    def use_postgres(self) -> None:
        server = postgres()
        dsn = server.new_database()
        server.psql(dsn, "-q", "-f", str(LEFT / "postgres.sql"))
        self.flags += ["--store=pg", f"--pg-dsn={dsn}"]

    def test_rabbit(self) -> None:
        """The stream holds what was counted; the queue is empty, as all was acknowledged."""
        self.use_postgres()
        url = rabbit().new_vhost()
        self.flags += ["--mq=rabbit", f"--mq-url={url}"]
        log = sqlite3.connect(":memory:")
        log.executescript((LEFT / "postgres-log.sql").read_text())
        entries = log.execute("SELECT entry_id, appended_at, body FROM entries ORDER BY position")
        topology = Topology(max_age="604800s", max_bytes=10 * 1024**3)
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        channel.exchange_declare(topology.exchange, "fanout", durable=True)
        for queue, arguments in (
            (topology.dead_letters, {"x-queue-type": "quorum"}),
            (topology.stream, topology.stream_arguments()),
            (topology.queue, topology.queue_arguments()),
        ):
            channel.queue_declare(queue, durable=True, arguments=arguments)
        for queue in (topology.stream, topology.queue):
            channel.queue_bind(queue, topology.exchange)
        channel.confirm_delivery()
        for entry_id, appended_at, body in entries:
            properties = pika.BasicProperties(
                message_id=entry_id, delivery_mode=2, headers={"appended_at": appended_at}
            )
            channel.basic_publish(topology.exchange, "", bytes(body), properties)
        channel.queue_purge(topology.queue)
        connection.close()
        self.check(json.loads((LEFT / "postgres-submissions.json").read_text()))
