"""Payloads of messages from rooms to their members."""

from __future__ import annotations

from collections.abc import Callable

from kupool.wire.framing import Framing
from kupool.wire.messages import encode_request

#: A payload, or a function that returns the bytes of a message for a framing.
RoomPayload = bytes | Callable[[Framing], bytes]


def notification(method: str, params: object) -> bytes:
    """Return the payload of a notification; ``params`` is anything that msgspec encodes."""
    return encode_request(None, method, params)


__all__ = ["RoomPayload", "notification"]
