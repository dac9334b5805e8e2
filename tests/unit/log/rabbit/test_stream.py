"""The reader of the stream: how much it fetches, and that nothing is missed or seen twice."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp.channel import BrokerMessage
from kupool.log import Entry
from kupool.log.rabbit.stream import AHEAD, ENOUGH, SETTLING, StreamReader
from kupool.log.rabbit.topology import Topology


class Stream:
    """A stream of some entries; stands for the link, its connection and its channel."""

    def __init__(self, count: int, size: int = 1) -> None:
        body = bytes(size)
        self.messages = [
            BrokerMessage(0, f"e{number}", {"x-stream-offset": number}, body, False)
            for number in range(count)
        ]
        #: How many fences pass before the messages are there.
        self.late = 0
        #: The offset and the prefetch of each fetch.
        self.fetches: list[tuple[int, int]] = []
        self._prefetch = 0

    async def up(self, seconds: float) -> Stream:
        return self

    async def channel(self) -> Stream:
        return self

    async def prefetch(self, count: int) -> None:
        self._prefetch = count

    async def consume(self, queue: str, arguments: dict[str, Any]) -> Stream:
        self.fetches.append((arguments["x-stream-offset"], self._prefetch))
        return self

    async def fence(self, exchange: str) -> None:
        self.late -= 1

    async def arrived(self) -> list[BrokerMessage]:
        if self.late >= 0:
            return []
        start, count = self.fetches[-1]
        return self.messages[start : start + count]

    async def close(self) -> None:
        pass


class ReadingTests(SynchronousTestCase):
    """K-47, K-77: the log is read again in as few fetches as its size allows."""

    def setUp(self) -> None:
        self.clock = Clock()

    def reader(self, stream: Stream) -> StreamReader:
        return StreamReader(self.clock, stream, Topology())  # type: ignore[arg-type]

    def read(self, stream: Stream, limit: int) -> list[Entry]:
        """Read all of a stream."""
        reader = self.reader(stream)
        found: list[Entry] = []
        while entries := self.next(reader, found[-1].position if found else 0, limit):
            self.assertLessEqual(len(entries), limit)
            found += entries
        return found

    def next(self, reader: StreamReader, after: int, limit: int) -> list[Entry]:
        reading = Deferred.fromCoroutine(reader.read(after, limit))
        self.clock.advance(SETTLING)  # which only a read at the end waits for
        return list(self.successResultOf(reading))

    def test_on_and_on(self) -> None:
        """K-47: who reads on gets more with each fetch, and every entry once and in order."""
        stream = Stream(20_000)
        found = self.read(stream, 50)
        self.assertEqual([entry.position for entry in found], list(range(1, 20_001)))
        sizes = [size for _, size in stream.fetches]
        self.assertEqual(sizes[:5], [AHEAD, 2 * AHEAD, 4 * AHEAD, 8 * AHEAD, 16 * AHEAD])
        self.assertEqual(max(sizes), 5000)
        self.assertLess(len(sizes), 12)

    def test_large_entries(self) -> None:
        """Fetches of large entries do not grow: what is held in memory stays bounded."""
        stream = Stream(1000, ENOUGH // AHEAD + 1)
        self.assertEqual(len(self.read(stream, 50)), 1000)
        self.assertEqual({size for _, size in stream.fetches}, {AHEAD})

    def test_elsewhere(self) -> None:
        """Who begins somewhere else begins with little."""
        stream = Stream(5000)
        reader = self.reader(stream)
        self.next(reader, 0, AHEAD)
        self.next(reader, AHEAD, AHEAD)
        (first, *_) = self.next(reader, 4000, 50)
        self.assertEqual(first.position, 4001)
        self.assertEqual(stream.fetches, [(0, AHEAD), (AHEAD, 2 * AHEAD), (4000, AHEAD)])

    def test_again(self) -> None:
        """What was fetched is not fetched again, from wherever in it one reads."""
        stream = Stream(AHEAD)
        reader = self.reader(stream)
        self.next(reader, 0, 10)
        found = self.next(reader, 17, 3)
        self.assertEqual([entry.position for entry in found], [18, 19, 20])
        self.assertEqual(len(stream.fetches), 1)

    def test_what_was_just_confirmed(self) -> None:
        """K-53: an entry that the stream shows a moment after its confirm is not missed."""
        stream = Stream(1)
        stream.late = 1
        reading = Deferred.fromCoroutine(self.reader(stream).read(0, 10))
        self.assertNoResult(reading)
        self.clock.advance(SETTLING)
        self.assertEqual([entry.entry_id for entry in self.successResultOf(reading)], ["e0"])
        self.assertEqual(len(stream.fetches), 1)
