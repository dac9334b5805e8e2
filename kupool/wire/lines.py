"""Codecs of lines: text, and JSON."""

from __future__ import annotations

import msgspec

from kupool.wire.codec import MAX_PAYLOAD, Limited, Packable
from kupool.wire.splitters import LineSplitter, Splitter


class LineCodec(Limited):
    """Messages that end with LF; readers drop a CR before it, and skip empty lines.

    A peer that ends its lines with CR LF gets such lines. ``end`` is the end of encoded
    messages.
    """

    name = "line"
    transparent = False

    def __init__(self, *, max_payload: int = MAX_PAYLOAD, end: bytes = b"\n") -> None:
        super().__init__(max_payload)
        self._end = end

    def with_crlf(self) -> LineCodec | None:
        """Return the codec for a peer that ends its lines with CR LF; None if this is it."""
        if self._end == b"\r\n":
            return None
        twin = type(self)(max_payload=self.max_payload, end=b"\r\n")
        twin.name = f"{self.name}-crlf"
        return twin

    def pack(self, message: Packable) -> bytes:
        """Return the bytes of one message; it must not contain LF or end with CR."""
        data = self._data_of(message)
        self._check(len(data))
        if b"\n" in data or data.endswith(b"\r"):
            raise ValueError("a message in the framing line cannot hold the end of a line")
        return data + self._end

    def splitter(self, max_payload: int) -> Splitter:
        """Return a splitter for one peer; it returns bytes."""
        return LineSplitter(self._limit(max_payload))


class JsonCodec(LineCodec):
    """JSON, one value per line, as in JSON-RPC over streams.

    :meth:`pack_value` encodes a value; bytes are assumed to be JSON. The splitter returns
    bytes, which the caller decodes once, into the right type.
    """

    name = "json"

    def pack_value(self, value: object) -> bytes:
        """Return the line of a value; raises :class:`TypeError` as msgspec does."""
        return self.pack(msgspec.json.encode(value))


__all__ = ["JsonCodec", "LineCodec"]
