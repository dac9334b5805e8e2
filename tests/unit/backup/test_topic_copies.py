"""Q-86: topics are in a backup, and after a restore no offset is used a second time."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.backup import BackupError, NoBar
from kupool.backup.checking import check_backup
from kupool.backup.making import Source, make_backup
from kupool.backup.restoring import Into, Refused, Restored, restore_backup
from kupool.backup.topic_copies import EACH_SECOND, GENERATIONS, MARGIN
from kupool.backup.verifying import verify_folder
from kupool.log import Epoch, Identity
from tests.fakes.data_folder import change, query, write_log, write_store, write_topics

POOL = Identity("pool1", (Epoch("e1", 0),))

#: 2026-11-21 10:05:00, in seconds since the epoch.
NOW = 1_795_255_500.0

#: The offset at which new records go on, for a backup of 10 seconds ago that ends at 5.
FOLLOWING = 5 + MARGIN + 10 * EACH_SECOND


class TopicBackupTests(SynchronousTestCase):
    """The folder ``data`` has a topic ``t`` with offsets 0 to 4 in partition 0."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.data, self.target, self.new = (self.root / name for name in ("data", "bk", "new"))
        write_log(self.data, POOL, 10)
        write_store(self.data, POOL, 8)
        write_topics(self.data, "t", 2, 3)
        self.new.mkdir()

    def make(self, *parts: str) -> Any:
        source = Source(self.data, parts or ("log", "store", "topics"), "sqlite", "sqlite")
        return make_backup(source, self.target, NoBar(), lambda: NOW)

    def restore(self, *, force: bool = False, wait: float = 10.0) -> Restored:
        into = Into(self.new, ("log", "store"), 30.0)
        return restore_backup(self.target, into, NoBar(), lambda: NOW + wait, force=force)

    def partitions(self) -> list[tuple[object, ...]]:
        return query(self.new, "topics", "SELECT low, next FROM partitions ORDER BY id")

    def test_what_the_manifest_says(self) -> None:
        """The offsets, batches and records of each partition, and which release reads it."""
        self.make()
        manifest = json.loads((self.target / "backup.json").read_bytes())
        self.assertEqual(manifest["format"], 2)
        self.assertEqual(
            manifest["topics"],
            [
                {"topic": "t", "partition": 0, "low": 0, "high": 5, "batches": 2, "records": 5},
                {"topic": "t", "partition": 1, "low": 0, "high": 0, "batches": 0, "records": 0},
            ],
        )
        self.assertIn("topics.sqlite", manifest["files"])
        self.assertEqual(check_backup(self.target, NoBar())[0].topics[0].records, 5)

    def test_topics_of_another_backup(self) -> None:
        """A manifest that was made to fit the file, but not what is in it."""
        self.make()
        path = self.target / "backup.json"
        text = json.loads(path.read_bytes())
        text["topics"][0]["records"] = 4
        path.write_text(json.dumps(text))
        error = self.assertRaises(BackupError, check_backup, self.target, NoBar())
        self.assertIn("the topics are not those of the manifest", str(error))

    def test_restored(self) -> None:
        """Records, groups and settings are those of the backup; what follows has new offsets."""
        change(self.data, "topics", "INSERT INTO group_positions VALUES ('end', 1, 5)")
        change(self.data, "topics", "INSERT INTO group_positions VALUES ('middle', 1, 3)")
        change(self.data, "topics", "INSERT INTO topic_groups VALUES ('end', 7)")
        self.make()
        self.restore()
        self.assertEqual(self.partitions(), [(0, FOLLOWING), (0, FOLLOWING - 5)])
        positions = "SELECT group_name, next FROM group_positions ORDER BY 1"
        self.assertEqual(query(self.new, "topics", positions), [("end", FOLLOWING), ("middle", 3)])
        generations = query(self.new, "topics", "SELECT generation FROM topic_groups")
        self.assertEqual(generations, [(7 + GENERATIONS,)])
        write_topics(self.new, "t", 1)
        self.assertEqual(self.partitions()[0], (0, FOLLOWING + 1))
        self.assertEqual(verify_folder(self.new, ("topics",), NoBar()).faults, [])

    def test_restored_twice(self) -> None:
        """Nothing was written in between: there is one gap, and the file is in order."""
        self.make()
        self.restore()
        shutil.rmtree(self.target)
        self.data, self.new = self.new, self.root / "newer"
        self.new.mkdir()
        self.make()
        self.restore(wait=0)
        gaps = query(self.new, "topics", "SELECT * FROM offset_gaps")
        self.assertEqual(gaps, [(1, 5, FOLLOWING + MARGIN), (2, 0, FOLLOWING + MARGIN - 5)])
        self.assertEqual(verify_folder(self.new, ("topics",), NoBar()).faults, [])

    def test_positions_in_the_submissions(self) -> None:
        """Q-86: the topic is empty here, since its records are in the log: positions stay."""
        write_topics(self.data, "submissions", partitions=1)
        change(self.data, "topics", "INSERT INTO group_positions VALUES ('g', 3, 65537)")
        change(self.data, "topics", "INSERT INTO group_positions VALUES ('h', 3, 0)")
        self.make()
        self.restore()
        positions = "SELECT group_name, next FROM group_positions ORDER BY 1"
        self.assertEqual(query(self.new, "topics", positions), [("g", 65537), ("h", 0)])

    def test_over_newer_topics(self) -> None:
        """They are refused, and say by how much; new offsets are above theirs."""
        self.make()
        shutil.copytree(self.data, self.new, dirs_exist_ok=True)
        write_topics(self.new, "t", *[1] * 100)
        write_topics(self.new, "u", 1)
        error = self.assertRaises(Refused, self.restore)
        self.assertIn(
            "partition 0 of its topic t ends at offset 105, that of the backup at 5; "
            "1 other partitions have more as well",
            str(error),
        )
        done = self.restore(force=True)
        self.assertEqual(self.partitions()[0], (0, FOLLOWING + 100))
        assert done.replaced is not None
        old = query(done.replaced, "topics", "SELECT max(next) FROM partitions")
        self.assertEqual(old, [(105,)])

    def test_a_clock_that_was_set_back(self) -> None:
        self.make()
        self.restore(wait=-1e6)
        self.assertEqual(self.partitions()[0], (0, 5 + MARGIN))

    def test_offsets_are_not_used_up(self) -> None:
        """A backup of long ago costs a part of the offsets only, however often it is restored."""
        self.make()
        self.restore(wait=1e9)
        ((_, following), _) = self.partitions()
        assert isinstance(following, int)
        self.assertLess(following, 2**43 // 16 + 10)

    def test_a_backup_of_an_older_release(self) -> None:
        """It has no topics: those of the folder stay as they are."""
        manifest = self.make("log", "store")
        self.assertEqual(manifest.format, 1)
        path = self.target / "backup.json"
        text = json.loads(path.read_bytes())
        del text["topics"]
        path.write_text(json.dumps(text))
        write_topics(self.new, "mine", 3)
        self.restore()
        self.assertEqual(self.partitions(), [(0, 3), (0, 0)])
        self.assertEqual(query(self.new, "log", "SELECT max(position) FROM entries"), [(10,)])

    def test_topics_alone(self) -> None:
        """With the log in RabbitMQ and the counts in PostgreSQL."""
        manifest = self.make("topics")
        self.assertEqual(manifest.parts, ("topics",))
        into = Into(self.new, ("topics",), 30.0)
        restore_backup(self.target, into, NoBar(), lambda: NOW + 10)
        self.assertEqual(self.partitions()[0], (0, FOLLOWING))
