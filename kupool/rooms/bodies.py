"""What a session says to a room of :mod:`kupool.rooms.service`, wherever that is, and what goes
along when the room moves.
"""

from __future__ import annotations

from typing import Any

import msgspec


class EnterBody(msgspec.Struct, tag="enter"):
    """Let the user in: into a new room (``create``), or into one that is there.

    ``allowed`` is whether the user may join a room of this name who is no member of it yet.
    """

    room: str
    user: str
    create: bool
    allowed: bool = True


class SayBody(msgspec.Struct, tag="say"):
    """Pass on any JSON value, to all others or to those named in ``to``."""

    data: msgspec.Raw
    to: list[str] | None = None


class LeaveBody(msgspec.Struct, tag="leave"):
    """Let the user go, once what they said before is heard."""


class MembersBody(msgspec.Struct, tag="members"):
    """Answer with members, from ``start`` on."""

    room: str
    start: int


RoomBody = EnterBody | SayBody | LeaveBody | MembersBody


class HandedMember(msgspec.Struct, array_like=True):
    """A member of a room that has moved; ``joined_at`` is in seconds since the epoch."""

    user: str
    joined_at: float
    online: bool


_encode_members = msgspec.msgpack.Encoder().encode
_decode_members: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(list[HandedMember])


def encode_state(members: list[HandedMember]) -> bytes:
    """Return what a room has when it moves, as bytes."""
    return _encode_members(members)


def decode_state(state: bytes) -> list[HandedMember]:
    """Return the members that a room had; raises :class:`ValueError` for what is no state."""
    members: list[HandedMember] = _decode_members.decode(state)
    return members


__all__ = [
    "EnterBody",
    "HandedMember",
    "LeaveBody",
    "MembersBody",
    "RoomBody",
    "SayBody",
    "decode_state",
    "encode_state",
]
