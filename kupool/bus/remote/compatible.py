"""The frame of the bus that KuPool's was modelled on, as a codec.

Magic 20170103, command, sequence, length, and two reserved numbers, each u32 big-endian;
then the body, of at most 50 KiB. Serve it with
:class:`kupool.net.transport.protocols.CodecFactory`, and give its framing to the client.
"""

from __future__ import annotations

from struct import Struct

from kupool.wire.codec import Limited, Packable, framing_of
from kupool.wire.framing import Item
from kupool.wire.packets import NumberedMessage, check_id
from kupool.wire.splitters import Buffered, Tlv

MAGIC = 20170103
MAX_BODY = 50 * 1024

#: The command of what carries a message of the bus, as JSON.
COMMAND = 0

_HEADER = Struct(">6I")


class CompatibleSplitter(Buffered):
    """Cuts such frames; a wrong magic ends the stream for good."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes and return the messages that they complete.

        A message of another command than :data:`COMMAND` comes as a :class:`Tlv` under it.
        """
        if self._held is not None:
            data = self._complete(data)
        out: list[Item] = []
        start, size = 0, len(data)
        while start + _HEADER.size <= size:
            magic, command, _, length, _, _ = _HEADER.unpack_from(data, start)
            if magic != MAGIC:
                self._give_up()
                return out
            body = start + _HEADER.size
            if length > self.max_payload or body + length > size:
                self._stop(data, start, _HEADER.size, length)
                return out
            payload = data[body : body + length]
            out.append(payload if command == COMMAND else Tlv(command, payload))
            start = body + length
        if start != size:
            self._keep(data, start, _HEADER.size)
        return out


class CompatibleCodec(Limited):
    """Frames with that magic; the id of a message is its command, its sequence 0."""

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
        return _HEADER.pack(MAGIC, command, 0, len(body), 0, 0) + body

    def splitter(self, max_payload: int) -> CompatibleSplitter:
        """Return what cuts the bytes of one peer."""
        return CompatibleSplitter(self._limit(max_payload))


COMPATIBLE = framing_of(CompatibleCodec())

__all__ = ["COMMAND", "COMPATIBLE", "MAGIC", "MAX_BODY", "CompatibleCodec", "CompatibleSplitter"]
