"""Dead letters: records that a group could not process, in a topic of their own.

A record of topic ``t`` goes to topic ``t.dlq``, with its key, value and headers, and with headers
that say where it was and why it is there (:data:`HEADERS`). Those that were sent back to their
topic are passed, and are not listed any more. A record that is sent back twice, since the answer
was lost, is written once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kupool.topics.errors import InvalidTopic, TopicExists, UnknownTopic
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Record, Stamp
from kupool.topics.service import Topics
from kupool.topics.settings import TopicSettings, valid_name

#: The end of the name of a topic of dead letters.
SUFFIX = ".dlq"

#: The headers of a dead letter: topic, partition and offset of the record, the group that gave up,
#: why, and after how many attempts.
HEADERS = (
    "dlq-topic",
    "dlq-partition",
    "dlq-offset",
    "dlq-group",
    "dlq-reason",
    "dlq-attempts",
)

#: The most characters of a reason.
LONGEST_REASON = 1000

#: The group whose offsets say which dead letters were sent back, or dropped.
_PASSED = "dlq-passed"


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
    """The dead letters of all topics."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._engine: Any = topics.engine

    # -- giving up

    def give_away(self, group: str, delivery: DeliveredRecord, failure: Failure) -> Deferred[None]:
        """Write a record that a group could not process to the dead letters of its topic.

        The topic of the dead letters is made if there is none: it keeps its records until they are
        dropped. Fails with what :meth:`Topics.produce` fails with.
        """
        return Deferred.fromCoroutine(self._give_away(group, delivery, failure))

    async def _give_away(self, group: str, delivery: DeliveredRecord, failure: Failure) -> None:
        topic, record = delivery.partition.topic, delivery.record
        await self._ensure(topic)
        reason = f"{failure.type.__name__}: {failure.getErrorMessage()}"  # type: ignore[union-attr]
        facts = (
            topic,
            str(delivery.partition.number),
            str(record.offset),
            group,
            reason[:LONGEST_REASON],
            str(delivery.attempt),
        )
        letter = NewRecord(
            record.value,
            key=record.key,
            headers={**record.headers, **dict(zip(HEADERS, facts, strict=True))},
            timestamp=record.timestamp,
        )
        partitions = self._engine.topic(topic + SUFFIX).partitions
        await self._topics.produce(
            topic + SUFFIX, [letter], partition=delivery.partition.number % partitions
        )

    async def _ensure(self, topic: str) -> None:
        if self._engine.topic(topic + SUFFIX) is not None:
            return
        settings: TopicSettings | None = self._engine.topic(topic)
        if settings is None:
            raise UnknownTopic(topic)
        if not valid_name(topic + SUFFIX):
            raise InvalidTopic(f"the name of topic {topic} is too long to have dead letters")
        # A little more than the topic takes: the headers are added.
        larger = settings.max_record + 16 * 1024
        dead = TopicSettings(
            partitions=settings.partitions,
            retention_time=0,
            compression=settings.compression,
            max_record=min(larger, 16 * 1024 * 1024),
        )
        try:
            await self._topics.create(topic + SUFFIX, dead)
        except TopicExists:
            return  # another one was faster

    # -- looking, sending back, dropping

    def letters(self, topic: str, limit: int = 100) -> Deferred[list[DeadRecord]]:
        """Return the oldest dead letters of a topic that were neither sent back nor dropped.

        Fails with :class:`UnknownTopic`; a topic without any has none.
        """
        return Deferred.fromCoroutine(self._letters(topic, limit))

    async def _letters(self, topic: str, limit: int) -> list[DeadRecord]:
        found: list[DeadRecord] = []
        for partition, offset in (await self._places(topic)).items():
            while len(found) < limit:
                fetched = await self._topics.fetch(partition, offset)
                if not fetched.records:
                    break
                letters = [_letter(partition, record) for record in fetched.records]
                found += letters[: limit - len(found)]
                offset = fetched.next_offset
        return found

    async def _places(self, topic: str) -> dict[Partition, int]:
        """Return the offset of the first letter in each partition of a topic's dead letters."""
        if self._engine.topic(topic + SUFFIX) is None:
            if self._engine.topic(topic) is None:
                raise UnknownTopic(topic)
            return {}
        passed = await self._engine.committed(_PASSED)
        places = {}
        for number, extent in enumerate(await self._engine.extents(topic + SUFFIX)):
            partition = Partition(topic + SUFFIX, number)
            places[partition] = max(extent.low, passed.get(partition, 0))
        return places

    def redrive(self, topic: str, limit: int = 1000) -> Deferred[int]:
        """Send the oldest dead letters of a topic back to their partitions; returns how many.

        Fails with :class:`UnknownTopic`.
        """
        return Deferred.fromCoroutine(self._redrive(topic, limit))

    async def _redrive(self, topic: str, limit: int) -> int:
        letters = await self._letters(topic, limit)
        for letter in letters:
            headers = {k: v for k, v in letter.record.headers.items() if k not in HEADERS}
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
                stamp=Stamp(f"{topic}{SUFFIX}/{letter.partition}", letter.offset),
            )
            place = Partition(topic + SUFFIX, letter.partition)
            await self._engine.commit(_PASSED, {place: letter.offset + 1})
        return len(letters)

    def purge(self, topic: str) -> Deferred[int]:
        """Drop all dead letters of a topic; returns how many were not sent back.

        Fails with :class:`UnknownTopic`.
        """
        return Deferred.fromCoroutine(self._purge(topic))

    async def _purge(self, topic: str) -> int:
        dropped = 0
        for partition, offset in (await self._places(topic)).items():
            high = await self._topics.latest(partition)
            await self._engine.commit(_PASSED, {partition: high})
            await self._engine.drop_below(partition, high)
            dropped += high - offset
        return dropped


def _letter(partition: Partition, record: Record) -> DeadRecord:
    _, number, offset, group, reason, attempts = (record.headers.get(name, "") for name in HEADERS)
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


__all__ = ["HEADERS", "SUFFIX", "DeadLetters", "DeadRecord"]
