"""Frames of AMQP 0-9-1 that there are many of, written and read without pika's objects. Pure.

A frame is a type, a channel, the length of its payload, the payload, and an end. A message is a
frame with a method, one with its properties, and as many with its body as that needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, NamedTuple

#: Types of frames.
METHOD, HEADER, BODY = 1, 2, 3

#: The bytes of a frame around its payload.
AROUND = 8

_END = b"\xce"
_HEAD = Struct(">BHI")
_PUBLISH = Struct(">HHH")
_PROPERTIES = Struct(">HHQH")
_DELIVERY = Struct(">QB")
_CONFIRM = Struct(">HHQB")
_SHORT, _LONG, _WIDE = Struct(">H"), Struct(">I"), Struct(">q")

#: The class of messages, and its methods, as a frame has them.
_BASIC = 60
DELIVER, ACK, NACK = b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"
_PUBLISHED = 40

#: The properties of a message in the order of a frame, and the bit that says that it has one.
_CONTENT_TYPE, _HEADERS, _DURABLE, _MESSAGE_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 7
_READABLE = _CONTENT_TYPE | _HEADERS | _DURABLE | _MESSAGE_ID
_BINARY = b"\x18application/octet-stream"


class Unreadable(Exception):
    """A frame has something that only pika reads."""


class Properties(NamedTuple):
    """What a frame says of the body that follows: its size in bytes, its id and its headers."""

    size: int
    message_id: str
    headers: dict[str, Any]


def publish_start(channel: int, exchange: str, key: str) -> bytes:
    """Return the frame that begins a message to an exchange, which must be routable."""
    payload = _PUBLISH.pack(_BASIC, _PUBLISHED, 0) + _short(exchange) + _short(key) + b"\x01"
    return framed(METHOD, channel, payload)


def message_frames(
    channel: int, message_id: str, headers: Mapping[str, Any], *, body: bytes, most: int
) -> list[bytes]:
    """Return the frames of a durable message after their start, in parts to be joined; ``most`` is
    the size of a frame.

    Raises :class:`TypeError` for a header that is no number, truth value or text.
    """
    table = b"".join([_short(name) + _value(value) for name, value in headers.items()])
    payload = b"".join(
        (
            _PROPERTIES.pack(_BASIC, 0, len(body), _READABLE),
            _BINARY,
            _LONG.pack(len(table)),
            table,
            b"\x02",
            _short(message_id),
        )
    )
    size = most - AROUND
    parts = [framed(HEADER, channel, payload)]
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        # Joined with the rest only once: most of a large message is this.
        parts += _HEAD.pack(BODY, channel, len(piece)), piece, _END
    return parts


def delivery_tag(payload: bytes) -> tuple[int, bool]:
    """Return the tag of a delivery, and whether it was delivered before."""
    tag, again = _DELIVERY.unpack_from(payload, 5 + payload[4])
    return tag, bool(again)


def confirmed_tag(payload: bytes) -> tuple[int, bool]:
    """Return the number of a message that is confirmed or refused, and whether all before are."""
    _, _, tag, bits = _CONFIRM.unpack_from(payload)
    return tag, bool(bits & 1)


def read_properties(payload: bytes) -> Properties:
    """Read the frame of properties; raises :class:`Unreadable`."""
    _, _, size, flags = _PROPERTIES.unpack_from(payload)
    if flags & ~_READABLE:
        raise Unreadable(f"properties {flags:x}")
    place, headers, message_id = _PROPERTIES.size, dict[str, Any](), ""
    if flags & _CONTENT_TYPE:
        place += 1 + payload[place]
    if flags & _HEADERS:
        (length,) = _LONG.unpack_from(payload, place)
        place += 4
        headers = _table(payload, place, place + length)
        place += length
    if flags & _DURABLE:
        place += 1
    if flags & _MESSAGE_ID:
        message_id = payload[place + 1 : place + 1 + payload[place]].decode()
    return Properties(size, message_id, headers)


#: Takes a frame (type, payload) of a channel. Returns None if it does not take it, and otherwise
#: what pika gets instead, which is mostly nothing.
Lane = Callable[[int, bytes], bytes | None]


class BrokerFrames:
    """Splits what a broker sends into frames, for the lanes of some channels, and for pika.

    What no lane takes goes to ``others``, in its order.
    """

    def __init__(self, others: Callable[[bytes], object]) -> None:
        self._others = others
        self._rest = b""
        #: By number of the channel.
        self.lanes: dict[int, Lane] = {}

    def feed(self, data: bytes) -> int:
        """Take bytes; returns how many of them the lanes took."""
        if self._rest:
            data = self._rest + data
        size, place, start, taken = len(data), 0, 0, 0
        while size - place >= AROUND:
            kind, channel, length = _HEAD.unpack_from(data, place)
            if not METHOD <= kind <= AROUND:  # no frame: the answer to an unknown version
                place = size
                break
            end = place + AROUND + length
            if end > size:
                break
            lane = self.lanes.get(channel)
            if lane is not None:
                if start < place:
                    self._others(data[start:place])
                    start = place
                instead = lane(kind, data[place + 7 : end - 1])
                if instead is not None:
                    taken += end - place
                    start = end
                    if instead:
                        self._others(instead)
            place = end
        if start < place:
            self._others(data[start:place])
        self._rest = data[place:]
        return taken


def framed(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a payload as a frame."""
    return _HEAD.pack(kind, channel, len(payload)) + payload + _END


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def _value(value: object) -> bytes:
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        return b"l" + _WIDE.pack(value)
    if isinstance(value, str):
        encoded = value.encode()
        return b"S" + _LONG.pack(len(encoded)) + encoded
    raise TypeError(f"a header is {type(value).__name__}")


def _table(payload: bytes, place: int, end: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while place < end:
        start = place + 1
        place = start + payload[place]
        name, kind = payload[start:place].decode(), payload[place]
        place += 1
        if kind == 0x6C:  # l
            (found[name],) = _WIDE.unpack_from(payload, place)
            place += 8
        elif kind == 0x49:  # I
            found[name] = int.from_bytes(payload[place : place + 4], "big", signed=True)
            place += 4
        elif kind == 0x74:  # t
            found[name] = payload[place] != 0
            place += 1
        elif kind == 0x53:  # S
            (length,) = _LONG.unpack_from(payload, place)
            found[name] = payload[place + 4 : place + 4 + length].decode()
            place += 4 + length
        else:
            raise Unreadable(f"a header is of type {kind}")
    return found


__all__ = [
    "ACK",
    "AROUND",
    "BODY",
    "DELIVER",
    "HEADER",
    "METHOD",
    "NACK",
    "BrokerFrames",
    "Lane",
    "Properties",
    "Unreadable",
    "confirmed_tag",
    "delivery_tag",
    "framed",
    "message_frames",
    "publish_start",
    "read_properties",
]
