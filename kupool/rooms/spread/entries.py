"""The messages between hosts, and their encoding as bytes.

A peer is a connection, identified by the number that its own host gave it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kupool.session.outbox import EventPolicy


class HostEntry(msgspec.Struct, array_like=True, gc=False, tag=True):
    """The base class of all entries."""


class Say(HostEntry):
    """To a room's host: a message of a user; with ``number`` 0 no answer is expected.

    ``first`` makes the user a member. Without it, a message that was on its way does not make a
    former member one again. ``address`` is the address of the connection.
    """

    peer: int
    code: str
    user: str
    number: int
    body: bytes
    first: bool
    address: str = ""


class Enter(HostEntry):
    """To a room's new host: a user who was a member at its previous host."""

    peer: int
    code: str
    user: str
    address: str = ""


class Gone(HostEntry):
    """To a room's host: the connection has ended."""

    peer: int


class RoomReply(HostEntry, tag="Reply"):
    """To a connection's host: the answer, or an error if ``code`` is not 0."""

    peer: int
    number: int
    data: bytes
    code: int = 0
    text: str = ""


class Push(HostEntry):
    """To a connection's host: a message of a room; ``key`` and ``policy`` are those of a
    publication.
    """

    peers: list[int]
    data: bytes
    key: str | None
    policy: str | None


class Out(HostEntry):
    """To a connection's host: the user is not a member here any more, or is one elsewhere."""

    peer: int
    code: str
    moved: bool
    reason: str


class Hold(HostEntry):
    """To a connection's host: pause reading from it, or (``on`` False) resume."""

    peer: int
    on: bool


class Ask(HostEntry):
    """To a room's previous host: report when the room has ended there."""

    code: str


class Handed(HostEntry):
    """To a room's new host: it has ended here; with its state, if it was here at all.

    ``user`` and ``address`` are those whose quotas it counts for. ``leaving`` are hosts that it has
    been at and that serve no rooms any more, whether the receiver knows that yet or not. Without a
    state, ``at`` is the host that the room was sent to, if it was.
    """

    code: str
    state: bytes | None
    user: str = ""
    address: str = ""
    leaving: list[str] = []
    at: str = ""


class Everyone(HostEntry):
    """To every host: send to all members of all rooms, or to one user."""

    user: str | None
    data: bytes
    key: str | None
    policy: str | None


AnyEntry = Say | Enter | Gone | RoomReply | Push | Out | Hold | Ask | Handed | Everyone

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AnyEntry)


def encode(entry: AnyEntry) -> bytes:
    """Return an entry as bytes."""
    return _encoder.encode(entry)


def decode(data: bytes) -> AnyEntry:
    """Return the entry in these bytes; raises :class:`ValueError` if there is none."""
    entry: AnyEntry = _decoder.decode(data)
    return entry


def policy_of(name: str | None) -> EventPolicy | None:
    """Return the policy of this name; raises :class:`ValueError`."""
    return None if name is None else EventPolicy(name)


__all__ = [
    "AnyEntry",
    "Ask",
    "Enter",
    "Everyone",
    "Gone",
    "Handed",
    "Hold",
    "Out",
    "Push",
    "RoomReply",
    "Say",
    "decode",
    "encode",
    "policy_of",
]
