"""The accepted submissions as a topic, read from the log in which they became durable.

An entry of the log is a batch, and each of its submissions a record: the value is JSON as in
:class:`~kupool.wire.submissions.LoggedSubmission`, the key is the username, and the timestamp that
of the batch. The offset is the position of the entry times 65,536, plus the index in the batch. So
offsets have gaps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.log import Entry, LogBounds, LogUnavailable
from kupool.storage.database import DatabaseClosed, DatabaseUnusable
from kupool.topics.errors import CorruptBatch, OffsetOutOfRange, TopicsUnavailable
from kupool.topics.interfaces import PartitionExtent, StoredBatch
from kupool.topics.own_topics import SUBMISSIONS
from kupool.topics.partition import Partition
from kupool.topics.records import Record
from kupool.topics.routed import ITopicSource
from kupool.topics.settings import TopicSettings
from kupool.wire.batches import PoisonBatch, decode_batch
from kupool.wire.submissions import PER_ENTRY, logged_of

#: How many times as large as an entry its records are: each names the batch and its fields again.
LARGER = 4


@implementer(ITopicSource)
class SubmissionTopic:
    """The entries of a log as a topic; ``reader`` is an :class:`~kupool.log.ILogReader`.

    ``settings`` are those to show: the log has its own retention.
    """

    def __init__(self, reader: Any, settings: TopicSettings) -> None:
        self._reader = reader
        self.settings = settings
        self._encode = msgspec.json.Encoder().encode

    def open(self) -> Deferred[None]:
        """Open the reader; fails with the error of the file."""
        opened: Deferred[None] = self._reader.open()
        return opened

    def read(
        self, partition: Partition, offset: int, max_bytes: int
    ) -> Deferred[list[StoredBatch]]:
        """Return the entry that holds an offset, and those behind it."""
        return Deferred.fromCoroutine(self._read(partition, offset, max_bytes))

    async def _read(self, partition: Partition, offset: int, max_bytes: int) -> list[StoredBatch]:
        position = offset // PER_ENTRY
        try:
            entries: Sequence[Entry] = await self._reader.read(position - 1, max_bytes // LARGER)
            if entries and entries[0].position != position:
                # Was it dropped, or never there?
                extent = _extent(await self._reader.bounds())
                if offset < extent.low:
                    raise OffsetOutOfRange(*partition, offset, low=extent.low, high=extent.high)
        except _UNREADABLE as error:
            raise TopicsUnavailable(str(error)) from error
        return [
            StoredBatch(
                entry.position * PER_ENTRY, PER_ENTRY, int(entry.appended_at * 1000), entry.body
            )
            for entry in entries
        ]

    def decode(self, body: bytes, base: int) -> tuple[str, list[Record]]:
        """Return the id of a batch and its submissions; raises :class:`CorruptBatch`."""
        try:
            batch = decode_batch(body)
        except PoisonBatch as error:
            raise CorruptBatch(f"position {base // PER_ENTRY} of the log: {error}") from None
        if len(batch.usernames) > PER_ENTRY:
            raise CorruptBatch(
                f"position {base // PER_ENTRY} of the log: it has {len(batch.usernames)} "
                f"submissions, there are offsets for {PER_ENTRY}"
            )
        return batch.batch, [
            Record(offset, batch.at, each.username.encode(), self._encode(each), {})
            for offset, each in enumerate(logged_of(batch), base)
        ]

    def extent(self) -> Deferred[PartitionExtent]:
        """Return the offsets of the log's entries, and their size."""
        found: Deferred[LogBounds] = self._reader.bounds()
        return found.addCallbacks(_extent, _unavailable)

    def find(self, at: int) -> Deferred[int]:
        """Return the offset of the first entry appended at a time or later."""
        found: Deferred[int] = self._reader.find(at / 1000)
        return found.addCallbacks(lambda position: position * PER_ENTRY, _unavailable)

    def watch(self, told: Callable[[], object]) -> None:
        """Have ``told`` called soon after there are new submissions."""
        self._reader.watch(told)

    def close(self) -> Deferred[None]:
        """Close the reader."""
        closed: Deferred[None] = self._reader.close()
        return closed


#: The errors of a log that cannot be read now.
_UNREADABLE = (LogUnavailable, DatabaseClosed, DatabaseUnusable, sqlite3.Error)


def _unavailable(failure: Failure) -> Any:
    if failure.check(*_UNREADABLE) is None:
        return failure
    raise TopicsUnavailable(failure.getErrorMessage()) from failure.value


def _extent(bounds: LogBounds) -> PartitionExtent:
    return PartitionExtent(bounds.first * PER_ENTRY, (bounds.last + 1) * PER_ENTRY, bounds.size)


__all__ = ["LARGER", "PER_ENTRY", "SUBMISSIONS", "SubmissionTopic"]
