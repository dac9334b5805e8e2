"""What clients do and did, as a real daemon shows it."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.hashing import hash_token, make_token
from tests.servers.of_class import of_class
from tests.servers.own_process import wait_until
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon

FLAGS = ("--interval=1h", "--flush-interval=50ms", *UNLIMITED)


def work(daemon: RunningDaemon, username: str, right: int, wrong: int) -> LineClient:
    """Return a session that has submitted; each wrong submission is a repeated one."""
    client = LineClient(daemon)
    job = client.authorize(username)
    for number in range(right):
        assert client.submit(job, f"{username}{number}")["result"] is True
    for _ in range(wrong):
        assert "error" in client.submit(job, f"{username}0")
    return client


def methods(daemon: RunningDaemon) -> Counter[str]:
    """Return the requests of the last day by method."""
    code, told = daemon.get("/api/requests?minutes=1440")
    assert code == 200, told
    found: Counter[str] = Counter()
    for minute in told["minutes"]:
        found.update(minute["methods"])
        found.update(accepted=minute["accepted"], rejected=minute["rejected"])
    return found


class ActivityNumbersTests(SynchronousTestCase):
    """A-53, A-55, issue 18, acceptance 2: every number equals what really happened."""

    def test_numbers(self) -> None:
        with RunningDaemon(*FLAGS) as daemon:
            clients = [
                work(daemon, "alice.rig1", 5, 2),
                work(daemon, "alice.rig2", 3, 1),
                work(daemon, "bob", 4, 0),
            ]
            clients[0].request("ping")
            clients[0].request("no.such")
            clients[0].send(b"nonsense")
            clients[0].receive()
            _, told = daemon.get("/api/sessions?sort=username")
            self.assertEqual(told["total"], 3)
            self.assertEqual(
                [(s["username"], s["accepted"], s["rejected"]) for s in told["sessions"]],
                [("alice.rig1", 5, 2), ("alice.rig2", 3, 1), ("bob", 4, 0)],
            )
            # Three more: a ping, an unknown method, and what is no request.
            self.assertEqual([s["messages_in"] for s in told["sessions"]], [11, 5, 5])
            _, told = daemon.get("/api/users?sort=user")
            self.assertEqual(
                [(u["user"], u["sessions"], u["accepted"], u["rejected"]) for u in told["users"]],
                [("alice", 2, 8, 3), ("bob", 1, 4, 0)],
            )
            self.assertEqual(
                methods(daemon),
                Counter(submit=15, authorize=3, ping=1, invalid=2, accepted=12, rejected=3),
            )
            wait_until(
                lambda: bool(daemon.get("/stats")[1]["accepted_total"] == 12), "it is not shown"
            )
            _, told = daemon.get("/api/overview")
            self.assertEqual((told["sessions"], told["users"]), (3, 2))
            self.assertEqual(told["rejections"], {"Duplicate submission": 3})
            self.assertEqual(told["rates"], {"accepted": 1.2, "rejected": 0.3})
            self.assertGreater(told["latency_ms"]["p99"], 0.0)
            self.assertEqual(told["job"]["interval_seconds"], 3600.0)
            checks = {check["name"]: check["ok"] for check in told["checks"]}
            self.assertEqual(
                checks,
                {
                    "stored": True,
                    "counted": True,
                    "jobs": True,
                    "clock": True,
                    "disk": checks["disk"],  # that of the machine
                    "log": True,
                    "database": True,
                    "broker": None,
                    "topics": True,
                    "live": True,
                },
            )
            for client in clients:
                client.close()
            wait_until(
                lambda: bool(daemon.get("/api/sessions")[1]["total"] == 0), "it is not shown"
            )
            _, told = daemon.get("/api/users?sort=user")
            self.assertEqual(
                [(u["user"], u["sessions"], u["accepted"], u["rejected"]) for u in told["users"]],
                [("alice", 0, 8, 3), ("bob", 0, 4, 0)],
            )

    def test_a_wrong_login_and_a_repeated_one(self) -> None:
        """A-55: each authorize counts, whatever its answer."""
        with RunningDaemon(*FLAGS, "--mq=memory", "--store=memory") as daemon:
            stranger = LineClient(daemon)
            stranger.send({"id": 1, "method": "authorize", "params": {"username": ""}})
            self.assertIn("error", stranger.receive())
            client = work(daemon, "alice", 0, 0)
            self.assertIn("error", client.request("authorize", username="alice"))
            self.assertEqual(methods(daemon)["authorize"], 3)


class ActivityOverARestartTests(SynchronousTestCase):
    """A-54, A-55, issue 18, build 7: what was before is there after a restart."""

    def test_restart(self) -> None:
        with RunningDaemon(*FLAGS) as daemon:
            client = work(daemon, "alice.rig1", 3, 1)
            peer = "{}:{}".format(*client.socket.getsockname())
            stays = work(daemon, "bob", 1, 0)
            _, told = daemon.get("/api/sessions?user=alice")
            (session,) = told["sessions"]
            code, told = daemon.post(
                "/api/sessions/close", {"session": session["session"], "reason": "by a test"}
            )
            self.assertEqual((code, told), (200, {"closed": 1}))
            close = client.receive()["params"]
            self.assertEqual(
                (close["reason"], close["detail"]),
                ("try again", "closed by an operator: by a test"),
            )
            client.close()
            wait_until(
                lambda: bool(daemon.get("/api/sessions/ended")[1]["sessions"]), "it is not shown"
            )
            self.assertEqual(daemon.stop(), 0)
            stays.close()
            daemon.start()
            _, told = daemon.get("/api/sessions/ended")
            self.assertEqual(
                [(s["username"], s["reason"]) for s in told["sessions"]],
                [
                    ("bob", "server going down"),
                    ("alice.rig1", "try again: closed by an operator: by a test"),
                ],
            )
            ended = told["sessions"][1]
            self.assertEqual(
                (ended["session"], ended["peer"], ended["since"]),
                (session["session"], peer, session["since"]),
            )
            self.assertGreater(ended["until"], ended["since"])
            _, told = daemon.get("/api/sessions/ended?user=alice&reason=operator&limit=1")
            self.assertEqual([s["username"] for s in told["sessions"]], ["alice.rig1"])
            _, told = daemon.get("/api/audit")
            (entry,) = told["entries"]
            self.assertEqual(
                (entry["action"], entry["by"], entry["peer"], entry["ok"]),
                ("sessions.close", "local", "127.0.0.1", True),
            )
            self.assertEqual(entry["what"], {"session": session["session"], "reason": "by a test"})
            again = work(daemon, "carol", 2, 0)  # nonces of alice are remembered
            expected = Counter(submit=7, authorize=3, accepted=6, rejected=1)
            self.assertEqual(methods(daemon), expected)
            again.close()

    def test_a_file_that_is_damaged(self) -> None:
        """A-55: the daemon starts nevertheless, and says so."""
        with RunningDaemon(*FLAGS) as daemon:
            self.assertEqual(daemon.stop(), 0)
            file = daemon.data / "activity.sqlite"
            with closing(sqlite3.connect(file)) as connection:
                rows = connection.execute("SELECT count(*) FROM request_minutes").fetchone()
            self.assertGreaterEqual(rows[0], 1)
            file.write_bytes(b"no database" * 1000)
            daemon.start()
            self.assertIn(
                "the requests by minute of the last day are lost then",
                daemon.lines_with("Requests by minute are kept in memory alone")[0],
            )
            work(daemon, "alice", 1, 0).close()
            self.assertEqual(methods(daemon)["submit"], 1)
            self.assertEqual(daemon.stop(), 0)


@contextmanager
def daemon_of_four() -> Iterator[tuple[RunningDaemon, dict[str, str]]]:
    """Run a daemon with accounts, and return their tokens."""
    roles = {"alice": "worker", "bob": "worker", "olga": "operator", "root": "admin"}
    tokens = {name: make_token() for name in roles}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kupool-test-"))
        accounts = Path(folder) / "accounts"
        accounts.write_text(
            "".join(f"{name}:{hash_token(tokens[name])}:role={roles[name]}\n" for name in roles)
        )
        accounts.chmod(0o600)
        daemon = RunningDaemon(
            *FLAGS,
            f"--auth=file:{accounts}",
            "--login-delay=0",
            "--proxy-trusted=192.0.2.250",  # an address of a proxy is not banned
        )
        stack.callback(daemon.kill)
        yield daemon.start(), tokens


class ActivityRightsTests(SynchronousTestCase):
    """Issue 18, acceptance 1: a user sees their own data and nobody else's."""

    def setUp(self) -> None:
        self.daemon, self.tokens = of_class(self, daemon_of_four)
        self.clients = []
        for name in ("alice", "bob"):
            client = LineClient(self.daemon)
            reply = client.request("authorize", username=f"{name}.rig", password=self.tokens[name])
            self.assertIs(reply.get("result"), True)
            self.clients.append(client)
        self.addCleanup(self.leave)

    def leave(self) -> None:
        for client in self.clients:
            client.close()
        wait_until(
            lambda: bool(self.ask("olga", "/api/sessions")[1]["total"] == 0), "it is not shown"
        )

    def ask(self, by: str, path: str, body: object = None) -> tuple[int, Any]:
        request = urllib.request.Request(self.daemon.url(path))
        request.add_header("Authorization", f"Bearer {self.tokens[by]}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def test_workers(self) -> None:
        for name in ("alice", "bob"):
            _, told = self.ask(name, "/api/sessions")
            self.assertEqual([s["username"] for s in told["sessions"]], [f"{name}.rig"])
            _, told = self.ask(name, "/api/users")
            self.assertEqual([u["user"] for u in told["users"]], [name])
        code, told = self.ask("alice", "/api/sessions?user=bob")
        self.assertEqual(
            (code, told["error"]), (403, "forbidden: alice sees the sessions of alice alone")
        )
        code, told = self.ask("alice", "/api/sessions/ended?user=bob")
        self.assertEqual(code, 403)
        for path in ("/api/requests", "/api/overview", "/api/audit"):
            code, told = self.ask("alice", path)
            self.assertEqual(
                (code, told["error"]),
                (403, "forbidden: needs the role operator, alice is worker"),
            )
        session = self.ask("alice", "/api/sessions")[1]["sessions"][0]["session"]
        code, _ = self.ask("alice", "/api/sessions/close", {"session": session})
        self.assertEqual(code, 403)

    def test_ended_sessions_of_workers(self) -> None:
        for client in self.clients:
            client.close()
        wait_until(
            lambda: bool(len(self.ask("olga", "/api/sessions/ended")[1]["sessions"]) >= 2),
            "it is not shown",
        )
        _, told = self.ask("alice", "/api/sessions/ended")
        self.assertEqual({s["username"] for s in told["sessions"]}, {"alice.rig"})

    def test_operators(self) -> None:
        """Issue 18, build 7: an operator ends sessions and bans, and the trail names them."""
        _, told = self.ask("olga", "/api/sessions?sort=username")
        self.assertEqual([s["user"] for s in told["sessions"]], ["alice", "bob"])
        code, told = self.ask("olga", "/api/sessions/close", {"user": "bob"})
        self.assertEqual((code, told), (200, {"closed": 1}))
        code, told = self.ask("olga", "/api/bans/add", {"address": "127.0.0.1", "seconds": 60})
        # The one that was closed may not have left yet.
        self.assertEqual((code, told["address"]), (200, "127.0.0.1"))
        refused = LineClient(self.daemon)
        refused.send({"id": 1, "method": "ping"})
        self.assertEqual(refused.receive()["params"]["reason"], "banned")
        code, _ = self.ask("root", "/bans/lift", {"address": "127.0.0.1"})
        self.assertEqual(code, 200)
        _, told = self.ask("root", "/api/audit?limit=3")
        self.assertEqual(
            [(e["by"], e["action"], e["ok"]) for e in told["entries"]],
            [
                ("root", "bans.lift", True),
                ("olga", "bans.add", True),
                ("olga", "sessions.close", True),
            ],
        )
        self.assertEqual(told["entries"][1]["what"], {"address": "127.0.0.1", "seconds": 60})
        _, lines = self.ask("olga", "/api/log/fetch?topic=events&partition=0&offset=0")
        self.assertIn("admin", json.dumps(lines))
