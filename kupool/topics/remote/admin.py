"""Administration of topics and groups of a server.

::

    admin = TopicAdmin(topics)
    await admin.create("clicks", TopicSettings(partitions=4))
    group = await admin.describe_group("billing")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from kupool.topics.api.params import (
    CancelParams,
    DeadParams,
    DeadPlaceParams,
    DelayedParams,
    GroupParams,
    NoParams,
    ResetParams,
    TopicChangeParams,
    TopicCreateParams,
    TopicListParams,
    TopicParams,
)
from kupool.topics.dead_letters import DeadRecord
from kupool.topics.interfaces import PartitionExtent
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.remote.bodies import decode_record, encode_record
from kupool.topics.remote.failures import BadAnswer
from kupool.topics.remote.operations import (
    CancelResult,
    DeadEntry,
    DeadPage,
    DelayedEntry,
    DelayedResult,
    DelayResult,
    EncodedRecordsParams,
    GroupDetails,
    GroupsResult,
    PurgeResult,
    RedriveResult,
    ResetResult,
    TopicDetails,
    TopicPage,
    TopicSet,
)
from kupool.topics.remote.topics import RemoteTopics, settings_in
from kupool.topics.service import TopicDescription
from kupool.topics.settings import TopicSettings


class TopicAdmin:
    """Topics, dead letters, delayed records and groups of a server.

    Each method fails with what the server refuses, and as those of :class:`RemoteTopics` do. One
    that may not be repeated fails with :class:`AnswerLost` if its answer was lost.
    """

    def __init__(self, topics: RemoteTopics) -> None:
        self._topics = topics
        self._ask = topics.nodes.ask

    # -- topics

    def create(self, topic: str, settings: TopicSettings) -> Deferred[TopicSettings]:
        """Create a topic; returns all its settings. Fails with :class:`TopicExists`."""
        params = TopicCreateParams(topic, _values(settings))
        return Deferred.fromCoroutine(self._set("topic.create", params))

    def change(self, topic: str, settings: Mapping[str, object]) -> Deferred[TopicSettings]:
        """Change the settings that are given; returns all of them.

        Fails with :class:`UnknownTopic`. With more partitions keys go to others than before.
        """
        params = TopicChangeParams(topic, dict(settings))
        return Deferred.fromCoroutine(self._set("topic.change", params))

    async def _set(
        self, method: str, params: TopicCreateParams | TopicChangeParams
    ) -> TopicSettings:
        self._topics.forget(params.topic)
        result: TopicSet = await self._ask(method, params)
        return settings_in(params.topic, result.settings)

    def delete(self, topic: str) -> Deferred[None]:
        """Delete a topic with its records; fails with :class:`UnknownTopic`."""
        self._topics.forget(topic)
        asked = Deferred.fromCoroutine(self._ask("topic.delete", TopicParams(topic)))
        return asked.addCallback(lambda _: None)

    def names(self) -> Deferred[dict[str, int]]:
        """Return the topics that this user may see: their names, and numbers of partitions."""
        return Deferred.fromCoroutine(self._names())

    async def _names(self) -> dict[str, int]:
        found: dict[str, int] = {}
        start = ""
        while True:
            page: TopicPage = await self._ask("topic.list", TopicListParams(start))
            found.update((each.topic, each.partitions) for each in page.topics)
            if page.next is None:
                return found
            if page.next <= start:
                raise BadAnswer(f"topic.list: the page after {start!r:.80} is {page.next!r:.80}")
            start = page.next

    def describe(self, topic: str) -> Deferred[TopicDescription]:
        """Return the settings of a topic, and what its partitions hold; fails with
        :class:`UnknownTopic`.
        """
        return Deferred.fromCoroutine(self._describe(topic))

    async def _describe(self, topic: str) -> TopicDescription:
        details: TopicDetails = await self._ask("topic.describe", TopicParams(topic))
        if [each.partition for each in details.partitions] != [*range(len(details.partitions))]:
            raise BadAnswer("topic.describe: the partitions are not numbered from 0 on")
        extents = [PartitionExtent(each.low, each.high, each.size) for each in details.partitions]
        return TopicDescription(topic, settings_in(topic, details.settings), extents)

    # -- delayed records

    def delay(
        self,
        topic: str,
        records: Sequence[NewRecord],
        *,
        after: float,
        partition: int | None = None,
    ) -> Deferred[list[int]]:
        """Write records in ``after`` seconds; returns the ids by which they can be cancelled."""
        params = EncodedRecordsParams(
            topic=topic,
            records=[encode_record(record) for record in records],
            after_ms=int(after * 1000),
            partition=partition,
        )
        asked: Deferred[DelayResult] = Deferred.fromCoroutine(self._ask("log.delay", params))
        return asked.addCallback(lambda result: result.ids)

    def delayed(self, topic: str) -> Deferred[list[DelayedEntry]]:
        """Return what is not due yet."""
        return Deferred.fromCoroutine(self._delayed(topic))

    async def _delayed(self, topic: str) -> list[DelayedEntry]:
        found: list[DelayedEntry] = []
        params = DelayedParams(topic)
        while True:
            page: DelayedResult = await self._ask("log.delayed", params)
            found += page.batches
            if page.next is None:
                return found
            if (page.next.due, page.next.id) <= (params.due, params.id):
                raise BadAnswer("log.delayed: the next page is the same one")
            params.due, params.id = page.next.due, page.next.id

    def cancel(self, topic: str, delay_id: int) -> Deferred[bool]:
        """Forget what is delayed; returns whether it was there, and so was never written."""
        params = CancelParams(topic, delay_id)
        asked: Deferred[CancelResult] = Deferred.fromCoroutine(self._ask("log.cancel", params))
        return asked.addCallback(lambda result: result.cancelled)

    # -- dead letters

    def dead(self, topic: str, limit: int = 1000) -> Deferred[list[DeadRecord]]:
        """Return the oldest dead letters of a topic, at most ``limit``."""
        return Deferred.fromCoroutine(self._dead(topic, limit))

    async def _dead(self, topic: str, limit: int) -> list[DeadRecord]:
        found: list[DeadRecord] = []
        params = DeadParams(topic)
        while len(found) < limit:
            params.limit = min(100, limit - len(found))
            page: DeadPage = await self._ask("log.dead", params)
            try:
                found += [_dead_record(entry) for entry in page.dead]
            except ValueError as error:
                raise BadAnswer(f"log.dead: {error}") from None
            before = params.partition, params.offset
            if page.next is None:
                break
            params.partition, params.offset = page.next.partition, page.next.offset
            if before == (params.partition, params.offset):
                raise BadAnswer("log.dead: the next page is the same one")
        return found[:limit]

    def redrive(self, topic: str, letter: DeadRecord | None = None) -> Deferred[int]:
        """Send a dead letter, or all of a topic, back to where they were; returns how many."""
        params = _choice(topic, letter)
        asked: Deferred[RedriveResult] = Deferred.fromCoroutine(self._ask("log.redrive", params))
        return asked.addCallback(lambda result: result.redriven)

    def purge(self, topic: str, letter: DeadRecord | None = None) -> Deferred[int]:
        """Drop a dead letter, or all of a topic; returns how many."""
        params = _choice(topic, letter)
        asked: Deferred[PurgeResult] = Deferred.fromCoroutine(self._ask("log.purge", params))
        return asked.addCallback(lambda result: result.purged)

    # -- groups

    def groups(self) -> Deferred[list[str]]:
        """Return the names of the groups that this user may use."""
        asked: Deferred[GroupsResult] = Deferred.fromCoroutine(self._ask("group.list", NoParams()))
        return asked.addCallback(lambda result: result.groups)

    def describe_group(self, group: str) -> Deferred[GroupDetails]:
        """Return the members of a group, and how far it is; fails with :class:`UnknownGroup`."""
        return self._of_group("group.describe", GroupParams(group))

    def reset(
        self,
        group: str,
        topic: str,
        *,
        at: str | int = "earliest",
        offset: int | None = None,
        partition: int | None = None,
        dry_run: bool = False,
    ) -> Deferred[dict[Partition, int]]:
        """Set the offsets of a group that has no members; returns those that it has then.

        ``at`` is as in :meth:`RemoteTopics.offsets`; an ``offset`` counts instead. Without a
        ``partition`` all of the topic are meant. Fails with :class:`GroupInUse`.
        """
        params = ResetParams(group, topic, offset=offset, partition=partition, dry_run=dry_run)
        if offset is None:
            params.at = at
        asked: Deferred[ResetResult] = self._of_group("group.reset", params)
        return asked.addCallback(
            lambda result: {Partition(topic, each.partition): each.after for each in result.offsets}
        )

    def delete_group(self, group: str) -> Deferred[None]:
        """Forget the offsets of a group; fails with :class:`GroupInUse`."""
        asked = self._of_group("group.delete", GroupParams(group))
        return asked.addCallback(lambda _: None)

    def _of_group(self, method: str, params: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._ask(method, params, group=params.group))


def _values(settings: TopicSettings) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(settings)
    return values


def _choice(topic: str, letter: DeadRecord | None) -> DeadPlaceParams:
    if letter is None:
        return DeadPlaceParams(topic)
    return DeadPlaceParams(topic, letter.partition, letter.offset)


def _dead_record(entry: DeadEntry) -> DeadRecord:
    source = entry.source
    return DeadRecord(
        entry.partition,
        entry.offset,
        Partition(source.topic, source.partition),
        source.offset,
        entry.group,
        entry.reason,
        entry.attempts,
        decode_record(entry.record),
    )


__all__ = ["TopicAdmin"]
