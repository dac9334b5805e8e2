"""Codecs of messages with a header that holds a length, and optionally an id."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Literal

from kupool.wire.codec import MAX_PAYLOAD, Limited, Packable
from kupool.wire.packets import MessageTooLarge, check_id
from kupool.wire.splitters import Buffered, Item, Splitter, Tlv, TlvSplitter

ByteOrder = Literal["little", "big"]

#: The largest length of 32 bits.
MAX_LENGTH = 2**32 - 1


class TlvCodec(Limited):
    """Messages with a length and an id, each u32, and the data; the length is that of the data.

    ``order`` is the order of the two fields. The defaults make the framing ``tlv``, which
    others call LTV little-endian. zinx's TLV is big-endian, with the id first.
    """

    HEAD = 8

    def __init__(
        self,
        byteorder: ByteOrder = "little",
        *,
        order: Literal["length", "id"] = "length",
        max_payload: int = MAX_PAYLOAD,
        name: str = "tlv",
    ) -> None:
        super().__init__(max_payload, MAX_LENGTH)
        self.name = name
        self._byteorder: ByteOrder = byteorder
        self._id_first = {"length": False, "id": True}[order]
        self._head = Struct({"little": "<II", "big": ">II"}[byteorder])

    def pack(self, message: Packable) -> bytes:
        """Return the bytes of one message; data alone gets the id 0."""
        if isinstance(message, bytes):
            message_id, data = 0, message
        elif isinstance(message, Tlv):
            message_id, data = message.message_id, message.payload
        else:
            message_id, data = message.message_id, message.data
        self._check(len(data))
        check_id(message_id)
        first, second = len(data), message_id
        if self._id_first:
            first, second = second, first
        return self._head.pack(first, second) + data

    def unpack_head(self, head: bytes) -> tuple[int, int]:
        """Return (length, id) of a header of eight bytes, for callers that read step by step.

        Raises :class:`MessageTooLarge` for a length over the limit.
        """
        length, message_id = self._lengths(head, 0)
        self._check(length)
        return length, message_id

    def _lengths(self, data: bytes, start: int) -> tuple[int, int]:
        first, second = self._head.unpack_from(data, start)
        return (second, first) if self._id_first else (first, second)

    def splitter(self, max_payload: int) -> Splitter:
        """Return a splitter for one peer; it returns :class:`Tlv`."""
        if self._byteorder == "little" and not self._id_first:
            return TlvSplitter(self._limit(max_payload))
        lengths = self._lengths

        def measure(data: bytes, start: int) -> int:
            return lengths(data, start)[0]

        def cut(data: bytes, start: int, end: int) -> Item:
            return Tlv(lengths(data, start)[1], data[start + self.HEAD : end])

        return HeadSplitter(self._limit(max_payload), self.HEAD, measure, cut)


class LengthFieldCodec(Limited):
    """Messages with a length field anywhere in their header.

    The length field is ``width`` bytes (1 to 8) wide and starts at ``offset``. After the
    field come ``length + adjust`` bytes. The first ``strip`` bytes of a message, by default
    everything up to the end of the field, are removed on reading. ``head`` is the start of
    an encoded message, up to ``offset``.

    :meth:`pack` takes what the splitter returns: if the length field is not stripped, it is
    part of the data, and is corrected. Raises :class:`ValueError` for values that do not
    fit together.
    """

    def __init__(
        self,
        *,
        offset: int = 0,
        width: int = 4,
        adjust: int = 0,
        strip: int | None = None,
        byteorder: ByteOrder = "big",
        head: bytes = b"",
        max_payload: int = MAX_PAYLOAD,
        name: str = "length-field",
    ) -> None:
        super().__init__(max_payload)
        if offset < 0 or not 1 <= width <= 8:
            raise ValueError(f"a length at {offset} of {width} bytes, expected 1 to 8 bytes")
        self.name = name
        self._offset, self._width, self._adjust = offset, width, adjust
        self._start = offset + width
        self._strip = self._start if strip is None else strip
        if self._strip < 0:
            raise ValueError(f"strip is {self._strip}, expected 0 or more")
        if len(head) > min(offset, self._strip):
            raise ValueError("head is longer than what is stripped")
        #: The codec changes a length that is part of the data.
        self.transparent = self._strip >= self._start
        self._byteorder: ByteOrder = byteorder
        self._stripped = head.ljust(self._strip, b"\0")

    def pack(self, message: Packable) -> bytes:
        """Return the bytes of one message."""
        data = self._data_of(message)
        whole = bytearray(self._stripped + data)
        body = len(whole) - self._start
        if body < 0:
            raise ValueError(f"{len(data)} bytes are shorter than the header that they contain")
        self._check(body)
        length = body - self._adjust
        if length < 0:
            raise ValueError(
                f"{body} bytes behind the length, which stands for {self._adjust} more"
            )
        if length >= 1 << 8 * self._width:
            raise MessageTooLarge(body, (1 << 8 * self._width) - 1 + self._adjust)
        whole[self._offset : self._start] = length.to_bytes(self._width, self._byteorder)
        return bytes(whole)

    def splitter(self, max_payload: int) -> Splitter:
        """Return a splitter for one peer; it returns bytes."""
        offset, start_of_body, order = self._offset, self._start, self._byteorder
        adjust, strip = self._adjust, self._strip
        least = max(0, strip - start_of_body)

        def measure(data: bytes, start: int) -> int:
            field = data[start + offset : start + start_of_body]
            size = int.from_bytes(field, order) + adjust
            return size if size >= least else -1

        def cut(data: bytes, start: int, end: int) -> Item:
            return data[start + strip : end]

        return HeadSplitter(self._limit(max_payload), start_of_body, measure, cut)


class HeadSplitter(Buffered):
    """Splits messages whose first ``head`` bytes say how much follows.

    ``measure(data, start)`` returns the number of following bytes, or a negative number for
    an invalid header. ``cut(data, start, end)`` makes the message of its bytes.
    """

    __slots__ = ("_cut", "_head", "_measure")

    def __init__(
        self,
        max_payload: int,
        head: int,
        measure: Callable[[bytes, int], int],
        cut: Callable[[bytes, int, int], Item],
    ) -> None:
        super().__init__(max_payload)
        self._head = head
        self._measure = measure
        self._cut = cut

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes and return the messages that they complete."""
        if self._held is not None:
            data = self._complete(data)
        out: list[Item] = []
        size, start, head = len(data), 0, self._head
        while (body := start + head) <= size:
            length = self._measure(data, start)
            if length < 0:
                self._give_up()
                return out
            end = body + length
            if end > size or length > self.max_payload:
                self._stop(data, start, head, length)
                return out
            out.append(self._cut(data, start, end))
            start = end
        if start != size:
            self._keep(data, start, head)
        return out


__all__ = ["MAX_LENGTH", "ByteOrder", "HeadSplitter", "LengthFieldCodec", "TlvCodec"]
