"""The items that nodes send each other, and their encoding: several items in one message. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Raw, Struct

from kupool.bus.calls import Response
from kupool.bus.messages import Message

#: The marker at the start of each message.
KIND = "kupool.bus/1"

#: The most topics and keys in one entry of a directory, and entries in one part of a state.
CHUNK = 200

#: The most parts that a state may have.
MAX_PARTS = 10_000

_ARRAY32 = b"\xdd"


class NodeItem(Struct, array_like=True, gc=False):
    """Something that one node sends another."""


class SubscriberEntry(Struct, array_like=True):
    """A subscriber of a node, or some of its topics; ``since`` is as in a status."""

    subscriber: str
    since: float
    topics: list[str]
    keys: list[str]


class NodeState(NodeItem, tag=1):
    """The whole state of a node, in parts. With ``reply`` the receivers send theirs.

    ``version`` counts the changes before it. The first part has the subscribers that are gone and
    stay members of their topics, each with the seconds that are left.
    """

    version: int
    part: int
    parts: int
    reply: bool
    entries: list[SubscriberEntry]
    lost: dict[str, float] = {}


class Added(NodeItem, tag=2):
    """A change: a subscriber has added topics."""

    version: int
    entry: SubscriberEntry


class Removed(NodeItem, tag=3):
    """A change: a subscriber has removed topics; ``topics`` is None for all.

    If it is ``gone``, it answers no more either, and stays a member of its topics for ``linger``
    seconds.
    """

    version: int
    subscriber: str
    topics: list[str] | None
    gone: bool
    linger: float = 0.0


class Took(NodeItem, tag=4):
    """An acknowledgement: all changes up to a version have been applied."""

    version: int


class Beat(NodeItem, tag=5):
    """A heartbeat with the current version.

    ``sent`` is for the node itself: when it was sent, in seconds of the node's clock.
    """

    version: int
    sent: float = 0.0


class AskState(NodeItem, tag=6):
    """A request for the state of a node."""


class Bye(NodeItem, tag=7):
    """A node ends."""


class NodeCall(NodeItem, tag=8):
    """A call for a subscriber; ``number`` is the caller's."""

    number: int
    subscriber: str
    message: Message


class NodeReply(NodeItem, tag=9):
    """A subscriber's response to a call."""

    number: int
    subscriber: str
    response: Response


class Tell(NodeItem, tag=10):
    """An unreliable message for subscribers of one node."""

    message: Message
    subscribers: list[str]


class TellAll(NodeItem, tag=11):
    """An unreliable message for subscribers of several nodes, by node."""

    message: Message
    subscribers: dict[str, list[str]]


Items = (
    NodeState
    | Added
    | Removed
    | Took
    | Beat
    | AskState
    | Bye
    | NodeCall
    | NodeReply
    | Tell
    | TellAll
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Items)
_batch_decoder = msgspec.msgpack.Decoder(list[Raw])


def encode(item: NodeItem) -> bytes:
    """Return an item as bytes."""
    return _encoder.encode(item)


def pack(pieces: Iterable[bytes]) -> bytes:
    """Return encoded items as one message."""
    found = list(pieces)
    return b"".join((_ARRAY32, len(found).to_bytes(4, "big"), *found))


def unpack(body: bytes) -> Iterator[Items | None]:
    """Yield the items of a message, with None for each unreadable item.

    Raises :class:`ValueError` if it is not a message of items at all.
    """
    for raw in _batch_decoder.decode(body):
        try:
            yield _decoder.decode(raw)
        except (ValueError, RecursionError):
            yield None


def make_state(
    version: int,
    entries: Iterable[SubscriberEntry],
    reply: bool,
    lost: dict[str, float] | None = None,
) -> list[NodeState]:
    """Return the parts of a state, each of which fits a message."""
    pieces = [piece for entry in entries for piece in split(entry)]
    groups: list[list[SubscriberEntry]] = [[]]
    weight = 0
    for piece in pieces:
        size = 1 + len(piece.topics) + len(piece.keys)
        if weight and weight + size > CHUNK:
            groups.append([])
            weight = 0
        groups[-1].append(piece)
        weight += size
    states = [NodeState(version, n, len(groups), reply, some) for n, some in enumerate(groups)]
    states[0].lost = lost or {}
    return states


def split(entry: SubscriberEntry) -> Iterator[SubscriberEntry]:
    """Yield an entry in parts, each of which fits a message."""
    parts = max(1, -(-len(entry.topics) // CHUNK), -(-len(entry.keys) // CHUNK))
    for n in range(parts):
        some = slice(n * CHUNK, (n + 1) * CHUNK)
        # If only keys are left, the first topic is repeated: an entry always has a topic.
        topics = entry.topics[some] or entry.topics[:1]
        yield SubscriberEntry(entry.subscriber, entry.since, topics, entry.keys[some])


__all__ = [
    "KIND",
    "MAX_PARTS",
    "Added",
    "AskState",
    "Beat",
    "Bye",
    "Items",
    "NodeCall",
    "NodeItem",
    "NodeReply",
    "NodeState",
    "Removed",
    "SubscriberEntry",
    "Tell",
    "TellAll",
    "Took",
    "encode",
    "make_state",
    "pack",
    "split",
    "unpack",
]
