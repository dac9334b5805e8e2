"""The framings of docs/protocol.md, section 1: their encoders, and a table of them.

The decoders are in :mod:`kupool.wire.splitters`; this module exports their names too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import NamedTuple

from kupool.wire.splitters import (
    FRAME_HEADER,
    INT32_HEADER,
    MAX_SPARE,
    OP_BINARY,
    OP_CLOSE,
    OP_CONTINUATION,
    OP_PING,
    OP_PONG,
    OP_TEXT,
    TLV_HEADER,
    Control,
    Discarding,
    FrameSplitter,
    Int32Splitter,
    Item,
    LineSplitter,
    Splitter,
    Tlv,
    TlvSplitter,
)

_pack_tlv_head = Struct("<II").pack
_SHORT = 1024
_FRAME_HEADS = tuple(b"\x02" + n.to_bytes(4, "little") for n in range(_SHORT))
_INT32_HEADS = tuple(n.to_bytes(4, "big") for n in range(_SHORT))


def encode_frame(payload: bytes, opcode: int = OP_BINARY) -> bytes:
    """Return ``payload`` as one ``frame`` message."""
    return bytes((opcode,)) + len(payload).to_bytes(4, "little") + payload


def encode_int32(payload: bytes) -> bytes:
    """Return ``payload`` as one ``int32`` message."""
    size = len(payload)
    return (_INT32_HEADS[size] if size < _SHORT else size.to_bytes(4, "big")) + payload


def encode_line(payload: bytes) -> bytes:
    """Return ``payload``, which must hold no LF, as one ``line`` message."""
    return payload + b"\n"


def encode_crlf_line(payload: bytes) -> bytes:
    """Return ``payload`` as one ``line`` message for a peer that ends its lines with CR LF."""
    return payload + b"\r\n"


def encode_tlv(payload: bytes, message_id: int = 0) -> bytes:
    """Return ``payload`` as one ``tlv`` message with the given id."""
    return _pack_tlv_head(len(payload), message_id) + payload


def _encode_data(payload: bytes) -> bytes:
    size = len(payload)
    return _FRAME_HEADS[size] + payload if size < _SHORT else encode_frame(payload)


def _join_frames(payloads: Sequence[bytes]) -> bytes:
    return _join_prefixed(payloads, _FRAME_HEADS, _encode_data)


def _join_int32(payloads: Sequence[bytes]) -> bytes:
    return _join_prefixed(payloads, _INT32_HEADS, encode_int32)


def _join_prefixed(
    payloads: Sequence[bytes], heads: Sequence[bytes], encode: Callable[[bytes], bytes]
) -> bytes:
    sizes = set(map(len, payloads))
    size = sizes.pop()
    if not sizes and size < _SHORT:
        # The answers of one read usually have the same length, and so the same header.
        head = heads[size]
        return head + head.join(payloads)
    return b"".join([encode(payload) for payload in payloads])


def _join_lines(payloads: Sequence[bytes]) -> bytes:
    return b"\n".join(payloads) + b"\n"


def _join_crlf_lines(payloads: Sequence[bytes]) -> bytes:
    return b"\r\n".join(payloads) + b"\r\n"


class Framing(NamedTuple):
    """A framing: how its messages are encoded and decoded.

    - ``encode`` encodes one message, ``join`` several.
    - ``pack``, if set, also accepts a :class:`Tlv` and checks the length: see
      :class:`kupool.wire.codecs.Codec`.
    - ``stream`` is whether messages may arrive in pieces. Without it, each ``feed`` is one
      whole message.
    - ``crlf``, if set, is the framing for a peer that ends its lines with CR LF. Its splitters
      call ``on_crlf``.
    """

    name: str
    splitter: Callable[[int], Splitter]
    encode: Callable[[bytes], bytes]
    join: Callable[[Sequence[bytes]], bytes]
    pack: Callable[[bytes | Tlv], bytes] | None = None
    stream: bool = True
    crlf: Framing | None = None


FRAME = Framing("frame", FrameSplitter, _encode_data, _join_frames)
INT32 = Framing("int32", Int32Splitter, encode_int32, _join_int32)
LINE_CRLF = Framing("line-crlf", LineSplitter, encode_crlf_line, _join_crlf_lines)
LINE = Framing("line", LineSplitter, encode_line, _join_lines, crlf=LINE_CRLF)

#: The framings of the pool's listening port, by their names in settings.
FRAMINGS: dict[str, Framing] = {f.name: f for f in (FRAME, INT32, LINE)}


def detect(first: int) -> Framing | None:
    """Return the framing that a client's first byte indicates, or None."""
    if first in (OP_BINARY, OP_TEXT, OP_CLOSE):
        return FRAME
    if first == 0x00:
        return INT32
    if first in b"{\t\n\r ":
        return LINE
    return None


__all__ = [
    "FRAME",
    "FRAME_HEADER",
    "FRAMINGS",
    "INT32",
    "INT32_HEADER",
    "LINE",
    "LINE_CRLF",
    "MAX_SPARE",
    "OP_BINARY",
    "OP_CLOSE",
    "OP_CONTINUATION",
    "OP_PING",
    "OP_PONG",
    "OP_TEXT",
    "TLV_HEADER",
    "Control",
    "Discarding",
    "FrameSplitter",
    "Framing",
    "Int32Splitter",
    "Item",
    "LineSplitter",
    "Splitter",
    "Tlv",
    "TlvSplitter",
    "detect",
    "encode_crlf_line",
    "encode_frame",
    "encode_int32",
    "encode_line",
    "encode_tlv",
]
