"""Codecs of lines of text: plain, and with JSON in them."""

from __future__ import annotations

import msgspec

from kupool.wire.codec import MAX_PAYLOAD, Limited, Packable
from kupool.wire.splitters import LineSplitter, Splitter


class LineCodec(Limited):
    """Messages that end with LF; readers drop a CR before it, and skip empty lines."""

    name = "line"
    transparent = False

    def __init__(self, *, max_payload: int = MAX_PAYLOAD) -> None:
        super().__init__(max_payload)

    def pack(self, message: Packable) -> bytes:
        """Return the bytes of one message, which must hold no LF and not end with CR."""
        data = self._data_of(message)
        self._check(len(data))
        if b"\n" in data or data.endswith(b"\r"):
            raise ValueError("a message of lines cannot hold the end of one")
        return data + b"\n"

    def splitter(self, max_payload: int) -> Splitter:
        """Return the splitter of one peer; it hands out bytes."""
        return LineSplitter(self._limit(max_payload))


class JsonCodec(LineCodec):
    """JSON, one value a line, as JSON-RPC over streams has it.

    Values are packed by :meth:`pack_value`; bytes are taken for JSON already. What
    comes in is handed out as bytes: whoever knows the type decodes it once.
    """

    name = "json"

    def pack_value(self, value: object) -> bytes:
        """Return the line of a value; raises :class:`TypeError` where msgspec does."""
        return self.pack(msgspec.json.encode(value))


__all__ = ["JsonCodec", "LineCodec"]
