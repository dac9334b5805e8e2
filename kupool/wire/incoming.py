"""Decode the messages of a server on the client's side: replies, requests, and closes.

It is the only decoder of the client's side, and the only parser of announced closes. Pure.
"""

from __future__ import annotations

import msgspec

from kupool.errors import Announced, announced_by_text
from kupool.wire.framing import OP_CLOSE, Control, Item
from kupool.wire.messages import RequestId


class ServerMessage(msgspec.Struct, gc=False):
    """Any message of a server; with a ``method`` it is a notification or a request, else a reply.

    ``params`` and ``result`` are raw JSON.
    """

    id: RequestId = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None
    code: int | None = None


#: Decodes one payload; raises ``ValueError`` or ``RecursionError`` for an invalid message.
decode_incoming = msgspec.json.Decoder(ServerMessage).decode

#: The result ``true`` in a :class:`ServerMessage`.
TRUE = msgspec.Raw(b"true")


class _Close(msgspec.Struct):
    reason: str = ""
    code: int | None = None
    reconnect: bool | None = None
    retry_after: float | None = None
    detail: str = ""


_decode_close = msgspec.json.Decoder(_Close).decode


def read_close(message: Item | ServerMessage) -> Announced | None:
    """Return the close that a message announces, or None if it announces none.

    ``message`` is an opcode of ``frame`` or a decoded message: in other framings a close is
    a notification. A notification with neither a reason nor a code is not a close.
    """
    if isinstance(message, ServerMessage):
        if message.method != "close" or message.id is not None:
            return None
        try:
            close = _decode_close(message.params)
        except (ValueError, RecursionError):
            return None
        if not close.reason and close.code is None:
            return None
        return Announced(
            close.reason or "closed by the server",
            close.code,
            close.reconnect,
            close.retry_after,
            close.detail,
        )
    if isinstance(message, Control) and message.opcode == OP_CLOSE:
        return announced_by_text(message.payload.decode(errors="replace"))
    return None


def read_websocket_close(payload: bytes) -> Announced:
    """Return the close that the payload of a WebSocket close frame announces."""
    code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None
    return announced_by_text(payload[2:].decode(errors="replace"), code)


__all__ = [
    "TRUE",
    "ServerMessage",
    "decode_incoming",
    "read_close",
    "read_websocket_close",
]
