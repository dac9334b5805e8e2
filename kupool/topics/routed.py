"""Topics of which some have their records elsewhere.

A source gives the records of one topic: it has one partition, and is only read. All else is done by
the main engine, which also keeps the positions of groups in such a topic.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.components import proxyForInterface
from zope.interface import Attribute, Interface

from kupool.topics.errors import ReservedTopic, TopicExists, UnknownPartition
from kupool.topics.interfaces import (
    FIRST_DELAY,
    Append,
    DelayedBatch,
    DelayPlace,
    ITopicEngine,
    PartitionExtent,
    StoredBatch,
)
from kupool.topics.partition import Partition
from kupool.topics.settings import TopicSettings

if TYPE_CHECKING:
    from kupool.topics.records import Record


class ITopicSource(Interface):
    """The records of a topic that is only read; see :class:`ITopicEngine` for the calls."""

    settings = Attribute("The settings to show, as TopicSettings with one partition.")

    def open() -> Deferred[None]:
        """Prepare the source."""

    def read(partition: Partition, offset: int, max_bytes: int) -> Deferred[list[StoredBatch]]:
        """Return the batch that holds an offset, and those behind it."""

    def decode(body: bytes, base: int) -> tuple[str, list[Record]]:
        """Return the id of a batch and its records; raises :class:`CorruptBatch`."""

    def extent() -> Deferred[PartitionExtent]:
        """Return what the partition holds."""

    def find(at: int) -> Deferred[int]:
        """Return the offset of the first batch appended at a time or later."""

    def watch(told: Callable[[], object]) -> None:
        """Have ``told`` called soon after there are new records."""

    def close() -> Deferred[None]:
        """Finish running work and close; may be called again."""


class RoutedTopics(proxyForInterface(ITopicEngine, "main")):  # type: ignore[misc]
    """An engine of topics whose ``sources``, by the name of the topic, have records of their own.

    Users cannot create, change or delete these topics, nor write to them. ``kept`` are topics of
    the main engine that they cannot create, change or delete either: who writes them uses the
    main engine to create them.
    """

    def __init__(
        self, main: Any, sources: Mapping[str, Any], kept: Collection[str] = frozenset()
    ) -> None:
        super().__init__(main)
        self._sources = dict(sources)
        #: The topics that users cannot create, change or delete.
        self.reserved = frozenset((*sources, *kept))
        #: How the batches of each source are decoded.
        self.decoders = {name: source.decode for name, source in sources.items()}

    def watch(self, told: Callable[[Partition], object]) -> None:
        """Have ``told`` called with each partition that has new records, also of a source."""
        self.main.watch(told)
        for name, source in self._sources.items():
            source.watch(partial(told, Partition(name, 0)))

    def open(self) -> Deferred[None]:
        """Prepare the main engine and the sources."""
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        await self.main.open()
        for source in self._sources.values():
            await source.open()

    # -- topics

    def topics(self) -> Mapping[str, TopicSettings]:
        """Return the topics by name."""
        sources = {name: source.settings for name, source in self._sources.items()}
        return {**self.main.topics(), **sources}

    def topic(self, name: str) -> TopicSettings | None:
        """Return the settings of a topic; None if there is no such topic."""
        source = self._sources.get(name)
        found: TopicSettings | None = self.main.topic(name) if source is None else source.settings
        return found

    def identity(self, name: str) -> str:
        """Return what tells a topic from an earlier one; a source is always the same."""
        found: str = "log" if name in self._sources else self.main.identity(name)
        return found

    def create(self, name: str, settings: TopicSettings) -> Deferred[None]:
        """Create a topic; fails with :class:`ReservedTopic`, too."""
        return self._unless_reserved(name, lambda: self.main.create(name, settings))

    def change(self, name: str, settings: TopicSettings) -> Deferred[None]:
        """Change the settings of a topic; fails with :class:`ReservedTopic`, too."""
        return self._unless_reserved(name, lambda: self.main.change(name, settings))

    def delete(self, name: str) -> Deferred[None]:
        """Delete a topic; fails with :class:`ReservedTopic`, too."""
        return self._unless_reserved(name, lambda: self.main.delete(name))

    def drop_below(self, partition: Partition, offset: int) -> Deferred[int]:
        """Drop batches; fails with :class:`ReservedTopic`, too."""
        return self._unless_reserved(
            partition.topic, lambda: self.main.drop_below(partition, offset)
        )

    def _unless_reserved(self, name: str, call: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        return fail(ReservedTopic(name)) if name in self.reserved else call()

    # -- writing

    def append(self, appends: Sequence[Append]) -> Deferred[list[int]]:
        """Append batches; fails with :class:`ReservedTopic`, too."""
        for each in appends:
            if each.partition.topic in self._sources:
                return fail(ReservedTopic(each.partition.topic))
        appended: Deferred[list[int]] = self.main.append(appends)
        return appended

    def delay(self, appends: Sequence[Append], due: int) -> Deferred[list[int]]:
        """Keep batches for later; fails with :class:`ReservedTopic`, too."""
        for each in appends:
            if each.partition.topic in self._sources:
                return fail(ReservedTopic(each.partition.topic))
        delayed: Deferred[list[int]] = self.main.delay(appends, due)
        return delayed

    def delayed(
        self, topic: str, start: DelayPlace = FIRST_DELAY, limit: int | None = None
    ) -> Deferred[Sequence[DelayedBatch]]:
        """Return the batches of a topic that are not due yet; a source has none."""
        return succeed([]) if topic in self._sources else self.main.delayed(topic, start, limit)

    # -- reading

    def read(
        self, partition: Partition, offset: int, max_bytes: int
    ) -> Deferred[list[StoredBatch]]:
        """Return the batch that holds an offset, and those behind it."""
        source = self._sources.get(partition.topic)
        read: Deferred[list[StoredBatch]]
        if source is None:
            read = self.main.read(partition, offset, max_bytes)
        elif partition.number:
            read = fail(UnknownPartition(*partition, 1))
        else:
            read = source.read(partition, offset, max_bytes)
        return read

    def extents(self, name: str) -> Deferred[list[PartitionExtent]]:
        """Return what each partition of a topic holds."""
        source = self._sources.get(name)
        found: Deferred[list[PartitionExtent]] = (
            self.main.extents(name)
            if source is None
            else source.extent().addCallback(lambda extent: [extent])
        )
        return found

    def find(self, partition: Partition, at: int) -> Deferred[int]:
        """Return the offset of the first batch appended at a time or later."""
        source = self._sources.get(partition.topic)
        found: Deferred[int]
        if source is None:
            found = self.main.find(partition, at)
        elif partition.number:
            found = fail(UnknownPartition(*partition, 1))
        else:
            found = source.find(at)
        return found

    # -- positions of groups

    def commit(self, group: str, positions: Mapping[Partition, int]) -> Deferred[None]:
        """Save the offsets that a group reads next, all or none."""
        return Deferred.fromCoroutine(self._commit(group, positions))

    async def _commit(self, group: str, positions: Mapping[Partition, int]) -> None:
        for partition in positions:
            source = self._sources.get(partition.topic)
            if source is None:
                continue
            if partition.number:
                raise UnknownPartition(*partition, 1)
            if self.main.topic(partition.topic) is None:
                await self._make_place(partition.topic, source.settings)
        await self.main.commit(group, positions)

    async def _make_place(self, name: str, settings: TopicSettings) -> None:
        """Make an empty topic in the main engine, to which the positions of groups belong."""
        try:
            await self.main.create(name, settings)
        except TopicExists:
            return  # another one was faster

    def close(self) -> Deferred[None]:
        """Finish running work and close."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        for source in self._sources.values():
            await source.close()
        await self.main.close()


__all__ = ["ITopicSource", "RoutedTopics"]
