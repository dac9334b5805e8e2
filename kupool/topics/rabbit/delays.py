"""Batches that are published later: kept in the store, and published once.

Each is claimed before it is published, with the end of its stream at that time. After a crash
between the two, whoever claims it next looks from there on whether it is in the stream already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from kupool.topics.partition import Partition
from kupool.topics.rabbit import statements
from kupool.topics.rabbit.statements import DueBatch

#: The batches that are claimed together, and the seconds that a node has for them.
AT_ONCE = 200
CLAIMED = 60.0

#: Returns the next position of a partition, once it is known.
EndOf = Callable[[Partition], Awaitable[int]]

#: Returns the offset of a message of an id in a partition from a position on; None without one.
FindMessage = Callable[[Partition, int, str], Awaitable[int | None]]

#: Publishes a batch (partition, id, records, body); fires when it is stored.
PublishAs = Callable[[Partition, str, int, bytes], Deferred[Any]]


class DelayedPublishing:
    """Publishes what is due; ``store`` is an :class:`ITopicStore`."""

    def __init__(self, store: Any, end_of: EndOf, find: FindMessage, publish: PublishAs) -> None:
        self._store = store
        self._end_of = end_of
        self._find = find
        self._publish = publish

    async def publish_due(self, now: int) -> Mapping[Partition, int]:
        """Publish the batches that are due; returns how many records each partition got.

        Raises :class:`TopicsUnavailable`; what was not published then is published by a later
        call.
        """
        found: Counter[Partition] = Counter()
        while True:
            due: Sequence[DueBatch] = await self._store.run(
                partial(statements.due, now=now, limit=AT_ONCE)
            )
            batches = await self._claim(due)
            if not batches:
                return found
            found.update(await self._publish_all(batches))

    async def _claim(self, due: Sequence[DueBatch]) -> list[DueBatch]:
        """Return those batches that no other node publishes."""
        ends = {place: await self._end_of(place) for place in {_partition(each) for each in due}}
        if not due:
            return []
        positions = {each.delay_id: ends[_partition(each)] for each in due}
        claimed: set[int] = await self._store.run(
            partial(statements.claim, positions=positions, seconds=CLAIMED)
        )
        return [each for each in due if each.delay_id in claimed]

    async def _publish_all(self, batches: Sequence[DueBatch]) -> Counter[Partition]:
        done, running, published = [], list[tuple[DueBatch, Deferred[Any]]](), Counter[Partition]()
        for batch in batches:
            partition, message_id = _partition(batch), f"delayed-{batch.delay_id}"
            before = batch.claimed_from
            if before is not None and await self._find(partition, before, message_id) is not None:
                done.append(batch)
            else:
                sent = self._publish(partition, message_id, batch.records, batch.body)
                running.append((batch, sent))
        outcomes = await DeferredList([sent for _, sent in running], consumeErrors=True)
        failures = list[tuple[int, Failure]]()
        for (batch, _), (succeeded, outcome) in zip(running, outcomes, strict=True):
            if succeeded:
                done.append(batch)
            else:
                failures.append((batch.delay_id, outcome))
        for batch in done:
            published[_partition(batch)] += batch.records
        ids = [batch.delay_id for batch in done]
        await self._store.run(partial(statements.published, delay_ids=ids))
        if failures:
            left = [delay_id for delay_id, _ in failures]
            await self._store.run(partial(statements.unclaim, delay_ids=left))
            failures[0][1].raiseException()
        return published


def _partition(batch: DueBatch) -> Partition:
    return Partition(batch.topic, batch.place.number)


__all__ = ["AT_ONCE", "CLAIMED", "DelayedPublishing"]
