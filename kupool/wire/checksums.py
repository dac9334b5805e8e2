"""A checksum around the messages of another codec."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from kupool.wire.codec import Codec, Packable
from kupool.wire.headers import TlvCodec
from kupool.wire.packets import MessageTooLarge, NumberedMessage, check_id
from kupool.wire.splitters import Control, Item, Splitter, Tlv
from kupool.wire.wrapping import Wrapping


class CrcCodec:
    """Any other codec with a CRC-32 behind the data of each message.

    The checksum, u32 little-endian, is that of the id as u32 little-endian, where there
    is one, and the data. A message whose checksum is wrong ends its stream: the length
    before it may have been as wrong. Raises :class:`ValueError` for a codec that does
    not carry every byte as it is, such as one of lines.
    """

    SIZE = 4

    def __init__(self, inner: Codec) -> None:
        if not getattr(inner, "transparent", True):
            raise ValueError(f"{inner.name} does not carry every byte of a checksum as it is")
        self.name = f"{inner.name}-crc"
        self._inner = inner
        self.max_payload = inner.max_payload - self.SIZE
        if self.max_payload < 0:
            raise ValueError(f"{inner.max_payload} bytes have no room for a checksum")

    def pack(self, message: Packable) -> bytes:
        """Return the bytes of one message and its checksum."""
        if isinstance(message, NumberedMessage):
            message = message.item
        data = message if isinstance(message, bytes) else message.payload
        if len(data) > self.max_payload:
            raise MessageTooLarge(len(data), self.max_payload)
        if isinstance(message, Tlv):
            check_id(message.message_id)
        # Bytes alone go under the id 0 where the inner codec has ids.
        if isinstance(message, bytes) and isinstance(self._inner, TlvCodec):
            message = Tlv(0, data)
        summed = data + checksum(message, data)
        return self._inner.pack(
            summed if isinstance(message, bytes) else Tlv(message.message_id, summed)
        )

    def splitter(self, max_payload: int) -> Splitter:
        """Return the splitter of one peer; it hands out what the inner one does."""
        size = min(max_payload, self.max_payload) + self.SIZE
        return CrcSplitter(self._inner.splitter(size))


def checksum(message: Item, data: bytes) -> bytes:
    """Return the four bytes that go behind the data of a message."""
    begun = crc32(message.message_id.to_bytes(4, "little")) if isinstance(message, Tlv) else 0
    return crc32(data, begun).to_bytes(4, "little")


def _is_right(item: Item, data: bytes, found: bytes) -> bool:
    """Say whether a checksum is that of a message.

    Data alone goes under the id 0 where there are ids, and a codec may hand out the one
    for the other: both ways to sum it up are right.
    """
    if found == checksum(item, data):
        return True
    if isinstance(item, Tlv):
        return not item.message_id and found == checksum(data, data)
    return isinstance(item, bytes) and found == checksum(Tlv(0, data), data)


class CrcSplitter(Wrapping):
    """Hands out the messages of another splitter whose checksums are right."""

    __slots__ = ()

    @property
    def max_payload(self) -> int:
        """The largest payload, without its checksum."""
        return self._inner.max_payload - CrcCodec.SIZE

    @max_payload.setter
    def max_payload(self, size: int) -> None:
        self._inner.max_payload = size + CrcCodec.SIZE

    def _taken(self, items: Sequence[Item]) -> list[Item]:
        out: list[Item] = []
        for item in items:
            whole = item if isinstance(item, bytes) else item.payload
            data = whole[: -CrcCodec.SIZE]
            if not _is_right(item, data, whole[len(data) :]):
                self._give_up()
                return out
            if isinstance(item, Tlv):
                out.append(Tlv(item.message_id, data))
            else:
                out.append(Control(item.opcode, data) if isinstance(item, Control) else data)
        return out


__all__ = ["CrcCodec", "CrcSplitter", "checksum"]
