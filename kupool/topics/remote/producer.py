"""A producer: writes records in batches, and says of each whether it was written.

::

    producer = Producer(topics)
    written = await producer.produce("clicks", [NewRecord(b"hello", key=b"alice")])
    await producer.send("clicks", NewRecord(b"hello"), told=print)  # waits for room, not for disk
    await producer.close()

Records of one topic, or with ``routing="client"`` of one partition, are written in the order of the
calls: one batch of them is under way at a time. A batch that has no answer is sent again with the
same sequence number, so that the server writes it once; if its engine cannot do that, it is not
sent again. No outcome is a success before the server has acknowledged the records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kupool.callbacks import called
from kupool.errors import INTERNAL_ERROR, TOO_MANY_REQUESTS
from kupool.timing.doubling import Doubling
from kupool.timing.waiting import Waiters
from kupool.topics.errors import TopicError, TopicsUnavailable
from kupool.topics.partitioners import KeyHashes, Partitioner
from kupool.topics.records import NewRecord, Stamp
from kupool.topics.remote.batching import BatchLane, LaneName, WaitingWrite, WriteBatch
from kupool.topics.remote.bodies import encode_record
from kupool.topics.remote.failures import (
    AnswerLost,
    BufferFull,
    NotProduced,
    NotSent,
    ProducerClosed,
    RefusedByServer,
    TopicsClosed,
    WriteState,
    write_state,
)
from kupool.topics.remote.topics import RemoteTopics
from kupool.topics.service import Written

#: The bytes of a request that are not records: its method, topic, producer and sequence.
_AROUND = 1024

#: Refusals that pass: the batch is sent again.
_PASSING = frozenset((INTERNAL_ERROR.code, TOO_MANY_REQUESTS.code))

#: Gets the place of a record, or why it has none.
Told = Callable[[Written | Exception], object]


@dataclass(frozen=True)
class ProducerSettings:
    """How a producer writes; times are in seconds, sizes in bytes of JSON.

    A batch is sent when it has ``batch_records`` or ``batch_bytes``, or its first record has waited
    for ``linger``. ``buffer_records`` and ``buffer_bytes`` limit what has no outcome yet. When they
    are used up, up to ``most_waiting`` calls wait until there is room, further ones are refused;
    with ``when_full="refuse"`` all are. Records without an outcome after ``delivery_timeout`` fail.

    With ``routing="server"`` the server chooses the partitions; with ``"client"`` the producer
    does, by the partitioner of the topic, for which it must be allowed to describe the topic.

    ``producer`` is the name under which the server knows it; by default one that nobody else has. A
    producer that keeps its name over a restart begins with ``first_sequence``, above all that it
    has used: records with a number that was used are taken for those of before.
    """

    linger: float = 0.005
    batch_records: int = 500
    batch_bytes: int = 48 * 1024
    buffer_records: int = 10_000
    buffer_bytes: int = 8 * 1024 * 1024
    when_full: str = "wait"
    most_waiting: int = 1000
    delivery_timeout: float = 30.0
    routing: str = "server"
    producer: str = ""
    first_sequence: int = 0
    retry_first: float = 0.1
    retry_most: float = 5.0

    def __post_init__(self) -> None:
        if self.when_full not in ("wait", "refuse"):
            raise ValueError(f"when_full: expected wait or refuse, not {self.when_full!r}")
        if self.routing not in ("server", "client"):
            raise ValueError(f"routing: expected server or client, not {self.routing!r}")


class Producer:
    """Writes records to topics of a server.

    ``random`` is the source of its name, and of random partitions. Raises :class:`ValueError` for a
    batch that may be larger than a request.
    """

    _log = Logger()

    def __init__(
        self,
        topics: RemoteTopics,
        settings: ProducerSettings | None = None,
        *,
        random: Random | None = None,
    ) -> None:
        self._topics = topics
        self._clock = topics.clock
        self._settings = settings or ProducerSettings()
        self._most_bytes = topics.settings.max_request - _AROUND
        if self._settings.batch_bytes > self._most_bytes:
            raise ValueError(
                f"batch_bytes: expected at most {self._most_bytes}, which is max_request without "
                f"{_AROUND}, not {self._settings.batch_bytes}"
            )
        self._random = random or SystemRandom()
        self.name = self._settings.producer or f"{self._random.getrandbits(96):024x}"
        self._retries = Doubling(self._settings.retry_first, self._settings.retry_most)
        self._sequence = self._settings.first_sequence
        self._lanes: dict[LaneName, BatchLane] = {}
        self._timers: dict[LaneName, IDelayedCall] = {}
        #: The partitioner of each topic, with its name.
        self._hashes = KeyHashes()
        self._partitioners: dict[str, tuple[str, Partitioner | None]] = {}
        self._idempotent: bool | None = None
        #: What has no outcome yet.
        self._records = self._size = 0
        #: Calls pass this door one by one, so that none overtakes one that waits for room.
        self._door = DeferredLock()
        self._room: Waiters[None] = Waiters()
        self._idle: Waiters[None] = Waiters()
        self._closed = False

    @property
    def waiting(self) -> int:
        """The number of records without an outcome."""
        return self._records

    # -- for the application

    def produce(
        self, topic: str, records: Sequence[NewRecord], *, partition: int | None = None
    ) -> Deferred[list[Written]]:
        """Write records; fires with the place of each, in their order, once they are durable.

        Fails with :class:`NotProduced`, whose ``state`` says whether they were written: its cause
        is :class:`BufferFull`, :class:`ProducerClosed`, or what the server or the connection to it
        said. With ``routing="client"`` each partition is a request of its
        own; if some of them fail, the others were written.
        """
        return Deferred.fromCoroutine(self._produce(topic, records, partition))

    async def _produce(
        self, topic: str, records: Sequence[NewRecord], number: int | None
    ) -> list[Written]:
        shares = await self._offer(topic, records, number)
        waiting = [outcome for _, outcome in shares]
        outcomes: list[Any] = await DeferredList(waiting, consumeErrors=True)
        failed = [result.value for success, result in outcomes if not success]
        if not failed:
            return _in_order([members for members, _ in shares], [each for _, each in outcomes])
        states = {write_state(error) for error in failed}
        if len(failed) == len(outcomes) and len(states) == 1:
            raise failed[0]
        raise NotProduced(WriteState.UNKNOWN, failed[0])  # of all together nothing can be said

    def send(
        self,
        topic: str,
        record: NewRecord,
        *,
        partition: int | None = None,
        told: Told | None = None,
    ) -> Deferred[None]:
        """Take a record; fires when there was room for it, before it is written.

        ``told`` gets its place, or the :class:`NotProduced`; it may return a Deferred or a
        coroutine. Fails with :class:`NotProduced` if the record was not taken; then ``told`` is not
        called.
        """
        return Deferred.fromCoroutine(self._send(topic, record, partition, told))

    async def _send(
        self, topic: str, record: NewRecord, number: int | None, told: Told | None
    ) -> None:
        ((_, outcome),) = await self._offer(topic, [record], number)
        outcome.addCallbacks(
            lambda places: self._tell(told, places[0]),
            lambda failure: self._tell(told, failure.value),
        )

    def _tell(self, told: Told | None, outcome: Written | Exception) -> None:
        if told is None:
            if isinstance(outcome, Exception):
                self._log.warn("A record has no place: {reason}", reason=str(outcome))
            return
        called(told, outcome).addErrback(
            lambda failure: self._log.failure("What is told of records failed", failure)
        )

    def flush(self) -> Deferred[None]:
        """Send what waits; fires when every record has its outcome."""
        done = self._idle.wait()
        for name in list(self._timers):
            self._start(name)
        self._tell_idle()
        return done

    def close(self) -> Deferred[None]:
        """Take nothing more, send what waits; fires when every record has its outcome."""
        self._closed = True
        self._room.tell(None)
        return self.flush()

    # -- taking records

    async def _offer(
        self, topic: str, records: Sequence[NewRecord], number: int | None
    ) -> list[tuple[list[int], Deferred[list[Written]]]]:
        """Put records into lanes when there is room; returns the indices of each share."""
        encoded = [encode_record(record) for record in records]
        size = sum(map(len, encoded))
        if not records or size > self._most_bytes:
            raise NotProduced(WriteState.NOT_WRITTEN, self._unfit(size))
        if self._door.locked and len(self._door.waiting) >= self._settings.most_waiting:
            raise NotProduced(WriteState.NOT_WRITTEN, BufferFull())
        deadline = self._clock.seconds() + self._settings.delivery_timeout
        await self._door.acquire()
        try:
            while not self._closed and not self._fits(len(records), size):
                if self._settings.when_full == "refuse":
                    raise NotProduced(WriteState.NOT_WRITTEN, BufferFull())
                await self._room.wait()
            shares = await self._shares(topic, records, number)
            if self._closed:
                raise NotProduced(WriteState.NOT_WRITTEN, ProducerClosed())
            # Before the door is open again: the next one would be first otherwise.
            offered = []
            for lane, members in shares.items():
                chosen = [encoded[index] for index in members]
                write = WaitingWrite(chosen, sum(map(len, chosen)), deadline, Deferred())
                self._add(LaneName(topic, lane), write)
                offered.append((members, write.outcome))
        finally:
            self._door.release()
        return offered

    def _unfit(self, size: int) -> Exception:
        if not size:
            return ValueError("there are no records")
        most = self._most_bytes
        return NotSent(f"records of together {size} bytes are too large: {most} are taken")

    def _fits(self, records: int, size: int) -> bool:
        if not self._records:
            return True
        settings = self._settings
        return (
            self._records + records <= settings.buffer_records
            and self._size + size <= settings.buffer_bytes
        )

    async def _shares(
        self, topic: str, records: Sequence[NewRecord], number: int | None
    ) -> dict[int | None, list[int]]:
        """Return the indices of the records for each partition, or for the topic."""
        if number is not None or self._settings.routing == "server":
            return {number: list(range(len(records)))}
        try:
            settings = (await self._topics.facts(topic)).settings
        except TopicError as error:
            raise NotProduced(WriteState.NOT_WRITTEN, error) from None
        kind, partitioner = self._partitioners.get(topic, ("", None))
        if partitioner is None or kind != settings.partitioner:
            partitioner = Partitioner(settings.partitioner, self._random, self._hashes)
            self._partitioners[topic] = settings.partitioner, partitioner
        shares: dict[int | None, list[int]] = {}
        for index, record in enumerate(records):
            chosen = partitioner.choose(record.key, settings.partitions)
            shares.setdefault(chosen, []).append(index)
        return shares

    def _add(self, name: LaneName, write: WaitingWrite) -> None:
        lane = self._lanes.get(name)
        if lane is None:
            lane = BatchLane(self._settings.batch_records, self._settings.batch_bytes)
            self._lanes[name] = lane
        lane.add(write)
        self._records += len(write.records)
        self._size += write.size
        if lane.busy:
            return
        if lane.full or self._closed:
            self._start(name)
        elif name not in self._timers:
            self._timers[name] = self._clock.callLater(self._settings.linger, self._start, name)

    # -- sending

    def _start(self, name: LaneName) -> None:
        """Send what waits in a lane that has no batch under way."""
        timer = self._timers.pop(name, None)
        if timer is not None and timer.active():
            timer.cancel()
        lane = self._lanes[name]
        lane.busy = True
        Deferred.fromCoroutine(self._run(name, lane)).addErrback(
            lambda failure: self._log.failure("A lane of a producer has ended", failure)
        )

    async def _run(self, name: LaneName, lane: BatchLane) -> None:
        while lane:
            batch = lane.take()
            try:
                places = await self._deliver(name, batch)
            except NotProduced as error:
                self._settle(batch, error)
            except Exception as error:
                self._settle(batch, NotProduced(WriteState.UNKNOWN, error))
            else:
                self._settle(batch, places)
        del self._lanes[name]

    def _settle(self, batch: WriteBatch, result: list[Written] | NotProduced) -> None:
        """Tell the outcome of each write."""
        first = 0
        for write in batch.writes:
            count = len(write.records)
            self._records -= count
            self._size -= write.size
            if isinstance(result, NotProduced):
                write.outcome.errback(result)
            else:
                write.outcome.callback(result[first : first + count])
            first += count
        self._room.tell(None)
        self._tell_idle()

    def _tell_idle(self) -> None:
        if not self._records:
            self._idle.tell(None)

    async def _deliver(self, name: LaneName, batch: WriteBatch) -> list[Written]:
        """Send a batch until it has an answer; raises :class:`NotProduced`."""
        sequence, self._sequence = self._sequence, self._sequence + 1
        state, delay = WriteState.NOT_WRITTEN, 0.0
        while True:
            left = batch.deadline - self._clock.seconds()
            try:
                return await self._attempt(name, batch, sequence, left)
            except TopicError as error:
                told = write_state(error)
                if told is not WriteState.NOT_WRITTEN:
                    state = told  # it stays so, whatever is said of the next attempt
                delay = self._retries.after(delay)
                left = batch.deadline - self._clock.seconds()
                if not self._passes(error, state) or delay >= left:
                    raise NotProduced(state, error) from error
                self._log.warn(
                    "Records for topic {topic} are sent again in {delay:g} s: {reason}",
                    topic=name.topic,
                    delay=delay,
                    reason=str(error),
                )
            await deferLater(self._clock, delay)

    async def _attempt(
        self, name: LaneName, batch: WriteBatch, sequence: int, left: float
    ) -> list[Written]:
        if self._idempotent is None:
            found = await self._topics.capabilities()
            self._idempotent = found.get("idempotent") is not False
        return await self._topics.produce_encoded(
            name.topic,
            batch.records,
            partition=name.partition,
            stamp=Stamp(self.name, sequence) if self._idempotent else None,
            timeout=max(0.0, min(left, self._topics.settings.timeout)),
        )

    def _passes(self, error: TopicError, state: WriteState) -> bool:
        """Return whether a batch may be sent again after an error."""
        if state is WriteState.WRITTEN or (state is WriteState.UNKNOWN and not self._idempotent):
            return False
        if isinstance(error, TopicsClosed):
            return False
        if isinstance(error, RefusedByServer):
            return error.code in _PASSING
        return isinstance(error, (AnswerLost, NotSent, TopicsUnavailable))


def _in_order(
    shares: Sequence[Sequence[int]], outcomes: Sequence[Sequence[Written]]
) -> list[Written]:
    places: dict[int, Written] = {}
    for members, written in zip(shares, outcomes, strict=True):
        places.update(zip(members, written, strict=True))
    return [places[index] for index in range(len(places))]


__all__ = ["Producer", "ProducerSettings", "Told"]
