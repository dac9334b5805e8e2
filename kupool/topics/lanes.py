"""Records that are processed in parallel, those of one key in order. Pure.

Each key of a partition is a lane: its records are processed one after the other. Records without a
key have no order, and no lane. Lanes take turns, so that a key with many records does not keep the
others waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import NamedTuple

from kupool.topics.partition import Partition
from kupool.topics.records import Record


class DeliveredRecord(NamedTuple):
    """A record that is handed to a consumer; ``attempt`` is 1 the first time."""

    partition: Partition
    record: Record
    attempt: int = 1


class KeyLanes:
    """Decides which record is processed next, with at most so many at a time."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        #: Lane -> its records that wait, the first of which is being processed if it is busy.
        self._lanes: dict[Hashable, deque[DeliveredRecord]] = {}
        #: Lanes with a record that may be processed, in the order of their turns.
        self._ready: deque[Hashable] = deque()
        self.running = 0
        self.waiting = 0

    def add(self, delivery: DeliveredRecord) -> None:
        """Add a record behind the others of its key."""
        lane = _lane_of(delivery)
        queue = self._lanes.get(lane)
        if queue is None:
            self._lanes[lane] = deque((delivery,))
            self._ready.append(lane)
        else:
            queue.append(delivery)
        self.waiting += 1

    def next(self) -> DeliveredRecord | None:
        """Return the record to process now; None if there is none, or no worker is free."""
        if self.running >= self._workers or not self._ready:
            return None
        delivery = self._lanes[self._ready.popleft()][0]
        self.running += 1
        self.waiting -= 1
        return delivery

    def done(self, delivery: DeliveredRecord) -> None:
        """A record is processed: the next one of its key may be."""
        lane = _lane_of(delivery)
        queue = self._lanes[lane]
        queue.popleft()
        self.running -= 1
        if queue:
            self._ready.append(lane)
        else:
            del self._lanes[lane]

    def drop(self, partition: Partition) -> None:
        """Forget the waiting records of a partition; those being processed stay."""
        ready = set(self._ready)
        for lane, queue in list(self._lanes.items()):
            if queue[0].partition != partition:
                continue
            busy = lane not in ready
            self.waiting -= len(queue) - busy
            if busy:
                self._lanes[lane] = deque((queue[0],))
            else:
                del self._lanes[lane]
                self._ready.remove(lane)


def _lane_of(delivery: DeliveredRecord) -> Hashable:
    key = delivery.record.key
    return (delivery.partition, delivery.record.offset if key is None else key)


__all__ = ["DeliveredRecord", "KeyLanes"]
