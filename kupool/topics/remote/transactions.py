"""Transactions over the wire: records to several topics that are written all or none.

::

    transaction = await begin_transaction(topics)
    await transaction.add("orders", [NewRecord(b"one")])
    await transaction.add("bills", [NewRecord(b"one")])
    written = await transaction.commit()

An engine that has none refuses it. A transaction that is not committed in time is aborted.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from kupool.topics.api.params import NoParams, TransactionParams
from kupool.topics.records import NewRecord
from kupool.topics.remote.bodies import encode_record
from kupool.topics.remote.failures import BadAnswer
from kupool.topics.remote.operations import (
    BeginResult,
    CommitResult,
    EncodedRecordsParams,
    ProduceResult,
)
from kupool.topics.remote.topics import RemoteTopics
from kupool.topics.service import Written


def begin_transaction(topics: RemoteTopics) -> Deferred[RemoteTransaction]:
    """Begin a transaction; fails with what the server refuses."""
    begun: Deferred[BeginResult] = Deferred.fromCoroutine(topics.nodes.ask("log.begin", NoParams()))
    return begun.addCallback(lambda result: RemoteTransaction(topics, result))


class RemoteTransaction:
    """A transaction that was begun; ``timeout`` is the seconds that it has.

    If an answer to :meth:`add` or :meth:`commit` is lost, they fail with :class:`AnswerLost`. After
    that of :meth:`commit` it is unknown whether the records were written.
    """

    def __init__(self, topics: RemoteTopics, begun: BeginResult) -> None:
        self.timeout = begun.timeout_ms / 1000
        self._ask = topics.nodes.ask
        self._params = TransactionParams(begun.transaction)
        #: The number of records of each :meth:`add`.
        self._added: list[int] = []

    def add(
        self, topic: str, records: Sequence[NewRecord], *, partition: int | None = None
    ) -> Deferred[None]:
        """Add records, which are checked, and written by :meth:`commit`."""
        return Deferred.fromCoroutine(self._add(topic, records, partition))

    async def _add(self, topic: str, records: Sequence[NewRecord], partition: int | None) -> None:
        params = EncodedRecordsParams(
            topic=topic,
            records=[encode_record(record) for record in records],
            partition=partition,
            transaction=self._params.transaction,
        )
        result: ProduceResult = await self._ask("log.produce", params)
        if result.added != len(records):
            raise BadAnswer(f"log.produce: {result.added} of {len(records)} records were added")
        self._added.append(len(records))

    def commit(self) -> Deferred[list[list[Written]]]:
        """Write the records; fires with their places, for each :meth:`add`."""
        return Deferred.fromCoroutine(self._commit())

    async def _commit(self) -> list[list[Written]]:
        result: CommitResult = await self._ask("log.commit", self._params)
        if [len(each) for each in result.written] != self._added:
            raise BadAnswer("log.commit: not the places of the records that were added")
        return [[Written(each.partition, each.offset) for each in part] for part in result.written]

    def abort(self) -> Deferred[None]:
        """Write nothing of it."""
        asked = Deferred.fromCoroutine(self._ask("log.abort", self._params))
        return asked.addCallback(lambda _: None)


__all__ = ["RemoteTransaction", "begin_transaction"]
