"""The file of topics in the data folder: one daemon at a time, and nothing elsewhere."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from stat import S_ISREG
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.commands import kupool
from tests.servers.running_daemon import RunningDaemon, StartFailed

#: Only topics are on disk.
TOPICS_ONLY = ("--interval=1h", "--mq=memory", "--store=memory", "--topics=sqlite")


class TopicsFolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.data = Path(temporary.name) / "data"

    def daemon(self, *flags: str) -> RunningDaemon:
        daemon = RunningDaemon(*flags, data=self.data)
        self.addCleanup(daemon.__exit__)
        return daemon

    def post(self, daemon: RunningDaemon, path: str, **values: object) -> Any:
        status, answer = daemon.post(path, values)
        self.assertEqual(status, 200, answer)
        return answer

    def test_a_second_daemon(self) -> None:
        """Q-18: it is refused, also where topics are all that is on disk, and disturbs nobody."""
        first = self.daemon(*TOPICS_ONLY).start()
        self.post(first, "/api/topic/create", topic="orders")
        second = self.daemon(*TOPICS_ONLY)
        self.assertRaises(StartFailed, second.start)
        (line,) = second.refusals
        self.assertIn(f"data folder {self.data}: in use by another process (pid {first.pid}", line)
        written = self.post(first, "/api/log/produce", topic="orders", value="a")
        self.assertEqual(written, {"written": [{"partition": 0, "offset": 0}]})
        verified = kupool("log", "verify", f"--data={self.data}")
        self.assertEqual((verified.returncode, verified.stderr), (0, ""))
        self.assertEqual(first.stop(), 0)

    def test_files(self) -> None:
        """Q-19: what a daemon with topics has open for writing is in its data folder."""
        daemon = self.daemon(*TOPICS_ONLY).start()
        self.post(daemon, "/api/topic/create", topic="orders", settings={"partitions": 3})
        for number in range(3):
            self.post(daemon, "/api/log/produce", topic="orders", value="a", partition=number)
        written = {path for path in self.opened(daemon.pid) if path.parent == self.data}
        self.assertLessEqual(
            {self.data / "topics.sqlite", self.data / "topics.sqlite-wal"}, written
        )
        self.assertEqual([path for path in self.opened(daemon.pid) if path not in written], [])
        self.assertEqual(daemon.stop(), 0)
        self.assertLessEqual(
            {path.name for path in self.data.iterdir()},
            {
                "activity.sqlite",
                "clean",
                "http-secret",
                "live-api-key",
                "lock",
                "token-keys.json",
                "topics.sqlite",
            },
        )

    def opened(self, pid: int) -> list[Path]:
        """Return the plain files that a process may write to, without its output."""
        found = []
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                flags = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text()
                mode = os.stat(descriptor).st_mode
                path = Path(os.readlink(descriptor))
            except FileNotFoundError:
                continue
            writes = int(flags.split("flags:")[1].split()[0], 8) & (os.O_WRONLY | os.O_RDWR)
            if writes and S_ISREG(mode) and int(descriptor.name) > 2:
                found.append(path)
        return found

    def test_damaged_files(self) -> None:
        """Q-08: a torn file is named, with what to do; then the daemon starts without it."""
        daemon = self.daemon(*TOPICS_ONLY).start()
        self.post(daemon, "/api/topic/create", topic="orders")
        for number in range(100):
            self.post(daemon, "/api/log/produce", topic="orders", value=f"{number}" * 500)
        self.assertEqual(daemon.stop(), 0)
        file = self.data / "topics.sqlite"
        good = file.read_bytes()
        middle = len(good) // 8192 * 4096
        for content in (
            good[: len(good) // 2],
            good[:middle] + b"\xff" * 4096 + good[middle + 4096 :],
            b"x" * 4096 + good[4096:],
        ):
            file.write_bytes(content)
            other = self.daemon(*TOPICS_ONLY)
            self.assertRaises(StartFailed, other.start)
            (line,) = other.refusals
            self.assertIn(f"database {file} is damaged: ", line)
            self.assertIn("move the file and its -wal away and start it again, or use", line)
            self.assertIn("all topics and the positions of their groups are lost then", line)
        file.unlink()
        again = self.daemon(*TOPICS_ONLY).start()
        self.post(again, "/api/topic/create", topic="orders")
        self.assertEqual(again.stop(), 0)

    def test_a_damaged_batch(self) -> None:
        """Q-08: a reader is told topic, partition and offset, and gets the records around it."""
        daemon = self.daemon(*TOPICS_ONLY).start()
        self.post(daemon, "/api/topic/create", topic="orders")
        for number in range(5):
            self.post(daemon, "/api/log/produce", topic="orders", value=f"value-{number}")
        self.assertEqual(daemon.stop(), 0)
        file = self.data / "topics.sqlite"
        content = file.read_bytes()
        self.assertEqual(content.count(b"value-2"), 1)
        file.write_bytes(content.replace(b"value-2", b"valuE-2"))
        again = self.daemon(*TOPICS_ONLY).start()
        where = {"topic": "orders", "partition": 0}
        first = self.post(again, "/api/log/fetch", **where, offset=0)
        self.assertEqual(first["next"], 2)
        status, answer = again.post("/api/log/fetch", {**where, "offset": 2})
        self.assertNotEqual(status, 200)
        self.assertIn("partition 0 of topic orders, batch at offset 2", answer["error"])
        self.assertIn("read on from 3", answer["error"])
        rest = self.post(again, "/api/log/fetch", **where, offset=3)
        self.assertEqual(len(rest["records"]), 2)
        # A group is moved past it, without reading it.
        self.post(again, "/api/group/reset", group="g", topic="orders", partition=0, offset=3)
        mine = self.post(again, "/api/log/fetch", **where, group="g")
        self.assertEqual([each["value"] for each in mine["records"]], ["value-3", "value-4"])
        self.assertEqual(again.stop(), 0)
