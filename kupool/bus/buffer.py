"""The buffer for unreliable messages without subscribers, which keeps them for a short time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kupool.bus.accounts import Note
from kupool.bus.messages import Message
from kupool.bus.settings import BusSettings
from kupool.bus.topics import is_pattern, matches
from kupool.timing.timers import Timer, Timers

#: The most topics that may have a buffer at once.
MAX_BUFFERS = 1000


class BufferOwner(NamedTuple):
    """A user or an address that published a message."""

    is_user: bool
    name: str


class Kept(NamedTuple):
    """A message in the buffer until ``expires``, in seconds of the clock."""

    expires: float
    message: Message
    note: Note
    owners: tuple[BufferOwner, ...] = ()


class _Owned:
    """The contents of the buffer that one owner published: bytes, and messages by topic."""

    __slots__ = ("size", "topics")

    def __init__(self) -> None:
        self.size = 0
        self.topics: Counter[str] = Counter()


class _Queue:
    __slots__ = ("items", "size", "timer")

    def __init__(self) -> None:
        self.items: deque[Kept] = deque()
        self.size = 0
        self.timer: Timer | None = None


class Buffer:
    """One bounded queue for each topic; ``expired`` is called with messages that got no subscriber.

    One owner may use only a share of the bytes and of the topics, so that others have room.
    """

    def __init__(
        self, timers: Timers, settings: BusSettings, expired: Callable[[Kept], object]
    ) -> None:
        self._timers = timers
        self._settings = settings
        self._expired = expired
        self._queues: dict[str, _Queue] = {}
        self._size = 0
        self._owned: dict[BufferOwner, _Owned] = {}

    def count(self, topic: str) -> int:
        """Return how many messages of a topic are in the buffer."""
        queue = self._queues.get(topic)
        return 0 if queue is None else len(queue.items)

    def over_share(self, message: Message, owners: Iterable[BufferOwner]) -> bool:
        """Return whether one of a message's owners has used up their share."""
        settings, peers = self._settings, self._settings.peers
        for owner in owners:
            owned = self._owned.get(owner)
            if owned is None:
                continue  # a single message never exceeds the share
            part = peers.user_buffer if owner.is_user else peers.address_buffer
            more_topics = message.topic not in owned.topics
            if owned.size + len(message.data) > part * settings.buffer_total or (
                more_topics and len(owned.topics) >= part * MAX_BUFFERS
            ):
                return True
        return False

    def keep(self, message: Message, note: Note, owners: Iterable[BufferOwner] = ()) -> bool:
        """Keep a message; returns False if there is no room, or if its owner's share is used up."""
        settings, topic = self._settings, message.topic
        queue = self._queues.get(topic)
        if queue is None:
            if len(self._queues) >= MAX_BUFFERS:
                return False
            queue = _Queue()
        size = len(message.data)
        if (
            len(queue.items) >= settings.buffer_count
            or queue.size + size > settings.buffer_bytes
            or self._size + size > settings.buffer_total
            or self.over_share(message, owners)
        ):
            return False
        self._queues[topic] = queue
        expires = self._timers.now() + settings.buffer_time
        queue.items.append(Kept(expires, message, note, tuple(owners)))
        for owner in owners:
            owned = self._owned.setdefault(owner, _Owned())
            owned.size += size
            owned.topics[topic] += 1
        queue.size += size
        self._size += size
        if queue.timer is None:
            self._watch(topic, queue)
        return True

    def topics(self, pattern: str) -> list[str]:
        """Return the topics with messages in the buffer that match a pattern."""
        if not is_pattern(pattern):
            return [pattern] if pattern in self._queues else []
        return [topic for topic in self._queues if matches(pattern, topic)]

    def drain(self, topic: str, give: Callable[[Kept], bool]) -> None:
        """Offer the messages of a topic in order, until one is not taken."""
        queue = self._queues.get(topic)
        while queue is not None and queue.items:
            kept = queue.items[0]
            if not give(kept):
                return
            if queue.items and queue.items[0] is kept:
                self._drop_first(topic, queue)

    def clear(self) -> None:
        """Forget everything."""
        for queue in self._queues.values():
            self._timers.cancel(queue.timer)
        self._queues.clear()
        self._owned.clear()
        self._size = 0

    def _watch(self, topic: str, queue: _Queue) -> None:
        def expire() -> None:
            while queue.items and self._timers.passed(queue.items[0].expires):
                self._expired(self._drop_first(topic, queue))
            queue.timer = None
            if queue.items:
                self._watch(topic, queue)

        queue.timer = self._timers.add(queue.items[0].expires, expire)

    def _drop_first(self, topic: str, queue: _Queue) -> Kept:
        kept = queue.items.popleft()
        queue.size -= len(kept.message.data)
        self._size -= len(kept.message.data)
        for owner in kept.owners:
            self._let_go(owner, kept.message)
        if not queue.items:
            self._timers.cancel(queue.timer)
            queue.timer = None
            self._queues.pop(topic, None)
        return kept

    def _let_go(self, owner: BufferOwner, message: Message) -> None:
        owned = self._owned[owner]
        owned.size -= len(message.data)
        owned.topics[message.topic] -= 1
        if not owned.topics[message.topic]:
            del owned.topics[message.topic]
        if not owned.topics:
            del self._owned[owner]


__all__ = ["MAX_BUFFERS", "Buffer", "BufferOwner", "Kept"]
