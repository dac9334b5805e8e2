"""Q-08, Q-83: ``kupool log verify`` on a data folder, beside its daemon and without one."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.data_folder import change, write_topics
from tests.servers.commands import kupool
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon


class VerifyCommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.data = Path(temporary.name) / "data"

    def verify(self, *flags: str) -> tuple[int, str, str]:
        ended = kupool("log", "verify", f"--data={self.data}", *flags)
        return ended.returncode, ended.stdout, ended.stderr

    def test_beside_the_daemon(self) -> None:
        """Q-83: what it says of a folder in use, which stays as it is."""
        daemon = RunningDaemon("--interval=1h", *UNLIMITED, data=self.data)
        self.addCleanup(daemon.__exit__)
        daemon.start()
        client = LineClient(daemon)
        job = client.authorize("alice")
        self.assertIs(client.submit(job, "a")["result"], True)
        status, said, wrong = self.verify()
        self.assertEqual((status, wrong), (0, ""))
        self.assertRegex(said, r"log.sqlite: [\d.]+ MB, \d+ batch")
        self.assertIn("0 faults", said)
        self.assertIs(client.submit(job, "b")["result"], True)
        self.assertEqual(daemon.stop(), 0)

    def test_what_is_wrong(self) -> None:
        """Q-08: the file, the topic, the partition and the offset, and the status is 1."""
        write_topics(self.data, "orders", 2, 3)
        status, said, wrong = self.verify()
        self.assertEqual((status, wrong), (0, ""))
        self.assertRegex(said, r"orders\W+0\W+0\W+5\W+2\W+5\W+\d+")
        change(self.data, "topics", "UPDATE batches SET body = x'01' WHERE position & 255 = 2")
        status, said, wrong = self.verify()
        self.assertEqual(status, 1)
        self.assertIn(
            "kupool: topics.sqlite, topic orders, partition 0, offset 2: it has 1 bytes, that is "
            "no batch\n",
            wrong,
        )
        self.assertIn("2 faults", said)

    def test_for_programs(self) -> None:
        """Q-83: one JSON object with the numbers and the faults."""
        write_topics(self.data, "orders", 2, 3)
        change(self.data, "topics", "INSERT INTO group_positions VALUES ('g', 1, 6)")
        status, said, wrong = self.verify("--json")
        self.assertEqual((status, wrong), (1, ""))
        found = json.loads(said)
        (file,) = found["files"]
        self.assertEqual(file["file"], "topics.sqlite")
        first = file["partitions"][0]
        self.assertEqual((first["topic"], first["partition"]), ("orders", 0))
        self.assertEqual([first[name] for name in ("low", "high", "batches")], [0, 5, 2])
        self.assertEqual(
            found["faults"],
            [
                {
                    "file": "topics.sqlite",
                    "what": "the position 6 of group g is behind the end 5",
                    "topic": "orders",
                    "partition": 0,
                    "offset": 6,
                }
            ],
        )

    def test_nothing_to_check(self) -> None:
        self.assertIn("no such folder", self.verify()[2])
        self.data.mkdir()
        status, _, wrong = self.verify()
        self.assertEqual(status, 1)
        self.assertIn("there is nothing to check: it has none of topics.sqlite", wrong)

    def test_a_backup_with_topics(self) -> None:
        """Q-86: made, checked, verified and restored by the commands."""
        daemon = RunningDaemon("--interval=1h", data=self.data)
        self.addCleanup(daemon.__exit__)
        daemon.start()
        self.assertEqual(daemon.stop(), 0)
        write_topics(self.data, "orders", 2, 3)
        target, new = self.data.with_name("b"), self.data.with_name("new")
        made = kupool("backup", f"--data={self.data}", str(target))
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        self.assertIn("log.sqlite, store.sqlite, topics.sqlite", made.stdout)
        self.assertIn("records in 2 topics", made.stdout)
        self.assertEqual(kupool("backup", "--check", str(target)).returncode, 0)
        restored = kupool("restore", f"--data={new}", str(target))
        self.assertEqual((restored.returncode, restored.stderr), (0, ""))
        self.assertIn("New records of topics get offsets above all", restored.stdout)
        self.data = new
        self.assertEqual(self.verify()[0], 0)
        self.assertEqual(sorted(os.listdir(new)), self.expected(new))

    def expected(self, folder: Path) -> list[str]:
        """Q-19: what belongs into the folder, and nothing else."""
        names = ["lock", "log.sqlite", "store.sqlite", "topics.sqlite"]
        return sorted(names + [name for name in ("clean",) if (folder / name).exists()])
