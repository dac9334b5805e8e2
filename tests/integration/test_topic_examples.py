"""The examples of topics over the wire, as processes, with a daemon that is restarted."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.programs import python
from tests.servers.running_daemon import RunningDaemon
from tools.process import wait_until

ALLOWED = tuple(
    f"--permissions=* {action} >"
    for action in ("log.publish", "log.subscribe", "log.manage", "log.group")
)


class TopicExampleTests(SynchronousTestCase):
    def create(self, daemon: RunningDaemon, partitions: int) -> None:
        body = {"topic": "clicks", "settings": {"partitions": partitions}}
        self.assertEqual(daemon.post("/api/topic/create", body)[0], 200)

    def test_a_producer_and_a_reader(self) -> None:
        """Q-39, Q-56, Q-58."""
        with RunningDaemon(*ALLOWED) as daemon:
            self.create(daemon, 1)
            where = f"tcp:127.0.0.1:{daemon.port}"
            with python("topic_producer.py", where, "alice", "clicks", "--count", "30") as program:
                status, said = program.end()
            self.assertEqual(status, 0, said)
            wanted = [f"written to partition 0 at offset {n}" for n in range(30)]
            self.assertEqual(said.splitlines(), wanted)
            arguments = (where, "alice", "clicks", "--start", "earliest", "--count", "30")
            with python("topic_reader.py", *arguments) as program:
                status, said = program.end()
            self.assertEqual(status, 0, said)
            lines = [f"clicks/0 {n} record {n}" for n in range(1, 30)]
            self.assertEqual(said.splitlines(), ["clicks/0 0 first", *lines])

    def test_members_of_a_group(self) -> None:
        """Q-39, Q-42, Q-51: they go on after a restart, and one takes over from another."""
        with RunningDaemon(*ALLOWED) as daemon:
            self.create(daemon, 1)
            where = f"tcp:127.0.0.1:{daemon.port}"
            produce = ("topic_producer.py", where, "alice", "clicks", "--count")
            with python("topic_consumer.py", where, "alice", "clicks") as one:
                one.line("is in the group")
                with python(*produce, "3") as program:
                    self.assertEqual(program.end()[0], 0)
                one.line("partition 0 offset 2: record 2")
                daemon.kill()
                daemon.start()
                with python(*produce, "3") as program:
                    self.assertEqual(program.end()[0], 0)
                one.line("partition 0 offset 5: record 2")
                body = {"topic": "clicks", "value": "bad"}
                self.assertEqual(daemon.post("/api/log/produce", body)[0], 200)
                with python(*produce, "2") as program:
                    self.assertEqual(program.end()[0], 0)
                one.line("partition 0 offset 8: record 1")
                one.interrupt()
                status, said = one.end()
                self.assertNotIn("Traceback", said)
                self.assertEqual(status, 0, said)
            with python("topic_consumer.py", where, "alice", "clicks") as two:
                with python(*produce, "1") as program:
                    self.assertEqual(program.end()[0], 0)
                # What was being processed as the other one ended may come again.
                two.line("partition 0 offset 9: first")
                self.assertTrue(wait_until(lambda: self.letters(daemon)), "no dead letter")
            (letter,) = self.letters(daemon)
            self.assertEqual((letter["source"]["offset"], letter["attempts"]), (6, 2))
            self.assertRegex(letter["reason"], "cannot be processed")

    def letters(self, daemon: RunningDaemon) -> list[Any]:
        """Return the dead letters of the topic."""
        status, answer = daemon.get("/api/log/dead?topic=clicks")
        return list(answer["dead"]) if status == 200 else []

    def test_who_may_not(self) -> None:
        """Q-79: the reason is one line."""
        with RunningDaemon() as daemon:
            self.create(daemon, 1)
            where = f"tcp:127.0.0.1:{daemon.port}"
            for program_name, text in (
                ("topic_producer.py", "the records were not written: forbidden"),
                ("topic_consumer.py", "not a member: forbidden"),
                ("topic_reader.py", "cannot read: forbidden"),
            ):
                with python(program_name, where, "bob", "clicks") as program:
                    status, said = program.end()
                self.assertEqual((status, len(said.splitlines())), (1, 1), said)
                self.assertTrue(re.match(text, said), said)

    def test_a_wrong_password(self) -> None:
        """Q-79: a login that is refused for good is not tried again."""
        with tempfile.TemporaryDirectory(prefix="kupool-test-") as folder:
            passwords = Path(folder) / "passwords"
            passwords.write_text("alice:secret\n", "utf-8")
            rules = (f"--permissions=alice {action} >" for action in ("log.publish", "log.manage"))
            with RunningDaemon(f"--auth=file:{passwords}", *rules) as daemon:
                where = f"tcp:127.0.0.1:{daemon.port}"
                for password, wanted in (
                    ("wrong", (1, f"no session: {where} ended the session: unauthorized (24)\n")),
                    ("secret", (1, "the records were not written: there is no topic none: ")),
                ):
                    arguments = (where, "alice", "none", "--password", password)
                    with python("topic_producer.py", *arguments) as program:
                        status, said = program.end()
                    self.assertEqual((status, said[: len(wanted[1])]), wanted, said)
