"""Records that wait to be sent, as batches: those of one lane in order, one batch at a time.

A lane is a topic, or a partition of one. A batch is sent when it is full, or when its oldest record
has waited long enough. While one is under way the records behind it wait, and become the next one.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec
from twisted.internet.defer import Deferred

from kupool.topics.service import Written


class LaneName(NamedTuple):
    """The topic that records are written to, and the partition; None if the server chooses it."""

    topic: str
    partition: int | None = None


class WaitingWrite(NamedTuple):
    """Records that are written together, as JSON of ``size`` bytes, and who waits for the outcome.

    ``deadline`` is in seconds of the clock.
    """

    records: list[msgspec.Raw]
    size: int
    deadline: float
    outcome: Deferred[list[Written]]


class WriteBatch(NamedTuple):
    """What is sent in one request."""

    writes: list[WaitingWrite]
    records: list[msgspec.Raw]
    deadline: float


class BatchLane:
    """The writes of one lane that wait, in order.

    A batch has at most ``most_records`` and ``most_bytes``, or is a single write that has more.
    """

    def __init__(self, most_records: int, most_bytes: int) -> None:
        self._most_records = most_records
        self._most_bytes = most_bytes
        self._writes: deque[WaitingWrite] = deque()
        self._records = self._size = 0
        #: Whether a batch is under way.
        self.busy = False

    def __len__(self) -> int:
        """Return the number of writes that wait."""
        return len(self._writes)

    @property
    def full(self) -> bool:
        """Whether what waits fills a batch."""
        return self._records >= self._most_records or self._size >= self._most_bytes

    def add(self, write: WaitingWrite) -> None:
        """Add a write behind the others."""
        self._writes.append(write)
        self._records += len(write.records)
        self._size += write.size

    def take(self) -> WriteBatch:
        """Remove the writes of the next batch; there has to be one."""
        writes: list[WaitingWrite] = []
        records: list[msgspec.Raw] = []
        size = 0
        while self._writes:
            write = self._writes[0]
            many = len(records) + len(write.records) > self._most_records
            if writes and (many or size + write.size > self._most_bytes):
                break
            writes.append(self._writes.popleft())
            records += write.records
            size += write.size
        self._records -= len(records)
        self._size -= size
        return WriteBatch(writes, records, min(each.deadline for each in writes))


__all__ = ["BatchLane", "LaneName", "WaitingWrite", "WriteBatch"]
