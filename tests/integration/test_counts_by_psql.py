"""The counts as whoever has ``psql`` sees them: RabbitMQ and PostgreSQL, both real."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import Any

import pika
from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.batches import VERSION, Batch, encode_batch
from tests.servers.commands import kupool
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon
from tests.servers.services import postgres, rabbit
from tools.process import wait_until

#: Submissions that one client has on their way.
ABREAST = 250

#: What a dump of the counts shows, sorted.
DUMP = (
    "COPY (SELECT * FROM submissions ORDER BY username, timestamp) TO STDOUT",
    "COPY (SELECT * FROM worker_submissions ORDER BY username, worker, timestamp) TO STDOUT",
)


def submit_many(client: LineClient, job: dict[str, Any], count: int, run: str) -> int:
    """Submit so many, many at once; returns how many were answered with ``true``."""
    accepted = 0
    for start in range(0, count, ABREAST):
        numbers = range(start, min(start + ABREAST, count))
        for number in numbers:
            nonce = f"{run}-{number}"
            result = sha256((job["server_nonce"] + nonce).encode()).hexdigest()
            params = {"job_id": job["job_id"], "client_nonce": nonce, "result": result}
            client.send({"id": 1000 + number, "method": "submit", "params": params})
        accepted += sum(client.receive().get("result") is True for _ in numbers)
    return accepted


class CountsByPsqlTests(SynchronousTestCase):
    """K-67, K-68, K-77: the table of counts, with PostgreSQL's own tools."""

    def setUp(self) -> None:
        self.database, self.url = postgres(), rabbit().new_vhost()
        self.dsn = self.database.new_database()
        self.engines = [
            "--mq=rabbit",
            f"--mq-url={self.url}",
            "--store=pg",
            f"--pg-dsn={self.dsn}",
        ]
        self.daemon = RunningDaemon(
            *self.engines, "--interval=1h", "--flush-interval=50ms", *UNLIMITED
        )
        self.addCleanup(self.daemon.__exit__)
        self.daemon.start()

    def psql(self, *statements: str) -> str:
        return self.database.psql(self.dsn, *(f"--command={text}" for text in statements))

    def total(self) -> int:
        rows = self.database.execute(
            "SELECT coalesce(sum(submission_count), 0) FROM submissions", dsn=self.dsn
        )
        return int(rows[0][0])

    def wait_for_total(self, count: int) -> None:
        found = wait_until(lambda: self.total() == count, 60)
        self.assertTrue(found, f"{self.total()} are counted, not {count}")

    def rebuild(self) -> None:
        made = kupool("stats", "rebuild", f"--data={self.daemon.data}", *self.engines)
        self.assertEqual((0, ""), (made.returncode, made.stderr))
        self.assertRegex(made.stdout, r"(?m)^Rebuilt the per-minute table from \d+ batches: ")

    def publish(self, batch_id: str, at: int, usernames: list[str]) -> None:
        """Put a batch of an earlier minute into the log."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        channel = connection.channel()
        channel.confirm_delivery()
        nonces = [f"{batch_id}-{number}" for number in range(len(usernames))]
        body = encode_batch(
            Batch(VERSION, batch_id, at * 1000, usernames, [1] * len(usernames), nonces)
        )
        properties = pika.BasicProperties(delivery_mode=2, message_id=batch_id)
        channel.basic_publish("kupool_submissions", "", body, properties, mandatory=True)
        connection.close()

    def test_psql_shows_10000_in_one_minute(self) -> None:
        """K-68: 10,000 submissions of one user in one minute make a count of 10,000."""
        client = LineClient(self.daemon, 60)
        self.addCleanup(client.close)
        job = client.authorize("alice")
        for attempt in range(5):
            if time.time() % 60 > 45:
                time.sleep(60 - time.time() % 60)
            minute = time.time() // 60 * 60
            self.assertEqual(10_000, submit_many(client, job, 10_000, str(attempt)))
            self.wait_for_total((attempt + 1) * 10_000)
            if time.time() // 60 * 60 == minute:
                break
        else:
            self.fail("it never fitted into one minute")
        at = time.strftime("%Y-%m-%d %H:%M:00", time.gmtime(minute))
        found = self.psql(f"SELECT * FROM submissions WHERE timestamp = '{at}'")
        self.assertEqual(
            " username |      timestamp      | submission_count \n"
            "----------+---------------------+------------------\n"
            f" alice    | {at} |            10000\n"
            "(1 row)\n\n",
            found,
        )

    def test_psql_dump_after_a_dropped_table(self) -> None:
        """K-77, X-06: dropped and made again from the log, the table is what it was, byte for
        byte: while the daemon runs, with submissions that come meanwhile, and without it.
        """
        now = int(time.time())
        names = ["bob", "alice.rig1", "alice.rig2", "alice.rig1", "Ünal", "a\\b\tc"]
        for minutes in range(1, 6):
            self.publish(f"earlier-{minutes}", now - 60 * minutes, names[:minutes] * minutes)
        client = LineClient(self.daemon, 60)
        self.addCleanup(client.close)
        job = client.authorize("carol.rig")
        self.assertEqual(100, submit_many(client, job, 100, "before"))
        count = 1 + 4 + 9 + 16 + 25 + 100
        self.wait_for_total(count)
        before = self.psql(*DUMP)
        self.assertGreater(len(before.splitlines()), 15)
        self.psql("DROP TABLE submissions, worker_submissions")
        self.rebuild()
        self.assertEqual(before, self.psql(*DUMP))

        self.psql("DROP TABLE submissions")
        self.assertEqual(50, submit_many(client, job, 50, "meanwhile"))
        self.rebuild()
        self.wait_for_total(count + 50)
        self.assertEqual(50, submit_many(client, job, 50, "after"))
        self.wait_for_total(count + 100)

        self.assertEqual(0, self.daemon.stop())
        before = self.psql(*DUMP)
        self.psql("DROP TABLE submissions, worker_submissions")
        self.rebuild()
        self.assertEqual(before, self.psql(*DUMP))
        audit = kupool("audit", f"--data={self.daemon.data}", *self.engines)
        self.assertEqual(0, audit.returncode, audit.stdout + audit.stderr)
        self.assertRegex(audit.stdout, r"^compared: \d+ batches with 255 submissions, ")
        self.assertRegex(audit.stdout, r"(?m)^0 differences$")
