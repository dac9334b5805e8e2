"""What every store of a live channel does.

A store is added by a subclass of :class:`LiveStoreContract` that makes one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from kupool.live.breaker import BreakerLimits
from kupool.live.durable import DurableHistory, topic_breaker
from kupool.live.history import MemoryHistory
from kupool.live.interfaces import IChannelStore
from kupool.live.publications import (
    ClientDetails,
    NewPublication,
    PublicationPriority,
    PublishedRecord,
    StreamPosition,
)
from kupool.storage.database import Database
from kupool.topics.memory import MemoryTopics
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.settings import TopicSettings
from kupool.topics.sqlite import SqliteTopics
from tests.fakes.live import new, offsets, topics_on
from tests.servers.reactor import the_reactor

WALL = 1_800_000_000.0

#: A publication with everything that it may have.
FULL = NewPublication(
    data=b'{"a":1}',
    info=ClientDetails("c", "bob", b'{"i":1}', b""),
    tags={"region": "eu"},
    event_id="e1",
    priority=PublicationPriority.HIGH,
    device="d",
    event_type="t",
    key="k",
    sequence=7,
)


class LiveStoreContract:
    """W-75: the suite; mixed into a TestCase by each store."""

    #: Whether only the newest publication is kept.
    newest_only = False

    def make_store(self) -> Any:
        """Return an empty store, or a Deferred of it."""
        raise NotImplementedError

    async def store(self, *data: Any) -> Any:
        store = await maybeDeferred(self.make_store)
        for each in data:
            await store.append(new(each))
        return store

    async def test_interface(self) -> None:
        self.assertTrue(verifyObject(IChannelStore, await self.store()))

    async def test_an_empty_one(self) -> None:
        store = await self.store()
        position = await store.position()
        self.assertEqual(position.offset, 0)
        for part in (await store.after(0, 10), await store.newest(10)):
            self.assertEqual((list(part.publications), part.position), ([], position))
            self.assertEqual((part.missed, part.more), (0, False))
        self.assertEqual(await store.count_after(0), (0, True))

    async def test_offsets_grow_by_one(self) -> None:
        store = await self.store()
        appended = [await store.append(new(each)) for each in range(3)]
        self.assertEqual(offsets(appended), [1, 2, 3])
        self.assertEqual((await store.position()).offset, 3)
        self.assertAlmostEqual(appended[0].time, WALL, delta=10)

    async def test_everything_is_kept(self) -> None:
        """W-34, W-55: whatever a publication has."""
        store = await self.store()
        appended = await store.append(FULL)
        (read,) = (await store.after(0, 10)).publications
        for found in (appended, read):
            for name in NewPublication.__struct_fields__:
                self.assertEqual(getattr(found, name), getattr(FULL, name), name)
        self.assertEqual((read.offset, int(read.time)), (1, int(appended.time)))

    async def test_followed(self) -> None:
        """W-22: in order, before the one who publishes hears of it, and from then on alone."""
        store = await self.store(0)
        heard: list[PublishedRecord] = []
        position = await store.follow(heard.append, heard.append)
        self.assertEqual(position.offset, 1)
        for each in range(1, 5):
            record = await store.append(new(each))
            self.assertEqual(heard[-1].offset, record.offset)
        self.assertEqual(offsets(heard), [2, 3, 4, 5])
        self.assertEqual([each.data for each in heard], [b"1", b"2", b"3", b"4"])
        store.unfollow()
        await store.append(new(5))
        self.assertEqual(len(heard), 4)
        again: list[PublishedRecord] = []
        self.assertEqual((await store.follow(again.append, again.append)).offset, 6)
        await store.append(new(6))
        self.assertEqual((offsets(again), len(heard)), ([7], 4))
        store.unfollow()

    async def test_read_from_an_offset(self) -> None:
        """W-75."""
        store = await self.store(*range(5))
        part = await store.after(2, 10)
        expected = [5] if self.newest_only else [3, 4, 5]
        self.assertEqual(offsets(part.publications), expected)
        self.assertEqual((part.missed, part.exact, part.more), (0, True, False))
        self.assertEqual(part.position.offset, 5)
        part = await store.after(5, 10)
        self.assertEqual((list(part.publications), part.missed, part.more), ([], 0, False))

    async def test_read_behind_the_end(self) -> None:
        """W-75: whoever asks for what is not there yet is told where the end is."""
        store = await self.store(*range(2))
        for offset in (3, 2**63, 10**30):
            part = await store.after(offset, 10)
            self.assertEqual((list(part.publications), part.position.offset), ([], 2), offset)

    async def test_read_in_parts(self) -> None:
        store = await self.store(*range(5))
        offset, found, more = 0, [], True
        while more:
            part = await store.after(offset, 2)
            found += part.publications
            offset, more = part.publications[-1].offset, part.more
        self.assertEqual(offsets(found), [5] if self.newest_only else [1, 2, 3, 4, 5])

    async def test_from_a_time(self) -> None:
        """W-75: all that was published from a time on is behind the position."""
        store = await self.store(*range(3))
        begin, end = await store.before(0.0), await store.before(WALL + 3600)
        self.assertEqual(end, await store.position())
        self.assertEqual(begin.epoch, end.epoch)
        part = await store.after(begin.offset, 10)
        self.assertEqual(offsets(part.publications), [3] if self.newest_only else [1, 2, 3])

    async def test_counted(self) -> None:
        store = await self.store(*range(5))
        counts = [await store.count_after(offset) for offset in (0, 2, 5)]
        expected = [1, 1, 0] if self.newest_only else [5, 3, 0]
        self.assertEqual(counts, [(each, True) for each in expected])

    async def test_newest(self) -> None:
        store = await self.store(*range(5))
        for limit, expected in ((0, []), (1, [5]), (3, [3, 4, 5]), (9, [1, 2, 3, 4, 5])):
            part = await store.newest(limit)
            self.assertEqual(
                offsets(part.publications), expected[-1:] if self.newest_only else expected
            )
            self.assertEqual(part.position.offset, 5)

    async def test_newest_before_an_offset(self) -> None:
        store = await self.store(*range(5))
        for limit, before, expected in (
            (2, 4, [2, 3]),
            (9, 3, [1, 2]),
            (2, 99, [4, 5]),
            (2, 1, []),
            (2, 0, []),
        ):
            part = await store.newest(limit, before)
            if self.newest_only:
                expected = [each for each in expected if each == 5]
            self.assertEqual(offsets(part.publications), expected, (limit, before))

    async def test_forgotten(self) -> None:
        """What is forgotten is missed, and offsets go on."""
        store = await self.store(*range(3))
        epoch = (await store.position()).epoch
        await store.forget()
        self.assertEqual(await store.position(), StreamPosition(3, epoch))
        self.assertEqual((await store.newest(5)).publications, [])
        self.assertEqual((await store.append(new(3))).offset, 4)
        part = await store.after(1, 10)
        self.assertEqual(offsets(part.publications), [4])
        self.assertEqual((part.missed, part.exact), (0 if self.newest_only else 2, True))
        self.assertEqual(await store.count_after(1), (1 if self.newest_only else 3, True))

    async def test_expiry_of_an_empty_one(self) -> None:
        self.assertTrue((await self.store()).expire())


class MemoryStoreTests(LiveStoreContract, TestCase):
    def make_store(self) -> MemoryHistory:
        return MemoryHistory(
            StreamPosition(0, "e"), the_reactor().seconds, lambda: WALL, size=100, seconds=60
        )


class LatestStoreTests(LiveStoreContract, TestCase):
    newest_only = True

    def make_store(self) -> MemoryHistory:
        return MemoryHistory(
            StreamPosition(0, "e"),
            the_reactor().seconds,
            lambda: WALL,
            size=0,
            newest_only=True,
        )


class DurableContract(LiveStoreContract):
    """Others may write to the partition of a durable channel."""

    def make_engine(self) -> Any:
        raise NotImplementedError

    async def make_store(self) -> DurableHistory:  # type: ignore[override]
        engine = self.make_engine()
        await engine.open()
        self.addCleanup(engine.close)
        await engine.create("t", TopicSettings(partitions=2))
        self.topics = topics_on(engine, the_reactor(), lambda: WALL)
        return DurableHistory(
            self.topics,
            Partition("t", 1),
            "e",
            clock=the_reactor(),
            wall=lambda: WALL,
            breaker=topic_breaker("t", the_reactor(), BreakerLimits()),
        )

    async def store(self, *data: Any) -> Any:
        store = await Deferred.fromCoroutine(self.make_store())
        self.addCleanup(store.unfollow)
        for each in data:
            await store.append(new(each))
        return store

    async def test_another_writer_is_followed(self) -> None:
        """W-22: all records of the partition are publications, JSON or not."""
        store = await self.store()
        heard: list[PublishedRecord] = []
        await store.follow(heard.append, heard.append)
        records = [NewRecord(b'{"x":1}'), NewRecord(b"\xff text", headers={"live": "no"})]
        await self.topics.produce("t", records, partition=1)
        await self.topics.produce("t", [NewRecord(b"0")], partition=0)
        await store.append(new("own"))
        self.assertEqual(
            [each.data for each in heard], [b'{"x":1}', '"\ufffd text"'.encode(), b'"own"']
        )
        self.assertEqual(offsets(heard), [1, 2, 3])


class DurableInMemoryTests(DurableContract, TestCase):
    def make_engine(self) -> MemoryTopics:
        return MemoryTopics(lambda: WALL)


class DurableInSqliteTests(DurableContract, TestCase):
    """W-75: what was published is still there for another process, under the same epoch."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def make_engine(self) -> SqliteTopics:
        return SqliteTopics(
            Database(the_reactor(), self.path, "topics"), the_reactor(), lambda: WALL
        )

    async def test_after_a_restart(self) -> None:
        await self.store(1, 2)
        await self.topics.engine.close()
        engine = self.make_engine()
        await engine.open()
        self.addCleanup(engine.close)
        topics = topics_on(engine, the_reactor(), lambda: WALL)
        again = DurableHistory(
            topics,
            Partition("t", 1),
            "e",
            clock=the_reactor(),
            wall=lambda: WALL,
            breaker=topic_breaker("t", the_reactor(), BreakerLimits()),
        )
        self.assertEqual(await again.position(), StreamPosition(2, "e"))
        self.assertEqual((await again.append(new(3))).offset, 3)
        part = await again.after(1, 10)
        self.assertEqual([each.data for each in part.publications], [b"2", b"3"])
