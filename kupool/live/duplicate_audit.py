"""Looks in the topics of durable channels for events that are there more than once.

What a topic has is never changed, so it stays there: readers have to ignore an event id that they
know, and ``kupool live audit --copy-to`` writes a topic without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kupool.live.alarms import LiveAlarm, LiveAlarms
from kupool.live.durable import READ_SIZE
from kupool.timing.chunks import Breaks
from kupool.topics.errors import OffsetOutOfRange, UnreadableBatch
from kupool.topics.partition import Partition
from kupool.topics.repeated import SeenEvents
from kupool.topics.service import Topics
from kupool.wire.live_extras import decode_extras


class _Audited:
    """How far a partition was read, and the ids that were seen in it.

    ``identity`` is that of its topic: another one was made since if it changes.
    """

    def __init__(self, identity: object, most: int) -> None:
        self.identity = identity
        self.next: int | None = None
        self.seen = SeenEvents(most)


class DuplicateAudit:
    """Reads what is new in some partitions, every ``interval`` seconds; 0 is never.

    ``partitions`` returns which. Of each, at most ``most`` records are read at a time, and as many
    ids are remembered. At first it begins ``most`` records before the end. What has grown by more
    than that since is read the next times. ``audited`` counts records with an id, ``repeated``
    those whose id was there before.
    """

    _log = Logger()

    def __init__(
        self,
        topics: Topics,
        clock: IReactorTime,
        alarms: LiveAlarms,
        partitions: Callable[[], Iterable[Partition]],
        *,
        interval: float,
        most: int,
    ) -> None:
        self.audited = self.repeated = self.audits = 0
        self._topics = topics
        self._clock = clock
        self._alarms = alarms
        self._partitions = partitions
        self._interval = interval
        self._most = most
        self._found: dict[Partition, _Audited] = {}
        self._loop = LoopingCall(self.audit)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin; the first audit is after the interval."""
        if self._interval > 0:
            self._loop.start(self._interval, now=False).addErrback(
                lambda failure: self._log.failure("The audit of durable channels stopped", failure)
            )

    def stop(self) -> None:
        """Read no more."""
        if self._loop.running:
            self._loop.stop()

    def audit(self) -> Deferred[None]:
        """Read what is new; fires at the end."""
        return Deferred.fromCoroutine(self._audit())

    async def _audit(self) -> None:
        partitions = set(self._partitions())
        self._found = {each: known for each, known in self._found.items() if each in partitions}
        for partition in sorted(partitions):
            try:
                await self._read(partition, self._known(partition))
            except Exception as error:
                self._log.warn(
                    "Partition {partition} cannot be audited: {reason}",
                    partition=str(partition),
                    reason=str(error),
                )
        self.audits += 1

    def _known(self, partition: Partition) -> _Audited:
        identity = self._topics.engine.identity(partition.topic)
        known = self._found.get(partition)
        if known is None or known.identity != identity:
            known = self._found[partition] = _Audited(identity, self._most)
        return known

    async def _read(self, partition: Partition, audited: _Audited) -> None:
        end = await self._topics.latest(partition)
        offset = audited.next
        if offset is None:
            back = self._most * self._topics.engine.capabilities.stride
            offset = max(await self._topics.earliest(partition), end - back)
        breaks, left = Breaks(self._clock), self._most
        while offset < end and left > 0:
            try:
                fetched = await self._topics.fetch(partition, offset, max_bytes=READ_SIZE, wait=0.0)
            except OffsetOutOfRange as error:
                offset = max(offset + 1, error.low)
                continue
            except UnreadableBatch as error:
                offset = error.next_offset
                continue
            for record in fetched.records:
                extras = decode_extras(record.headers)
                if extras is not None and extras.event_id:
                    self._look(partition, audited.seen, extras.event_id, record.offset)
                left -= 1
                await breaks.take()
            offset = max(offset + 1 if not fetched.records else offset, fetched.next_offset)
        audited.next = offset

    def _look(self, partition: Partition, seen: SeenEvents, event_id: str, offset: int) -> None:
        self.audited += 1
        found = seen.see(event_id, offset)
        if found is not None:
            self.repeated += 1
            self._alarms.note(
                LiveAlarm.DUPLICATES,
                {"topic": partition.topic, "partition": partition.number, **found._asdict()},
            )


__all__ = ["DuplicateAudit"]
