"""Batches that are published once, however often they are sent: by their mark or their content.

Each is claimed in the store before it is published, with the end of its stream at that time. After
a crash between the two, who sends it again looks from there on whether it is in the stream already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.timing.waiting import Waiters
from kupool.topics.errors import TopicsUnavailable
from kupool.topics.interfaces import Append
from kupool.topics.partition import Partition
from kupool.topics.rabbit import once_statements as statements
from kupool.topics.rabbit.directory import TopicDirectory
from kupool.topics.rabbit.entries import STRIDE
from kupool.topics.rabbit.once_statements import ClaimedElsewhere, OnceClaim, OnceOutcome
from kupool.topics.rabbit.reading import StreamReading
from kupool.topics.rabbit.sending import BatchToPublish, StreamSending
from kupool.topics.rabbit.statements import StatementCursor, StoredPlace

#: Seconds for which a node claims a batch; until another one is asked again whether it is done.
CLAIMED = 60.0
_AGAIN = 0.1


class OncePublishing:
    """Publishes batches that have a mark or a content; ``store`` is an :class:`ITopicStore`."""

    _log = Logger()

    def __init__(
        self,
        store: Any,
        clock: IReactorTime,
        wall: Callable[[], float],
        directory: TopicDirectory,
        *,
        sending: StreamSending,
        reading: StreamReading,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wall = wall
        self._directory = directory
        self._sending = sending
        self._reading = reading
        #: The batches of each partition that are claimed, and not sent yet.
        self.claiming: Counter[Partition] = Counter()
        #: Those that are being published here, by place and name.
        self._coming: dict[tuple[StoredPlace, str], Waiters[None]] = {}

    async def publish(self, append: Append, message_id: str) -> int:
        """Publish a batch, unless it was published; returns the offset of the first time.

        Raises :class:`SequenceTooOld`, and what :meth:`StreamSending.send` fails with.
        """
        place = self._directory.place(append.partition)
        self.claiming[append.partition] += 1
        try:
            return await self._publish(append, message_id, place)
        finally:
            self.claiming[append.partition] -= 1
            if not self.claiming[append.partition]:
                del self.claiming[append.partition]

    async def follow(self, batches: Sequence[BatchToPublish]) -> list[int]:
        """Publish batches behind those that are claimed now; returns their offsets."""
        for partition in {each.partition for each in batches}:
            await self._reading.end_of(partition)
        await self._store.run_in_order(_nothing)
        return await self._sending.send(batches)

    async def _publish(self, append: Append, message_id: str, place: StoredPlace) -> int:
        position = await self._reading.end_of(append.partition)
        while True:
            claim = OnceClaim(
                append.stamp,
                append.content,
                message_id,
                int(self._wall() * 1000),
                position,
                STRIDE,
                CLAIMED,
            )
            busy = [self._coming[key] for key in _keys(place, claim) if key in self._coming]
            if busy:
                await busy[0].wait()
                position = await self._reading.end_of(append.partition)
                continue
            waiters = Waiters[None]()
            self._coming.update(dict.fromkeys(_keys(place, claim), waiters))
            try:
                return await self._claim_and_publish(append, place, claim)
            except ClaimedElsewhere:
                pass
            finally:
                for key in _keys(place, claim):
                    del self._coming[key]
                waiters.tell(None)
            await deferLater(self._clock, _AGAIN)

    async def _claim_and_publish(self, append: Append, place: StoredPlace, claim: OnceClaim) -> int:
        outcome: OnceOutcome = await self._store.run_in_order(
            partial(statements.claim_once, place=place, claim=claim)
        )
        if outcome.base is not None:
            return outcome.base
        base = None
        try:
            if outcome.claimed_from is not None:
                base = await self._reading.find_message(
                    append.partition, outcome.claimed_from, outcome.message_id
                )
            if base is None:
                message = BatchToPublish(
                    append.partition, outcome.message_id, append.records, append.body, append.at
                )
                (base,) = await self._sending.send([message])
        except TopicsUnavailable:
            self._note(partial(statements.unclaim_once, place=place, claim=claim))
            raise
        # It need not be durable: without it, the batch is found in the stream.
        self._note(partial(statements.settle_once, place=place, claim=claim, base=base))
        return base

    def _note(self, work: Any) -> None:
        noted: Deferred[None] = self._store.run_in_order(work)
        noted.addErrback(self._not_noted)

    def _not_noted(self, failure: Failure) -> None:
        self._log.warn(
            "What was published once is looked for when it is sent again: {reason}",
            reason=failure.getErrorMessage(),
        )


async def _nothing(cursor: StatementCursor) -> None:
    """Do nothing."""


def _keys(place: StoredPlace, claim: OnceClaim) -> list[tuple[StoredPlace, str]]:
    return [(place, name) for name in claim.names]


__all__ = ["CLAIMED", "OncePublishing"]
