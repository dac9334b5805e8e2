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
    """Any other codec, with a CRC-32 after the data of each message.

    The checksum, u32 little-endian, covers the id as u32 little-endian, if there is one,
    and the data. A wrong checksum ends the stream, because the length before it may also be
    wrong. Raises :class:`ValueError` for a codec that cannot carry every byte, such as one
    of lines.
    """

    SIZE = 4

    def __init__(self, inner: Codec) -> None:
        if not getattr(inner, "transparent", True):
            raise ValueError(f"{inner.name} cannot carry every byte of a checksum")
        self.name = f"{inner.name}-crc"
        self._inner = inner
        self.max_payload = inner.max_payload - self.SIZE
        if self.max_payload < 0:
            raise ValueError(f"{inner.max_payload} bytes are too few for a checksum")

    def pack(self, message: Packable) -> bytes:
        """Return the bytes of one message and its checksum."""
        if isinstance(message, NumberedMessage):
            message = message.item
        data = message if isinstance(message, bytes) else message.payload
        if len(data) > self.max_payload:
            raise MessageTooLarge(len(data), self.max_payload)
        if isinstance(message, Tlv):
            check_id(message.message_id)
        # Data alone has the id 0 if the inner codec has ids.
        if isinstance(message, bytes) and isinstance(self._inner, TlvCodec):
            message = Tlv(0, data)
        summed = data + checksum(message, data)
        return self._inner.pack(
            summed if isinstance(message, bytes) else Tlv(message.message_id, summed)
        )

    def splitter(self, max_payload: int) -> Splitter:
        """Return a splitter for one peer; it returns what the inner splitter returns."""
        size = min(max_payload, self.max_payload) + self.SIZE
        return CrcSplitter(self._inner.splitter(size))


def checksum(message: Item, data: bytes) -> bytes:
    """Return the four bytes of checksum after the data of a message."""
    begun = crc32(message.message_id.to_bytes(4, "little")) if isinstance(message, Tlv) else 0
    return crc32(data, begun).to_bytes(4, "little")


def _is_right(item: Item, data: bytes, found: bytes) -> bool:
    """Return whether a checksum is that of a message.

    Data alone has the id 0 if there are ids, and a codec may return one form for the other,
    so the checksums of both forms are valid.
    """
    if found == checksum(item, data):
        return True
    if isinstance(item, Tlv):
        return not item.message_id and found == checksum(data, data)
    return isinstance(item, bytes) and found == checksum(Tlv(0, data), data)


class CrcSplitter(Wrapping):
    """Returns the messages of another splitter, and checks their checksums."""

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
