"""The framing ``websocket``: a message is a WebSocket frame (RFC 6455), never masked.

Only what a server sends is here. What it receives is cut, unmasked and put together by
the WebSocket protocol itself, so that the splitter gets whole messages.
"""

from __future__ import annotations

from collections.abc import Sequence

from kupool.wire.framing import Framing, Item

#: First bytes of frames that are whole messages: the FIN bit and the opcode.
TEXT = 0x81
BINARY = 0x82
CLOSE = 0x88
PING = 0x89
PONG = 0x8A

#: The longest payload of a control frame, in bytes; a close spends two on its code.
MAX_CONTROL = 125

#: Sent in place of a close code that RFC 6455 does not let an application send.
POLICY_VIOLATION = 1008


class WholeMessages:
    """The splitter of messages that arrive whole; their sizes were checked before."""

    __slots__ = ("corrupt", "max_payload", "too_large")

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload
        self.too_large = self.corrupt = False

    def feed(self, data: bytes) -> list[Item]:
        """Take one message."""
        return [data] if data else []

    def resume(self) -> list[Item]:
        """Nothing is ever held."""
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
    """Return a close frame; a reason that is too long for one is cut."""
    if not (code == 1000 or 3000 <= code < 5000):
        code = POLICY_VIOLATION
    text = reason.encode()[: MAX_CONTROL - 2].decode(errors="ignore").encode()
    return encode_websocket(code.to_bytes(2, "big") + text, CLOSE)


def _encode_binary(payload: bytes) -> bytes:
    return encode_websocket(payload, BINARY)


def _join_text(payloads: Sequence[bytes]) -> bytes:
    return b"".join(map(encode_websocket, payloads))


def _join_binary(payloads: Sequence[bytes]) -> bytes:
    return b"".join(map(_encode_binary, payloads))


#: The server answers in the kind of message that the client sends: text, or binary.
WEBSOCKET = Framing("websocket", WholeMessages, encode_websocket, _join_text, stream=False)
WEBSOCKET_BINARY = Framing(
    "websocket-binary", WholeMessages, _encode_binary, _join_binary, stream=False
)
