"""Topics in RabbitMQ through real daemons: one, one whose broker goes away, and two."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.commands import kupool
from tests.servers.own_process import free_port
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon, StartFailed
from tests.servers.services import RabbitServer, postgres, rabbit
from tools.process import wait_until

RULES = tuple(
    f"--permissions=* {action} shop.>"
    for action in ("log.publish", "log.subscribe", "log.manage", "log.group")
)


class Case(SynchronousTestCase):
    """A virtual host of the test's own, and daemons that keep their topics there."""

    def setUp(self) -> None:
        self.server = rabbit()
        self.url = self.server.new_vhost()

    def daemon(self, *flags: str, **named: Any) -> RunningDaemon:
        """Return a daemon that is not started."""
        daemon = RunningDaemon(
            f"--mq-url={self.url}", "--interval=1h", *UNLIMITED, *RULES, *flags, **named
        )
        self.addCleanup(daemon.__exit__)
        return daemon

    def call(self, daemon: RunningDaemon, name: str, **params: Any) -> Any:
        code, answer = self.ask(daemon, name, **params)
        self.assertEqual(code, 200, answer)
        return answer

    def ask(self, daemon: RunningDaemon, name: str, **params: Any) -> tuple[int, Any]:
        return daemon.post("/api/" + name.replace(".", "/"), params, 30.0)

    def values(self, daemon: RunningDaemon, topic: str, **params: Any) -> list[str]:
        found = self.call(daemon, "log.fetch", topic=topic, partition=0, **params)
        return [record["value"] for record in found["records"]]

    def until(self, daemon: RunningDaemon, condition: Callable[[], object]) -> None:
        if not wait_until(condition, 60):
            self.fail(f"waited too long: {daemon.get('/ready')} {daemon.output}")

    def stop(self, daemon: RunningDaemon) -> None:
        """Stop it: with status 0, and with no step that had to be given up."""
        self.assertEqual(daemon.stop(), 0, daemon.output)
        self.assertNotIn("did not finish within", daemon.output)
        self.assertNotIn("Traceback", daemon.output)


class OneDaemonTests(Case):
    """X-07: all operations, on topics in RabbitMQ with positions in a file."""

    def test_everything_survives_a_restart(self) -> None:
        """X-07, Q-45: records, positions, delayed ones; also of the topic of submissions."""
        daemon = self.daemon("--topics=rabbit").start()
        self.assertEqual(self.call(daemon, "log.capabilities")["engine"], "rabbit")
        self.call(daemon, "topic.create", topic="shop.a", settings={"partitions": 2})
        for value in "xyz":
            self.call(daemon, "log.produce", topic="shop.a", partition=0, value=value)
        self.assertEqual(self.values(daemon, "shop.a", offset=0), ["x", "y", "z"])
        place = self.call(daemon, "group.join", group="shop.g", topics=["shop.a", "submissions"])
        self.assertEqual(len(place["assigned"]), 3)
        client = LineClient(daemon)
        job = client.authorize("alice")
        self.assertIs(client.submit(job, "one")["result"], True)
        client.close()
        member = {key: place[key] for key in ("member", "generation")}
        found = self.call(daemon, "log.fetch", topic="submissions", partition=0, at="earliest")
        offsets = [
            {"topic": "shop.a", "partition": 0, "offset": 65536},
            {"topic": "submissions", "partition": 0, "offset": found["next"]},
        ]
        self.call(daemon, "group.commit", group="shop.g", **member, offsets=offsets)
        self.call(daemon, "log.delay", topic="shop.a", partition=0, value="late", after_ms=1500)
        self.stop(daemon)
        again = self.daemon("--topics=rabbit", data=daemon.data).start()
        self.assertEqual(self.values(again, "shop.a", group="shop.g"), ["y", "z"])
        reading = {"topic": "submissions", "partition": 0, "group": "shop.g"}
        self.assertEqual(self.call(again, "log.fetch", **reading)["next"], found["next"])
        self.until(again, lambda: self.values(again, "shop.a", offset=3 * 65536) == ["late"])
        events = self.call(again, "log.fetch", topic="events", partition=0, at="earliest")
        self.assertIn("started", " ".join(each["value"] for each in events["records"]))
        self.assertEqual(again.get("/ready"), (200, {"ready": True, "reasons": []}))
        self.stop(again)

    def test_backup(self) -> None:
        """Q-45: the commands of the data folder know the file with the positions of groups."""
        daemon = self.daemon("--topics=rabbit").start()
        self.call(daemon, "topic.create", topic="shop.a")
        self.call(daemon, "log.produce", topic="shop.a", value="x")
        place = self.call(daemon, "group.join", group="shop.g", topics=["shop.a"])
        member = {key: place[key] for key in ("member", "generation")}
        commit = [{"topic": "shop.a", "partition": 0, "offset": 65536}]
        self.call(daemon, "group.commit", group="shop.g", **member, offsets=commit)
        data, target = f"--data={daemon.data}", daemon.data.parent / "backup"
        made = kupool("backup", data, str(target))
        self.assertIn("the positions of groups in RabbitMQ", made.stdout, made.stderr)
        verified = kupool("log", "verify", data)
        self.assertEqual((verified.returncode, verified.stderr), (0, ""))
        self.assertIn("topics_rabbit.sqlite: ", verified.stdout)
        self.stop(daemon)
        (daemon.data / "topics_rabbit.sqlite").unlink()
        restored = kupool("restore", data, str(target), "--force")
        self.assertIn("Groups in RabbitMQ read on from", restored.stdout, restored.stderr)
        again = self.daemon("--topics=rabbit", data=daemon.data).start()
        self.call(again, "log.produce", topic="shop.a", value="y")
        self.assertEqual(self.values(again, "shop.a", group="shop.g"), ["y"])
        self.stop(again)

    def test_an_account_that_is_refused(self) -> None:
        """K-86: the start ends with one line that names the setting."""
        url = self.url.replace("guest:guest", "guest:wrong")
        daemon = self.daemon("--topics=rabbit", f"--mq-url={url}")
        self.assertRaises(StartFailed, daemon.start)
        (line,) = daemon.refusals
        self.assertIn("kupool: mq_url: ", line)
        self.assertNotIn("wrong@", line)


class AwayTests(Case):
    """Q-35: the broker is away, and comes back."""

    def setUp(self) -> None:
        super().setUp()
        if not isinstance(self.server, RabbitServer):
            raise SkipTest("the broker given by the environment is not ours to stop")
        self.broker = self.server

    def reasons(self, daemon: RunningDaemon) -> str:
        """What /ready says while submissions are accepted."""
        status, answer = daemon.get("/ready")
        self.assertEqual((status, answer["ready"]), (200, True), answer)
        return " ".join(answer["reasons"])

    def test_away_for_a_while(self) -> None:
        """Q-32, Q-35: it says so, refuses records, accepts submissions, and goes on by itself."""
        daemon = self.daemon("--topics=rabbit").start()
        self.call(daemon, "topic.create", topic="shop.a")
        self.call(daemon, "log.produce", topic="shop.a", value="before")
        self.broker.stop()
        try:
            self.until(daemon, lambda: "topics: " in self.reasons(daemon))
            self.assertIn("RabbitMQ at", self.reasons(daemon))
            code, answer = self.ask(daemon, "log.produce", topic="shop.a", value="refused")
            self.assertEqual((code, answer["code"]), (503, 27))
            client = LineClient(daemon)
            self.assertIs(client.submit(client.authorize("alice"), "one")["result"], True)
            client.close()
        finally:
            self.broker.start()
        self.until(daemon, lambda: not self.reasons(daemon))
        self.call(daemon, "log.produce", topic="shop.a", value="after")
        self.assertEqual(self.values(daemon, "shop.a", offset=0), ["before", "after"])
        self.stop(daemon)

    def test_away_at_the_start_and_at_the_stop(self) -> None:
        """Q-35: it starts without a broker, finds one later, and stops without one."""
        first = self.daemon("--topics=rabbit").start()
        self.call(first, "topic.create", topic="shop.a")
        self.call(first, "log.produce", topic="shop.a", value="before")
        self.stop(first)
        self.broker.stop()
        try:
            daemon = self.daemon("--topics=rabbit", data=first.data).start()
            self.assertIn("topics: ", self.reasons(daemon))
            names = [each["topic"] for each in self.call(daemon, "topic.list")["topics"]]
            self.assertIn("shop.a", names)
        finally:
            self.broker.start()
        self.until(daemon, lambda: not self.reasons(daemon))
        self.assertEqual(self.values(daemon, "shop.a", offset=0), ["before"])
        self.broker.stop()
        try:
            self.until(daemon, lambda: "topics: " in self.reasons(daemon))
            self.stop(daemon)
        finally:
            self.broker.start()


class TwoDaemonsTests(Case):
    """Q-36: daemons with the same topics, in RabbitMQ and PostgreSQL."""

    def setUp(self) -> None:
        super().setUp()
        self.dsn = postgres().new_database()
        self.first, self.second = (
            self.daemon(
                "--topics=rabbit",
                f"--topics-pg-dsn={self.dsn}",
                f"--topics-advertise=node{number}.example:8080",
            ).start()
            for number in (1, 2)
        )

    def known(self, daemon: RunningDaemon, topic: str) -> bool:
        topics = self.call(daemon, "topic.list")["topics"]
        return topic in [each["topic"] for each in topics]

    def test_a_group_has_one_leader(self) -> None:
        """Q-34, Q-36, Q-42: the other one says where it is, over HTTP and the wire; after kill -9
        of the leader it leads, and the group goes on at its position.
        """
        first, second = self.first, self.second
        self.call(first, "topic.create", topic="shop.a")
        self.until(second, lambda: self.known(second, "shop.a"))
        self.call(first, "log.produce", topic="shop.a", value="x")
        self.call(second, "log.produce", topic="shop.a", value="y")
        for daemon in (first, second):
            self.assertEqual(self.values(daemon, "shop.a", offset=0), ["x", "y"])
        join = {"group": "shop.g", "topics": ["shop.a"], "session_ms": 60_000}
        place = self.call(first, "group.join", **join)
        member = {key: place[key] for key in ("member", "generation")}
        commit = [{"topic": "shop.a", "partition": 0, "offset": 65536}]
        self.call(first, "group.commit", group="shop.g", **member, offsets=commit)
        refused = {"error": "wrong node: node1.example:8080", "code": 42}
        self.assertEqual(self.ask(second, "group.join", **join), (421, refused))
        client = LineClient(second)
        client.authorize("alice")
        answer = client.request("group.join", **join)
        self.assertEqual((answer["code"], answer["error"]), (42, refused["error"]))
        client.close()
        first.kill()
        joined: list[Any] = []

        def join_again() -> bool:
            code, found = self.ask(second, "group.join", **join)
            if code != 200:
                self.assertEqual((code, found), (421, refused))
                return False
            joined.append(found)
            return True

        began = time.monotonic()
        self.until(second, join_again)
        self.assertLess(time.monotonic() - began, 50.0)
        self.assertGreater(joined[0]["generation"], place["generation"])
        self.assertEqual(self.values(second, "shop.a", group="shop.g"), ["y"])
        stale = self.ask(second, "group.commit", group="shop.g", **member, offsets=commit)
        self.assertIn(stale[1]["code"], (35, 39))
        self.stop(second)

    def test_a_leader_that_stops(self) -> None:
        """Q-36: it gives its groups away at once."""
        self.call(self.first, "topic.create", topic="shop.a")
        self.until(self.second, lambda: self.known(self.second, "shop.a"))
        join = {"group": "shop.g", "topics": ["shop.a"]}
        self.call(self.first, "group.join", **join)
        self.assertEqual(self.ask(self.second, "group.join", **join)[0], 421)
        self.stop(self.first)
        self.call(self.second, "group.join", **join)
        self.stop(self.second)


class AdvertisedTests(Case):
    """Q-36: by default a daemon is where it listens."""

    def test_its_own_address(self) -> None:
        port, dsn = free_port(), postgres().new_database()
        flags = ("--topics=rabbit", f"--topics-pg-dsn={dsn}")
        first = self.daemon(*flags, port=port).start()
        second = self.daemon(*flags).start()
        self.call(first, "topic.create", topic="shop.a")
        self.until(second, lambda: self.ask(second, "topic.describe", topic="shop.a")[0] == 200)
        self.call(first, "group.join", group="shop.g", topics=["shop.a"])
        found = self.ask(second, "group.join", group="shop.g", topics=["shop.a"])[1]
        self.assertEqual(found["error"], f"wrong node: 127.0.0.1:{port}")
        for daemon in (first, second):
            self.assertTrue(Path(daemon.data).exists())
            self.stop(daemon)
