"""Partitions as they are read: their ends from memory, what is before them from the broker."""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IReactorTime

from kupool.amqp import BrokerError
from kupool.topics.errors import OffsetOutOfRange, TopicsUnavailable
from kupool.topics.interfaces import PartitionExtent, StoredBatch
from kupool.topics.partition import Partition
from kupool.topics.rabbit.broker import StreamBroker
from kupool.topics.rabbit.directory import TopicDirectory
from kupool.topics.rabbit.entries import STRIDE
from kupool.topics.rabbit.sending import all_of
from kupool.topics.rabbit.tail import StreamTail

#: Seconds for which the first position of a stream is believed.
FRESH = 5.0

#: Partitions of which the extent is asked for at once.
_AT_ONCE = 16

#: Bytes to read at once, where everything is counted.
_COUNTED = 4 * 1024 * 1024


class StreamReading:
    """Reads partitions; waits ``patience`` seconds for a broker that is away."""

    def __init__(
        self,
        clock: IReactorTime,
        broker: StreamBroker,
        directory: TopicDirectory,
        *,
        patience: float,
    ) -> None:
        self._clock = clock
        self._broker = broker
        self._directory = directory
        self._patience = patience
        #: Stream -> when its first position was asked for, and which it was.
        self._firsts: dict[str, tuple[float, int]] = {}

    def forget(self, stream: str) -> None:
        """Forget the first position of a stream, which was deleted."""
        self._firsts.pop(stream, None)

    def read(
        self, partition: Partition, offset: int, max_bytes: int
    ) -> Deferred[list[StoredBatch]]:
        """Return the batch that holds an offset, or the next one, and those behind it.

        Raises :class:`UnknownTopic` and :class:`UnknownPartition`; fails with
        :class:`OffsetOutOfRange` and :class:`TopicsUnavailable`.
        """
        tail = self._broker.tail(self._directory.stream(partition))
        if offset >= self._directory.low(self._directory.place(partition)):
            found = tail.read(offset, max_bytes)
            if found is not None:
                return succeed(found)
        return Deferred.fromCoroutine(self._read(partition, offset, max_bytes))

    async def _read(self, partition: Partition, offset: int, max_bytes: int) -> list[StoredBatch]:
        tail = await self._followed(partition)
        if offset >= self._directory.low(self._directory.place(partition)):
            found = tail.read(offset, max_bytes)
            if found is None:
                found = await self._history(tail.stream, offset, max_bytes)
            if found and found[0].base // STRIDE <= offset // STRIDE:
                return found
            extent = await self._extent(partition)
            if offset >= extent.low:
                return found
        else:
            extent = await self._extent(partition)
        raise OffsetOutOfRange(*partition, offset, low=extent.low, high=extent.high)

    async def _history(self, stream: str, offset: int, max_bytes: int) -> list[StoredBatch]:
        try:
            return await self._broker.history.read(stream, max(0, offset), max_bytes)
        except BrokerError as error:
            raise TopicsUnavailable(f"stream {stream} cannot be read: {error}") from None

    async def _followed(self, partition: Partition) -> StreamTail:
        """Return the end of a partition once it is known."""
        until = self._clock.seconds() + self._patience
        while True:
            tail = self._broker.tail(self._directory.stream(partition))
            if tail.ready:
                return tail
            left = until - self._clock.seconds()
            if left <= 0:
                raise TopicsUnavailable(self._broker.problem or f"stream {tail.stream}: no answer")
            await tail.news().addTimeout(left, self._clock, lambda *_: None)

    # -- extents

    async def end_of(self, partition: Partition) -> int:
        """Return the next position of a partition; raises as :meth:`read`."""
        tail = await self._followed(partition)
        assert tail.next is not None
        return tail.next

    async def extents(self, topic: str) -> list[PartitionExtent]:
        """Return what the partitions of a topic hold; raises :class:`UnknownTopic` and
        :class:`TopicsUnavailable`.
        """
        partitions = self._directory.topic(topic).settings.partitions
        turns = DeferredSemaphore(_AT_ONCE)

        def one(number: int) -> Deferred[PartitionExtent]:
            return Deferred.fromCoroutine(self._extent(Partition(topic, number)))

        asked = [turns.run(one, number) for number in range(partitions)]
        return await all_of(asked)

    async def _extent(self, partition: Partition) -> PartitionExtent:
        tail = await self._followed(partition)
        assert tail.next is not None
        first = await self._first(tail) if tail.next else 0
        high = tail.next * STRIDE
        low = max(first * STRIDE, self._directory.low(self._directory.place(partition)))
        return PartitionExtent(min(low, high), high, 0)

    async def _first(self, tail: StreamTail) -> int:
        """Return the first position of a stream; the broker drops what is before."""
        known = self._firsts.get(tail.stream)
        now = self._clock.seconds()
        if known is not None and now < known[0] + FRESH:
            return known[1]
        try:
            entries = await self._broker.history.entries(tail.stream, "first", 1)
        except BrokerError as error:
            raise TopicsUnavailable(f"stream {tail.stream} cannot be read: {error}") from None
        first = entries[0].position if entries else 0
        self._firsts[tail.stream] = (now, first)
        return first

    # -- searching

    async def find(self, partition: Partition, at: int) -> int:
        """Return the offset of the first batch appended at a time or later, by halving."""
        extent = await self._extent(partition)
        low, high, found = extent.low // STRIDE, extent.high // STRIDE, extent.high
        if extent.low % STRIDE:
            low += 1
        while low < high:
            middle = (low + high) // 2
            batches = await self._read(partition, middle * STRIDE, 1)
            if not batches or batches[0].base >= high * STRIDE:
                high = middle  # there are only copies from there on
            elif batches[0].at >= at:
                found, high = batches[0].base, middle
            else:
                low = batches[0].base // STRIDE + 1
        return found

    async def count_below(self, partition: Partition, offset: int) -> tuple[int, int]:
        """Return how many records the batches have that end below an offset, or at it, and the
        offset of the next batch.
        """
        extent = await self._extent(partition)
        count, low = 0, extent.low
        while low < min(offset, extent.high):
            for batch in await self._read(partition, low, _COUNTED) or ():
                if batch.base + batch.records > offset:
                    return count, low
                count, low = count + batch.records, batch.base + STRIDE
                if low >= extent.high:
                    break
            else:
                continue
            break
        return count, low

    async def find_message(
        self, partition: Partition, position: int, message_id: str
    ) -> int | None:
        """Return the offset of the first message of an id from a position on; None if there is
        none.
        """
        end, stream = await self.end_of(partition), self._directory.stream(partition)
        while position < end:
            try:
                entries = await self._broker.history.entries(stream, position, 1000)
            except BrokerError as error:
                raise TopicsUnavailable(f"stream {stream} cannot be read: {error}") from None
            if not entries:
                break
            for entry in entries:
                if entry.message_id == message_id:
                    return entry.batch.base
            position = entries[-1].position + 1
        return None


__all__ = ["FRESH", "StreamReading"]
