"""The history of a channel in one partition of a topic: what was published is on disk.

Others may write to the partition as well. The channel has all of its records, in the order of
their offsets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from kupool.live.breaker import Breaker, BreakerLimits
from kupool.live.failures import (
    HistoryUnavailable,
    InvalidPublication,
    LiveError,
    SinkUnavailable,
    TopicUnusable,
)
from kupool.live.interfaces import IChannelStore
from kupool.live.publications import (
    ClientDetails,
    HistoryPart,
    MissedCount,
    NewPublication,
    PublishedRecord,
    StreamPosition,
    published,
)
from kupool.timing.doubling import Doubling
from kupool.topics.errors import (
    OffsetOutOfRange,
    RecordTooLarge,
    ReservedTopic,
    TopicError,
    TopicsUnavailable,
    UnknownPartition,
    UnknownTopic,
    UnreadableBatch,
)
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Record
from kupool.topics.service import Fetched, Topics
from kupool.wire.live_extras import LiveExtras, decode_extras, encode_extras

#: Most bytes that one read returns, and seconds that it waits for new records.
READ_SIZE = 64 * 1024
READ_WAIT = 30.0

#: How many times as many offsets are read, if those before had too few publications.
WIDER = 8

#: The waits before a partition that cannot be read is read again.
_RETRIES = Doubling(0.1, 10.0)


def record_of(new: NewPublication) -> NewRecord:
    """Return the record of a publication."""
    info = new.info
    extras = LiveExtras(
        event_id=new.event_id,
        priority=int(new.priority),
        device=new.device,
        event_type=new.event_type,
        key=new.key,
        tags=dict(new.tags),
        sequence=new.sequence,
        info=None
        if info is None
        else (
            info.client_id,
            info.user,
            info.connection_info.decode(),
            info.channel_info.decode(),
        ),
    )
    key = new.key or new.device or new.event_id
    return NewRecord(new.data, key.encode() if key else None, encode_extras(extras))


def publication_of(record: Record) -> PublishedRecord:
    """Return the publication of a record, whoever wrote it.

    A record of somebody else whose value is not JSON becomes a JSON string.
    """
    extras = decode_extras(record.headers)
    data = record.value
    if extras is None:
        extras = LiveExtras()
        if not _is_json(data):
            data = msgspec.json.encode(data.decode(errors="replace"))
    return PublishedRecord(
        data=data,
        info=None
        if extras.info is None
        else ClientDetails(
            extras.info[0], extras.info[1], extras.info[2].encode(), extras.info[3].encode()
        ),
        tags=extras.tags,
        event_id=extras.event_id,
        priority=extras.priority,
        device=extras.device,
        event_type=extras.event_type,
        key=extras.key,
        sequence=extras.sequence,
        offset=record.offset + 1,
        time=record.timestamp / 1000,
    )


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return False
    return True


def topic_breaker(topic: str, clock: IReactorTime, limits: BreakerLimits) -> Breaker:
    """Return a breaker that guards a topic against writes while it fails or hangs.

    What is wrong with a record, or with the settings of the topic, is not a failure of the topic.
    """
    return Breaker(f"topic {topic}", clock, limits, _is_ill)


def _is_ill(error: BaseException) -> bool:
    return isinstance(error, TopicsUnavailable) or not isinstance(error, TopicError)


def failure_of(error: Exception) -> LiveError:
    """Return the error of live channels for one of a topic.

    Some do not pass by themselves: their texts say what to do, and clients do not try again.
    """
    if isinstance(error, (UnknownTopic, UnknownPartition, ReservedTopic)):
        return TopicUnusable(str(error))
    if isinstance(error, RecordTooLarge):
        return InvalidPublication(str(error))
    return HistoryUnavailable(str(error))


@implementer(IChannelStore)
class DurableHistory:
    """The history of a channel in a partition.

    An offset of the channel is that of its record plus 1. ``epoch`` is the identity of the topic:
    it is another one if the topic is deleted and made again. ``wall`` returns seconds since the
    epoch of time. ``breaker`` is that of the topic, which its partitions share.
    """

    _log = Logger()

    def __init__(
        self,
        topics: Topics,
        partition: Partition,
        epoch: str,
        *,
        clock: IReactorTime,
        wall: Callable[[], float],
        breaker: Breaker,
    ) -> None:
        self._breaker = breaker
        self._topics = topics
        self._partition = partition
        self._epoch = epoch
        self._clock = clock
        self._wall = wall
        #: Who follows; changes with each :meth:`follow`, so that an old one notices.
        self._heard: Callable[[PublishedRecord], object] | None = None
        #: What the one who follows waits for.
        self._reading: Deferred[Any] | None = None
        self._heard_to = 0
        #: Those who published, and wait until their publication was heard, by offset.
        self._unheard: dict[int, Deferred[None]] = {}

    # -- writing

    def append(self, new: NewPublication) -> Deferred[PublishedRecord]:
        """Write a publication; fires once it is durable, and heard if somebody follows."""
        return Deferred.fromCoroutine(self._append(new))

    async def _append(self, new: NewPublication) -> PublishedRecord:
        record = record_of(new)
        try:
            (written,) = await self._breaker.call(
                lambda: self._topics.produce(
                    self._partition.topic, [record], partition=self._partition.number
                )
            )
        except SinkUnavailable:
            raise
        except Exception as error:
            raise failure_of(error) from error
        offset = written.offset + 1
        if self._heard is not None and offset > self._heard_to:
            await self._unheard.setdefault(offset, Deferred())
        return published(new, offset, self._wall())

    # -- following

    def follow(
        self, heard: Callable[[PublishedRecord], object], skipped: Callable[[int], object]
    ) -> Deferred[StreamPosition]:
        """Call ``heard`` with each publication from now on, and ``skipped`` for lost ones."""
        self.unfollow()
        return Deferred.fromCoroutine(self._follow(heard, skipped))

    async def _follow(
        self, heard: Callable[[PublishedRecord], object], skipped: Callable[[int], object]
    ) -> StreamPosition:
        position = await self._end()
        self.unfollow()
        self._heard = heard
        self._heard_to = position.offset
        reading = Deferred.fromCoroutine(self._read(heard, skipped, position.offset))
        reading.addErrback(lambda failure: self._log.failure("A channel cannot go on", failure))
        return position

    def unfollow(self) -> None:
        """Call ``heard`` no more."""
        self._heard = None
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
        unheard, self._unheard = self._unheard, {}
        for waiter in unheard.values():
            waiter.callback(None)

    async def _read(
        self,
        heard: Callable[[PublishedRecord], object],
        skipped: Callable[[int], object],
        offset: int,
    ) -> None:
        delay = 0.0
        while self._heard is heard:
            try:
                fetched = await self._waiting_for(self._fetch(offset, READ_WAIT))
            except CancelledError:
                return
            except (OffsetOutOfRange, UnreadableBatch) as error:
                offset = self._behind(error)
                self._have_heard(offset)
                skipped(offset)
                continue
            except Exception as error:
                delay = _RETRIES.after(delay)
                self._log.warn(
                    "Partition {partition} cannot be read, trying again in {delay:g} s: {reason}",
                    partition=str(self._partition),
                    delay=delay,
                    reason=str(error),
                )
                await self._sleep(delay)
                continue
            delay = 0.0
            sent: object = None
            for record in fetched.records:
                if self._heard is not heard:
                    return
                sent = heard(publication_of(record))
            if fetched.records:
                self._have_heard(fetched.records[-1].offset + 1)
            offset = max(offset, fetched.next_offset)
            if isinstance(sent, Deferred):
                await sent

    def _behind(self, error: OffsetOutOfRange | UnreadableBatch) -> int:
        """Return the offset of the next record that can be read.

        A batch that cannot be read is lost like one that was dropped: subscribers are told that
        they miss something, and get what follows.
        """
        if isinstance(error, OffsetOutOfRange):
            return error.low
        self._log.error("Publications of a channel are lost: {reason}", reason=str(error))
        return error.next_offset

    def _have_heard(self, offset: int) -> None:
        """Let those go on who have published what is heard up to an offset."""
        self._heard_to = offset
        for each in [each for each in self._unheard if each <= offset]:
            self._unheard.pop(each).callback(None)

    async def _waiting_for(self, work: Deferred[Fetched]) -> Fetched:
        self._reading = work
        try:
            return await work
        finally:
            if self._reading is work:
                self._reading = None

    async def _sleep(self, seconds: float) -> None:
        done: Deferred[Any] = Deferred()
        timer = self._clock.callLater(seconds, done.callback, None)
        try:
            await self._waiting_for(done)
        except CancelledError:
            timer.cancel()

    # -- reading

    def position(self) -> Deferred[StreamPosition]:
        """Return the end of the stream."""
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> StreamPosition:
        try:
            return StreamPosition(await self._topics.latest(self._partition), self._epoch)
        except Exception as error:
            raise failure_of(error) from error

    def after(self, offset: int, limit: int) -> Deferred[HistoryPart]:
        """Return publications after an offset, of together about :data:`READ_SIZE` bytes."""
        return Deferred.fromCoroutine(self._after(offset, limit))

    async def _after(self, offset: int, limit: int) -> HistoryPart:
        position = await self._end()
        start, fetched = await self._fetch_from(offset)
        # Where offsets have gaps, all that is known is that one is lost.
        missed = start - offset if self._dense else int(start > offset)
        if start > max(offset, position.offset):  # written and lost meanwhile
            position = StreamPosition(start, self._epoch)
        found = [publication_of(record) for record in fetched.records[:limit]]
        if found and found[-1].offset > position.offset:  # written meanwhile
            position = StreamPosition(found[-1].offset, self._epoch)
        more = bool(found) and found[-1].offset < position.offset
        return HistoryPart(found, position, missed, self._dense or not missed, more)

    async def _fetch_from(self, offset: int) -> tuple[int, Fetched]:
        """Read from an offset, or the oldest one after it; returns which, and what was read."""
        while True:
            try:
                return offset, await self._fetch(offset, 0.0)
            except OffsetOutOfRange as error:
                offset = error.low
            except UnreadableBatch as error:
                offset = error.next_offset  # the one who follows the channel logs it
            except Exception as error:
                raise failure_of(error) from error

    def count_after(self, offset: int) -> Deferred[MissedCount]:
        """Count the publications after an offset."""
        return Deferred.fromCoroutine(self._count_after(offset))

    async def _count_after(self, offset: int) -> MissedCount:
        end = (await self._end()).offset
        if self._dense:
            return MissedCount(max(0, end - offset))
        count, exact = 0, True
        while True:
            part = await self._after(offset, READ_SIZE)
            count += len(part.publications) + part.missed
            exact = exact and part.exact
            if not part.publications or not part.more:
                return MissedCount(count, exact)
            offset = part.publications[-1].offset

    def newest(self, limit: int, before: int | None = None) -> Deferred[HistoryPart]:
        """Return the newest publications, before an offset if one is given.

        Offsets may have gaps: it begins nearer to the beginning until it has found enough.
        """
        return Deferred.fromCoroutine(self._newest(limit, before))

    async def _newest(self, limit: int, before: int | None) -> HistoryPart:
        position = await self._end()
        end = position.offset if before is None else min(position.offset, before - 1)
        if limit <= 0:
            return HistoryPart([], position)
        low = await self._low()
        span = limit * self._topics.engine.capabilities.stride
        while True:
            start = max(low, end - span)
            found = await self._between(start, end, limit)
            if len(found) >= limit or start <= low:
                return HistoryPart(found, position)
            span *= WIDER

    async def _between(self, start: int, end: int, limit: int) -> list[PublishedRecord]:
        """Return the last publications after an offset, up to another one."""
        found: list[PublishedRecord] = []
        offset = start
        while offset < end:
            part = await self._after(offset, READ_SIZE)
            found = [*found, *(each for each in part.publications if each.offset <= end)][-limit:]
            if not part.more:
                break
            offset = part.publications[-1].offset
        return found

    async def _low(self) -> int:
        try:
            return await self._topics.earliest(self._partition)
        except Exception as error:
            raise failure_of(error) from error

    def before(self, time: float, most: int | None = None) -> Deferred[StreamPosition]:
        """Return the position before the first batch that was written at a time or later.

        With ``most``, one that is nearer to the end if more publications may be behind that.
        """
        return Deferred.fromCoroutine(self._before(time, most))

    async def _before(self, time: float, most: int | None) -> StreamPosition:
        try:
            offset = await self._topics.at_time(self._partition, time)
            if most is not None:
                back = most * self._topics.engine.capabilities.stride
                offset = max(offset, await self._topics.latest(self._partition) - back)
        except Exception as error:
            raise failure_of(error) from error
        return StreamPosition(offset, self._epoch)

    def forget(self) -> Deferred[None]:
        """Drop the records of the partition; later ones continue with the next offset."""
        return Deferred.fromCoroutine(self._forget())

    async def _forget(self) -> None:
        try:
            end = await self._topics.latest(self._partition)
            await self._topics.engine.drop_below(self._partition, end)
        except Exception as error:
            raise failure_of(error) from error

    def expire(self) -> bool:
        """Do nothing: the topic's own retention drops what is too old."""
        return True

    @property
    def _dense(self) -> bool:
        dense: bool = self._topics.engine.capabilities.dense
        return dense

    def _fetch(self, offset: int, wait: float) -> Deferred[Fetched]:
        return self._topics.fetch(self._partition, offset, max_bytes=READ_SIZE, wait=wait)


__all__ = [
    "READ_SIZE",
    "DurableHistory",
    "failure_of",
    "publication_of",
    "record_of",
    "topic_breaker",
]
