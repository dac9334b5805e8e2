"""History, ranks, downloads and traces of a real daemon, over TCP and HTTP."""

from __future__ import annotations

import csv
import json
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.hashing import hash_token, make_token
from tests.servers.of_class import of_class
from tests.servers.running_daemon import LineClient, RunningDaemon
from tests.servers.services import postgres, rabbit

#: Submissions of each name.
SUBMITTED = {"alice.rig1": 5, "alice.rig2": 2, "bob": 3, "bob.x": 1}

HOST = "pool.example.com"


class Submitted:
    """A daemon to which some have submitted, and what they submitted."""

    def __init__(self, daemon: RunningDaemon, secrets: dict[str, str]) -> None:
        self.daemon = daemon
        self.secrets = secrets
        self.nonces: dict[str, list[str]] = {}
        self.clients: list[LineClient] = []

    def submit(self) -> None:
        for name, number in SUBMITTED.items():
            client = LineClient(self.daemon)
            job = client.authorize(name)
            nonces = [f'"{name}", {n}' for n in range(number)]
            for nonce in nonces:
                assert client.submit(job, nonce)["result"] is True
            assert "error" in client.submit(job, nonces[0])
            self.nonces[name] = nonces
            self.clients.append(client)


@contextmanager
def daemon_with_submissions() -> Iterator[Submitted]:
    """Run a daemon without accounts for workers, which several have submitted to."""
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kupool-test-")))
        daemon = RunningDaemon(
            "--submit-interval=0", "--attempts-rate=0", "--log-peers=on", data=data / "data"
        )
        stack.callback(daemon.kill)
        found = Submitted(daemon.start(), {})
        found.submit()
        until = time.monotonic() + 20
        while daemon.get("/stats")[1]["accepted_total"] < sum(SUBMITTED.values()):
            assert time.monotonic() < until, "the submissions are not counted"
            time.sleep(0.1)
        yield found


class DaemonHistoryTests(SynchronousTestCase):
    """Issue 18, build 2, 5 and 8."""

    def setUp(self) -> None:
        self.submitted = of_class(self, daemon_with_submissions)
        self.daemon = self.submitted.daemon

    def get(self, path: str) -> Any:
        status, answer = self.daemon.get(path)
        self.assertEqual(200, status, answer)
        return answer

    def download(self, path: str) -> tuple[str, bytes]:
        with urllib.request.urlopen(self.daemon.url(path), timeout=10) as answer:
            return answer.headers["Content-Type"], answer.read()

    def test_workers(self) -> None:
        """Issue 18, build 4: each worker with its counts, and whether it is connected."""
        found = self.get("/api/workers?sort=user")
        self.assertEqual(
            [
                (w["user"], w["worker"], w["accepted"], w["rejected"], w["online"])
                for w in found["workers"]
            ],
            [
                ("alice", "rig1", 5, 1, True),
                ("alice", "rig2", 2, 1, True),
                ("bob", "", 3, 1, True),
                ("bob", "x", 1, 1, True),
            ],
        )
        self.assertEqual((found["total"], found["left_out"]), (4, False))
        found = self.get("/api/workers?user=alice&limit=1&search=RIG")
        self.assertEqual((found["total"], found["workers"][0]["worker"]), (2, "rig1"))
        self.assertIsNotNone(found["workers"][0]["last"])

    def test_workers_that_are_connected_without_counts(self) -> None:
        """Issue 18, bad input: a worker with no data."""
        client = LineClient(self.daemon)
        client.authorize("new.<b>rig</b>")
        (found,) = self.get("/api/workers?user=new")["workers"]
        wanted = {"accepted": 0, "rejected": 0, "last": None, "online": True}
        self.assertEqual(found, {"user": "new", "worker": "<b>rig</b>", **wanted})
        client.close()
        until = time.monotonic() + 10
        while self.get("/api/workers?user=new")["total"] and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual(self.get("/api/workers?user=new")["workers"], [])

    def test_history_and_rank(self) -> None:
        """Issue 18, build 8: over time by any step, and the rank among all."""
        for step in ("minute", "hour", "day"):
            for name, wanted in (("alice", 7), ("alice.rig1", 5), ("bob", 4)):
                found = self.get(f"/api/history?username={name}&step={step}")
                self.assertEqual(sum(p["accepted"] for p in found["points"]), wanted)
                self.assertIsNone(found["rolled_up_before"])
        found = self.get("/api/history?username=alice.rig1")
        self.assertEqual(found["rejections"], {"Duplicate submission": 1})
        found = self.get("/api/rank?user=bob")
        self.assertEqual((found["rank"], found["of"], found["accepted"]), (2, 2, 4))
        self.assertIsNone(self.get("/api/rank?user=nobody")["rank"])

    def test_download(self) -> None:
        """Issue 18, build 8: a download is all that was submitted, as JSON lines and as CSV."""
        mine = {name: n for name, n in self.submitted.nonces.items() if name.startswith("alice")}
        wanted = Counter((name, nonce) for name, nonces in mine.items() for nonce in nonces)
        kind, body = self.download("/api/submissions?user=alice")
        self.assertEqual(kind, "application/x-ndjson")
        rows = [json.loads(line) for line in body.splitlines()]
        self.assertEqual(Counter((row["username"], row["client_nonce"]) for row in rows), wanted)
        self.assertEqual([row["offset"] for row in rows], sorted(row["offset"] for row in rows))
        kind, body = self.download("/api/submissions?user=alice&format=csv")
        self.assertEqual(kind, "text/csv; charset=utf-8")
        table = list(csv.DictReader(body.decode().splitlines()))
        self.assertEqual(
            [{**row, "offset": str(row["offset"]), "job_id": str(row["job_id"])} for row in rows],
            table,
        )
        _, body = self.download("/api/submissions?user=alice&worker=rig2&limit=1")
        self.assertEqual(json.loads(body)["username"], "alice.rig2")
        _, body = self.download("/api/submissions?user=nobody")
        self.assertEqual(body, b"")
        _, body = self.download("/api/submissions?user=alice&to=2020-01-01T00:00:00Z")
        self.assertEqual(body, b"")

    def test_trace(self) -> None:
        """Issue 18, build 5: from a user and a minute to the trace of one submission."""
        _, body = self.download("/api/submissions?user=alice&worker=rig1")
        row = json.loads(body.splitlines()[0])
        listed = self.get(f"/api/trace?user=alice&at={row['at']}")
        self.assertIn(row["id"], [each["id"] for each in listed["submissions"]])
        self.assertEqual((listed["left_out"], listed["complete"]), (0, True))
        offsets = [each["offset"] for each in listed["submissions"]]
        self.assertEqual(offsets, sorted(offsets, reverse=True))
        one = self.get(f"/api/trace?user=alice.rig1&at={row['at']}&limit=1")
        self.assertEqual([each["username"] for each in one["submissions"]], ["alice.rig1"])
        found = self.get(f"/api/trace?id={quote(row['id'], safe='')}")
        for name in ("id", "username", "job_id", "client_nonce", "at", "offset"):
            self.assertEqual(found[name], row[name])
        self.assertIs(found["counted"], True)
        self.assertEqual(found["peer"].split(":")[0], "127.0.0.1")
        steps = [step["name"] for step in found["steps"]]
        self.assertEqual(steps, ["connection", "judge", "batch", "log", "minute", "pushes"])
        self.assertIn(found["session"], found["steps"][0]["text"])
        self.assertIn("workers.alice.rig1", found["steps"][-1]["text"])
        for bad, status in (("nothing/0", 404), (f"{found['batch']}/99999", 404), ("x", 400)):
            self.assertEqual(status, self.daemon.get(f"/api/trace?id={bad}")[0])

    def test_bad_questions(self) -> None:
        for path, part in (
            ("/api/history", "username: missing"),
            ("/api/history?username=a&step=year", "step: "),
            ("/api/history?username=a&step=minute&from=2020-01-01T00:00:00Z", "longer than 7"),
            ("/api/workers?from=2020-01-01T00:00:00Z", "longer than 31"),
            ("/api/workers?sort=color", "sort: "),
            ("/api/workers?order=up", "order: "),
            ("/api/workers?limit=1001", "limit: "),
            ("/api/workers?offset=-1", "offset: "),
            ("/api/rank?user=", "user: missing"),
            ("/api/submissions?user=a&format=xml", "format: "),
            ("/api/submissions?user=a&limit=0", "limit: "),
            ("/api/trace", "id: missing"),
            ("/api/trace?id=b/1&user=a", "user: cannot"),
            ("/api/trace?at=2026-11-21T10:05:00Z", "user: missing"),
            ("/api/trace?user=a&at=noon", "at: "),
            ("/api/trace?name=a", "name: unknown"),
        ):
            status, answer = self.daemon.get(path)
            self.assertEqual(400, status, path)
            self.assertIn(part, answer["error"])

    def test_a_client_that_goes_away(self) -> None:
        """A download whose client is gone ends, and the daemon answers others."""
        request = b"GET /api/submissions?user=alice HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", self.daemon.http_port), 10) as client:
                client.sendall(request)
        self.test_download()


class ServerHistoryTests(SynchronousTestCase):
    """Issue 18, build 2 and 5: the same with RabbitMQ and PostgreSQL, after a restart, too."""

    def test_download_and_trace(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory(prefix="kupool-test-"))
        daemon = RunningDaemon(
            "--submit-interval=0",
            "--mq=rabbit",
            f"--mq-url={rabbit().new_vhost()}",
            "--store=pg",
            f"--pg-dsn={postgres().new_database()}",
            data=Path(folder) / "data",
        )
        self.addCleanup(daemon.__exit__)
        daemon.start()
        for name in ("alice.rig1", "bob"):
            client = LineClient(daemon)
            job = client.authorize(name)
            for n in range(20):
                self.assertIs(client.submit(job, f"{name} {n}")["result"], True)
            client.close()
        for _ in range(2):
            self.check(daemon)
            self.assertEqual(daemon.stop(), 0)
            daemon.start()

    def check(self, daemon: RunningDaemon) -> None:
        until = time.monotonic() + 30
        while daemon.get("/stats")[1]["accepted_total"] < 40 and time.monotonic() < until:
            time.sleep(0.1)
        rows: list[Any] = []
        while len(rows) < 20 and time.monotonic() < until:
            with urllib.request.urlopen(daemon.url("/api/submissions?user=alice")) as answer:
                rows = [json.loads(line) for line in answer.read().splitlines()]
        self.assertEqual(
            sorted(row["client_nonce"] for row in rows),
            sorted(f"alice.rig1 {n}" for n in range(20)),
        )
        for row in (rows[0], rows[-1]):
            status, found = daemon.get(f"/api/trace?id={quote(row['id'], safe='')}")
            self.assertEqual((status, found["offset"]), (200, row["offset"]))
            self.assertIs(found["counted"], True)
            status, listed = daemon.get(f"/api/trace?user=alice&at={row['at']}")
            self.assertIn(row["id"], [each["id"] for each in listed["submissions"]])
        status, found = daemon.get("/api/history?username=alice.rig1&step=day")
        self.assertEqual(sum(point["accepted"] for point in found["points"]), 20)
        self.assertEqual(daemon.get("/api/rank?user=bob")[1]["accepted"], 20)


@contextmanager
def daemon_with_users() -> Iterator[Submitted]:
    """Run a daemon with two accounts, one of which has submitted."""
    secrets = {name: make_token() for name in ("alice", "bob", "boss")}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kupool-test-"))
        accounts = Path(folder) / "accounts"
        accounts.write_text(
            "".join(
                f"{name}:{hash_token(secret)}:role={'operator' if name == 'boss' else 'worker'}\n"
                for name, secret in secrets.items()
            )
        )
        accounts.chmod(0o600)
        daemon = RunningDaemon(
            "--mq=memory",
            "--store=memory",
            "--submit-interval=0",
            f"--auth=file:{accounts}",
            f"--http-hosts={HOST}",
        )
        stack.callback(daemon.kill)
        found = Submitted(daemon.start(), secrets)
        client = LineClient(daemon)
        client.request("authorize", username="alice.rig1", password=secrets["alice"])
        assert client.submit(client.job(), "mine")["result"] is True
        found.clients.append(client)
        yield found


class OwnHistoryTests(SynchronousTestCase):
    """Issue 18, acceptance 1: a user sees their own data and nobody else's."""

    def setUp(self) -> None:
        self.submitted = of_class(self, daemon_with_users)

    def ask(self, path: str, name: str) -> tuple[int, bytes]:
        request = urllib.request.Request(self.submitted.daemon.url(path))
        request.add_header("Host", HOST)
        if name:
            request.add_header("Authorization", f"Bearer {self.submitted.secrets[name]}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def counted(self) -> str:
        """Return the id of the submission, once it is counted."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            _, body = self.ask("/api/submissions?user=alice", "boss")
            if body:
                return str(json.loads(body)["id"])
            time.sleep(0.05)
        raise AssertionError("the submission is not counted")

    def test_own_and_others(self) -> None:
        found = self.counted()
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for path in (
            "/api/history?username=alice",
            "/api/history?username=alice.rig1",
            "/api/workers?user=alice",
            "/api/rank?user=alice",
            "/api/submissions?user=alice",
            f"/api/trace?id={found}",
            f"/api/trace?user=alice&at={at}",
        ):
            for name, status in (("alice", 200), ("boss", 200), ("bob", 403), ("", 401)):
                self.assertEqual((path, name, status), (path, name, self.ask(path, name)[0]))

    def test_without_a_name_it_is_ones_own(self) -> None:
        self.counted()
        for name, number in (("alice", 1), ("bob", 0)):
            status, body = self.ask("/api/history", name)
            self.assertEqual((status, json.loads(body)["username"]), (200, name))
            _, body = self.ask("/api/workers", name)
            self.assertEqual([w["user"] for w in json.loads(body)["workers"]], [name] * number)
            _, body = self.ask("/api/rank", name)
            self.assertEqual((json.loads(body)["user"], json.loads(body)["of"]), (name, 1))
            _, body = self.ask("/api/submissions", name)
            self.assertEqual(len(body.splitlines()), number)
