"""Batches on their way to their streams: published at once, or when the broker is back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, FirstError, fail, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from kupool.topics.errors import TopicError, TopicsUnavailable
from kupool.topics.partition import Partition
from kupool.topics.rabbit.broker import StreamBroker
from kupool.topics.rabbit.directory import TopicDirectory
from kupool.topics.rabbit.entries import APPENDED_AT, RECORDS, STRIDE

T = TypeVar("T")

#: Seconds between two looks for batches that have waited for too long.
_LOOK = 0.25


class BatchToPublish(NamedTuple):
    """A batch to publish, with the time to store; None for now."""

    partition: Partition
    message_id: str
    records: int
    body: bytes
    at: int | None = None


@dataclass(eq=False)
class _WaitingBatches:
    batches: Sequence[BatchToPublish]
    done: Deferred[list[int]]
    until: float
    size: int


class StreamSending:
    """Publishes batches in the order of the calls, of each partition.

    While the broker is away, or the end of a stream is not known yet, up to ``most`` batches of up
    to ``most_bytes`` wait, for ``patience`` seconds at most.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        broker: StreamBroker,
        directory: TopicDirectory,
        *,
        patience: float,
        most: int = 1000,
        most_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._broker = broker
        self._directory = directory
        self._patience = patience
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: list[_WaitingBatches] = []
        self._bytes = 0
        self._timer: IDelayedCall | None = None

    def send(self, batches: Sequence[BatchToPublish]) -> Deferred[list[int]]:
        """Publish batches; fires with the offset of the first record of each.

        Not all or none. Fails with :class:`UnknownTopic`, :class:`UnknownPartition` and
        :class:`TopicsUnavailable`.
        """
        try:
            ready = self._are_ready(batches)
            if not ready or self._waiting:
                waiting = {each.partition for one in self._waiting for each in one.batches}
                if not ready or any(each.partition in waiting for each in batches):
                    return self._wait(batches)
            obstacle = self._broker.obstacle
            if obstacle:
                raise TopicsUnavailable(obstacle)
        except TopicError as error:
            return fail(error)
        return self._publish(batches)

    def _are_ready(self, batches: Sequence[BatchToPublish]) -> bool:
        ready = self._broker.is_up
        for each in batches:
            if not self._broker.tail(self._directory.stream(each.partition)).ready:
                ready = False
        return ready

    def _publish(self, batches: Sequence[BatchToPublish]) -> Deferred[list[int]]:
        if len(batches) == 1:
            return self._publish_one(batches[0]).addCallback(_as_list)
        return all_of([self._publish_one(each) for each in batches])

    def _publish_one(self, batch: BatchToPublish) -> Deferred[int]:
        tail = self._broker.tail(self._directory.stream(batch.partition))
        # Of a partition, later batches have no earlier times, whatever the clock does.
        now = int(self._wall() * 1000) if batch.at is None else batch.at
        tail.newest_at = at = max(tail.newest_at, now)
        headers: dict[str, Any] = {RECORDS: batch.records, APPENDED_AT: at}
        published = self._broker.publish(tail, batch.message_id, headers, batch.body)
        return published.addCallback(_as_offset)

    # -- waiting

    def _wait(self, batches: Sequence[BatchToPublish]) -> Deferred[list[int]]:
        size = sum(len(each.body) for each in batches)
        if len(self._waiting) >= self._most or self._bytes + size > self._most_bytes:
            why = self._broker.problem or "the ends of streams are not known yet"
            return fail(TopicsUnavailable(f"too many batches wait: {why}"))
        until = self._clock.seconds() + self._patience
        waiting = _WaitingBatches(batches, Deferred(), until, size)
        self._waiting.append(waiting)
        self._bytes += size
        self._look_later()
        return waiting.done

    def release(self) -> None:
        """Publish what can be published now; the others go on waiting."""
        behind: set[Partition] = set()
        for each in list(self._waiting):
            partitions = {batch.partition for batch in each.batches}
            try:
                ready = self._are_ready(each.batches)
            except TopicError as error:  # it was deleted
                self._forget(each)
                each.done.errback(error)
                continue
            if partitions & behind or not ready or self._broker.obstacle:
                behind |= partitions
                continue
            self._forget(each)
            self._publish(each.batches).chainDeferred(each.done)

    def _forget(self, waiting: _WaitingBatches) -> None:
        self._waiting.remove(waiting)
        self._bytes -= waiting.size

    def _look_later(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = self._clock.callLater(_LOOK, self._look)

    def _look(self) -> None:
        """Give up what has waited for too long; nothing of it was sent."""
        self._timer = None
        self.release()
        now = self._clock.seconds()
        for each in [waiting for waiting in self._waiting if waiting.until <= now]:
            self._forget(each)
            why = self._broker.problem or "the end of the stream is not known yet"
            each.done.errback(TopicsUnavailable(why))
        self._look_later()

    def close(self) -> None:
        """Give up what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for each in list(self._waiting):
            self._forget(each)
            each.done.errback(TopicsUnavailable("closed"))


def _as_offset(position: int) -> int:
    return position * STRIDE


def _as_list(offset: int) -> list[int]:
    return [offset]


def all_of(running: Sequence[Deferred[T]]) -> Deferred[list[T]]:
    """Return a Deferred for the results of all; it fails with the first failure itself."""
    return gatherResults(running, consumeErrors=True).addErrback(_first_error)


def _first_error(failure: Failure) -> Failure:
    """Return what failed, instead of the error that says that something did."""
    if failure.check(FirstError):
        error: Any = failure.value
        inner: Failure = error.subFailure
        return inner
    return failure


__all__ = ["BatchToPublish", "StreamSending", "all_of"]
