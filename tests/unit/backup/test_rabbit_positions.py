"""Topics in RabbitMQ in backups: what is newer, what a restore passes over, what is damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.backup.bars import NoBar
from kupool.backup.checking import check_backup
from kupool.backup.making import Source, make_backup
from kupool.backup.rabbit_positions import (
    PASSED_OVER,
    GroupPlace,
    RabbitPositions,
    newer_positions,
    read_positions,
)
from kupool.backup.restoring import Into, Refused, restore_backup
from kupool.backup.verifying import verify_folder
from kupool.storage.database import Database, connect
from kupool.topics.batches import Compression, RecordCodec
from kupool.topics.partition import Partition
from kupool.topics.rabbit import statements
from kupool.topics.rabbit.statements import StoredPlace
from kupool.topics.rabbit.store import run_at_once
from kupool.topics.records import NewRecord
from kupool.topics.settings import TopicSettings

PARTS = ("topics_rabbit",)
BODY = RecordCodec().encode([NewRecord(b"late")], "b1", 5, Compression())


class PositionsTests(SynchronousTestCase):
    """Q-45, Q-52: which topics there are, where groups are, and what is delayed is copied."""

    def setUp(self) -> None:
        root = Path(self.mktemp())
        self.data, self.target, self.other = root / "data", root / "copy", root / "other"
        self.data.mkdir(parents=True)
        self.other.mkdir()
        self.file = self.data / "topics_rabbit.sqlite"
        Database(None, self.file, "topics_rabbit").check()
        topic = self.work(partial(statements.create, name="orders", settings=TopicSettings()))
        self.work(partial(statements.made, key=topic.key))
        self.place = StoredPlace(topic.key, 0)
        self.commit(65536)
        self.generation = self.work(partial(statements.next_generation, group="billing"))
        self.delay()

    def work(self, work: Any, file: Path | None = None) -> Any:
        with closing(connect(file or self.file)) as connection:
            return run_at_once(connection, work)

    def commit(self, offset: int) -> None:
        positions = {Partition("orders", 0): offset}
        self.work(partial(statements.commit_positions, group="billing", positions=positions))

    def delay(self, file: Path | None = None) -> int:
        (found,) = self.work(partial(statements.delay, rows=[(self.place, 1, BODY)], due=9), file)
        return int(found)

    def make(self) -> None:
        source = Source(self.data, PARTS, "rabbit", "pg")
        make_backup(source, self.target, NoBar(), lambda: 1.8e9)

    def restore(self, folder: Path, **how: bool) -> None:
        into = Into(folder, PARTS, 30.0)
        restore_backup(self.target, into, NoBar(), lambda: 1.8e9, **how)

    def test_there_and_back(self) -> None:
        """Q-45: positions are those of the backup; generations and ids are new ones."""
        self.make()
        manifest, contents = check_backup(self.target, NoBar())
        place = GroupPlace("billing", "orders", 0, 65536)
        self.assertEqual(contents.topics_rabbit, RabbitPositions(("orders",), (place,)))
        self.assertEqual((manifest.format, manifest.parts), (2, PARTS))
        self.restore(self.other)
        restored = self.other / "topics_rabbit.sqlite"
        with closing(connect(restored)) as connection:
            self.assertEqual(read_positions(connection), contents.topics_rabbit)
        again = self.work(partial(statements.next_generation, group="billing"), restored)
        self.assertGreater(again, self.generation + PASSED_OVER)
        self.assertGreater(self.delay(restored), PASSED_OVER)

    def test_newer(self) -> None:
        """Q-45: a folder whose groups are ahead is replaced with force only."""
        self.make()
        self.restore(self.data)
        self.commit(3 * 65536)
        error = self.assertRaises(Refused, self.restore, self.data)
        self.assertIn("its group billing is at offset 196,608 in partition 0", str(error))
        self.restore(self.data, force=True)

    def test_what_is_newer(self) -> None:
        one = GroupPlace("g", "t", 0, 5)
        known = RabbitPositions(("t",), (one,))
        self.assertEqual(newer_positions(known, None), [])
        self.assertEqual(newer_positions(known, known), [])
        self.assertEqual(newer_positions(known, RabbitPositions(("t",), ())), [])
        found = newer_positions(None, known)
        self.assertIn("it knows topic t in RabbitMQ", found[0])
        self.assertEqual(found[1:], ["1 other topics or groups have more as well"])

    def test_verified(self) -> None:
        """Q-08: what cannot be read is named."""
        found = verify_folder(self.data, PARTS, NoBar())
        self.assertEqual((found.faults, found.files[0].batches), ([], 1))
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            connection.execute("UPDATE log_topics SET settings = '{}x'")
            connection.execute("UPDATE log_delays SET body = x'00', topic_key = 7")
        whats = " ".join(fault.text for fault in verify_folder(self.data, PARTS, NoBar()).faults)
        self.assertIn("topics_rabbit.sqlite: a row of log_delays is of a topic that is not", whats)
        self.assertIn("the settings of topic orders cannot be read", whats)
        self.assertIn("delayed batch 1: ", whats)
