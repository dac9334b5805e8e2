"""The interface of an engine of topics, and the data it hands over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zope.interface import Attribute, Interface

from kupool.topics.partition import Partition
from kupool.topics.records import Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.defer import Deferred

    from kupool.topics.settings import TopicSettings


class Content(NamedTuple):
    """The hash of a batch's content: the batch is dropped if a newer one has the same.

    ``window`` and ``seconds`` say how new: among so many of the partition's offsets before it, and
    appended so many seconds before. 0 is no limit.
    """

    hash: bytes
    window: int
    seconds: float


class CompactionKey(NamedTuple):
    """The hash of a key: a trim drops the batch if a later one has the same.

    A ``passing`` one is also dropped when it is as old as the topic's ``retention_time``.
    """

    hash: bytes
    passing: bool


class Append(NamedTuple):
    """A batch of so many ``records`` to append.

    With a ``stamp`` it is appended once, however often it is sent. With a ``content`` it is not
    appended if one with the same content was. In both cases it gets the offset of the first one.
    In a topic that compacts, and only there, it has a ``key``. ``at`` is the time to store with it,
    in milliseconds since the epoch; without one it is that of the engine's clock. In both cases it
    is at least the time of the batch before it.
    """

    partition: Partition
    records: int
    body: bytes
    stamp: Stamp | None = None
    content: Content | None = None
    key: CompactionKey | None = None
    at: int | None = None


def without_stamp(append: Append) -> Append:
    """Return a batch that has no stamp; raises :class:`ValueError` for one that has."""
    if append.stamp is not None:
        raise ValueError("a delayed batch cannot have a stamp: an engine remembers few of them")
    return append._replace(content=None)


class StoredBatch(NamedTuple):
    """A batch as it was appended; ``at`` is when, in milliseconds since the epoch.

    ``base`` is the offset of its first record. Of a partition, later batches have no earlier
    times, whatever the clock does.
    """

    base: int
    records: int
    at: int
    body: bytes


class DelayedBatch(NamedTuple):
    """A batch that is appended at ``due``, in milliseconds since the epoch."""

    delay_id: int
    due: int
    partition: Partition
    records: int


class DelayPlace(NamedTuple):
    """Where a delayed batch is among those of its topic: when it is due, and its id."""

    due: int
    delay_id: int


#: Before all delayed batches.
FIRST_DELAY = DelayPlace(0, 0)


class PartitionExtent(NamedTuple):
    """What a partition holds: offsets from ``low`` up to, but without, ``high``.

    ``size`` is that of its batches, in bytes.
    """

    low: int
    high: int
    size: int


#: The newest batches of a producer that an engine remembers in each partition.
REMEMBERED = 5


class Capabilities(NamedTuple):
    """What an engine can do.

    ``dense`` says that offsets have no gaps but those of compaction, ``atomic`` that several
    batches are appended all or none, ``persistent`` that records outlive the process, ``compacts``
    that topics may have a compaction. Each batch takes ``stride`` offsets, or as many as it has
    records if that is 1. ``shared`` says that several nodes use the same topics. ``trims`` says
    that :meth:`ITopicEngine.trim` applies the retention, which can be changed; else the engine
    applies it by itself, as it was when a partition was made. ``sizes`` says that the sizes of
    partitions are known; else they are 0.
    """

    dense: bool
    atomic: bool
    persistent: bool
    compacts: bool = True
    stride: int = 1
    shared: bool = False
    trims: bool = True
    sizes: bool = True


class ITopicEngine(Interface):
    """Stores batches in partitions of topics."""

    name = Attribute("What it is called in the settings.")

    capabilities = Attribute("What it can do, as Capabilities.")

    def open() -> Deferred[None]:
        """Prepare the engine; fails with a clear error if that is impossible."""

    def watch(told: Callable[[Partition], object]) -> None:
        """Have ``told`` called with each partition that has new records of other nodes."""

    def topics() -> Mapping[str, TopicSettings]:
        """Return the topics by name."""

    def topic(name: str) -> TopicSettings | None:
        """Return the settings of a topic; None if there is no such topic."""

    def identity(name: str) -> str:
        """Return what tells a topic from an earlier one of the same name; empty if there is none.

        It is unique in this store, or in this process if the store ends with that.
        """

    def create(name: str, settings: TopicSettings) -> Deferred[None]:
        """Create a topic; fails with :class:`TopicExists`."""

    def change(name: str, settings: TopicSettings) -> Deferred[None]:
        """Change the settings of a topic; partitions may be added, and never be removed.

        Fails with :class:`UnknownTopic`, and :class:`InvalidTopic` for fewer partitions.
        """

    def delete(name: str) -> Deferred[None]:
        """Delete a topic with all that it holds; fails with :class:`UnknownTopic`."""

    def append(appends: Sequence[Append]) -> Deferred[list[int]]:
        """Append batches; fires with the offset of the first record of each, once they are as
        durable as their topics demand.

        An atomic engine appends all or none. Fails with :class:`UnknownTopic`,
        :class:`UnknownPartition`, :class:`PartitionFull`, :class:`SequenceTooOld`, and
        :class:`TopicsUnavailable` if nothing can be stored now.
        """

    def read(partition: Partition, offset: int, max_bytes: int) -> Deferred[list[StoredBatch]]:
        """Return the batch that holds an offset, and those behind it, up to ``max_bytes``.

        If compaction dropped that batch, it begins with the next one. The first is returned
        whatever its size; nothing behind the last record. Fails with
        :class:`OffsetOutOfRange` below the oldest one, and as :meth:`append` does.
        """

    def extents(name: str) -> Deferred[list[PartitionExtent]]:
        """Return what each partition of a topic holds; fails with :class:`UnknownTopic`."""

    def find(partition: Partition, at: int) -> Deferred[int]:
        """Return the offset of the first batch appended at a time or later.

        ``at`` is in milliseconds since the epoch. Behind the last one, the next offset.
        """

    def trim(now: float) -> Deferred[int]:
        """Drop what is older or larger than the topics keep; returns how many records.

        ``now`` is the time of the retention clock, in seconds since the epoch. The age of a batch
        is how far that clock has advanced, between trims of the same process, since the first trim
        that found it. So a clock that is set makes nothing older. The newest batch of a partition
        stays.

        Of a topic that compacts it drops what later batches have replaced, and passing batches that
        are old. That moves the low end of no partition: a reader there goes on behind the gap.
        """

    def drop_below(partition: Partition, offset: int) -> Deferred[int]:
        """Drop the batches that end below an offset, or at it; returns how many records.

        Fails with :class:`UnknownTopic` and :class:`UnknownPartition`. The offsets of later records
        stay as they are, even if no record is left.
        """

    def delay(appends: Sequence[Append], due: int) -> Deferred[list[int]]:
        """Keep batches, and append them when :meth:`append_due` is called at a time or later.

        ``due`` is in milliseconds since the epoch. Fires with an id for each once they are durable;
        fails as :meth:`append` does. Batches with a stamp are not taken: raises ValueError.
        """

    def append_due(now: int) -> Deferred[Mapping[Partition, int]]:
        """Append the batches that are due, those due first first; returns how many records each
        partition got.

        ``now`` is in milliseconds since the epoch. A batch is appended once, whatever happens. One
        that its partition cannot take stays delayed by another day, and delays no other one.
        """

    def delayed(
        topic: str, start: DelayPlace = FIRST_DELAY, limit: int | None = None
    ) -> Deferred[Sequence[DelayedBatch]]:
        """Return the batches of a topic that are not due yet, those due first first, from a place
        on, ``limit`` at most; fails with :class:`UnknownTopic`.
        """

    def next_due() -> Deferred[int | None]:
        """Return when the next batch is due; None if there is none."""

    def cancel(topic: str, delay_id: int) -> Deferred[bool]:
        """Forget a delayed batch of a topic; returns whether it was there, and so was never
        appended. Fails with :class:`UnknownTopic`.
        """

    def commit(group: str, positions: Mapping[Partition, int]) -> Deferred[None]:
        """Save the offsets that a group reads next, all or none."""

    def committed(group: str) -> Deferred[Mapping[Partition, int]]:
        """Return the offsets that a group has saved."""

    def next_generation(group: str) -> Deferred[int]:
        """Return a number above all that the group had, which no process gets again."""

    def groups() -> Deferred[Sequence[str]]:
        """Return the names of the groups that have saved anything."""

    def forget_group(group: str) -> Deferred[None]:
        """Forget what a group has saved, but not its generation."""

    def problem() -> str:
        """Return why nothing can be stored now; empty if it can."""

    def close() -> Deferred[None]:
        """Finish running work and close; may be called again."""


__all__ = [
    "FIRST_DELAY",
    "REMEMBERED",
    "Append",
    "Capabilities",
    "CompactionKey",
    "Content",
    "DelayPlace",
    "DelayedBatch",
    "ITopicEngine",
    "PartitionExtent",
    "StoredBatch",
    "without_stamp",
]
