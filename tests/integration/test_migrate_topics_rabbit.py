"""Q-37: topics are moved from a file to RabbitMQ and back, on a real broker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from kupool.migration.positions import Unmoved
from kupool.migration.rabbit_topic_source import RabbitTopicSource
from kupool.migration.topic_move import TopicMove, TopicsCopied, TopicSide
from kupool.migration.topic_progress import TopicMoveProgress
from kupool.migration.topic_source import SqliteTopicSource
from kupool.storage.database import Database
from kupool.topics.batches import Compression, RecordCodec
from kupool.topics.interfaces import Append, StoredBatch
from kupool.topics.partition import Partition
from kupool.topics.rabbit.engine import RabbitTopics
from kupool.topics.rabbit.store import SqliteTopicStore
from kupool.topics.records import NewRecord, Stamp
from kupool.topics.settings import TopicSettings
from kupool.topics.sqlite import SqliteTopics
from tests.servers.reactor import the_reactor
from tests.servers.services import rabbit

P0, P1 = Partition("orders", 0), Partition("orders", 1)


class Silent:
    """A report that nobody reads."""

    def begin(self, text: str, total: int) -> None:
        """Do nothing."""

    def advance(self, steps: int) -> None:
        """Do nothing."""


class RabbitMoveTests(TestCase):
    timeout = 180

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.url = rabbit().new_vhost()
        self.codec = RecordCodec()
        self.now, self.number = 1_800_000_000.0, 0

    def wall(self) -> float:
        return self.now

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.sqlite"

    def sqlite(self, name: str) -> SqliteTopics:
        return SqliteTopics(Database(the_reactor(), self.file(name), "topics"), Clock(), self.wall)

    def rabbit(self) -> tuple[RabbitTopics, SqliteTopicStore]:
        store = SqliteTopicStore(Database(the_reactor(), self.file("rabbit"), "topics_rabbit"))
        return RabbitTopics(the_reactor(), self.wall, self.url, store), store

    async def append(self, engine: Any, partition: Partition, *sizes: int) -> None:
        for size in sizes:
            self.number += 1
            self.now += 1
            records = [NewRecord(b"%d/%d" % (self.number, each)) for each in range(size)]
            body = self.codec.encode(records, f"b{self.number}", 5, Compression())
            await engine.append([Append(partition, size, body, Stamp("p", self.number))])

    async def batches(self, engine: Any, partition: Partition) -> Sequence[StoredBatch]:
        low = (await engine.extents(partition.topic))[partition.number].low
        found: list[StoredBatch] = []
        while more := await engine.read(partition, low, 10**9):
            found += more
            low = more[-1].base + more[-1].records
        return found

    async def move(
        self, kinds: tuple[str, str], source: Any, target: Any, **how: bool
    ) -> TopicsCopied:
        """Move between two engines, with the progress of these two."""
        progress = TopicMoveProgress(self.file("-".join(kinds)))
        try:
            sides = [TopicSide(kind, kind, kind, self.file(kind)) for kind in kinds]
            move = TopicMove(sides[0], sides[1], progress, wall=self.wall)
            self.assertFalse(move.begin())
            return await move.copy(source, target, Silent(), **how, log_position=Unmoved())
        finally:
            progress.close()

    async def test_there_and_back(self) -> None:
        """Q-37, Q-45, Q-24: batches, times, positions and marks are the same, in several passes."""
        old = self.sqlite("old")
        await old.open()
        await old.create("orders", TopicSettings(partitions=2))
        await self.append(old, P0, *[2, 3, 1] * 20)
        new, store = self.rabbit()
        await new.open()
        source = SqliteTopicSource(the_reactor(), self.file("old"))
        await source.open()
        await self.move(("old", "new"), source, new, running=True)
        await self.append(old, P0, 5)
        await self.append(old, P1, 1, 4)
        await old.commit("readers", {P0: 4, P1: 5})
        await old.delay([Append(P1, 1, b"later")], 2_000_000_000_000)
        for _ in range(3):
            await old.next_generation("readers")
        copied = await self.move(("old", "new"), source, new, running=False)
        self.assertEqual(copied.positions, 2)
        before = [await self.batches(old, place) for place in (P0, P1)]
        for place, theirs in zip((P0, P1), before, strict=True):
            ours = await self.batches(new, place)
            self.assertEqual([batch[1:] for batch in ours], [batch[1:] for batch in theirs])
            self.assertEqual(copied.compared[place].records, sum(b.records for b in ours))
        ours = await self.batches(new, P0)
        where = await new.committed("readers")
        self.assertEqual(where[P0], ours[1].base + 2)
        self.assertEqual(await new.read(P1, where[P1], 100), [])
        self.assertEqual([each.due for each in await new.delayed("orders")], [2_000_000_000_000])
        self.assertGreater(await new.next_generation("readers"), 3)
        again = Append(P0, 2, before[0][0].body, Stamp("p", 58))
        self.assertEqual(await new.append([again]), [ours[57].base])
        await gatherResults([old.close(), new.close()])
        await source.close()

        new, store = self.rabbit()
        back = self.sqlite("back")
        await back.open()
        rabbit_source = RabbitTopicSource(new, store)
        await rabbit_source.open()
        copied = await self.move(("new", "back"), rabbit_source, back, running=False)
        for place, theirs in zip((P0, P1), before, strict=True):
            ours = await self.batches(back, place)
            self.assertEqual(ours, theirs)
        self.assertEqual(await back.committed("readers"), {P0: 4, P1: 5})
        self.assertEqual([each.due for each in await back.delayed("orders")], [2_000_000_000_000])
        self.assertGreater(await back.next_generation("readers"), 4)
        await rabbit_source.close()
        await back.close()
