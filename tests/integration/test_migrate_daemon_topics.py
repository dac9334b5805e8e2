"""X-07: topics of a running daemon go to RabbitMQ by settings and one command, and back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.servers.commands import kupool
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon, StartFailed
from tests.servers.services import postgres, rabbit
from tools.process import wait_until


class DaemonMoveTests(SynchronousTestCase):
    """X-07, Q-37: what clients see of their topics is the same before and after a move."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.url = rabbit().new_vhost()

    def settings(self, name: str, **given: str) -> str:
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"data": str(self.root / "data"), **given}))
        return str(path)

    def daemon(self, settings: str) -> RunningDaemon:
        data = yaml.safe_load(Path(settings).read_text())["data"]
        daemon = RunningDaemon(f"--config={settings}", "--interval=1h", *UNLIMITED, data=data)
        self.addCleanup(daemon.__exit__)
        return daemon

    def call(self, daemon: RunningDaemon, name: str, **params: Any) -> Any:
        code, answer = daemon.post("/api/" + name.replace(".", "/"), params, 30.0)
        self.assertEqual(code, 200, answer)
        return answer

    def produce(self, daemon: RunningDaemon, *values: str) -> None:
        for value in values:
            self.call(daemon, "log.produce", topic="orders", value=value, key="k")

    def read(self, daemon: RunningDaemon, **place: Any) -> list[str]:
        """Return all values from a place on."""
        values: list[str] = []
        while True:
            found = self.call(daemon, "log.fetch", topic="orders", partition=0, **place)
            values += [record["value"] for record in found["records"]]
            if not found["records"]:
                return values
            place = {"offset": found["next"]}

    def migrate(self, old: str, new: str, *flags: str) -> str:
        ended = kupool("migrate", "--from", old, "--to", new, *flags)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), ended.stdout)
        return ended.stdout

    def refusal(self, settings: str) -> str:
        """Return why no daemon starts with some settings."""
        daemon = self.daemon(settings)
        self.assertRaises(StartFailed, daemon.start)
        (line,) = daemon.refusals
        return line

    def begin(self, old: str) -> RunningDaemon:
        """Return a daemon with records and a group that has read two of them."""
        daemon = self.daemon(old).start()
        self.call(daemon, "topic.create", topic="orders")
        self.produce(daemon, "a", "b", "c")
        place = self.call(daemon, "group.join", group="billing", topics=["orders"])
        member = {key: place[key] for key in ("member", "generation")}
        found = self.call(daemon, "log.fetch", topic="orders", partition=0, at="earliest")
        done = [{"topic": "orders", "partition": 0, "offset": found["records"][2]["offset"]}]
        self.call(daemon, "group.commit", group="billing", **member, offsets=done)
        return daemon

    def check(self, daemon: RunningDaemon, *values: str) -> None:
        """Everything is there, and the group goes on where it was."""
        self.assertEqual(self.read(daemon, at="earliest"), list(values))
        place = self.call(daemon, "group.join", group="billing", topics=["orders"])
        self.assertEqual(place["assigned"], [{"topic": "orders", "partition": 0}])
        self.assertEqual(self.read(daemon, group="billing"), list(values[2:]))
        self.produce(daemon, "new")
        self.assertEqual(self.read(daemon, group="billing"), [*values[2:], "new"])

    def test_topics_only(self) -> None:
        """X-07: the same data folder; the command runs twice, and no daemon starts between."""
        old = self.settings("old")
        new = self.settings("new", topics="rabbit", mq_url=self.url)
        daemon = self.begin(old)
        said = self.migrate(old, new)
        self.assertIn("The daemon runs: what it writes from now on is not copied yet", said)
        self.produce(daemon, "d")
        self.assertEqual(daemon.stop(), 0)
        self.assertIn("is being moved, and not all of it is here yet", self.refusal(new))
        said = self.migrate(old, new)
        self.assertIn("are in RabbitMQ at ", said)
        self.assertIn("positions of groups were moved", said)
        self.assertIn("its data was moved to RabbitMQ at ", self.refusal(old))
        moved = self.daemon(new).start()
        self.assertEqual(self.call(moved, "log.capabilities")["engine"], "rabbit")
        self.check(moved, "a", "b", "c", "d")
        self.assertEqual(moved.stop(), 0)

    def test_with_the_log_and_back(self) -> None:
        """X-07: the log of submissions goes with them, and the topics come back to a file, and go
        again: each time what was left there is replaced.
        """
        old = self.settings("old")
        new = self.settings("new", mq="rabbit", mq_url=self.url)
        daemon = self.begin(old)
        client = LineClient(daemon)
        self.assertIs(client.submit(client.authorize("alice"), "one")["result"], True)
        client.close()
        self.assertTrue(
            wait_until(lambda: daemon.get("/stats?username=alice")[1].get("username"), 30)
        )
        self.assertEqual(daemon.stop(), 0)
        self.assertIn("and topics is 'rabbit': 'kupool migrate", self.begins_empty())
        self.migrate(old, new)
        moved = self.daemon(new).start()
        self.check(moved, "a", "b", "c")
        self.assertEqual(moved.stop(), 0)
        back = self.settings("back", mq="rabbit", mq_url=self.url, topics="sqlite")
        self.migrate(new, back)
        self.assertIn("its data was moved to ", self.refusal(new))
        there = self.daemon(back).start()
        self.check(there, "a", "b", "c", "new")
        self.assertEqual(there.stop(), 0)
        self.migrate(back, new)
        self.check(self.daemon(new).start(), "a", "b", "c", "new", "new")

    def begins_empty(self) -> str:
        """Return why topics in RabbitMQ do not begin beside those of a file."""
        return self.refusal(self.settings("beside", topics="rabbit", mq_url=self.url))

    def test_positions_in_postgresql(self) -> None:
        """X-07, Q-37: what is known of topics is in a database that daemons share; undone."""
        old = self.settings("old")
        dsn = postgres().new_database()
        new = self.settings("new", topics="rabbit", mq_url=self.url, topics_pg_dsn=dsn)
        self.assertEqual(self.begin(old).stop(), 0)
        self.migrate(old, new)
        moved = self.daemon(new).start()
        self.check(moved, "a", "b", "c")
        self.assertEqual(moved.stop(), 0)
        self.migrate(old, new, "--undo")
        again = self.daemon(old).start()
        self.check(again, "a", "b", "c")
        self.assertEqual(again.stop(), 0)
        self.assertIn("was undone", self.refusal(new))

    def test_other_place_for_positions(self) -> None:
        """Q-37: the streams would be those that are copied."""
        old = self.settings("old", topics="rabbit", mq_url=self.url)
        dsn = postgres().new_database()
        given = {"topics": "rabbit", "mq_url": self.url, "topics_pg_dsn": dsn}
        self.assertEqual(self.begin(old).stop(), 0)
        ended = kupool("migrate", "--from", old, "--to", self.settings("new", **given))
        self.assertEqual(ended.returncode, 1)
        self.assertIn("set topics_prefix there, so that they are copied", ended.stderr)
        new = self.settings("new", **given, topics_prefix="second")
        self.migrate(old, new)
        self.check(self.daemon(new).start(), "a", "b", "c")
