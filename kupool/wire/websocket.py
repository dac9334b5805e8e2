"""The framing ``websocket`` (RFC 6455) of a server: encode and decode frames.

Sent frames are not masked, and each message is one frame. Received frames are masked, and a
message may have many frames: :class:`FrameReader` joins them.

The reader is our own for two reasons. The libraries do not report the size that a header
announces before its payload is held, and have no limit for a whole message: servers built
on wsproto implement one in a buffer of their own. They also decode texts that are decoded
again as JSON, and make at least one object per fragment, which is the largest cost in a
flood of fragments.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import NamedTuple

from kupool.wire.framing import (
    OP_BINARY,
    OP_CLOSE,
    OP_CONTINUATION,
    OP_PONG,
    OP_TEXT,
    Framing,
    Item,
)

#: The first byte of a whole message: the FIN bit and the opcode.
TEXT = 0x81
BINARY = 0x82
CLOSE = 0x88
PING = 0x89
PONG = 0x8A

#: The longest payload of a control frame, in bytes; a close spends two on its code.
MAX_CONTROL = 125

#: Close codes of RFC 6455: normal end, protocol error, a text that is not
#: UTF-8, the replacement for a close code that an application must not send,
#: and a message over the limit.
NORMAL = 1000
PROTOCOL_ERROR = 1002
INVALID_PAYLOAD = 1007
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009

#: The close codes below 3000 that a peer may send.
_SENDABLE = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))

#: The supported version of the protocol, and the product's subprotocol.
VERSION = b"13"
SUBPROTOCOL = "kupool"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def accept_key(key: bytes) -> bytes:
    """Return the answer to a ``Sec-WebSocket-Key``; raises :class:`ValueError` if invalid."""
    if not _KEY.fullmatch(key):
        raise ValueError("not 16 bytes in base64")
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def choose_subprotocol(offers: Iterable[str]) -> str:
    """Return the subprotocol to use of those that a client offers; empty for none.

    The messages are the same with every name. :data:`SUBPROTOCOL` is chosen if it is
    offered, else the first offer, because a browser rejects an answer without one.
    ``offers`` are the values of ``Sec-WebSocket-Protocol``; invalid names in them are
    ignored.
    """
    names = [name.strip() for offer in offers for name in offer.split(",")]
    names = [name for name in names if _TOKEN.fullmatch(name)]
    if SUBPROTOCOL in names:
        return SUBPROTOCOL
    return names[0] if names else ""


#: Size in bytes of a length that does not fit into the second byte of a frame.
_WIDTHS = {126: 2, 127: 8}


class WebSocketEvent(NamedTuple):
    """A decoded whole message (text or binary), a control frame, or a part of a message.

    ``opcode`` is that of RFC 6455. For a part of a message it is 0, and the payload is
    empty.
    """

    opcode: int
    payload: bytes


_PART = WebSocketEvent(OP_CONTINUATION, b"")


class _Broken(Exception):
    """The data is not valid WebSocket."""

    def __init__(self, code: int) -> None:
        self.code = code


class FrameReader:
    """Splits the bytes of a client, in pieces of any size, into events.

    It never raises. It holds at most one message of ``max_payload`` bytes, one header and
    the data added last, however many frames the message has. If the headers of a message
    announce more, it sets ``too_large``, and :meth:`next` stops before that frame; it
    continues once ``max_payload`` is large enough. Invalid data sets ``broken`` to the
    close code of the error, permanently.
    """

    __slots__ = (
        "_at",
        "_data",
        "_discarding",
        "_kind",
        "_message",
        "_skip",
        "broken",
        "max_payload",
        "too_large",
    )

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload
        self.too_large = False
        self.broken = 0
        self._data = bytearray()
        self._at = 0
        #: The incomplete message: its opcode, 0 for none, and its payload so far.
        self._kind = 0
        self._message = bytearray()
        #: Whether messages are discarded, and the remaining bytes of the current one.
        self._discarding = False
        self._skip = 0

    @property
    def buffered(self) -> int:
        """Number of bytes held that make no event yet; at least 1 while a message is incomplete."""
        return len(self._data) - self._at + len(self._message) or (1 if self._kind else 0)

    @property
    def in_message(self) -> bool:
        """Whether a message has begun whose last frame has not arrived."""
        return bool(self._kind)

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        if not self.broken:
            self._data += data

    def discard(self) -> None:
        """Discard messages of any size from now on; control frames are still returned."""
        self._discarding = True
        self._message = bytearray()
        self.too_large = False

    def next(self) -> WebSocketEvent | None:
        """Return the next event; None if it is not complete, or after an error."""
        self.too_large = False
        event = None
        try:
            if not self.broken:
                event = self._next()
        except _Broken as error:
            self.broken = error.code
            self._message = bytearray()
            self._at, self._kind = len(self._data), 0
        if event is None and self._at:
            del self._data[: self._at]
            self._at = 0
        return event

    def _next(self) -> WebSocketEvent | None:
        if self._skip:
            return self._skipped()
        data, at = self._data, self._at
        there = len(data) - at
        if there < 2:
            return None
        opcode, final = data[at] & 0x0F, bool(data[at] & 0x80)
        self._check(data[at], data[at + 1])
        width = _WIDTHS.get(data[at + 1] & 0x7F, 0)
        start = at + 2 + width
        if there < 2 + width:
            return None
        size = int.from_bytes(data[at + 2 : start], "big") if width else data[at + 1] & 0x7F
        if width and not (125 if width == 2 else 0xFFFF) < size < 1 << 63:
            raise _Broken(PROTOCOL_ERROR)  # not the shortest encoding, or negative
        end = start + 4 + size
        if opcode >= OP_CLOSE:
            return None if len(data) < end else self._control(opcode, start, end)
        if self._discarding:
            self._kind = 0 if final else opcode or self._kind
            self._skip = end - at
            return self._skipped()
        if len(self._message) + size > self.max_payload:
            self.too_large = True
            return None
        if len(data) < end:
            return None
        self._at = end
        return self._data_frame(opcode, final, _unmasked(data, start, end))

    def _check(self, first: int, second: int) -> None:
        """Refuse an invalid frame by its first two bytes."""
        opcode, final = first & 0x0F, first & 0x80
        if opcode >= OP_CLOSE:
            fits = final and second & 0x7F <= MAX_CONTROL and opcode <= OP_PONG
        else:
            fits = opcode <= OP_BINARY and (opcode == OP_CONTINUATION) == bool(self._kind)
        if first & 0x70 or not second & 0x80 or not fits:
            raise _Broken(PROTOCOL_ERROR)

    def _skipped(self) -> WebSocketEvent | None:
        skipped = min(self._skip, len(self._data) - self._at)
        self._at += skipped
        self._skip -= skipped
        return None if self._skip else _PART

    def _data_frame(self, opcode: int, final: bool, payload: bytes) -> WebSocketEvent | None:
        kind = opcode or self._kind
        if not final:
            self._kind = kind
            self._message += payload
            return _PART
        if self._message:
            self._message += payload
            payload, self._message = bytes(self._message), bytearray()
        self._kind = 0
        if kind == OP_TEXT and not _is_text(payload):
            raise _Broken(INVALID_PAYLOAD)
        return WebSocketEvent(kind, payload)

    def _control(self, opcode: int, start: int, end: int) -> WebSocketEvent | None:
        payload = _unmasked(self._data, start, end)
        self._at = end
        if opcode == OP_CLOSE and payload:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) < 2 or not (code in _SENDABLE or 3000 <= code < 5000):
                raise _Broken(PROTOCOL_ERROR)
            if not _is_text(payload[2:]):
                raise _Broken(INVALID_PAYLOAD)
        return WebSocketEvent(opcode, payload)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unmasked(data: bytearray, start: int, end: int) -> bytes:
    """Return the payload of a frame whose mask is at ``start``."""
    size = end - start - 4
    mask = bytes(data[start : start + 4])
    if mask == b"\0\0\0\0":
        return bytes(data[start + 4 : end])
    masks = mask * (size // 4 + 1)
    masked = int.from_bytes(data[start + 4 : end], "big") ^ int.from_bytes(masks[:size], "big")
    return masked.to_bytes(size, "big")


class WholeMessages:
    """The splitter of messages that arrive whole; their sizes were checked before.

    The owner of the incomplete message sets ``buffered``. Empty messages are dropped, unless
    ``empty``.
    """

    __slots__ = ("_empty", "buffered", "corrupt", "max_payload", "too_large")

    def __init__(self, max_payload: int, *, empty: bool = False) -> None:
        self.max_payload = max_payload
        self._empty = empty
        self.buffered = 0
        self.too_large = self.corrupt = False

    def feed(self, data: bytes) -> list[Item]:
        """Take one message."""
        return [data] if data or self._empty else []

    def resume(self) -> list[Item]:
        """Return nothing: no data is held."""
        self.too_large = False
        return []


def encode_websocket(payload: bytes, first: int = TEXT) -> bytes:
    """Return ``payload`` as one frame whose first byte is ``first``."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def encode_websocket_close(code: int, reason: str) -> bytes:
    """Return a close frame; a reason that is too long is cut."""
    if not (code in (NORMAL, MESSAGE_TOO_BIG) or 3000 <= code < 5000):
        code = POLICY_VIOLATION
    text = reason.encode(errors="replace")[: MAX_CONTROL - 2].decode(errors="ignore").encode()
    return encode_websocket(code.to_bytes(2, "big") + text, CLOSE)


def _encode_binary(payload: bytes) -> bytes:
    return encode_websocket(payload, BINARY)


def _join_text(payloads: Sequence[bytes]) -> bytes:
    return b"".join(map(encode_websocket, payloads))


def _join_binary(payloads: Sequence[bytes]) -> bytes:
    return b"".join(map(_encode_binary, payloads))


#: The server answers with the message type that the client uses: text or binary.
WEBSOCKET = Framing("websocket", WholeMessages, encode_websocket, _join_text, stream=False)
WEBSOCKET_BINARY = Framing(
    "websocket-binary", WholeMessages, _encode_binary, _join_binary, stream=False
)
