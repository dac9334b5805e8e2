"""Topics of a server, as :class:`~kupool.topics.service.Topics` has those of this process.

::

    topics = RemoteTopics(reactor, ["tcp:localhost:8080"], Login("alice"))
    await topics.connect()
    written = await topics.produce("clicks", [NewRecord(b"hello")])
    fetched = await topics.fetch(Partition("clicks", 0), 0)
    await topics.close()

One connection carries all requests at once; it is made again when it is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import random as _random
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred

from kupool.topics.api.params import (
    LONGEST_WAIT,
    FetchParams,
    NoParams,
    OffsetsParams,
    TopicParams,
)
from kupool.topics.errors import TopicError, UnknownPartition
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Record, Stamp
from kupool.topics.remote.bodies import decode_records, encode_record
from kupool.topics.remote.failures import BadAnswer
from kupool.topics.remote.link import Login, RemoteSettings, ServerAddress, TopicNodes
from kupool.topics.remote.operations import (
    EncodedRecordsParams,
    FetchResult,
    OffsetsResult,
    ProduceResult,
    TopicDetails,
)
from kupool.topics.service import Fetched, Written
from kupool.topics.settings import TopicSettings


class TopicFacts(NamedTuple):
    """What a client knows of a topic: its settings, with the number of partitions."""

    topic: str
    settings: TopicSettings


class RemoteTopics:
    """The topics of a server: writes, reads, and says what is there.

    ``addresses`` are tried in turn: endpoint strings, such as ``tcp:localhost:8080`` or
    ``tls:a.example:8080``, or endpoints. ``reactor`` is also the clock. ``random`` returns a number
    from 0 to 1. It connects with the first request at the latest. Raises :class:`ValueError` for an
    address or a setting that is not valid.

    Each method fails with :class:`NotSent`, :class:`AnswerLost`, :class:`BadAnswer` or
    :class:`ClientRefused`, and with what the server refuses.
    """

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[ServerAddress],
        login: Login | None = None,
        settings: RemoteSettings | None = None,
        *,
        random: Callable[[], float] = _random,
    ) -> None:
        self.clock = reactor
        self.settings = settings or RemoteSettings()
        self.nodes = TopicNodes(reactor, addresses, login or Login(), self.settings, random=random)
        self._facts: dict[str, tuple[TopicFacts, float]] = {}
        self._capabilities: Mapping[str, Any] | None = None
        self._fetches = 0

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self.nodes.main.connected

    def connect(self) -> Deferred[None]:
        """Connect; fails with :class:`NotSent` if that takes too long, and with
        :class:`ClientRefused`.

        After :class:`NotSent` the attempts go on.
        """
        return Deferred.fromCoroutine(self.nodes.main.connect())

    def close(self) -> Deferred[None]:
        """Close the connection; requests without an answer fail."""
        return Deferred.fromCoroutine(self.nodes.close())

    # -- what is there

    def capabilities(self) -> Deferred[Mapping[str, Any]]:
        """Return what the server's engine can do; it is asked once."""
        return Deferred.fromCoroutine(self._read_capabilities())

    async def _read_capabilities(self) -> Mapping[str, Any]:
        if self._capabilities is None:
            self._capabilities = await self.nodes.ask("log.capabilities", NoParams())
        return self._capabilities

    def facts(self, topic: str) -> Deferred[TopicFacts]:
        """Return the settings of a topic; they are remembered for a while.

        Fails with :class:`UnknownTopic`.
        """
        return Deferred.fromCoroutine(self._read_facts(topic))

    async def _read_facts(self, topic: str) -> TopicFacts:
        known = self._facts.get(topic)
        now = self.clock.seconds()
        if known is not None and now - known[1] < self.settings.metadata_age:
            return known[0]
        details: TopicDetails = await self.nodes.ask("topic.describe", TopicParams(topic))
        facts = TopicFacts(topic, settings_in(details.topic, details.settings))
        if facts.settings.partitions != len(details.partitions) or details.topic != topic:
            raise BadAnswer(
                f"topic.describe: {len(details.partitions)} partitions of {details.topic:.80}, "
                f"expected {facts.settings.partitions} of {topic}"
            )
        self._facts[topic] = facts, now
        return facts

    def forget(self, topic: str) -> None:
        """Ask for a topic anew when it is needed next."""
        self._facts.pop(topic, None)

    # -- writing

    def produce(
        self,
        topic: str,
        records: Sequence[NewRecord],
        *,
        partition: int | None = None,
        stamp: Stamp | None = None,
    ) -> Deferred[list[Written]]:
        """Write records in one request; fires with the place of each, once they are durable.

        It fails with :class:`AnswerLost` if the connection is lost. With a ``stamp`` it may be
        called again then, and the records are still written once. A
        :class:`~kupool.topics.remote.producer.Producer` does that by itself.
        """
        encoded = [encode_record(record) for record in records]
        return Deferred.fromCoroutine(
            self.produce_encoded(topic, encoded, partition=partition, stamp=stamp)
        )

    async def produce_encoded(
        self,
        topic: str,
        records: list[msgspec.Raw],
        *,
        partition: int | None = None,
        stamp: Stamp | None = None,
        timeout: float | None = None,
    ) -> list[Written]:
        """Write records that :func:`~kupool.topics.remote.bodies.encode_record` has encoded."""
        params = EncodedRecordsParams(topic=topic, records=records, partition=partition)
        if stamp is not None:
            params.producer, params.sequence = stamp
        try:
            result: ProduceResult = await self.nodes.ask("log.produce", params, timeout)
        except TopicError:
            self.forget(topic)
            raise
        if len(result.written) != len(records):
            raise BadAnswer(f"log.produce: {len(result.written)} places for {len(records)} records")
        return [Written(each.partition, each.offset) for each in result.written]

    # -- reading

    def fetch(
        self, partition: Partition, offset: int, *, max_bytes: int = 1024 * 1024, wait: float = 0.0
    ) -> Deferred[Fetched]:
        """Return the records from an offset on; see
        :meth:`Topics.fetch <kupool.topics.service.Topics.fetch>`.
        """
        return Deferred.fromCoroutine(self._fetch(partition, offset, max_bytes, wait))

    async def _fetch(
        self, partition: Partition, offset: int, max_bytes: int, wait: float
    ) -> Fetched:
        self._fetches += 1
        share = max(1, self.settings.fetch_bytes // self._fetches)
        params = FetchParams(
            partition.topic,
            partition.number,
            offset,
            max_bytes=min(max_bytes, share),
            wait_ms=min(int(wait * 1000), LONGEST_WAIT),
        )
        try:
            result: FetchResult = await self.nodes.ask(
                "log.fetch", params, wait + self.settings.timeout
            )
        except TopicError:
            self.forget(partition.topic)
            raise
        finally:
            self._fetches -= 1
        try:
            return Fetched(_records(result, offset), result.next)
        except ValueError as error:
            raise BadAnswer(f"log.fetch: {error}") from None

    def offsets(self, topic: str, at: str | int = "latest") -> Deferred[list[int]]:
        """Return an offset of each partition: ``earliest``, ``latest``, or the first one that was
        written at a time or later, in milliseconds since the epoch.
        """
        return Deferred.fromCoroutine(self._offsets(topic, at))

    async def _offsets(self, topic: str, at: str | int) -> list[int]:
        result: OffsetsResult = await self.nodes.ask("log.offsets", OffsetsParams(topic, at))
        return result.offsets

    def earliest(self, partition: Partition) -> Deferred[int]:
        """Return the offset of the oldest record."""
        return Deferred.fromCoroutine(self._offset(partition, "earliest"))

    def latest(self, partition: Partition) -> Deferred[int]:
        """Return the offset that the next record will get."""
        return Deferred.fromCoroutine(self._offset(partition, "latest"))

    def at_time(self, partition: Partition, at: float) -> Deferred[int]:
        """Return the offset of the first batch written at a time or later, in seconds since the
        epoch.
        """
        return Deferred.fromCoroutine(self._offset(partition, int(at * 1000)))

    async def _offset(self, partition: Partition, at: str | int) -> int:
        offsets = await self._offsets(partition.topic, at)
        if not 0 <= partition.number < len(offsets):
            raise UnknownPartition(*partition, len(offsets))
        return offsets[partition.number]


def _records(result: FetchResult, offset: int) -> list[Record]:
    """Return the records of an answer; raises :class:`ValueError` if they do not fit it."""
    if result.low > result.high or result.next < offset:
        raise ValueError(f"low={result.low} high={result.high} next={result.next} at {offset}")
    return decode_records(result.records, start=offset, end=result.next)


def settings_in(topic: str, values: Mapping[str, Any]) -> TopicSettings:
    """Return the settings in an answer; those that this version does not know are left out.

    Raises :class:`BadAnswer`.
    """
    known = {name: values[name] for name in TopicSettings.__struct_fields__ if name in values}
    try:
        settings = msgspec.convert(known, TopicSettings)
        settings.check()
    except (msgspec.ValidationError, TopicError) as error:
        raise BadAnswer(f"the settings of topic {topic:.80}: {error}") from None
    return settings


__all__ = ["RemoteTopics", "TopicFacts", "settings_in"]
