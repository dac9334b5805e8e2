"""A consumer without a group: reads the partitions of a topic from anywhere.

::

    reader = TopicReader(topics, "clicks", "earliest")
    async for delivery in reader:
        print(delivery.partition, delivery.record)
        if enough:
            break
    await reader.stop()

It saves nothing: :attr:`TopicReader.positions` says where to go on. Each partition is read ahead,
as far as the settings permit, and no further until the records were taken.

At a batch that cannot be read the iteration fails once with :class:`UnreadableBatch`, which has
the partition and the offset. Iterate on for the other partitions, and for that one after
:meth:`TopicReader.skip`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.callbacks import called
from kupool.timing.doubling import Doubling
from kupool.timing.waiting import Waiters
from kupool.topics.errors import (
    OffsetOutOfRange,
    TopicsUnavailable,
    UnknownPartition,
    UnreadableBatch,
)
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.partition import Partition
from kupool.topics.remote.failures import AnswerLost, NotSent, TopicsClosed
from kupool.topics.remote.topics import RemoteTopics

#: Seconds before something is tried again that failed.
_RETRIES = Doubling(0.1, 10.0)

#: Where to begin: ``earliest``, ``latest``, milliseconds since the epoch, or the offset in each
#: partition that is read.
StartPlace = str | int | Mapping[int, int]


@dataclass(frozen=True)
class ReaderSettings:
    """How a reader reads: at most ``read_ahead`` records that were not taken yet, ``max_bytes`` in
    a request, which waits ``wait`` seconds for new records.
    """

    read_ahead: int = 1000
    max_bytes: int = 256 * 1024
    wait: float = 5.0


class TopicReader:
    """Iterates over the records of a topic, those of one partition in order, without an end.

    The connection may be lost meanwhile. The iteration fails with what the server refuses. If the
    oldest records are gone, it goes on with those that are there, and the log says so.
    """

    _log = Logger()

    def __init__(
        self,
        topics: RemoteTopics,
        topic: str,
        start: StartPlace = "earliest",
        settings: ReaderSettings | None = None,
    ) -> None:
        self._topics = topics
        self._topic = topic
        self._start = start
        self._settings = settings or ReaderSettings()
        #: The offset to read next in each partition, behind what was taken.
        self.positions: dict[int, int] = {}
        #: What was read and not taken: records, and batches that cannot be read.
        self._records: deque[DeliveredRecord | UnreadableBatch] = deque()
        #: The batches before which partitions stand, and what lets each go on.
        self._standing: dict[Partition, tuple[UnreadableBatch, Deferred[None]]] = {}
        #: Told when there is a record, or the end.
        self._news: Waiters[None] = Waiters()
        #: Told when there is room for more.
        self._room: Waiters[None] = Waiters()
        self._loops: list[Deferred[None]] = []
        self._error: Exception | None = None
        self._paused = self._stopped = self._begun = False

    def __aiter__(self) -> TopicReader:
        """Iterate over it; it has one iteration."""
        return self

    async def __anext__(self) -> DeliveredRecord:
        """Return the next record, when there is one."""
        if not self._begun:
            await self._begin()
            self._begun = True
        while not self._records or self._paused:
            if self._error is not None:
                raise self._error
            if self._stopped:
                raise StopAsyncIteration
            await self._news.wait()
        delivery = self._records.popleft()
        if len(self._records) < self._settings.read_ahead:
            self._room.tell(None)
        if isinstance(delivery, UnreadableBatch):
            raise delivery
        self.positions[delivery.partition.number] = delivery.record.offset + 1
        return delivery

    def deliver(self, handler: Callable[[DeliveredRecord], object]) -> Deferred[None]:
        """Give each record to a handler, the next one when it is done with the one before.

        The handler may return a Deferred or a coroutine. Fires after :meth:`stop`; fails with what
        the handler raises, and as the iteration does.
        """
        return Deferred.fromCoroutine(self._deliver(handler))

    async def _deliver(self, handler: Callable[[DeliveredRecord], object]) -> None:
        async for delivery in self:
            await called(handler, delivery)

    def pause(self) -> None:
        """Hand out nothing more until :meth:`resume`."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        self._news.tell(None)

    def skip(self, partition: Partition) -> bool:
        """Leave out the batch that cannot be read, before which a partition stands; returns whether
        it stands before one.
        """
        error, skipped = self._standing.pop(partition, (None, None))
        if error is None or skipped is None:
            return False
        self.positions[partition.number] = error.next_offset
        skipped.callback(None)
        return True

    def stop(self) -> Deferred[None]:
        """End the iteration, and what is asked of the server."""
        self._stopped = True
        self._records.clear()
        for loop in self._loops:
            loop.cancel()
        self._news.tell(None)
        return gatherResults(self._loops).addCallback(lambda _: None)

    # -- reading

    async def _begin(self) -> None:
        for number, offset in (await self._places()).items():
            self.positions[number] = offset
        if self._stopped:
            return
        self._loops = [
            Deferred.fromCoroutine(self._read(Partition(self._topic, number)))
            for number in self.positions
        ]
        for loop in self._loops:
            loop.addErrback(self._failed)

    async def _places(self) -> Mapping[int, int]:
        """Return the offset to begin with in each partition."""
        if isinstance(self._start, Mapping):
            count = len(await self._topics.offsets(self._topic))
            for number in self._start:
                if not 0 <= number < count:
                    raise UnknownPartition(self._topic, number, count)
            return self._start
        return dict(enumerate(await self._topics.offsets(self._topic, self._start)))

    async def _read(self, partition: Partition) -> None:
        offset, delay = self.positions[partition.number], 0.0
        while not self._stopped:
            if len(self._records) >= self._settings.read_ahead:
                await self._room.wait()
                continue
            try:
                fetched = await self._topics.fetch(
                    partition, offset, max_bytes=self._settings.max_bytes, wait=self._settings.wait
                )
            except OffsetOutOfRange as error:
                if error.low <= offset:
                    raise  # it would be asked for without an end
                self._log.warn("The reader goes on at the oldest record: {why}", why=str(error))
                offset = error.low
                continue
            except UnreadableBatch as error:
                skipped: Deferred[None] = Deferred()
                self._standing[partition] = (error, skipped)
                self._records.append(error)
                self._news.tell(None)
                await skipped
                offset = error.next_offset
                continue
            except TopicsClosed:
                raise
            except (NotSent, AnswerLost, TopicsUnavailable) as error:
                delay = _RETRIES.after(delay)
                self._log.warn(
                    "Partition {partition} cannot be read, trying again in {delay:g} s: {why}",
                    partition=str(partition),
                    delay=delay,
                    why=str(error),
                )
                await deferLater(self._topics.clock, delay)
                continue
            delay = 0.0
            self._records.extend(DeliveredRecord(partition, record) for record in fetched.records)
            offset = fetched.next_offset
            if fetched.records:
                self._news.tell(None)

    def _failed(self, failure: Failure) -> None:
        if self._stopped:
            return  # its requests were cancelled
        error = failure.value
        self._error = error if isinstance(error, Exception) else RuntimeError(repr(error))
        self._news.tell(None)


__all__ = ["ReaderSettings", "StartPlace", "TopicReader"]
