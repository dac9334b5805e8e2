"""Every codec by name; :mod:`kupool.wire.codec` describes the interface."""

from __future__ import annotations

from collections.abc import Callable

from kupool.wire.checksums import CrcCodec
from kupool.wire.codec import MAX_PAYLOAD, Codec, Limited, Packable, framing_of
from kupool.wire.framing import FRAME, INT32, Framing
from kupool.wire.headers import MAX_LENGTH, LengthFieldCodec, TlvCodec
from kupool.wire.lines import JsonCodec, LineCodec
from kupool.wire.splitters import Splitter


class FramingCodec(Limited):
    """The framing ``frame`` or ``int32`` as a codec."""

    def __init__(self, framing: Framing, *, max_payload: int = MAX_PAYLOAD) -> None:
        super().__init__(max_payload, MAX_LENGTH)
        self.name = framing.name
        self._framing = framing

    def pack(self, message: Packable) -> bytes:
        """Return the bytes of one message; readers skip an empty one."""
        data = self._data_of(message)
        self._check(len(data))
        return self._framing.encode(data)

    def splitter(self, max_payload: int) -> Splitter:
        """Return a splitter for one peer."""
        return self._framing.splitter(self._limit(max_payload))


#: The codecs that need only a limit, by their names in settings.
CODECS: dict[str, Callable[[int], Codec]] = {
    "tlv": lambda size: TlvCodec(max_payload=size),
    "tlv-big": lambda size: TlvCodec("big", max_payload=size, name="tlv-big"),
    "tag-first": lambda size: TlvCodec("big", order="id", max_payload=size, name="tag-first"),
    "ltv": lambda size: TlvCodec(max_payload=size, name="ltv"),
    "tlv-crc": lambda size: CrcCodec(TlvCodec(max_payload=size and size + CrcCodec.SIZE)),
    "line": lambda size: LineCodec(max_payload=size),
    "json": lambda size: JsonCodec(max_payload=size),
    "frame": lambda size: FramingCodec(FRAME, max_payload=size),
    "int32": lambda size: FramingCodec(INT32, max_payload=size),
}

__all__ = [
    "CODECS",
    "MAX_PAYLOAD",
    "Codec",
    "CrcCodec",
    "FramingCodec",
    "JsonCodec",
    "LengthFieldCodec",
    "LineCodec",
    "Packable",
    "TlvCodec",
    "framing_of",
]
