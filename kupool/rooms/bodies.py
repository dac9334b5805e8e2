"""The messages of sessions to rooms of :mod:`kupool.rooms.service`, and the state of a room that
moves.
"""

from __future__ import annotations

from typing import Any

import msgspec


class EnterBody(msgspec.Struct, tag="enter"):
    """Let the user enter: a new room (``create``), or an existing one.

    ``allowed`` says whether the user may join a room of this name without being a member already.
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
    """Remove the user from the room, after their earlier messages."""


class MembersBody(msgspec.Struct, tag="members"):
    """Answer with the members, from ``start`` on."""

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
    """Return the state of a room that moves, as bytes."""
    return _encode_members(members)


def decode_state(state: bytes) -> list[HandedMember]:
    """Return the members in a room's state; raises :class:`ValueError` for an invalid state."""
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
