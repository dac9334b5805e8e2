"""The daemon with its log in RabbitMQ and its counts in PostgreSQL, both real."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.commands import kupool
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon
from tests.servers.services import PostgresServer, RabbitServer, postgres, rabbit
from tools.torture_stream import has_stream


class Clients:
    """Sessions that submit at some pace until they are told to stop."""

    def __init__(self, daemon: RunningDaemon, users: int, pause: float = 0.002) -> None:
        self.answers: Counter[str] = Counter()
        #: Accepted, by username.
        self.accepted: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self.longest = 0.0
        self._pause = pause
        self._stop = threading.Event()
        self._threads = []
        for number in range(users):
            client = LineClient(daemon, 30.0)
            job = client.authorize(f"user{number}")
            arguments = (client, job, f"user{number}")
            self._threads.append(threading.Thread(target=self._run, args=arguments, daemon=True))

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(40)
        assert not self.errors, self.errors

    def _run(self, client: LineClient, job: Any, username: str) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                number += 1
                began = time.monotonic()
                answer = client.submit(job, f"n{number}-{began}")
                self.longest = max(self.longest, time.monotonic() - began)
                self.answers[answer.get("error", "true")] += 1
                self.accepted[username] += answer["result"] is True
                self._stop.wait(self._pause)
        except BaseException as error:
            self.errors.append(error)
        finally:
            client.close()


#: Seconds from the making of queues to the killing of the broker. A RabbitMQ 3.10 that is
#: killed within moments of it does not know them any more when it comes back, and whoever
#: publishes to them waits for ever.
SETTLED = 4.0


class RabbitAndPostgresTests(SynchronousTestCase):
    """K-78, K-81: submissions through RabbitMQ into PostgreSQL, whichever of them is away."""

    def setUp(self) -> None:
        broker, database = rabbit(), postgres()
        if not isinstance(broker, RabbitServer) or not isinstance(database, PostgresServer):
            raise SkipTest("the servers given by the environment are not ours to kill")
        self.broker, self.database = broker, database
        self.dsn = database.new_database()
        self.url = broker.new_vhost()
        self.flags = [
            "--mq=rabbit",
            f"--mq-url={self.url}",
            "--store=pg",
            f"--pg-dsn={self.dsn}",
        ]
        self.daemon = RunningDaemon(
            *self.flags, "--interval=1h", "--flush-interval=100ms", "--mq-timeout=500ms", *UNLIMITED
        )
        self.addCleanup(self.daemon.__exit__)
        self.daemon.start()
        self.began = time.monotonic()

    def kill_broker(self) -> None:
        time.sleep(max(0.0, self.began + SETTLED - time.monotonic()))
        self.broker.kill()

    def counted(self) -> dict[str, int]:
        rows = self.database.execute(
            "SELECT username, sum(submission_count) FROM submissions GROUP BY username",
            dsn=self.dsn,
        )
        return {username: int(count) for username, count in rows}

    def wait_for(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"waited too long: {self.daemon.get('/ready')} {self.daemon.output}")
            time.sleep(0.1)

    def reasons(self) -> str:
        return " ".join(self.daemon.get("/ready")[1]["reasons"])

    def settled(self, clients: Clients) -> None:
        """Nothing was refused, all is counted, and log and counts agree."""
        self.assertEqual(set(clients.answers), {"true"})
        self.wait_for(lambda: self.counted() == dict(clients.accepted))
        self.wait_for(lambda: self.daemon.get("/ready") == (200, {"ready": True, "reasons": []}))
        self.assertEqual(self.daemon.get("/shutdown/status")[1]["spooled"], 0)
        found = self.command("audit")
        self.assertEqual(found.returncode, 0, found.stdout + found.stderr)
        self.assertRegex(found.stdout, r"(?m)^0 differences$")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return kupool(*arguments, f"--data={self.daemon.data}", *self.flags)

    def test_all_the_way(self) -> None:
        """K-67, K-73, K-77, K-78: accepted, counted, shown, audited and rebuilt; and known
        after a restart.
        """
        client = LineClient(self.daemon)
        job = client.authorize("alice.rig1")
        for number in range(50):
            self.assertIs(client.submit(job, f"n{number}")["result"], True)
        self.wait_for(lambda: self.counted() == {"alice": 50})
        shown = self.command("stats", "--username", "alice")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertRegex(shown.stdout, r"rig1 .* 50 ")
        self.assertEqual(self.daemon.get("/stats?username=alice")[0], 200)
        self.database.execute("UPDATE submissions SET submission_count = 7", dsn=self.dsn)
        found = self.command("audit")
        self.assertIn("alice: 50 in the log, 7 counted", found.stdout)
        made = self.command("stats", "rebuild")
        self.assertRegex(made.stdout, r"(?m)^Rebuilt the per-minute table from \d+ batches: ")
        self.assertEqual(self.counted(), {"alice": 50})
        client.close()
        self.daemon.kill()
        self.daemon.start()
        client = LineClient(self.daemon)
        client.authorize("alice")
        self.assertEqual(client.submit(job, "n7")["error"], "Duplicate submission")
        client.close()
        self.assertEqual(self.daemon.stop(), 0)

    def test_the_broker_is_killed(self) -> None:
        """K-81, K-52: 0 are refused while it is away for some seconds, the spool drains, and
        the counts are right; /ready says what is away meanwhile.
        """
        with Clients(self.daemon, 8) as clients:
            self.wait_for(lambda: sum(clients.accepted.values()) > 200)
            self.kill_broker()
            before = sum(clients.accepted.values())
            self.wait_for(lambda: "batches wait for the log" in self.reasons())
            self.assertIn("log: ", self.reasons())
            self.wait_for(lambda: sum(clients.accepted.values()) > before + 1000)
            self.broker.start()
            self.wait_for(lambda: "spool" not in self.reasons())
            later = sum(clients.accepted.values())
            self.wait_for(lambda: sum(clients.accepted.values()) > later + 200)
        self.settled(clients)

    def test_the_broker_hangs(self) -> None:
        """K-81: the same where it stays connected and answers nothing."""
        with Clients(self.daemon, 8) as clients:
            self.wait_for(lambda: sum(clients.accepted.values()) > 200)
            self.broker.pause()
            self.addCleanup(self.broker.resume)
            before = sum(clients.accepted.values())
            self.wait_for(lambda: sum(clients.accepted.values()) > before + 1000)
            self.broker.resume()
            self.wait_for(lambda: "spool" not in self.reasons())
        self.settled(clients)

    def test_killed_while_the_broker_is_away(self) -> None:
        """K-53, K-47, K-81, K-85: what is in the spool outlives the daemon, which starts without a
        broker and stops in order too; jobs whose nonces nobody can tell are retired.
        """
        client = LineClient(self.daemon)
        job = client.authorize("alice")
        self.assertIs(client.submit(job, "before")["result"], True)
        self.kill_broker()
        for number in range(20):
            self.assertIs(client.submit(job, f"n{number}")["result"], True)
        client.close()
        self.daemon.kill()
        self.daemon.start()
        client = LineClient(self.daemon)
        client.authorize("alice")
        self.assertEqual(client.submit(job, "n3")["error"], "Task does not exist")
        client.close()
        self.assertEqual(self.daemon.stop(), 0)
        # 20 of submissions, and a note for each job that went out meanwhile.
        self.assertRegex(self.daemon.output, r"2\d entries stay in the spool")
        self.assertNotIn("did not finish within", self.daemon.output)
        self.daemon.start()
        self.broker.start()
        self.wait_for(lambda: self.counted() == {"alice": 21})
        self.assertRegex(self.command("audit").stdout, r"(?m)^0 differences$")

    def test_nonces_in_the_spool(self) -> None:
        """K-47: at a restart with the broker back, what is in the spool is a duplicate."""
        client = LineClient(self.daemon)
        job = client.authorize("alice")
        self.kill_broker()
        self.assertIs(client.submit(job, "spooled")["result"], True)
        client.close()
        self.daemon.kill()
        self.broker.start()
        # A broker that answers may not have its streams yet.
        self.wait_for(lambda: has_stream(self.url, "kupool_submissions.stream"))
        self.daemon.start()
        client = LineClient(self.daemon)
        client.authorize("alice")
        self.assertEqual(client.submit(job, "spooled")["error"], "Duplicate submission")
        client.close()
        self.wait_for(lambda: self.counted() == {"alice": 1})

    def test_postgresql_is_killed(self) -> None:
        """K-72, K-35: submissions are accepted throughout, jobs rotate, /ready says why, and
        the counts are right afterwards.
        """
        with Clients(self.daemon, 8) as clients:
            self.wait_for(lambda: sum(clients.accepted.values()) > 200)
            self.database.kill()
            before = sum(clients.accepted.values())
            self.wait_for(lambda: "statistics: " in self.reasons())
            answered, made = self.daemon.post("/jobs/rotate", {})
            self.assertEqual((answered, sorted(made)), (200, ["job_id"]))
            self.wait_for(lambda: sum(clients.accepted.values()) > before + 1000)
            self.database.start()
            self.wait_for(lambda: "statistics: " not in self.reasons())
        self.settled(clients)

    def test_without_the_spool(self) -> None:
        """K-52, K-83: refused while the broker is away, and the nonce is free again."""
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.flags += ["--spool=off"]
        self.daemon.start()
        client = LineClient(self.daemon)
        job = client.authorize("alice")
        self.assertIs(client.submit(job, "one")["result"], True)
        self.kill_broker()
        self.wait_for(lambda: "log: " in self.reasons())
        self.assertEqual(client.submit(job, "two")["error"], "Temporarily unavailable")
        self.broker.start()
        self.wait_for(lambda: self.daemon.get("/ready")[0] == 200)
        self.assertIs(client.submit(job, "two")["result"], True)
        client.close()
        self.wait_for(lambda: self.counted() == {"alice": 2})
        self.kill_broker()
        self.assertEqual(self.daemon.stop(), 0)
        process = subprocess.run(
            self.daemon.command(), capture_output=True, text=True, timeout=60, env=self.daemon._env
        )
        self.assertEqual(process.returncode, 1)
        self.assertRegex(
            process.stderr, r"^kupool: mq_url: RabbitMQ at .* \(from flag --mq-url\)\n$"
        )
        self.assertNotIn("guest:guest", process.stderr)
