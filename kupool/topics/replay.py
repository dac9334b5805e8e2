"""Replay: reads the records of a topic again, at full speed or at the speed of their timestamps.

It joins no group and saves nothing, so it disturbs nobody who reads. The records of a partition
come in their order. Of several partitions, the record with the earliest timestamp comes first.
Nothing is read before it is wanted: a reader that takes its time holds one fetch of each partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kupool.topics.errors import OffsetOutOfRange
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.partition import Partition
from kupool.topics.records import Record
from kupool.topics.service import Topics


@dataclass(frozen=True)
class ReplaySettings:
    """How records are replayed.

    ``speed`` is a factor: 1 is the speed of the timestamps, 2 is twice as fast; 0 does not wait.
    ``longest_wait`` is the most seconds between two records: a pause or a wrong timestamp takes no
    longer. ``max_bytes`` is the size of a fetch of one partition.
    """

    speed: float = 0.0
    longest_wait: float = 3600.0
    max_bytes: int = 256 * 1024


class _ReplayedPartition:
    """A partition: what was fetched, where to go on, and where to end."""

    def __init__(self, offset: int, end: int) -> None:
        self.fetched: deque[Record] = deque()
        self.offset = offset
        self.end = end


class TopicReplay:
    """An asynchronous iterator of :class:`~kupool.topics.lanes.DeliveredRecord`.

    ``place`` returns the offset to begin with in a partition, as :meth:`Topics.earliest`, or a
    function that calls :meth:`Topics.at_time`. It ends behind the records that were there when it
    began. What retention drops meanwhile is left out. Raises what :meth:`Topics.fetch` fails with.
    Cancelling the Deferred of the coroutine that iterates ends a wait.
    """

    def __init__(
        self,
        topics: Topics,
        clock: IReactorTime,
        topic: str,
        place: Callable[[Partition], Deferred[int]],
        *,
        settings: ReplaySettings,
    ) -> None:
        self._topics = topics
        self._clock = clock
        self._topic = topic
        self._place = place
        self._settings = settings
        self._partitions: dict[Partition, _ReplayedPartition] | None = None
        #: The timestamp of the next record of each partition that has one.
        self._next: list[tuple[int, Partition]] = []
        #: The partition whose record was handed out last.
        self._taken: Partition | None = None
        #: The time and the timestamp of the newest record so far.
        self._at: tuple[float, int] | None = None

    def __aiter__(self) -> TopicReplay:
        """Return itself."""
        return self

    async def __anext__(self) -> DeliveredRecord:
        """Return the next record, when its time has come."""
        if self._partitions is None:
            self._partitions = await self._begin()
        elif self._taken is not None:
            await self._refill(self._taken, self._partitions[self._taken])
            self._taken = None
        if not self._next:
            raise StopAsyncIteration
        _, partition = heappop(self._next)
        self._taken = partition
        record = self._partitions[partition].fetched.popleft()
        await self._wait_until_due(record.timestamp)
        return DeliveredRecord(partition, record)

    async def _begin(self) -> dict[Partition, _ReplayedPartition]:
        """Look where the partitions begin and end, and fetch the first records of each."""
        found = {}
        description = await self._topics.describe(self._topic)
        for number, extent in enumerate(description.partitions):
            partition = Partition(self._topic, number)
            replayed = _ReplayedPartition(await self._place(partition), extent.high)
            found[partition] = replayed
            await self._refill(partition, replayed)
        return found

    async def _refill(self, partition: Partition, replayed: _ReplayedPartition) -> None:
        """Have the next record of a partition compete, if there is one."""
        while not replayed.fetched and replayed.offset < replayed.end:
            try:
                fetched = await self._topics.fetch(
                    partition, replayed.offset, max_bytes=self._settings.max_bytes
                )
            except OffsetOutOfRange as error:
                if error.low <= replayed.offset:
                    raise
                replayed.offset = error.low
                continue
            replayed.offset = fetched.next_offset if fetched.records else replayed.end
            replayed.fetched.extend(r for r in fetched.records if r.offset < replayed.end)
        if replayed.fetched:
            heappush(self._next, (replayed.fetched[0].timestamp, partition))

    async def _wait_until_due(self, timestamp: int) -> None:
        """Wait as long after the newest record so far as the timestamps say."""
        speed, now = self._settings.speed, self._clock.seconds()
        if not speed:
            return
        due = now
        if self._at is not None:
            at, newest = self._at
            due = at + min(max(0, timestamp - newest) / 1000 / speed, self._settings.longest_wait)
            timestamp = max(timestamp, newest)
        self._at = (due, timestamp)
        if due > now:
            await deferLater(self._clock, due - now)


__all__ = ["ReplaySettings", "TopicReplay"]
