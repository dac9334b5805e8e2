"""What hosts say to each other, as bytes.

A peer is a connection, by the number that its own host gave it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kupool.session.outbox import EventPolicy


class HostEntry(msgspec.Struct, array_like=True, gc=False, tag=True):
    """The base of all of them."""


class Say(HostEntry):
    """To a room's host: a message of a user; ``number`` 0 is one without an answer.

    ``first`` lets the user in; whoever is no member any more does not become one again by
    what was under way. ``address`` is where the connection comes from.
    """

    peer: int
    code: str
    user: str
    number: int
    body: bytes
    first: bool
    address: str = ""


class Enter(HostEntry):
    """To a room's host: a user who was a member where the room was before."""

    peer: int
    code: str
    user: str
    address: str = ""


class Gone(HostEntry):
    """To a room's host: the connection has ended."""

    peer: int


class RoomReply(HostEntry, tag="Reply"):
    """To a connection's host: the answer, or the row of an error where ``code`` is not 0."""

    peer: int
    number: int
    data: bytes
    code: int = 0
    text: str = ""


class Push(HostEntry):
    """To a connection's host: what a room sends; ``key`` and ``policy`` are a publication's."""

    peers: list[int]
    data: bytes
    key: str | None
    policy: str | None


class Out(HostEntry):
    """To a connection's host: the user is no member any more, or is one elsewhere."""

    peer: int
    code: str
    moved: bool
    reason: str


class Hold(HostEntry):
    """To a connection's host: read nothing more of it, or (``on`` False) go on."""

    peer: int
    on: bool


class Ask(HostEntry):
    """To a room's host of before: say when it has ended there."""

    code: str


class Handed(HostEntry):
    """To a room's new host: it has ended here; with its state, if it was here at all.

    ``user`` and ``address`` are whose room it is, for their quotas.
    """

    code: str
    state: bytes | None
    user: str = ""
    address: str = ""


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
    """Return the entry; raises :class:`ValueError` for bytes that are none."""
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
