"""The frame of the predecessor's bus, and the contents of its commands. Pure.

Magic 20170103, command, sequence, length, and two reserved numbers, each u32 big-endian; then the
body, of at most 50 KiB.
"""

from __future__ import annotations

from struct import Struct
from typing import Annotated, NamedTuple

import msgspec

from kupool.wire.framing import Framing, Item
from kupool.wire.splitters import Buffered

MAGIC = 20170103
MAX_BODY = 50 * 1024

#: Bytes of the six numbers in front of a body.
HEADER_SIZE = 24

#: The commands of a subscription and of its acknowledgement. Any other command is a topic.
SUBSCRIBE = 1
SUBSCRIBED = 2

#: The values of the first reserved number in a reply to a publisher.
ANSWERED = 0
UNANSWERED = 1

_HEADER = Struct(">6I")
_MAGIC = MAGIC.to_bytes(4, "big")


class PredecessorFrame(NamedTuple):
    """One frame: each number from 0 to 2**32 - 1; ``high`` and ``low`` are the reserved ones."""

    command: int
    sequence: int
    body: bytes
    high: int = 0
    low: int = 0

    def encode(self) -> bytes:
        """Return the frame as bytes; raises :class:`struct.error` for a number out of range."""
        command, sequence, body, high, low = self
        return _HEADER.pack(MAGIC, command, sequence, len(body), high, low) + body


def read_frame(data: bytes) -> PredecessorFrame | None:
    """Return the frame in these bytes; None if they are not exactly one frame."""
    if len(data) < HEADER_SIZE:
        return None
    magic, command, sequence, length, high, low = _HEADER.unpack_from(data)
    if magic != MAGIC or length != len(data) - HEADER_SIZE or length > MAX_BODY:
        return None
    return PredecessorFrame(command, sequence, data[HEADER_SIZE:], high, low)


class PredecessorSplitter(Buffered):
    """Splits a stream into whole frames, header and body; the limit applies to the body.

    A wrong magic ends the stream for good, at its first wrong byte.
    """

    __slots__ = ()

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes and return the frames that they complete."""
        if self._held is not None:
            data = self._complete(data)
        out: list[Item] = []
        start, size = 0, len(data)
        while start < size:
            begun = data[start : start + len(_MAGIC)]
            if not _MAGIC.startswith(begun):
                self._give_up()
                return out
            if start + HEADER_SIZE > size:
                # The magic is checked as soon as more of it has come.
                missing = len(begun) < len(_MAGIC)
                self._keep(data, start, len(begun) + 1 if missing else HEADER_SIZE)
                return out
            length = _HEADER.unpack_from(data, start)[3]
            end = start + HEADER_SIZE + length
            if length > self.max_payload or end > size:
                self._stop(data, start, HEADER_SIZE, length)
                return out
            out.append(data[start:end])
            start = end
        return out


def _as_it_is(frame: bytes) -> bytes:
    return frame


#: The framing of a connection whose payloads are whole frames. Over WebSocket a frame is a whole
#: message.
PREDECESSOR = Framing(
    "predecessor",
    lambda limit: PredecessorSplitter(min(limit, MAX_BODY)),
    _as_it_is,
    b"".join,
)

#: A topic is the command of what is published to it.
_Topic = Annotated[int, msgspec.Meta(gt=SUBSCRIBED, lt=2**32)]


class _Subscription(msgspec.Struct):
    topics: list[_Topic]


class Acknowledgement(msgspec.Struct):
    """The acknowledgement of a subscription; a ``status`` other than 0 means that it failed."""

    status: int
    message: str
    topics: list[int]

    def encode(self) -> bytes:
        """Return the body of its frame."""
        return msgspec.json.encode(self)


_subscriptions = msgspec.json.Decoder(_Subscription)


def read_topics(body: bytes) -> list[int] | None:
    """Return the topics in the body of a subscription; None if the body is invalid."""
    try:
        return _subscriptions.decode(body).topics
    except (ValueError, RecursionError):
        return None


__all__ = [
    "ANSWERED",
    "HEADER_SIZE",
    "MAGIC",
    "MAX_BODY",
    "PREDECESSOR",
    "SUBSCRIBE",
    "SUBSCRIBED",
    "UNANSWERED",
    "Acknowledgement",
    "PredecessorFrame",
    "PredecessorSplitter",
    "read_frame",
    "read_topics",
]
