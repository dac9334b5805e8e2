"""The commands of topics as a user runs them, with a daemon: ``kupool topic|log|group|dlq``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.answering import Answering
from tests.servers.commands import KUPOOL, environment, kupool
from tests.servers.own_process import free_port
from tests.servers.programs import Program
from tests.servers.running_daemon import RunningDaemon
from tests.servers.sockets import PATIENCE


class TopicCommandCase(SynchronousTestCase):
    """A daemon whose ports stay, and commands that find it."""

    def setUp(self) -> None:
        self.daemon = RunningDaemon(http_address=f"tcp:{free_port()}:interface=127.0.0.1")
        self.daemon.start()
        self.addCleanup(self.daemon.__exit__)
        self.env = {"KUP_URL": self.daemon.url(""), "KUP_DATA": str(self.daemon.data)}

    def kupool(self, *words: str, status: int = 0, **env: str) -> str:
        """Run a command; returns what it printed, errors for a status that is not 0."""
        done = kupool(*words, env={**self.env, **env})
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stderr if status else done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.kupool(*words, "--json"))

    def values(self, *words: str) -> list[str]:
        return self.kupool(*words, "--values").splitlines()


class TopicCommandTests(TopicCommandCase):
    def test_a_reader_that_goes_away_while_nothing_comes(self) -> None:
        """Q-83, K-88: ``tail -f | head -1`` ends at once, not with the next record."""
        self.kupool("topic", "create", "t")
        self.kupool("log", "produce", "t", "only")
        reader, output = os.pipe()
        tail = subprocess.Popen(
            [*KUPOOL, "log", "tail", "t", "-f", "--values"],
            stdout=output,
            stderr=subprocess.PIPE,
            env=environment(self.env),
        )
        self.addCleanup(tail.kill)
        os.close(output)
        self.assertEqual(os.read(reader, 100), b"only\n")
        os.close(reader)
        _, told = tail.communicate(timeout=PATIENCE)
        self.assertEqual((tail.returncode, told), (141, b""))

    def test_a_reader_that_goes_away(self) -> None:
        """Q-83, K-88: ``| head -1`` and a full disk are no error of this program."""
        self.kupool("topic", "create", "t")
        self.kupool("log", "produce", "t", *(f"value {number}" for number in range(50)))
        for flags in ((), ("--json",), ("--values",)):
            for closed, status, told in (
                (True, 141, ""),
                (False, 1, "kupool: No space left on device\n"),
            ):
                if closed:
                    reader, output = os.pipe()
                    os.close(reader)
                else:
                    output = os.open("/dev/full", os.O_WRONLY)
                ended = subprocess.run(
                    [*KUPOOL, "log", "fetch", "t", *flags],
                    stdout=output,
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=PATIENCE,
                    env=environment(self.env),
                )
                os.close(output)
                self.assertEqual((ended.returncode, ended.stderr), (status, told), flags)

    def test_a_topic_from_its_beginning_to_its_end(self) -> None:
        """Q-83, Q-26, Q-29: create, change, describe, list, delete."""
        self.kupool("topic", "create", "t", "--partitions", "2", "--set", "retention_time=36h")
        self.assertIn("already exists", self.kupool("topic", "create", "t", status=1))
        self.kupool("topic", "change", "t", "--partitions", "3", "--set", "max_record=2KiB")
        found = self.json("topic", "describe", "t")
        self.assertEqual(found["settings"]["retention_time"], 36 * 3600)
        self.assertEqual(found["settings"]["max_record"], 2048)
        self.assertEqual([each["partition"] for each in found["partitions"]], [0, 1, 2])
        self.assertIn("too large", self.kupool("log", "produce", "t", "x" * 3000, status=1))
        topics = self.json("topic", "list")["topics"]
        self.assertIn({"topic": "t", "partitions": 3, "dead_letters": 0}, topics)
        self.kupool("topic", "delete", "t", "--yes")
        self.assertIn("not found", self.kupool("topic", "describe", "t", status=1))

    def test_new_topics_have_the_settings_of_the_daemon(self) -> None:
        """Q-67, Q-14: a broker's file says what a new topic has; nothing is stored before that."""
        self.daemon.stop()
        self.daemon.flags += ["--topics-max-record=100", "--topics-max-partitions=2"]
        self.daemon.start()
        self.kupool("topic", "create", "t")
        self.assertEqual(self.json("topic", "describe", "t")["settings"]["max_record"], 100)
        self.assertIn("too large", self.kupool("log", "produce", "t", "x" * 101, status=1))
        refused = self.kupool("topic", "create", "u", "--partitions", "3", status=1)
        self.assertIn("partitions: expected 2 at most", refused)

    def test_records(self) -> None:
        """Q-83: write from arguments, a file and a pipe; read by place; replay."""
        self.kupool("topic", "create", "t")
        self.kupool("log", "produce", "t", "a", "b", "--key", "k")
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"k:c\nk:\xff\xfe\nlast:")
            file.flush()
            self.kupool("log", "produce", "t", "--file", file.name, "--key-separator", ":")
        done = subprocess.run(
            [*KUPOOL, "log", "produce", "t"],
            input=b"d\n\ne\n",
            capture_output=True,
            env=environment(self.env),
            timeout=60,
        )
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertIn(b"Wrote 3 records", done.stdout)
        done = subprocess.run(
            [*KUPOOL, "log", "fetch", "t", "--values"],
            capture_output=True,
            env=environment(self.env),
            timeout=60,
        )
        self.assertEqual(done.stdout, b"a\nb\nc\n\xff\xfe\n\nd\n\ne\n")
        self.assertEqual(self.values("log", "fetch", "t", "--from", "5"), ["d", "", "e"])
        self.assertEqual(self.values("log", "fetch", "t", "--from", "latest"), [])
        self.assertEqual(self.values("log", "fetch", "t", "--limit", "2"), ["a", "b"])
        self.assertEqual(self.values("log", "tail", "t", "-n", "1"), ["e"])
        self.assertEqual(self.json("log", "offsets", "t"), {"offsets": [8]})
        past = ("--from", "2020-01-01T00:00:00Z")
        self.assertEqual(len(self.kupool("log", "fetch", "t", *past).splitlines()), 8)
        replayed = self.kupool("log", "replay", "t", "--speed", "max")
        self.assertEqual(len(replayed.splitlines()), 8)
        self.assertEqual(self.values("log", "fetch", "t", "--from", "99"), [])

    def test_delays(self) -> None:
        """Q-83, Q-52"""
        self.kupool("topic", "create", "t")
        (number,) = self.json("log", "delay", "t", "later", "--after", "1h")["ids"]
        (batch,) = self.json("log", "delayed", "t")["batches"]
        self.assertEqual((batch["id"], batch["records"]), (number, 1))
        self.kupool("log", "cancel", "t", str(number))
        self.kupool("log", "cancel", "t", str(number), status=1)

    def group(self) -> dict[str, Any]:
        """Join the group ``g``; returns what its member says of itself."""
        status, found = self.daemon.post("/api/group/join", {"group": "g", "topics": ["t"]})
        self.assertEqual(status, 200, found)
        return {"group": "g", "member": found["member"], "generation": found["generation"]}

    def test_groups(self) -> None:
        """Q-83, Q-41, Q-48: lag, members, a reset with a dry run, and the end."""
        self.kupool("topic", "create", "t")
        self.kupool("log", "produce", "t", "a", "b", "c")
        place = self.group()
        offsets = [{"topic": "t", "partition": 0, "offset": 1}]
        self.daemon.post("/api/group/commit", {**place, "offsets": offsets})
        (lag,) = self.json("group", "lag", "g")["lags"]
        self.assertEqual((lag["topic"], lag["lag"]), ("t", 2))
        self.assertIn(place["member"], self.kupool("group", "describe", "g"))
        self.assertEqual(self.values("log", "fetch", "t", "--group", "g"), ["b", "c"])
        reset = ("group", "reset", "g", "t", "--to", "latest")
        self.assertIn("has members", self.kupool(*reset, status=1))
        del place["generation"]
        self.daemon.post("/api/group/leave", place)
        self.assertIn("dry run", self.kupool(*reset, "--dry-run"))
        self.assertEqual(self.json("group", "lag", "g")["lags"][0]["lag"], 2)
        self.kupool(*reset)
        self.assertEqual(self.json("group", "lag", "g")["lags"][0]["lag"], 0)
        self.assertEqual(self.json("group", "list"), {"groups": ["g"]})
        self.kupool("group", "delete", "g", "--yes")
        self.assertEqual(self.json("group", "list"), {"groups": []})

    def test_dead_letters(self) -> None:
        """Q-83, Q-51: list, inspect, redrive one, purge the rest."""
        self.kupool("topic", "create", "t")
        self.kupool("log", "produce", "t", "a", "b", "c")
        place = self.group()
        for offset in (0, 1):
            where = {"topic": "t", "partition": 0, "offset": offset, "attempts": 3}
            status, found = self.daemon.post(
                "/api/log/bury", {**place, **where, "reason": "\x1b[31mno"}
            )
            self.assertEqual((status, found), (200, True))
        self.assertEqual(len(self.json("dlq", "list", "t")["dead"]), 2)
        shown = self.kupool("dlq", "inspect", "t", "0/1")
        self.assertIn(r"\x1b[31mno", shown)
        self.assertIn("t, partition 0, offset 1", shown)
        self.assertIn("Sent 1 dead letter back", self.kupool("dlq", "redrive", "t", "0/0"))
        self.assertEqual(self.values("log", "fetch", "t"), ["a", "b", "c", "a"])
        self.assertIn("Dropped 1 dead letter", self.kupool("dlq", "purge", "t", "--yes"))
        self.assertIn("has no dead letters", self.kupool("dlq", "list", "t"))

    def test_tail_follows_over_a_restart(self) -> None:
        """Q-83, Q-39: it prints what is written before and after the daemon was killed."""
        self.kupool("topic", "create", "t", "--partitions", "3")
        self.kupool("log", "produce", "t", "old")
        words = ("log", "tail", "t", "-f", "-n", "1", "--url", self.env["KUP_URL"])
        with Program(*KUPOOL, *words, "--data-dir", self.env["KUP_DATA"]) as tail:
            tail.line("old$")
            for number in range(3):
                self.kupool("log", "produce", "t", f"new {number}", "--partition", str(number))
                tail.line(f"^{number}/.*new {number}$")
            self.daemon.kill()
            tail.line("trying again$")
            self.daemon.start()
            self.kupool("log", "produce", "t", "again", "--partition", "1")
            tail.line("again$")
            tail.interrupt()
            status, output = tail.end()
        self.assertEqual(status, 130)
        self.assertNotIn("Traceback", output)

    def test_a_pipe_is_written_as_it_comes(self) -> None:
        """Q-83: a line is written when it is there, not when the input ends."""
        self.kupool("topic", "create", "t")
        with subprocess.Popen(
            [*KUPOOL, "log", "produce", "t"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(self.env),
        ) as process:
            assert process.stdin is not None
            process.stdin.write(b"first\n")
            process.stdin.flush()
            deadline = time.monotonic() + PATIENCE
            while not self.values("log", "fetch", "t") and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(self.values("log", "fetch", "t"), ["first"])
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(PATIENCE), 130)
            process.stdin.close()

    def test_who_may(self) -> None:
        """Q-79, Q-83: without the secret, or with a wrong one, nothing can be done."""
        with tempfile.TemporaryDirectory() as folder:
            refused = self.kupool("topic", "create", "t", status=1, KUP_DATA=folder)
            self.assertIn("unauthorized", refused)
            (Path(folder) / "http-secret").write_text("x" * 40)
            refused = self.kupool("topic", "create", "t", status=1, KUP_DATA=folder)
            self.assertIn("unauthorized", refused)
            self.assertEqual(
                self.kupool("topic", "list", status=1, KUP_DATA=folder)[:8], "kupool: "
            )


class NoDaemonTests(SynchronousTestCase):
    """Q-83: what a command says where no daemon answers; its status is 1."""

    def said(self, url: str) -> str:
        done = kupool("topic", "list", "--url", url)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        return done.stderr

    def test_nobody_listens(self) -> None:
        """Q-83"""
        self.assertIn(
            "connection refused: is the daemon running?",
            self.said(f"http://127.0.0.1:{free_port()}"),
        )

    def test_something_else_listens(self) -> None:
        """Q-83: it sends no JSON, or hangs up."""
        for data, text in (
            (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "is it the HTTP API of KuPool?"),
            (b"SSH-2.0-x\r\n", "http://127.0.0.1:"),
            (b"", "http://127.0.0.1:"),
        ):
            with Answering(data) as server:
                self.assertIn(text, self.said(server.url))
