"""Reads the topic of events backwards: what happened, the newest first, also before a restart."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from kupool.activity.past import PastEvent, PastPage, PastUnavailable, PastWanted
from kupool.timing.chunks import Breaks
from kupool.topics.errors import OffsetOutOfRange, TopicError, UnknownTopic, UnreadableBatch
from kupool.topics.events import EVENTS
from kupool.topics.partition import Partition
from kupool.topics.records import Record
from kupool.topics.service import Topics

#: Records that are read at once, and the most that one call looks at.
STEP = 1000
MOST_LOOKED_AT = 50_000

#: Bytes of records that are read at once.
READ = 256 * 1024

#: Seconds that a record may be written after the event that it tells of.
LATE = 60.0


class PastEvents:
    """Reads events of the topic that the daemon writes."""

    def __init__(self, topics: Topics, clock: IReactorTime) -> None:
        self._topics = topics
        self._clock = clock
        self._partition = Partition(EVENTS, 0)
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode

    async def read(self, wanted: PastWanted, limit: int) -> PastPage:
        """Return up to ``limit`` events.

        One call looks at :data:`MOST_LOOKED_AT` records, so it may return fewer although there are
        more. Raises :class:`PastUnavailable` while the topic cannot be read.
        """
        try:
            return await self._read(wanted, limit)
        except UnknownTopic:  # nothing has happened yet
            return PastPage([], None)
        except TopicError as error:
            raise PastUnavailable(str(error)) from error

    async def _read(self, wanted: PastWanted, limit: int) -> PastPage:
        low, end = await self._bounds(wanted)
        found: list[PastEvent] = []
        least = max(low, end - MOST_LOOKED_AT)
        breaks = Breaks(self._clock)
        mark = b'"type":' + msgspec.json.encode(wanted.kind)
        while end > least:
            start = max(least, end - STEP)
            for record in reversed(await self._records(start, end)):
                event = self._event(record, mark, wanted)
                if event is not None:
                    found.append(event)
                    if len(found) >= limit:
                        return PastPage(found, record.offset if record.offset > low else None)
                await breaks.take()
            end = start
        return PastPage(found, end if end > low else None)

    async def _bounds(self, wanted: PastWanted) -> tuple[int, int]:
        topics, partition = self._topics, self._partition
        low, end = await topics.earliest(partition), await topics.latest(partition)
        if wanted.start > 0:
            low = max(low, await topics.at_time(partition, wanted.start))
        if wanted.end is not None:
            end = min(end, await topics.at_time(partition, wanted.end + LATE))
        return low, end if wanted.before is None else min(end, wanted.before)

    async def _records(self, start: int, end: int) -> list[Record]:
        """Return the records of some offsets, without those that are gone or damaged."""
        found: list[Record] = []
        while start < end:
            try:
                fetched = await self._topics.fetch(self._partition, start, max_bytes=READ)
            except UnreadableBatch as error:
                start = error.next_offset
                continue
            except OffsetOutOfRange as error:
                if error.low <= start:
                    break
                start = error.low  # these were removed just now
                continue
            if fetched.next_offset <= start:
                break
            found += [record for record in fetched.records if record.offset < end]
            start = fetched.next_offset
        return found

    def _event(self, record: Record, mark: bytes, wanted: PastWanted) -> PastEvent | None:
        if mark not in record.value:
            return None
        try:
            event: PastEvent = self._decode(record.value)
        except (ValueError, RecursionError):
            return None
        at = event.get("at")
        if event.get("type") != wanted.kind or not isinstance(at, int):
            return None
        if at < wanted.start * 1000 or (wanted.end is not None and at >= wanted.end * 1000):
            return None
        return event if wanted.match(event) else None


__all__ = ["MOST_LOOKED_AT", "STEP", "PastEvents"]
