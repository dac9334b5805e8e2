"""Batches as messages of a stream: names of streams, headers, offsets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from kupool.topics.batches import RecordCodec
from kupool.topics.errors import CorruptBatch, TopicError
from kupool.topics.interfaces import StoredBatch
from kupool.topics.partition import Partition
from kupool.topics.settings import TopicSettings

#: The offsets that each batch takes: that of its first record is its position times this.
STRIDE = 65_536

#: The headers of a message: its number of records, and when it was appended, in milliseconds since
#: the epoch.
RECORDS = "records"
APPENDED_AT = "appended_at"

#: The longest name of a topic that is in the name of its streams as it is. With the rest these have
#: at most 255 bytes.
_LONGEST = 200


def stream_name(prefix: str, partition: Partition) -> str:
    """Return the name of the stream of a partition: ``PREFIX.TOPIC.NUMBER``.

    Of a topic with a name of more than 200 characters it has the first 150, and a hash.
    """
    topic = partition.topic
    if len(topic) > _LONGEST:
        digest = blake2b(topic.encode(), digest_size=8).hexdigest()
        topic = f"{topic[:150]}~{digest}"
    return f"{prefix}.{topic}.{partition.number}"


def max_age(settings: TopicSettings) -> str:
    """Return the limit of the age of a stream, in whole seconds; empty for none."""
    seconds = settings.retention_time
    return f"{max(1, round(seconds))}s" if seconds else ""


class StreamEntry(NamedTuple):
    """A batch in a stream. One that is ``repeated`` may be in the stream before, too."""

    position: int
    message_id: str
    batch: StoredBatch
    repeated: bool

    @property
    def size(self) -> int:
        """The bytes of its body."""
        return len(self.batch.body)


def entry_of(
    position: int, message_id: str, headers: Mapping[str, Any], body: bytes
) -> StreamEntry:
    """Return a message of a stream as a batch; whoever published it."""
    records = headers.get(RECORDS)
    if not isinstance(records, int) or not 0 < records < STRIDE:
        records = _count(body)
    at = headers.get(APPENDED_AT)
    return StreamEntry(
        position,
        message_id,
        StoredBatch(position * STRIDE, int(records), int(at) if isinstance(at, int) else 0, body),
        bool(headers.get("repeated")),
    )


def _count(body: bytes) -> int:
    """Return the number of records of a batch that does not say it; one that is corrupt has one,
    so that its reader is told.
    """
    try:
        return len(RecordCodec().decode(body, 0)[1]) or 1
    except (CorruptBatch, TopicError):
        return 1


__all__ = [
    "APPENDED_AT",
    "RECORDS",
    "STRIDE",
    "StreamEntry",
    "entry_of",
    "max_age",
    "stream_name",
]
