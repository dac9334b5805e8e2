"""What changes while the daemon runs: by SIGHUP, and by the HTTP API."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.running_daemon import LineClient, RunningDaemon


class ReloadTests(SynchronousTestCase):
    """K-32, K-90: SIGHUP applies what can be, and names what cannot."""

    def setUp(self) -> None:
        self.daemon = RunningDaemon()
        self.addCleanup(self.daemon.__exit__)
        self.file = self.daemon.data.parent / "kupool.yaml"
        self.daemon.flags.append(f"--config={self.file}")

    def start(self, **settings: object) -> None:
        self.write(**settings)
        self.daemon.start()

    def write(self, **settings: object) -> None:
        self.file.write_text(json.dumps(settings), "utf-8")

    def client(self) -> LineClient:
        client = LineClient(self.daemon)
        self.addCleanup(client.close)
        return client

    def reload(self, message: str, **settings: object) -> dict[str, Any]:
        """Change the file, send SIGHUP, and wait for what the log says then."""
        if settings:
            self.write(**settings)
        known = len(self.daemon.lines)
        self.daemon.signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while True:
            for event in self.daemon.events_from(known):
                if event["message"].startswith(message):
                    return event
            self.assertLess(time.monotonic(), deadline, self.daemon.output)
            time.sleep(0.02)

    def test_the_interval(self) -> None:
        """K-32: a new interval takes effect at the next tick."""
        self.start(interval="500ms")
        client = self.client()
        first = client.authorize("alice")["job_id"]
        event = self.reload("Reloaded: ", interval="20ms")
        self.assertEqual(event["message"], "Reloaded: interval")
        began = time.monotonic()
        while client.job()["job_id"] < first + 20:
            pass
        self.assertLess(time.monotonic() - began, 9.0)  # twenty of the old take ten seconds
        self.reload("Reloaded: interval", interval="1h")
        last = self.daemon.get("/stats")[1]["job_id"]
        time.sleep(0.3)
        self.assertLessEqual(self.daemon.get("/stats")[1]["job_id"], last + 1)

    def test_the_time_between_submissions(self) -> None:
        self.start(submit_interval="1h", interval="1h", attempts_rate=0)
        client = self.client()
        job = client.authorize("alice")
        self.assertEqual(client.submit(job, "a")["result"], True)
        self.assertEqual(client.submit(job, "b")["error"], "Submission too frequent")
        self.reload(
            "Reloaded: submit_interval", submit_interval="0", interval="1h", attempts_rate=0
        )
        self.assertEqual(client.submit(job, "b")["result"], True)

    def test_the_limit_of_connections(self) -> None:
        self.start(max_connections=1, interval="1h")
        self.client().authorize("alice")
        self.assertEqual(self.refusal(), "too many connections")
        self.reload("Reloaded: max_connections", max_connections=2, interval="1h")
        self.client().authorize("bob")
        self.assertEqual(self.refusal(), "too many connections")

    def refusal(self) -> str:
        client = self.client()
        client.send({"id": 1, "method": "authorize", "params": {"username": "late"}})
        reason: str = client.receive()["params"]["reason"]
        return reason

    def test_the_level_of_the_log(self) -> None:
        """K-92: debug can be turned on for a while."""
        self.start(interval="1h")
        self.client().authorize("quiet")
        self.reload("Reloaded: log_level", interval="1h", log_level="debug")
        self.client().authorize("loud")
        self.reload("Reloaded: log_level", interval="1h")
        self.client().authorize("hushed")
        self.daemon.stop()
        self.assertIn("loud authorized", self.daemon.output)
        self.assertNotIn("quiet", self.daemon.output)
        self.assertNotIn("hushed", self.daemon.output)

    def test_what_only_a_restart_changes(self) -> None:
        self.start(interval="1h", batch_size=10)
        event = self.reload(
            "These settings take effect only after a restart: ",
            interval="2h",
            batch_size=20,
            nonce_scope="session",
        )
        self.assertEqual(
            event["message"],
            "These settings take effect only after a restart: nonce_scope, batch_size",
        )
        self.assertEqual(event["level"], "warn")
        # It is named again each time, as it is still not so.
        event = self.reload("These settings take effect only after a restart: ")
        self.assertIn("Reloaded: nothing has changed", self.daemon.output)

    def test_flags_still_win(self) -> None:
        """K-90: a flag given at the start wins over the file that is read again."""
        self.daemon.flags.append("--submit-interval=0")
        self.start(interval="1h")
        self.reload("Reloaded: nothing has changed", interval="1h", submit_interval="1h")
        client = self.client()
        job = client.authorize("alice")
        self.assertEqual(client.submit(job, "a")["result"], True)
        self.assertEqual(client.submit(job, "b")["result"], True)

    def test_a_broken_file_changes_nothing(self) -> None:
        """K-88: it is named, and the daemon goes on as before."""
        self.start(interval="1h", max_connections=1)
        client = self.client()
        client.authorize("alice")
        refused = "The settings were not reloaded, and nothing has changed: "
        event = self.reload(refused, max_connections=5, interval="soon")
        self.assertEqual(
            event["message"],
            f"{refused}interval: 'soon' is not a duration such as 30s, 1h30m or 0 "
            f"(from file {self.file})",
        )
        self.assertEqual(event["level"], "error")
        self.file.write_text("{", "utf-8")
        self.assertIn(str(self.file), self.reload(refused)["message"])
        self.file.unlink()
        self.assertIn("No such file or directory", self.reload(refused)["message"])
        self.assertEqual(self.refusal(), "too many connections")
        self.assertEqual(client.request("ping"), {"id": 2, "result": True})
        self.reload("Reloaded: max_connections", max_connections=5, interval="1h")


class ControlTests(SynchronousTestCase):
    """K-32, K-33: the operator rotates, and changes the pace."""

    def test_rotate_now(self) -> None:
        """K-33: POST /jobs/rotate makes a job now, and everyone gets it."""
        with RunningDaemon("--interval=1h") as daemon:
            client = LineClient(daemon)
            first = client.authorize("alice")
            status, made = daemon.post("/jobs/rotate", {})
            self.assertEqual((status, made), (200, {"job_id": first["job_id"] + 1}))
            second = client.job()
            self.assertEqual(second["job_id"], first["job_id"] + 1)
            self.assertNotEqual(second["server_nonce"], first["server_nonce"])
            client.close()

    def test_the_interval(self) -> None:
        """K-32: POST /jobs/interval takes effect at the next tick."""
        with RunningDaemon("--interval=300ms") as daemon:
            client = LineClient(daemon)
            first = client.authorize("alice")["job_id"]
            answer = daemon.post("/jobs/interval", {"interval": "1s"})
            self.assertEqual(answer, (200, {"interval": "1s"}))
            while client.job()["job_id"] < first + 2:
                pass  # the next of the old interval, and that after it at the most
            began = time.monotonic()
            client.job()
            self.assertGreater(time.monotonic() - began, 0.6)
            self.assertEqual(daemon.post("/jobs/interval", {"interval": "999ms"})[0], 400)
            client.close()
