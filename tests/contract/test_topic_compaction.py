"""What every engine of topics that compacts does with the records of a key."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from kupool.storage.database import Database
from kupool.topics.errors import SequenceTooOld
from kupool.topics.interfaces import Append, CompactionKey, PartitionExtent
from kupool.topics.memory import MemoryTopics
from kupool.topics.partition import Partition
from kupool.topics.records import Stamp
from kupool.topics.settings import TopicSettings
from kupool.topics.sqlite import SqliteTopics
from tests.servers.reactor import the_reactor

P0, P1 = Partition("t", 0), Partition("t", 1)


class CompactionContract:
    """Q-12, Q-38: the suite; mixed into a TestCase by each engine."""

    def make_engine(self) -> Any:
        """Return an engine on a place of its own."""
        raise NotImplementedError

    async def engine(self, **settings: Any) -> Any:
        """Return an open engine with a topic ``t``."""
        engine = self.opened = self.make_engine()
        await engine.open()
        await engine.create("t", TopicSettings(**{"partitions": 2, **settings}))
        return engine

    def tearDown(self) -> Any:
        return self.opened.close()

    async def keyed(self, engine: Any, *keys: bytes, passing: bool = False) -> None:
        """Append a batch of one record for each key to the first partition."""
        for key in keys:
            await engine.append([Append(P0, 1, key, key=CompactionKey(key * 16, passing))])

    async def kept(self, engine: Any, offset: int = 0) -> list[tuple[int, bytes]]:
        """Return the offsets and bodies of what is read from an offset on."""
        return [(batch.base, batch.body) for batch in await engine.read(P0, offset, 10_000)]

    async def test_only_the_last_batch_of_a_key_is_kept(self) -> None:
        """Q-12: offsets stay, reads go on behind a gap, and the low end does not move."""
        engine = await self.engine(compaction="key", retention_time=100)
        await self.keyed(engine, b"a", b"b", b"a", b"c", b"b", b"a")
        await engine.append([Append(P1, 1, b"b", key=CompactionKey(b"b" * 16, False))])
        self.assertEqual(len(await self.kept(engine)), 6)
        self.assertEqual(await engine.trim(0), 3)
        for offset in range(4):
            self.assertEqual(
                await self.kept(engine, offset), [(3, b"c"), (4, b"b"), (5, b"a")], offset
            )
        self.assertEqual(await self.kept(engine, 5), [(5, b"a")])
        self.assertEqual(await self.kept(engine, 6), [])
        self.assertEqual(
            await engine.extents("t"), [PartitionExtent(0, 6, 3), PartitionExtent(0, 1, 1)]
        )
        self.assertEqual([await engine.find(P0, 0), await engine.find(P1, 0)], [3, 0])
        self.assertEqual(await engine.trim(1000), 0)
        await self.keyed(engine, b"c")
        self.assertEqual(await engine.trim(1000), 1)
        self.assertEqual(await self.kept(engine), [(4, b"b"), (5, b"a"), (6, b"c")])

    async def test_a_gap_in_the_middle(self) -> None:
        """Q-12: a read in the gap does not return what is before it."""
        engine = await self.engine(compaction="key")
        await self.keyed(engine, b"a", b"b", b"b", b"b", b"c")
        await engine.trim(0)
        for offset in (1, 2, 3):
            self.assertEqual(await self.kept(engine, offset), [(3, b"b"), (4, b"c")])
        self.assertEqual([base for base, _ in await self.kept(engine)], [0, 3, 4])

    async def test_many_batches_are_compacted_in_one_trim(self) -> None:
        """Q-12: however many parts it takes."""
        engine = await self.engine(compaction="key")
        await gatherResults(
            [Deferred.fromCoroutine(self.keyed(engine, b"a", b"b")) for _ in range(300)]
        )
        self.assertEqual(await engine.trim(0), 598)
        self.assertEqual(len(await self.kept(engine)), 2)

    async def test_a_passing_batch_goes_when_it_is_old(self) -> None:
        """Q-12: a key that was deleted is forgotten, unless its batch is the newest."""
        engine = await self.engine(compaction="key", retention_time=100)
        await self.keyed(engine, b"a", b"b")
        await self.keyed(engine, b"a", b"x", passing=True)
        self.assertEqual(await engine.trim(1000), 1)
        await self.keyed(engine, b"c")
        await self.keyed(engine, b"y", passing=True)
        await self.keyed(engine, b"d")
        self.assertEqual(await engine.trim(1099), 0)
        self.assertEqual(await engine.trim(1100), 2)
        self.assertEqual(await self.kept(engine), [(1, b"b"), (4, b"c"), (5, b"y"), (6, b"d")])
        self.assertEqual([await engine.trim(now) for now in (1198, 1199)], [0, 1])
        await self.keyed(engine, b"z", passing=True)
        self.assertEqual([await engine.trim(now) for now in (1300, 2000)], [0, 0])
        self.assertEqual(await self.kept(engine), [(1, b"b"), (4, b"c"), (6, b"d"), (7, b"z")])
        await self.keyed(engine, b"a")
        self.assertEqual(await engine.trim(2000), 1)
        self.assertEqual(await self.kept(engine), [(1, b"b"), (4, b"c"), (6, b"d"), (8, b"a")])
        self.assertEqual((await engine.extents("t"))[0], PartitionExtent(0, 9, 4))

    async def test_without_a_time_passing_batches_stay(self) -> None:
        """Q-12."""
        engine = await self.engine(compaction="key", retention_time=0)
        await self.keyed(engine, b"a", passing=True)
        await self.keyed(engine, b"b")
        self.assertEqual([await engine.trim(now) for now in (0, 1e9)], [0, 0])

    async def test_what_was_dropped_by_its_offset_is_not_compacted(self) -> None:
        """Q-12, Q-51."""
        engine = await self.engine(compaction="key", retention_time=10)
        await self.keyed(engine, b"a", b"b")
        await self.keyed(engine, b"x", passing=True)
        await self.keyed(engine, b"b", b"c")
        await engine.trim(0)
        await self.keyed(engine, b"b")
        self.assertEqual(await engine.drop_below(P0, 3), 2)
        await self.keyed(engine, b"a", b"x")
        self.assertEqual(await engine.trim(1000), 1)
        self.assertEqual(await self.kept(engine, 3), [(4, b"c"), (5, b"b"), (6, b"a"), (7, b"x")])
        self.assertEqual((await engine.extents("t"))[0], PartitionExtent(3, 8, 4))

    async def test_repeated_and_refused_batches_replace_nothing(self) -> None:
        """Q-12, Q-24."""
        engine = await self.engine(compaction="key")
        key = CompactionKey(b"a" * 16, False)
        for number in range(1, 7):
            await engine.append([Append(P1, 1, b"x", Stamp("p", number), key=key)])
        self.assertEqual(await engine.append([Append(P1, 1, b"x", Stamp("p", 4), key=key)]), [3])
        await self.keyed(engine, b"a")
        if engine.capabilities.atomic:
            again = [Append(P0, 1, b"y", key=key), Append(P1, 1, b"x", Stamp("p", 0), key=key)]
            with self.assertRaises(SequenceTooOld):
                await engine.append(again)
        self.assertEqual(await engine.trim(0), 5)
        self.assertEqual(await self.kept(engine), [(0, b"a")])
        self.assertEqual([batch.base for batch in await engine.read(P1, 0, 100)], [5])

    async def test_delayed_batches_are_compacted(self) -> None:
        """Q-12, Q-52."""
        engine = await self.engine(compaction="key", retention_time=10)
        await self.keyed(engine, b"a", b"b")
        late = [(b"a", False), (b"b", True)]
        await engine.delay(
            [Append(P0, 1, key, key=CompactionKey(key * 16, passing)) for key, passing in late], 1
        )
        await engine.append_due(1)
        await self.keyed(engine, b"c")
        self.assertEqual(await engine.trim(0), 2)
        self.assertEqual(await engine.trim(10), 1)
        self.assertEqual(await self.kept(engine), [(2, b"a"), (4, b"c")])

    async def test_a_topic_that_is_created_again_knows_no_keys(self) -> None:
        """Q-12, Q-26."""
        engine = await self.engine(compaction="key")
        await self.keyed(engine, b"a", b"b", b"a")
        await engine.delete("t")
        await engine.create("t", TopicSettings(partitions=2, compaction="key"))
        await self.keyed(engine, b"b", b"a")
        self.assertEqual(await engine.trim(0), 0)
        self.assertEqual(await self.kept(engine), [(0, b"b"), (1, b"a")])


class MemoryCompactionTests(CompactionContract, TestCase):
    """The engine in memory."""

    def make_engine(self) -> MemoryTopics:
        return MemoryTopics(lambda: 1_800_000_000.0)

    async def test_what_is_compacted_is_forgotten(self) -> None:
        """Q-12: no more is remembered of a topic than what it keeps."""
        engine = await self.engine(compaction="key", retention_time=10)
        await self.keyed(engine, b"a", b"b", b"a")
        await self.keyed(engine, b"b", passing=True)
        await self.keyed(engine, b"c")
        for now in range(0, 40, 10):
            await engine.trim(now)
        sequence = engine._partitions["t"][0]
        self.assertEqual(sequence.replaced, set())
        self.assertEqual(sorted(base for base, _ in sequence.newest_of_keys.values()), [2, 4])
        self.assertEqual(len(sequence.ages), 1)


class SqliteCompactionTests(CompactionContract, TestCase):
    """The engine in a SQLite file."""

    def make_engine(self) -> SqliteTopics:
        self.path = Path(self.mktemp())
        database = Database(the_reactor(), self.path, "topics")
        return SqliteTopics(database, Clock(), lambda: 1_800_000_000.0)

    def rows(self, sql: str) -> list[Any]:
        """Return what another process would find in the file."""
        with sqlite3.connect(self.path) as connection:
            found = connection.execute(sql).fetchall()
        connection.close()
        return found

    async def test_a_deleted_topic_frees_its_keys(self) -> None:
        """Q-12, Q-26: however many there are."""
        engine = await self.engine(compaction="key")
        keys = [CompactionKey(b"%016d" % number, False) for number in range(450)]
        for _ in range(2):
            await engine.append([Append(P0, 1, b"x", key=key) for key in keys])
        await engine.delete("t")
        for table in ("batches", "newest_of_keys", "replaced_batches", "deleted_partitions"):
            self.assertEqual(self.rows(f"SELECT count(*) FROM {table}"), [(0,)], table)

    async def test_what_is_compacted_leaves_no_rows(self) -> None:
        """Q-12: the tables of keys have what is kept, and no more."""
        engine = await self.engine(compaction="key", retention_time=10)
        await self.keyed(engine, b"a", b"b", b"a")
        await self.keyed(engine, b"b", passing=True)
        await self.keyed(engine, b"c")
        for now in range(0, 40, 10):
            await engine.trim(now)
        self.assertEqual(self.rows("SELECT base FROM newest_of_keys ORDER BY base"), [(2,), (4,)])
        self.assertEqual(self.rows("SELECT count(*) FROM replaced_batches"), [(0,)])
        self.assertEqual(self.rows("SELECT count(*) FROM ages"), [(1,)])
