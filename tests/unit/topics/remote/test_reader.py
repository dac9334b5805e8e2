"""A consumer without a group."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from kupool.errors import FORBIDDEN, OFFSET_OUT_OF_RANGE
from kupool.topics.errors import OffsetOutOfRange, UnknownPartition, UnreadableBatch
from kupool.topics.interfaces import Append
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.partition import Partition
from kupool.topics.remote.failures import RefusedByServer, TopicsClosed
from kupool.topics.remote.reader import ReaderSettings, StartPlace, TopicReader
from tests.fakes.remote_topics import RemoteCase

P0 = Partition("t", 0)


class ReaderCase(RemoteCase):
    def reader(self, start: StartPlace = "earliest", **settings: Any) -> TopicReader:
        reader = TopicReader(self.topics(), "t", start, ReaderSettings(**settings))
        self.addCleanup(lambda: self.network.run(reader.stop(), patience=5))
        return reader

    def next(self, reader: TopicReader) -> Deferred[DeliveredRecord]:
        return Deferred.fromCoroutine(reader.__anext__())

    def values(self, reader: TopicReader, count: int) -> list[bytes]:
        return [self.result(self.next(reader), 60.0).record.value for _ in range(count)]


class StartTests(ReaderCase):
    """Q-40: where it begins."""

    def test_earliest(self) -> None:
        self.write(b"a", b"b")
        reader = self.reader()
        self.assertEqual(self.values(reader, 2), [b"a", b"b"])
        self.assertEqual(reader.positions, {0: 2, 1: 0})

    def test_latest(self) -> None:
        self.write(b"a")
        reader = self.reader("latest")
        waiting = self.next(reader)
        self.network.advance(30.0)
        self.assertNoResult(waiting)
        self.write(b"b")
        self.assertEqual(self.result(waiting).record.value, b"b")

    def test_a_time(self) -> None:
        """Q-17."""
        self.write(b"a")
        self.network.advance(10.0)
        self.write(b"b")
        self.assertEqual(self.values(self.reader(5000), 1), [b"b"])

    def test_offsets(self) -> None:
        """Q-50: from where another one was; other partitions are left out."""
        self.write(b"a", b"b", b"c")
        self.write(b"other", partition=1)
        reader = self.reader({0: 1})
        self.assertEqual(self.values(reader, 2), [b"b", b"c"])
        waiting = self.next(reader)
        self.network.advance(30.0)
        self.assertNoResult(waiting)
        waiting.addErrback(lambda failure: None)

    def test_a_partition_that_is_not_there(self) -> None:
        reader = self.reader({2: 0})
        for _ in range(2):  # and it says so again
            with self.assertRaises(UnknownPartition):
                self.result(self.next(reader))

    def test_what_is_gone(self) -> None:
        """Q-04: it goes on with the oldest record."""
        for value in (b"a", b"b"):
            self.write(value)
        self.result(self.server.topics.engine.drop_below(P0, 1))
        self.assertEqual(self.values(self.reader({0: 0}), 1), [b"b"])


class IterationTests(ReaderCase):
    def test_async_for(self) -> None:
        """Q-58: pulled, one record after the other, those of a partition in order."""
        self.write(*(b"%d" % number for number in range(50)))
        self.write(*(b"%d" % number for number in range(50)), partition=1)
        reader = self.reader(max_bytes=100)
        found: dict[int, list[bytes]] = {0: [], 1: []}

        async def read() -> int:
            count = 0
            async for delivery in reader:
                found[delivery.partition.number].append(delivery.record.value)
                count += 1
                if count == 100:
                    break
            return count

        self.assertEqual(self.result(Deferred.fromCoroutine(read()), 10.0), 100)
        self.assertEqual(found[0], [b"%d" % number for number in range(50)])
        self.assertEqual(found[1], found[0])

    def test_it_reads_ahead_only_so_far(self) -> None:
        """Q-49, Q-58: what was not taken is not fetched."""
        for number in range(100):
            self.write(b"%d" % number)
        reader = self.reader(read_ahead=10, max_bytes=1)
        self.values(reader, 1)
        self.network.advance(30.0)
        fetches = [p for m, p in self.server.asked if m == "log.fetch" and p["partition"] == 0]
        self.assertLessEqual(len(fetches), 12)
        self.assertEqual(self.values(reader, 99), [b"%d" % number for number in range(1, 100)])

    def test_pushed(self) -> None:
        """Q-58: the next record comes when the handler is done."""
        self.write(b"a", b"b", b"c")
        seen: list[bytes] = []
        held: list[Deferred[None]] = []

        def handle(delivery: DeliveredRecord) -> Deferred[None]:
            seen.append(delivery.record.value)
            held.append(Deferred())
            return held[-1]

        reader = self.reader()
        done = reader.deliver(handle)
        self.network.advance(5.0)
        self.assertEqual(seen, [b"a"])
        held.pop().callback(None)
        self.network.settle()
        self.assertEqual(seen, [b"a", b"b"])
        held.pop().errback(RuntimeError("mine"))
        self.network.settle()
        self.failureResultOf(done, RuntimeError)
        self.assertEqual(seen, [b"a", b"b"])

    def test_pause(self) -> None:
        """Q-49."""
        self.write(b"a", b"b")
        reader = self.reader()
        self.assertEqual(self.values(reader, 1), [b"a"])
        reader.pause()
        waiting = self.next(reader)
        self.network.advance(5.0)
        self.assertNoResult(waiting)
        reader.resume()
        self.assertEqual(self.result(waiting).record.value, b"b")

    def test_stop_while_it_is_paused(self) -> None:
        self.write(b"a")
        reader = self.reader()
        reader.pause()
        done = reader.deliver(lambda delivery: self.fail("it was paused"))
        self.network.advance(1.0)
        self.result(reader.stop())
        self.assertIs(self.successResultOf(done), None)

    def test_stop(self) -> None:
        """The iteration ends, and nothing is asked any more."""
        reader = self.reader()
        done = reader.deliver(lambda delivery: None)
        self.network.advance(1.0)
        self.result(reader.stop())
        self.assertIs(self.successResultOf(done), None)
        asked = len(self.server.asked)
        self.write(b"a")
        self.network.advance(60.0)
        self.assertEqual(len(self.server.asked), asked)


class FaultTests(ReaderCase):
    def test_lost_connections(self) -> None:
        """Q-39: it goes on by itself, with nothing left out and nothing twice."""
        reader = self.reader(wait=1.0)
        found: list[bytes] = []
        done = reader.deliver(lambda delivery: found.append(delivery.record.value))
        for number in range(30):
            self.write(b"%d" % number)
            if number % 3 == 0:
                self.network.cut()
            self.network.advance(0.4)
        self.stop()
        self.write(b"30")
        self.network.advance(40.0)
        self.serve()
        self.network.advance(40.0)
        self.assertEqual(found, [b"%d" % number for number in range(31)])
        self.assertNoResult(done)

    def test_a_range_that_cannot_be(self) -> None:
        """Q-62: it does not ask for the same offset without an end."""
        reader = self.reader()
        self.server.answers["log.fetch"] = lambda params: OFFSET_OUT_OF_RANGE.about("low=0 high=9")
        with self.assertRaises(OffsetOutOfRange):
            self.result(self.next(reader))

    def test_its_client_is_closed(self) -> None:
        topics = self.topics()
        reader = TopicReader(topics, "t")
        waiting = self.next(reader)
        self.network.advance(1.0)
        self.result(topics.close())
        self.network.advance(20.0)
        self.failureResultOf(waiting, TopicsClosed)

    def test_a_refusal_ends_it(self) -> None:
        self.write(b"a")
        reader = self.reader()
        self.assertEqual(self.values(reader, 1), [b"a"])
        self.server.answers["log.fetch"] = lambda params: FORBIDDEN
        self.network.cut()
        waiting = self.next(reader)
        self.network.advance(30.0)
        self.failureResultOf(waiting, RefusedByServer)


class UnreadableTests(ReaderCase):
    """Q-08: a batch that cannot be read is an error that names it, and is never left out by
    itself.
    """

    def spoil(self, records: int = 3) -> None:
        append = Append(P0, records, b"\x01garbage")
        self.result(self.server.topics.engine.append([append]))

    def test_it_is_told_once_and_others_go_on(self) -> None:
        self.write(b"a")
        self.spoil()
        self.write(b"b")
        reader = self.reader()
        self.assertEqual(self.values(reader, 1), [b"a"])
        with self.assertRaises(UnreadableBatch) as caught:
            self.result(self.next(reader), 60.0)
        error = caught.exception
        self.assertEqual((error.partition, error.offset, error.next_offset), (P0, 1, 4))
        self.assertIn("partition 0 of topic t, batch at offset 1: its checksum", str(error))
        waiting = self.next(reader)
        self.network.advance(60.0)
        self.assertNoResult(waiting)
        self.write(b"c", partition=1)
        self.network.advance(60.0)
        self.assertEqual(self.result(waiting).record.value, b"c")
        self.assertEqual(reader.positions, {0: 1, 1: 1})

    def test_it_is_left_out_when_it_is_said_so(self) -> None:
        self.spoil()
        self.write(b"b")
        reader = self.reader()
        with self.assertRaises(UnreadableBatch):
            self.result(self.next(reader), 60.0)
        self.assertIs(reader.skip(Partition("t", 1)), False)
        self.assertIs(reader.skip(P0), True)
        self.assertIs(reader.skip(P0), False)
        self.assertEqual(reader.positions[0], 3)
        self.assertEqual(self.values(reader, 1), [b"b"])

    def test_stopped_before_one(self) -> None:
        self.spoil()
        reader = self.reader()
        with self.assertRaises(UnreadableBatch):
            self.result(self.next(reader), 60.0)
        self.result(reader.stop(), 5)
        with self.assertRaises(StopAsyncIteration):
            self.result(self.next(reader))
