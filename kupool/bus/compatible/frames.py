"""The frame of the bus that KuPool's was modelled on, and what its commands carry. Pure.

Magic 20170103, command, sequence, length, and two reserved numbers, each u32 big-endian;
then the body, of at most 50 KiB.
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

#: The commands of a subscription and of its acknowledgement. Any other is a topic.
SUBSCRIBE = 1
SUBSCRIBED = 2

#: What the first reserved number says in a reply to a publisher.
ANSWERED = 0
UNANSWERED = 1

_HEADER = Struct(">6I")
_MAGIC = MAGIC.to_bytes(4, "big")


class PredecessorFrame(NamedTuple):
    """One frame: each number from 0 to 2**32 - 1, ``high`` and ``low`` the reserved ones."""

    command: int
    sequence: int
    body: bytes = b""
    high: int = 0
    low: int = 0

    def encode(self) -> bytes:
        """Return its bytes; raises :class:`struct.error` for a number of another size."""
        command, sequence, body, high, low = self
        return _HEADER.pack(MAGIC, command, sequence, len(body), high, low) + body


def read_frame(data: bytes) -> PredecessorFrame | None:
    """Return the one frame that some bytes are; None where they are not exactly one."""
    if len(data) < HEADER_SIZE:
        return None
    magic, command, sequence, length, high, low = _HEADER.unpack_from(data)
    if magic != MAGIC or length != len(data) - HEADER_SIZE or length > MAX_BODY:
        return None
    return PredecessorFrame(command, sequence, data[HEADER_SIZE:], high, low)


class PredecessorSplitter(Buffered):
    """Cuts a stream into whole frames, header and body; the limit is one of the body.

    A wrong magic ends the stream for good, with its first wrong byte.
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
                # As soon as there is more of the magic, it is looked at.
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


#: The framing of a connection whose payloads are whole frames, as over WebSocket they are
#: whole messages.
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
    """What a subscription is answered with; a ``status`` other than 0 says that it failed."""

    status: int
    message: str
    topics: list[int]

    def encode(self) -> bytes:
        """Return the body of its frame."""
        return msgspec.json.encode(self)


_subscriptions = msgspec.json.Decoder(_Subscription)


def read_topics(body: bytes) -> list[int] | None:
    """Return the topics that the body of a subscription names; None where it is none."""
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
