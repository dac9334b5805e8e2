"""The topics that this node knows: those of the store, looked at again and again."""

from __future__ import annotations

from typing import Any

from kupool.amqp.streams import stream_arguments
from kupool.topics.errors import UnknownPartition, UnknownTopic
from kupool.topics.partition import Partition
from kupool.topics.rabbit import statements
from kupool.topics.rabbit.entries import max_age, stream_name
from kupool.topics.rabbit.statements import StatementCursor, StoredPlace, StoredTopic
from kupool.topics.settings import TopicSettings

#: The least limit of the size of a stream. With segments of a few bytes RabbitMQ 3.10 confirms
#: nothing any more.
LEAST_BYTES = 100_000


class TopicDirectory:
    """Topics by name, and their partitions by the names of their streams.

    ``store`` is an :class:`ITopicStore`, ``prefix`` the beginning of the names of streams.
    """

    def __init__(self, store: Any, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._topics: dict[str, StoredTopic] = {}
        self._partitions: dict[str, Partition] = {}
        self._streams: dict[Partition, str] = {}
        self._lows: dict[StoredPlace, int] = {}
        #: Names that are being created, changed or deleted here, and those for which that ended
        #: during the look at the store under way, which may have been too early for it.
        self._changing: set[str] = set()
        self._changed: set[str] = set()

    # -- topics

    def settings(self) -> dict[str, TopicSettings]:
        """Return the settings of all topics."""
        return {name: topic.settings for name, topic in self._topics.items()}

    def find(self, name: str) -> StoredTopic | None:
        """Return a topic; None if there is none of this name."""
        return self._topics.get(name)

    def topic(self, name: str) -> StoredTopic:
        """Return a topic; raises :class:`UnknownTopic`."""
        topic = self._topics.get(name)
        if topic is None:
            raise UnknownTopic(name)
        return topic

    def place(self, partition: Partition) -> StoredPlace:
        """Return where a partition is in the store.

        Raises :class:`UnknownTopic` or :class:`UnknownPartition`.
        """
        topic = self.topic(partition.topic)
        if not 0 <= partition.number < topic.settings.partitions:
            raise UnknownPartition(*partition, topic.settings.partitions)
        return StoredPlace(topic.key, partition.number)

    def add(self, topic: StoredTopic) -> None:
        """Know a topic, or new settings of one."""
        self._topics[topic.name] = topic
        for number in range(topic.settings.partitions):
            partition = Partition(topic.name, number)
            stream = stream_name(self._prefix, partition)
            self._partitions[stream] = partition
            self._streams[partition] = stream

    def remove(self, topic: StoredTopic) -> list[str]:
        """Know a topic no more; returns the names of its streams."""
        self._topics.pop(topic.name, None)
        self._lows = {place: low for place, low in self._lows.items() if place.key != topic.key}
        streams = self.streams(topic)
        for stream in streams:
            partition = self._partitions.pop(stream, None)
            if partition is not None:
                del self._streams[partition]
        return streams

    def is_changing(self, name: str) -> bool:
        """Return whether a topic is being created, changed or deleted here."""
        return name in self._changing

    def begin_change(self, name: str) -> None:
        """A topic is being created, changed or deleted here: a refresh leaves it alone."""
        self._changing.add(name)

    def end_change(self, name: str) -> None:
        """That has ended."""
        self._changing.discard(name)
        self._changed.add(name)

    async def refresh(self) -> list[StoredTopic]:
        """Look at the store; returns the topics that are not there any more.

        Raises :class:`TopicsUnavailable`.
        """

        async def look(cursor: StatementCursor) -> tuple[list[StoredTopic], dict[StoredPlace, int]]:
            return await statements.topics(cursor), await statements.lows(cursor)

        self._changed.clear()
        topics, lows = await self._store.run(look)
        own = self._changing | self._changed
        found = {topic.name: topic for topic in topics}
        gone = []
        for name, topic in list(self._topics.items()):
            again = found.get(name)
            if name not in own and (again is None or again.key != topic.key):
                gone.append(topic)
        for topic in gone:
            self.remove(topic)
        for topic in topics:
            if topic.name not in own:
                self.add(topic)
        for place, low in lows.items():
            self.raise_low(place, low)
        return gone

    # -- streams

    def stream(self, partition: Partition) -> str:
        """Return the name of the stream of a partition; raises as :meth:`place` does."""
        stream = self._streams.get(partition)
        if stream is None:
            self.place(partition)  # which says what there is not
            raise UnknownTopic(partition.topic)
        return stream

    def streams(self, topic: StoredTopic) -> list[str]:
        """Return the names of the streams of a topic."""
        numbers = range(topic.settings.partitions)
        return [stream_name(self._prefix, Partition(topic.name, number)) for number in numbers]

    def partition_of(self, stream: str) -> Partition | None:
        """Return the partition of a stream; None if its topic is not known any more."""
        return self._partitions.get(stream)

    def arguments(self, stream: str) -> dict[str, Any] | None:
        """Return what a stream is made with; None if there shall be none of that name."""
        partition = self._partitions.get(stream)
        return None if partition is None else arguments_of(self._topics[partition.topic].settings)

    def low(self, place: StoredPlace) -> int:
        """Return the offset below which nothing of a partition is read."""
        return self._lows.get(place, 0)

    def raise_low(self, place: StoredPlace, low: int) -> None:
        """Know that nothing below an offset is read."""
        self._lows[place] = max(low, self._lows.get(place, 0))


def arguments_of(settings: TopicSettings) -> dict[str, Any]:
    """Return what the streams of a topic are made with."""
    size = settings.retention_bytes
    arguments = stream_arguments(
        max_age(settings), size and max(size, LEAST_BYTES), settings.replicas
    )
    # By default all partitions would be led by the node that their topic was created at.
    return {**arguments, "x-queue-leader-locator": "balanced"}


__all__ = ["TopicDirectory", "arguments_of"]
