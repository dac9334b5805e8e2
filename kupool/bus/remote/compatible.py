"""A codec that carries this bus's own messages in frames of the predecessor's bus.

Serve it with :class:`kupool.net.transport.protocols.CodecFactory`, and give its framing to the
client. For clients of the predecessor's bus itself see :mod:`kupool.bus.compatible`.
"""

from __future__ import annotations

from kupool.bus.compatible.frames import (
    MAGIC,
    MAX_BODY,
    PredecessorFrame,
    PredecessorSplitter,
    read_frame,
)
from kupool.wire.codec import Limited, Packable, framing_of
from kupool.wire.framing import Item
from kupool.wire.packets import NumberedMessage, check_id
from kupool.wire.splitters import Tlv

#: The command of frames that carry a message of the bus as JSON.
COMMAND = 0


class CompatibleSplitter(PredecessorSplitter):
    """Splits a stream of such frames into their bodies.

    A message of another command than :data:`COMMAND` is returned as a :class:`Tlv` under it.
    """

    __slots__ = ()

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes and return the messages that they complete."""
        return [_message(frame) for frame in super().feed(data)]


def _message(data: Item) -> Item:
    frame = read_frame(data) if isinstance(data, bytes) else None
    if frame is None:
        return data
    return frame.body if frame.command == COMMAND else Tlv(frame.command, frame.body)


class CompatibleCodec(Limited):
    """Frames with that magic; the id of a message is its command, and its sequence is 0."""

    name = "compatible"

    def __init__(self, max_payload: int = MAX_BODY) -> None:
        super().__init__(max_payload, MAX_BODY)

    def pack(self, message: Packable) -> bytes:
        """Return the bytes of one message."""
        if isinstance(message, NumberedMessage):
            message = message.item
        if isinstance(message, bytes):
            command, body = COMMAND, message
        else:
            command, body = message.message_id, message.payload
        self._check(len(body))
        check_id(command)
        return PredecessorFrame(command, 0, body).encode()

    def splitter(self, max_payload: int) -> CompatibleSplitter:
        """Return a splitter for the bytes of one peer."""
        return CompatibleSplitter(self._limit(max_payload))


COMPATIBLE = framing_of(CompatibleCodec())

__all__ = ["COMMAND", "COMPATIBLE", "MAGIC", "MAX_BODY", "CompatibleCodec", "CompatibleSplitter"]
