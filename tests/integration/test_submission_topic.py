"""The submissions and the events of a daemon, read as topics over HTTP."""

from __future__ import annotations

import json
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.test_takeover import LEFT, make_file
from tests.servers.running_daemon import LineClient, RunningDaemon
from tests.servers.services import postgres, rabbit

#: Nobody has to wait between two submissions, and old jobs are submitted for.
FLAGS = ("--submit-interval=0", "--attempts-rate=0", "--flush-interval=0.05s")


class TopicCase(SynchronousTestCase):
    """A daemon whose topics are read to their ends."""

    def start(self, *flags: str, data: Path | None = None) -> RunningDaemon:
        daemon = RunningDaemon(*FLAGS, *flags, data=data)
        self.addCleanup(daemon.__exit__)
        return daemon.start()

    def operation(self, daemon: RunningDaemon, name: str, **params: object) -> Any:
        status, result = daemon.post(f"/api/{name.replace('.', '/')}", params)
        self.assertEqual(status, 200, result)
        return result

    def read(self, daemon: RunningDaemon, topic: str, count: int) -> list[dict[str, Any]]:
        """Return the values of a topic, waiting until there are so many."""
        found: list[dict[str, Any]] = []
        at: dict[str, object] = {"at": "earliest"}
        while len(found) < count:
            fetched = self.operation(
                daemon, "log.fetch", topic=topic, partition=0, wait_ms=5000, **at
            )
            found += [json.loads(record["value"]) for record in fetched["records"]]
            at = {"offset": fetched["next"]}
        return found


class SubmissionTopicTests(TopicCase):
    """Issue 16, build 6."""

    def submit(self, daemon: RunningDaemon) -> list[str]:
        """Have some users submit; returns the name of each submission."""
        names = []
        for number, name in enumerate(("alice.rig1", "bob", "alice.rig2")):
            client = LineClient(daemon)
            job = client.authorize(name)
            for nonce in range(number + 1):
                self.assertIs(client.submit(job, f"{name}{nonce}")["result"], True)
                names.append(name)
            client.close()
        return names

    def check(self, *flags: str) -> None:
        """X-06: counts that are made again from the topic equal the table, also after a restart."""
        daemon = self.start(*flags)
        names = self.submit(daemon)
        rows = self.read(daemon, "submissions", len(names))
        self.assertEqual(Counter(row["username"] for row in rows), Counter(names))
        self.assertEqual(len({row["id"] for row in rows}), len(names))
        self.assertEqual(0, daemon.stop())
        again = self.start(*flags, data=daemon.data)
        self.assertEqual(self.read(again, "submissions", len(names)), rows)
        counted = Counter(row["username"].partition(".")[0] for row in rows)
        status, found = again.get("/stats")
        self.assertEqual((status, found["accepted_total"]), (200, len(names)))
        for user, count in counted.items():
            status, found = again.get(f"/stats?username={user}")
            self.assertEqual((status, found["total"]), (200, count), found)
        described = self.operation(again, "topic.describe", topic="submissions")
        self.assertEqual(len(described["partitions"]), 1)
        self.assertEqual(0, again.stop())

    def test_sqlite(self) -> None:
        self.check()

    def test_rabbit(self) -> None:
        """The stream is read; what is counted comes from the queue, as before."""
        self.check("--mq=rabbit", f"--mq-url={rabbit().new_vhost()}")

    def test_postgres(self) -> None:
        self.check("--store=pg", f"--pg-dsn={postgres().new_database()}")

    def test_memory(self) -> None:
        daemon = self.start("--mq=memory", "--store=memory")
        names = self.submit(daemon)
        rows = self.read(daemon, "submissions", len(names))
        self.assertEqual([row["username"] for row in rows], names)
        self.assertEqual(0, daemon.stop())

    def test_sessions_and_peers(self) -> None:
        """Issue 16, build 3: they are known if that is set."""
        daemon = self.start("--log-peers=on")
        client = LineClient(daemon)
        host, port = client.socket.getsockname()
        client.submit(client.authorize("alice"), "x")
        (row,) = self.read(daemon, "submissions", 1)
        self.assertEqual(row["peer"], f"{host}:{port}")
        (opened,) = [e for e in self.read(daemon, "events", 3) if e["type"] == "session.opened"]
        self.assertEqual((opened["session"], opened["peer"]), (row["session"], row["peer"]))
        client.close()
        self.assertEqual(0, daemon.stop())

    def test_nobody_writes_to_it(self) -> None:
        """Issue 16, build 2: whoever asks, here an admin."""
        daemon = self.start()
        for topic in ("submissions", "events"):
            for name, params in (
                ("topic.create", {}),
                ("topic.delete", {}),
                ("topic.change", {"settings": {}}),
                ("log.produce", {"value": "forged"}),
            ):
                status, found = daemon.post(
                    f"/api/{name.replace('.', '/')}", {"topic": topic, **params}
                )
                self.assertEqual(status, 403, (name, found))
        self.assertEqual(0, daemon.stop())

    def test_data_of_the_release_before(self) -> None:
        """Issue 16, build 6: its log is taken over at the first start, and read as the topic."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "data"
        folder.mkdir()
        for name in ("log", "store"):
            make_file(LEFT / f"{name}.sql", folder / f"{name}.sqlite")
        answered = json.loads((LEFT / "submissions.json").read_text())
        daemon = self.start("--log-retention=0", data=folder)
        rows = self.read(daemon, "submissions", len(answered))
        self.assertEqual(
            sorted((row["username"], row["job_id"], row["client_nonce"]) for row in rows),
            sorted((name, job, nonce) for name, job, _, nonce in answered),
        )
        self.assertEqual(0, daemon.stop())


class EventTopicTests(TopicCase):
    """Issue 16, build 2 and 6: what the daemon does is in the topic of its events."""

    def test_events(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "data"
        config = folder.parent / "kupool.yaml"
        config.write_text("interval: 30s\n")
        daemon = self.start(f"--config={config}", data=folder)
        client = LineClient(daemon)
        job = client.authorize("alice.rig1")
        client.close()
        config.write_text("interval: 77s\n")
        daemon.signal(signal.SIGHUP)
        daemon.lines_with("Reloaded: interval")
        config.write_text("interval: never\n")
        daemon.signal(signal.SIGHUP)
        daemon.lines_with("were not reloaded")
        self.assertEqual(0, daemon.stop())
        again = self.start("--addr=127.0.0.1:0", data=folder)
        events = self.read(again, "events", 9)
        kinds = [event["type"] for event in events]
        self.assertEqual(len({event["id"] for event in events}), len(events))
        self.assertEqual(
            Counter(kinds[:7]),
            Counter(
                (
                    "job",
                    "started",
                    "session.opened",
                    "session.closed",
                    "reloaded",
                    "reload.refused",
                    "stopping",
                )
            ),
        )
        found = dict(zip(kinds[:7], events[:7], strict=True))
        self.assertEqual(found["job"]["job_id"], job["job_id"])
        self.assertEqual(found["session.opened"]["username"], "alice.rig1")
        self.assertEqual(found["reloaded"]["changed"], ["interval"])
        self.assertIn("never", found["reload.refused"]["reason"])
        self.assertEqual(0, again.stop())

    def test_without(self) -> None:
        daemon = self.start("--events=off")
        status, found = daemon.post("/api/topic/describe", {"topic": "events"})
        self.assertEqual(status, 404, found)
        self.assertEqual(0, daemon.stop())
