"""Q-37, Q-85: topics are moved by ``kupool migrate`` while they are written to."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from kupool.storage.database import Database
from kupool.storage.folder import DataFolder
from kupool.topics.batches import Compression, RecordCodec
from kupool.topics.interfaces import Append, StoredBatch
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Stamp
from kupool.topics.settings import TopicSettings
from kupool.topics.sqlite import SqliteTopics
from tests.servers.commands import kupool
from tests.servers.reactor import the_reactor
from tests.servers.running_daemon import RunningDaemon, StartFailed

P0, P1 = Partition("orders", 0), Partition("orders", 1)


class TopicsMoveTests(TestCase):
    """From the folder ``old`` to the folder ``new``; the test has the old one open as a daemon."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.codec = RecordCodec()
        self.now, self.number = 1_800_000_000.0, 0

    def folder(self, name: str) -> Path:
        """Return a data folder, as a daemon without submissions leaves it."""
        daemon = RunningDaemon("--interval=1h", data=self.root / name)
        self.addCleanup(daemon.__exit__)
        daemon.start()
        self.assertEqual(daemon.stop(), 0)
        return self.root / name

    def settings(self, name: str) -> str:
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"data": str(self.root / name)}))
        return str(path)

    async def migrate(self, *flags: str) -> subprocess.CompletedProcess[str]:
        both = ("--from", self.settings("old"), "--to", self.settings("new"))
        found: subprocess.CompletedProcess[str]
        found = await deferToThread(kupool, "migrate", *both, *flags)
        return found

    async def moved(self, *flags: str) -> str:
        ended = await self.migrate(*flags)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), ended.stdout)
        return ended.stdout

    async def engine(self, name: str) -> SqliteTopics:
        database = Database(the_reactor(), self.root / name / "topics.sqlite", "topics")
        engine = SqliteTopics(database, Clock(), lambda: self.now)
        self.addCleanup(engine.close)
        await engine.open()
        return engine

    async def append(self, engine: SqliteTopics, partition: Partition, *sizes: int) -> None:
        for size in sizes:
            self.number += 1
            self.now += 1
            records = [NewRecord(b"%d" % each) for each in range(size)]
            body = self.codec.encode(records, f"b{self.number}", 5, Compression())
            await engine.append([Append(partition, size, body, Stamp("p", self.number))])

    async def batches(self, engine: SqliteTopics, partition: Partition) -> Sequence[StoredBatch]:
        low = (await engine.extents(partition.topic))[partition.number].low
        found: Sequence[StoredBatch] = await engine.read(partition, low, 10**9)
        return found

    def refusal(self, name: str) -> str:
        """Return why no daemon starts on a folder."""
        daemon = RunningDaemon("--interval=1h", data=self.root / name)
        self.addCleanup(daemon.__exit__)
        self.assertRaises(StartFailed, daemon.start)
        (line,) = daemon.refusals
        return line

    async def test_while_it_is_written_to(self) -> None:
        """Q-37, Q-45, Q-52: batches, positions, delayed records, in several passes and a last one.

        Between them no daemon starts on the new side, and after the last one not on the old one.
        """
        held = DataFolder(self.folder("old"))
        held.open()
        self.addCleanup(held.close)
        old = await self.engine("old")
        await old.create("orders", TopicSettings(partitions=2))
        await self.append(old, P0, 2, 3, 1)
        await old.drop_below(P0, 2)
        said = await self.moved()
        self.assertRegex(said, r"orders\W+0\W+2\W+4\W")
        self.assertIn("The daemon runs: what it writes from now on is not copied yet", said)
        await self.append(old, P0, 5)
        await self.append(old, P1, 1, 1)
        await self.moved()
        self.assertIn(
            "is being moved, and not all of it is here yet; 'kupool migrate", self.refusal("new")
        )
        await self.append(old, P1, 4)
        await old.commit("readers", {P0: 7, P1: 6})
        (delay_id,) = await old.delay([Append(P1, 1, b"later")], 2_000_000_000_000)
        self.assertTrue(delay_id)
        before = [await self.batches(old, partition) for partition in (P0, P1)]
        await old.close()
        held.close()
        said = await self.moved()
        self.assertIn("18 records of ", said)
        self.assertIn("2 positions of groups were moved", said)
        self.assertIn(f"Start the daemon with --config {self.root}/new.yaml", said)
        new = await self.engine("new")
        for partition, found in zip((P0, P1), before, strict=True):
            copied = await self.batches(new, partition)
            self.assertEqual([b[1:] for b in copied], [b[1:] for b in found])
        self.assertEqual(await new.committed("readers"), {P0: 5, P1: 6})
        self.assertEqual([d.due for d in await new.delayed("orders")], [2_000_000_000_000])
        self.assertEqual(await new.append([Append(P1, 4, b"again", Stamp("p", 7))]), [2])
        await new.close()
        self.assertIn("its data was moved to", self.refusal("old"))
        self.assertIn("were moved to", await self.moved())
        daemon = RunningDaemon("--interval=1h", data=self.root / "new")
        self.addCleanup(daemon.__exit__)
        daemon.start()
        self.assertEqual(daemon.stop(), 0)

    async def test_undone(self) -> None:
        """The old side is in use again, and the new one is not."""
        self.folder("old")
        old = await self.engine("old")
        await old.create("orders", TopicSettings(partitions=2))
        await self.append(old, P0, 2)
        await old.close()
        await self.moved()
        self.assertIn("was moved to", self.refusal("old"))
        self.assertIn("starts with", await self.moved("--undo"))
        self.assertIn("was undone", self.refusal("new"))
        self.folder("old")
        again = await self.migrate()
        self.assertEqual(again.returncode, 1)
        self.assertIn("of a move that was undone", again.stderr)

    async def test_a_daemon_on_the_new_side(self) -> None:
        """Q-18: nobody else writes where topics are moved to."""
        self.folder("old")
        old: Any = await self.engine("old")
        await old.close()
        held = DataFolder(self.folder("new"))
        held.open()
        self.addCleanup(held.close)
        ended = await self.migrate()
        self.assertEqual(ended.returncode, 1)
        self.assertIn("in use by another process", ended.stderr)
