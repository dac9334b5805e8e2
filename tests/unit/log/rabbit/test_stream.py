"""The reader of the stream: how much it fetches, and that nothing is missed or seen twice."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp import BrokerError, BrokerUnreachable
from kupool.amqp.channel import BrokerMessage
from kupool.amqp.streams import SETTLING
from kupool.log import Entry, LogUnavailable
from kupool.log.rabbit import LogBrokerUnreachable
from kupool.log.rabbit.stream import AHEAD, ENOUGH, StreamReader
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
        self.fetches: list[tuple[Any, int]] = []
        self._prefetch = 0

        #: How many reads are interrupted before one succeeds; whether there is no broker at all.
        self.breaks, self.gone = 0, False
        #: How long a connection was waited for.
        self.patience = 0.0
        self.dropped: list[str] = []
        #: How many connections were waited for until they ended, and how many channels closed.
        self.ends = self.closes = 0
        #: What the broker sends for "last": the messages from this offset on.
        self.last_chunk = 0

    async def up(self, seconds: float) -> Stream:
        self.patience = seconds
        if self.gone:
            raise BrokerUnreachable("no broker answers")
        return self

    def drop(self, why: str) -> None:
        self.dropped.append(why)

    async def ended(self) -> None:
        self.ends += 1

    async def channel(self) -> Stream:
        return self

    async def prefetch(self, count: int) -> None:
        self._prefetch = count

    async def consume(self, queue: str, arguments: dict[str, Any]) -> Stream:
        if self.breaks:
            self.breaks -= 1
            raise BrokerError("interrupted")
        self.fetches.append((arguments["x-stream-offset"], self._prefetch))
        return self

    async def fence(self, exchange: str) -> None:
        self.late -= 1

    async def arrived(self) -> list[BrokerMessage]:
        if self.late >= 0:
            return []
        start, count = self.fetches[-1]
        places: dict[Any, int] = {"first": 0, "last": self.last_chunk}
        start = places.get(start, start)
        return self.messages[start : start + count]

    async def arrived_from_the_start(self) -> list[BrokerMessage]:
        return self.messages

    async def close(self) -> None:
        self.closes += 1


class ReadingTests(SynchronousTestCase):
    """K-47, K-77: the log is read again in as few fetches as its size allows."""

    def setUp(self) -> None:
        self.clock = Clock()

    def reader(self, stream: Stream, pool: str = "") -> StreamReader:
        return StreamReader(self.clock, stream, Topology(), lambda: pool)  # type: ignore[arg-type]

    def result(self, coroutine: Any) -> Any:
        """What it returns; a fetch that finds nothing waits for a moment."""
        done = Deferred.fromCoroutine(coroutine)
        self.clock.pump([SETTLING] * 3)
        return self.successResultOf(done)

    def offsets(self, messages: Any) -> list[int]:
        return [message.headers["x-stream-offset"] for message in messages]

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

    def test_how_large_entries_may_be_for_more_of_them(self) -> None:
        """A fetch of 4 MiB is large enough, and one of a byte less is not."""
        for size, following in ((4 << 20, AHEAD), ((4 << 20) - 1, 2 * AHEAD)):
            stream = Stream(1000)
            stream.messages[0] = stream.messages[0]._replace(body=bytes(size - AHEAD + 1))
            reader = self.reader(stream)
            self.next(reader, 0, AHEAD)
            self.next(reader, AHEAD, AHEAD)
            self.assertEqual([count for _, count in stream.fetches], [AHEAD, following])

    def test_elsewhere(self) -> None:
        """Who begins somewhere else begins with little."""
        stream = Stream(5000)
        reader = self.reader(stream)
        self.next(reader, 0, AHEAD)
        self.next(reader, AHEAD, AHEAD)
        (first, *_) = self.next(reader, 4000, 50)
        self.assertEqual(first.position, 4001)
        self.assertEqual(stream.fetches, [(0, AHEAD), (AHEAD, 2 * AHEAD), (4000, AHEAD)])
        self.assertEqual(stream.closes, 3)

    def test_again(self) -> None:
        """What was fetched is not fetched again, from wherever in it one reads."""
        stream = Stream(AHEAD)
        reader = self.reader(stream)
        self.next(reader, 0, 10)
        found = self.next(reader, 17, 3)
        self.assertEqual([entry.position for entry in found], [18, 19, 20])
        self.assertEqual([e.position for e in self.next(reader, AHEAD - 1, 3)], [AHEAD])
        self.assertEqual([e.position for e in self.next(reader, 0, 2)], [1, 2])
        self.assertEqual(len(stream.fetches), 1)

    def test_what_was_just_confirmed(self) -> None:
        """K-53: an entry that the stream shows a moment after its confirm is not missed."""
        stream = Stream(1)
        stream.late = 1
        reading = Deferred.fromCoroutine(self.reader(stream).read(0, 10))
        self.assertNoResult(reading)
        self.clock.advance(0.05)
        self.assertEqual([entry.entry_id for entry in self.successResultOf(reading)], ["e0"])
        self.assertEqual(len(stream.fetches), 1)

    def test_both_ends(self) -> None:
        """K-53: the newest are found although "last" is only the start of the last chunk."""
        stream = Stream(6000)
        stream.last_chunk = 10
        first, newest = self.result(self.reader(stream).ends())
        self.assertEqual(first.message_id, "e0")
        self.assertEqual(self.offsets(newest), list(range(5010, 6000)))
        self.assertEqual(stream.fetches, [("first", 1), ("last", 5000), (5010, 5000)])
        self.assertEqual(self.result(self.reader(stream).newest()), 5009)

    def test_more_than_one_fetch_behind_the_last_chunk(self) -> None:
        """K-53: a full fetch is not the end, and one that is not full is."""
        stream = Stream(10_020)
        stream.last_chunk = 10
        _, newest = self.result(self.reader(stream).ends())
        self.assertEqual(self.offsets(newest), list(range(10_010, 10_020)))
        self.assertEqual(stream.fetches[1:], [("last", 5000), (5010, 5000), (10_010, 5000)])

    def test_the_end_comes_with_the_first_fetch(self) -> None:
        stream = Stream(3)
        _, newest = self.result(self.reader(stream).ends())
        self.assertEqual(self.offsets(newest), [0, 1, 2])
        self.assertEqual(stream.fetches[2:], [(3, 5000)])

    def test_an_empty_stream(self) -> None:
        reader = self.reader(Stream(0))
        self.assertIsNone(self.result(reader.ends()))
        self.assertEqual(self.result(reader.newest()), -1)
        self.assertIsNone(self.result(reader.at(0)))
        self.assertEqual(self.result(reader.before(0)), [])

    def test_around_an_offset(self) -> None:
        stream = Stream(1000)
        reader = self.reader(stream)
        self.assertEqual(self.offsets(self.result(reader.before(500))), list(range(300, 500)))
        self.assertEqual(self.offsets(self.result(reader.before(5))), list(range(5)))
        self.assertEqual(self.offsets([self.result(reader.at(500))]), [500])
        self.assertEqual(stream.fetches, [(300, 200), (0, 200), (500, 1)])

    def test_messages_before_the_wanted_ones(self) -> None:
        """A broker sends whole chunks: what comes before the offset is left out."""
        stream = Stream(10)
        self.patch(stream, "arrived", Stream(10).arrived_from_the_start)
        self.assertEqual([e.position for e in self.next(self.reader(stream), 4, 10)],
                         [5, 6, 7, 8, 9, 10])  # fmt: skip

    def test_entries_of_another_pool(self) -> None:
        """They are passed over, in however many fetches they come."""
        stream = Stream(0)
        for number in range(AHEAD + 3):
            owner = "mine" if number == AHEAD else "theirs"
            headers = {"x-stream-offset": number, "pool": owner}
            stream.messages.append(BrokerMessage(0, f"e{number}", headers, b"", False))
        found = self.next(self.reader(stream, "mine"), 0, 10)
        self.assertEqual([entry.position for entry in found], [AHEAD + 1])
        self.assertEqual(stream.fetches, [(0, 200), (200, 200)])

    def test_the_start_of_the_epoch_moves(self) -> None:
        """Positions begin after it, and what was fetched is not handed out under old ones."""
        stream = Stream(3)
        reader = self.reader(stream)
        self.next(reader, 0, 1)
        reader.rebase(100)
        self.assertEqual(reader.base, 100)
        self.assertEqual([e.position for e in self.next(reader, 0, 10)], [101, 102, 103])
        self.assertEqual([e.position for e in self.next(reader, 102, 10)], [103])
        self.assertEqual([e.position for e in self.next(self.reader(stream), -5, 1)], [1])

    def test_interrupted(self) -> None:
        """K-72: a read is tried on three connections; then the caller is told."""
        stream = Stream(3)
        stream.breaks = 2
        self.assertEqual(len(self.next(self.reader(stream), 0, 10)), 3)
        self.assertEqual(len(stream.dropped), 2)
        stream.breaks = 3
        failed = Deferred.fromCoroutine(self.reader(stream).read(0, 10))
        self.assertIn("interrupted", str(self.failureResultOf(failed, LogUnavailable).value))
        self.assertEqual((len(stream.dropped), stream.breaks), (5, 0))
        # The next attempt would get the same connection until it has ended.
        self.assertEqual(stream.ends, 5)

    def test_no_broker(self) -> None:
        """K-72: a read waits a quarter of a minute for a connection."""
        stream = Stream(3)
        stream.gone = True
        failed = Deferred.fromCoroutine(self.reader(stream).read(0, 10))
        self.failureResultOf(failed, LogBrokerUnreachable)
        self.assertEqual(stream.patience, 15.0)
