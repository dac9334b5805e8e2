"""Dead letters: records that a group could not process, in a topic of their own.

A record of topic ``t`` goes to topic ``t.dlq``, with its key, value and headers, and with headers
that say where it was and why it is there (:data:`HEADERS`). Those that were sent back to their
topic, or dropped, are passed, and are not listed any more. A record that is given away or sent back
twice, since the answer was lost, is written once.

What is passed is a position of the group :data:`PASSED` in each partition. Letters behind it that
were passed by themselves have a group each, until the position is above them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred, DeferredLock
from twisted.python.failure import Failure

from kupool.topics.errors import (
    InvalidTopic,
    SequenceTooOld,
    TopicExists,
    UnknownRecord,
    UnknownTopic,
)
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Record, Stamp, sizes_of
from kupool.topics.service import Topics
from kupool.topics.settings import TopicSettings, valid_name

#: The end of the name of a topic of dead letters.
SUFFIX = ".dlq"

#: The headers of a dead letter: topic, partition and offset of the record, the group that gave up,
#: why, after how many attempts, and an id that no other letter has.
HEADERS = (
    "dlq-topic",
    "dlq-partition",
    "dlq-offset",
    "dlq-group",
    "dlq-reason",
    "dlq-attempts",
    "dlq-id",
)

#: The most characters of a reason.
LONGEST_REASON = 1000

#: The newest letters of a partition among which a record is looked for that may be there already.
RECENT = 1000

#: The group whose offsets say which dead letters were sent back, or dropped; nobody else uses it.
PASSED = "dlq-passed"


class DeadPlace(NamedTuple):
    """Where a dead letter is among those of its topic."""

    partition: int
    offset: int


#: Before all dead letters.
FIRST = DeadPlace(0, 0)


class DeadRecord(NamedTuple):
    """A dead letter: where it is among them, where it was, and why it is there.

    ``offset`` is its offset in ``partition`` of the topic of dead letters.
    """

    partition: int
    offset: int
    source: Partition
    source_offset: int
    group: str
    reason: str
    attempts: int
    record: Record


class DeadLetters:
    """The dead letters of all topics; ``told`` gets each new one."""

    def __init__(
        self, topics: Topics, told: Callable[[DeadRecord], object] = lambda letter: None
    ) -> None:
        self._topics = topics
        self._told = told
        self._engine: Any = topics.engine
        #: One at a time looks whether a record is there: two would both write it.
        self._search = DeferredLock()
        #: One at a time sends back or drops: what two do at once would be written twice.
        self._turn = DeferredLock()

    # -- giving up

    def give_away(self, group: str, delivery: DeliveredRecord, failure: Failure) -> Deferred[None]:
        """Write a record that a group could not process to the dead letters of its topic.

        The topic of the dead letters is made if there is none: it keeps its records until they are
        dropped. If the record is there already, and was neither sent back nor dropped, nothing is
        written; of many letters, only the newest are compared. Fails with what
        :meth:`Topics.produce` fails with.
        """
        reason = f"{failure.type.__name__}: {failure.getErrorMessage()}"  # type: ignore[union-attr]
        return self.bury(group, delivery, reason)

    def bury(self, group: str, delivery: DeliveredRecord, reason: str) -> Deferred[None]:
        """Do the same with a reason as text."""
        return Deferred.fromCoroutine(self._bury(group, delivery, reason))

    async def _bury(self, group: str, delivery: DeliveredRecord, reason: str) -> None:
        topic, record = delivery.partition.topic, delivery.record
        await self._ensure(topic)
        facts = (
            topic,
            str(delivery.partition.number),
            str(record.offset),
            group,
            reason[:LONGEST_REASON],
            str(delivery.attempt),
            secrets.token_hex(8),
        )
        letter = NewRecord(
            record.value,
            key=record.key,
            headers={**record.headers, **dict(zip(HEADERS, facts, strict=True))},
            timestamp=record.timestamp,
        )
        partitions = self._engine.topic(topic + SUFFIX).partitions
        target = Partition(topic + SUFFIX, delivery.partition.number % partitions)
        end = await self._topics.latest(target)
        stamp = Stamp(f"{group}/{topic}/{delivery.partition.number}", record.offset)
        try:
            (place,) = await self._topics.produce(
                target.topic, [letter], partition=target.number, stamp=stamp
            )
        except SequenceTooOld:
            # Later records of the partition were given away: was this one, too?
            known = None
        else:
            known = place.offset
        if known is None or known < end:
            offset = await self._search.run(self._bury_if_new, target, letter, known)
        else:
            offset = known
        if offset >= end:
            self._tell(target, offset, letter)

    def _bury_if_new(
        self, target: Partition, letter: NewRecord, known: int | None
    ) -> Deferred[int]:
        """Write a letter unless it waits at a known offset, or among the newest letters; returns
        its offset.

        One that was sent back or dropped is written again, as the group has read the record again.
        """
        return Deferred.fromCoroutine(self._find_or_bury(target, letter, known))

    async def _find_or_bury(self, target: Partition, letter: NewRecord, known: int | None) -> int:
        topic = target.topic.removesuffix(SUFFIX)
        places, apart = await self._places(topic), await self._passed_apart(topic)
        waits = known is not None and known >= places[target]
        if known is not None and waits and DeadPlace(target.number, known) not in apart:
            return known
        end = await self._topics.latest(target)
        stride = self._engine.capabilities.stride
        offset = max(places[target], end - RECENT * stride)
        while offset < end:
            fetched = await self._topics.fetch(target, offset)
            for record in fetched.records:
                passed = DeadPlace(target.number, record.offset) in apart
                if not passed and _same_source(record.headers, letter.headers):
                    return record.offset
            if not fetched.records:
                break
            offset = fetched.next_offset
        (place,) = await self._topics.produce(target.topic, [letter], partition=target.number)
        return place.offset

    def _tell(self, target: Partition, offset: int, letter: NewRecord) -> None:
        timestamp = letter.timestamp or 0
        record = Record(offset, timestamp, letter.key, letter.value, letter.headers)
        self._told(_letter(target, record))

    async def _ensure(self, topic: str) -> None:
        settings: TopicSettings | None = self._engine.topic(topic)
        before: TopicSettings | None = self._engine.topic(topic + SUFFIX)
        if settings is None:
            raise UnknownTopic(topic)
        # A little more than the topic takes: the headers are added.
        largest = min(settings.max_record + 16 * 1024, 16 * 1024 * 1024)
        if before is not None:
            if before.max_record < largest:  # the topic takes larger records than it did then
                await self._topics.change(
                    topic + SUFFIX, msgspec.structs.replace(before, max_record=largest)
                )
            return
        if not valid_name(topic + SUFFIX):
            raise InvalidTopic(f"the name of topic {topic} is too long to have dead letters")
        dead = TopicSettings(
            partitions=settings.partitions,
            retention_time=0,
            compression=settings.compression,
            max_record=largest,
        )
        try:
            await self._topics.create(topic + SUFFIX, dead)
        except TopicExists:
            return  # another one was faster

    # -- looking

    def waiting(self, topics: Iterable[str]) -> Deferred[dict[str, int]]:
        """Return how many dead letters of topics were neither sent back nor dropped.

        Topics without any are left out. Where batches take more offsets than they have records, it
        counts the batches, as the lag of a group does: each letter is one.
        """
        return Deferred.fromCoroutine(self._waiting(topics))

    async def _waiting(self, topics: Iterable[str]) -> dict[str, int]:
        with_letters = [name for name in topics if self._engine.topic(name + SUFFIX) is not None]
        if not with_letters:
            return {}
        stride = self._engine.capabilities.stride
        passed, groups = await self._engine.committed(PASSED), await self._engine.groups()
        found = {}
        for topic in with_letters:
            count = -sum(group.startswith(_apart(topic, "")) for group in groups)
            for number, extent in enumerate(await self._engine.extents(topic + SUFFIX)):
                first = max(extent.low, passed.get(Partition(topic + SUFFIX, number), 0))
                count += -(-(extent.high - first) // stride)
            if count > 0:
                found[topic] = count
        return found

    def letters(self, topic: str, limit: int = 100) -> Deferred[list[DeadRecord]]:
        """Return the oldest dead letters of a topic that were neither sent back nor dropped.

        Fails with :class:`UnknownTopic`; a topic without any has none.
        """
        return self.page(topic, FIRST, limit).addCallback(lambda page: page[0])

    def page(
        self, topic: str, start: DeadPlace, limit: int, max_bytes: float = inf
    ) -> Deferred[tuple[list[DeadRecord], DeadPlace | None]]:
        """Return dead letters as :meth:`letters` does, from a place on, and the place of the next
        one; None if there are no more.

        Together they have ``max_bytes``; the first is returned whatever its size.
        """
        return Deferred.fromCoroutine(self._page(topic, start, limit, max_bytes))

    async def _page(
        self, topic: str, start: DeadPlace, limit: int, max_bytes: float = inf
    ) -> tuple[list[DeadRecord], DeadPlace | None]:
        found: list[DeadRecord] = []
        size = 0
        apart = await self._passed_apart(topic)
        for partition, first in (await self._places(topic)).items():
            if partition.number < start.partition:
                continue
            offset = max(first, start.offset) if partition.number == start.partition else first
            while (fetched := await self._topics.fetch(partition, offset)).records:
                for record in fetched.records:
                    place = DeadPlace(partition.number, record.offset)
                    if place in apart:
                        continue
                    (its_size,) = sizes_of([record])
                    size += its_size
                    if len(found) == limit or (found and size > max_bytes):
                        return found, place
                    found.append(_letter(partition, record))
                offset = fetched.next_offset
        return found, None

    async def _places(self, topic: str) -> dict[Partition, int]:
        """Return the offset of the first letter in each partition of a topic's dead letters."""
        if self._engine.topic(topic + SUFFIX) is None:
            if self._engine.topic(topic) is None:
                raise UnknownTopic(topic)
            return {}
        passed = await self._engine.committed(PASSED)
        places = {}
        for number, extent in enumerate(await self._engine.extents(topic + SUFFIX)):
            partition = Partition(topic + SUFFIX, number)
            places[partition] = max(extent.low, passed.get(partition, 0))
        return places

    async def _passed_apart(self, topic: str) -> dict[DeadPlace, str]:
        """Return the letters that were passed by themselves, with the group of each."""
        prefix = _apart(topic, "")
        found = {}
        for group in await self._engine.groups():
            if group.startswith(prefix):
                for partition, position in (await self._engine.committed(group)).items():
                    found[DeadPlace(partition.number, position - 1)] = group
        return found

    async def _one(self, topic: str, place: DeadPlace) -> DeadRecord | None:
        """Return the letter at a place; None if it was passed. Raises :class:`UnknownRecord`."""
        places = await self._places(topic)
        partition = Partition(topic + SUFFIX, place.partition)
        if partition not in places:
            raise UnknownRecord(partition, place.offset)
        if place.offset < places[partition] or place in await self._passed_apart(topic):
            return None
        return _letter(partition, await self._topics.record(partition, place.offset))

    # -- sending back, dropping

    def redrive(self, topic: str, limit: int | None = None) -> Deferred[int]:
        """Send the oldest dead letters of a topic back to their partitions, without a limit all
        that there are now; returns how many.

        Fails with :class:`UnknownTopic`.
        """
        return self._turn.run(self._in_turn, self._redrive, topic, limit)

    def redrive_one(self, topic: str, place: DeadPlace) -> Deferred[int]:
        """Send one dead letter back; returns 0 if it was sent back or dropped before, else 1.

        Fails with :class:`UnknownTopic` and :class:`UnknownRecord`.
        """
        return self._turn.run(self._in_turn, self._redrive_one, topic, place)

    def purge(self, topic: str) -> Deferred[int]:
        """Drop all dead letters of a topic; returns how many were not sent back.

        Fails with :class:`UnknownTopic`.
        """
        return self._turn.run(self._in_turn, self._purge, topic)

    def purge_one(self, topic: str, place: DeadPlace) -> Deferred[int]:
        """Drop one dead letter; returns and fails as :meth:`redrive_one` does."""
        return self._turn.run(self._in_turn, self._purge_one, topic, place)

    def _in_turn(self, work: Any, *arguments: object) -> Deferred[int]:
        return Deferred.fromCoroutine(work(*arguments))

    async def _redrive(self, topic: str, limit: int | None) -> int:
        sent = 0
        apart = await self._passed_apart(topic)
        for partition, first in (await self._places(topic)).items():
            offset, end = first, await self._topics.latest(partition)
            while offset < end and sent != limit:
                fetched = await self._topics.fetch(partition, offset)
                for record in fetched.records:
                    if sent == limit or record.offset >= end:
                        break
                    place = DeadPlace(partition.number, record.offset)
                    if place not in apart:
                        await self._send_back(topic, _letter(partition, record))
                        sent += 1
                    await self._engine.commit(PASSED, {partition: record.offset + 1})
                    if place in apart:
                        await self._engine.forget_group(apart[place])
                if not fetched.records:
                    break
                offset = fetched.next_offset
        return sent

    async def _send_back(self, topic: str, letter: DeadRecord) -> None:
        headers = {k: v for k, v in letter.record.headers.items() if k not in HEADERS}
        # A producer for each letter: they are sent back in any order. With the id of the letter:
        # another one has the same place if the topic of dead letters was deleted meanwhile.
        place = f"{letter.partition}/{letter.offset}/{letter.record.headers.get(HEADERS[-1], '')}"
        record = NewRecord(
            letter.record.value,
            key=letter.record.key,
            headers=headers,
            timestamp=letter.record.timestamp,
        )
        await self._topics.produce(
            letter.source.topic,
            [record],
            partition=letter.source.number,
            stamp=Stamp(f"{topic}{SUFFIX}/{place}", 0),
        )

    async def _redrive_one(self, topic: str, place: DeadPlace) -> int:
        letter = await self._one(topic, place)
        if letter is None:
            return 0
        await self._send_back(topic, letter)
        await self._pass(topic, place)
        return 1

    async def _purge(self, topic: str) -> int:
        dropped = 0
        apart = await self._passed_apart(topic)
        for partition, offset in (await self._places(topic)).items():
            high = await self._topics.latest(partition)
            await self._engine.commit(PASSED, {partition: high})
            await self._engine.drop_below(partition, high)
            dropped += high - offset
        for group in apart.values():
            await self._engine.forget_group(group)
        return dropped - len(apart)

    async def _purge_one(self, topic: str, place: DeadPlace) -> int:
        if await self._one(topic, place) is None:
            return 0
        await self._pass(topic, place)
        return 1

    async def _pass(self, topic: str, place: DeadPlace) -> None:
        """Note that one letter was passed; the position goes on to the first that was not."""
        partition = Partition(topic + SUFFIX, place.partition)
        group = _apart(topic, f"{place.partition}/{place.offset}")
        await self._engine.commit(group, {partition: place.offset + 1})
        letters, _ = await self._page(topic, DeadPlace(place.partition, 0), 1)
        if letters and letters[0].partition == place.partition:
            position = letters[0].offset
        else:
            position = await self._topics.latest(partition)
        await self._engine.commit(PASSED, {partition: position})
        for passed, its_group in (await self._passed_apart(topic)).items():
            if passed.partition == place.partition and passed.offset < position:
                await self._engine.forget_group(its_group)


def _same_source(headers: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """Return whether two letters are of the same record and group."""
    return all(headers.get(name) == others[name] for name in HEADERS[:4])


def _apart(topic: str, place: str) -> str:
    """Return the group of a letter that was passed by itself: no name of a group has a slash."""
    return f"{PASSED}/{topic}/{place}"


def _letter(partition: Partition, record: Record) -> DeadRecord:
    _, number, offset, group, reason, attempts, _ = (
        record.headers.get(name, "") for name in HEADERS
    )
    # The topic is the one whose dead letters these are, whatever a header says.
    source = Partition(partition.topic.removesuffix(SUFFIX), _number(number))
    return DeadRecord(
        partition.number,
        record.offset,
        source,
        _number(offset),
        group,
        reason,
        _number(attempts),
        record,
    )


def _number(text: str) -> int:
    """Return the number in a text, or 0 if it has none: clients may write any header."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


__all__ = [
    "FIRST",
    "HEADERS",
    "PASSED",
    "RECENT",
    "SUFFIX",
    "DeadLetters",
    "DeadPlace",
    "DeadRecord",
]
