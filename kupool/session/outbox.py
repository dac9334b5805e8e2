"""The outbox of a slow reader: bounded, in order, by class of message.

A *reply* is never dropped. A *latest* message replaces an older one of the same key. An
*event* is dropped by a policy. The outbox is only used while the transport's buffer is
full; it never writes by itself.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

#: Most bytes of replies that are sent together.
JOIN_SIZE = 65536


class EventPolicy(Enum):
    """What happens to an event when the waiting events have reached their limit."""

    DROP_NEW = "drop-new"
    DROP_OLDEST = "drop-oldest"


class Outbox:
    """The waiting bytes of one slow reader."""

    __slots__ = ("_event_bytes", "_events", "_latest", "_replies", "dropped", "reply_bytes")

    def __init__(self) -> None:
        self._replies: deque[bytes] = deque()
        self._latest: dict[str, bytes] = {}
        self._events: deque[bytes] = deque()
        self._event_bytes = 0
        self.reply_bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        """Return the number of bytes that wait."""
        latest = sum(len(data) for data in self._latest.values())
        return self.reply_bytes + self._event_bytes + latest

    def add_reply(self, data: bytes) -> None:
        """Keep ``data`` in any case; the caller checks ``reply_bytes``."""
        self._replies.append(data)
        self.reply_bytes += len(data)

    def add_latest(self, key: str, data: bytes) -> None:
        """Keep ``data``, and drop an older message of the same ``key``."""
        if self._latest.pop(key, None) is not None:
            self.dropped += 1
        self._latest[key] = data

    def add_event(self, data: bytes, limit: int, policy: EventPolicy) -> bool:
        """Keep ``data`` if the waiting events stay within ``limit`` bytes.

        Returns whether it was kept; every dropped event is counted.
        """
        size = len(data)
        if size > limit or (policy is EventPolicy.DROP_NEW and self._event_bytes + size > limit):
            self.dropped += 1
            return False
        while self._event_bytes + size > limit:
            self.dropped += 1
            self._event_bytes -= len(self._events.popleft())
        self._events.append(data)
        self._event_bytes += size
        return True

    def take(self) -> bytes | None:
        """Remove and return the next data to send: replies, then latest, then events.

        Replies are joined, because thousands of small ones may be waiting.
        """
        if self._replies:
            data = self._take_replies()
            self.reply_bytes -= len(data)
            return data
        if self._latest:
            return self._latest.pop(next(iter(self._latest)))
        if self._events:
            data = self._events.popleft()
            self._event_bytes -= len(data)
            return data
        return None

    def _take_replies(self) -> bytes:
        replies, size = self._replies, 0
        parts: list[bytes] = []
        while replies and size < JOIN_SIZE:
            data = replies.popleft()
            parts.append(data)
            size += len(data)
        return b"".join(parts)
