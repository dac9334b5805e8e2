"""Splitters: decode bytes into messages, for the framings of docs/protocol.md, section 1.

A splitter turns the bytes of one peer, in pieces of any size, into whole payloads. It never
raises, whatever the bytes are. It holds at most one header, one payload of the permitted
size and the read that completed it.

If a header announces more than ``max_payload``, the splitter sets ``too_large`` and stops
before that header, so that a peer cannot cause large allocations. :meth:`Splitter.resume`
continues from there if the limit has been raised. Data fed meanwhile is kept up to
:data:`MAX_SPARE` bytes; beyond that the stream is lost, and resuming has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Protocol

import msgspec

OP_CONTINUATION = 0x0
OP_TEXT = 0x1
OP_BINARY = 0x2
OP_CLOSE = 0x8
OP_PING = 0x9
OP_PONG = 0xA

#: Size of the header, in bytes, of each framing that has one.
FRAME_HEADER = 5
INT32_HEADER = 4
TLV_HEADER = 8

#: Most bytes kept after a message was refused: the transport may have read more data.
MAX_SPARE = 131072


#: The value of ``_need`` once bytes were dropped after a refusal.
_LOST = -1

_unpack_frame = Struct("<BI").unpack_from
_unpack_int32 = Struct(">I").unpack_from
_unpack_tlv = Struct("<II").unpack_from


class Control(msgspec.Struct, frozen=True, gc=False):
    """A ``frame`` message that is not data: close, ping, pong, or an unused opcode."""

    opcode: int
    payload: bytes


class Tlv(msgspec.Struct, frozen=True, gc=False):
    """A ``tlv`` message: its id and its data."""

    # Not a tuple: one is made for every message, and this takes a fifth of the time.
    message_id: int
    payload: bytes


#: What a splitter returns: the payload of one message, or a message with a tag.
Item = bytes | Control | Tlv


class Splitter(Protocol):
    """Splits a stream of bytes into messages."""

    max_payload: int
    too_large: bool
    #: Whether the stream is invalid for the codec: set together with
    #: ``too_large``, and permanent.
    corrupt: bool

    def feed(self, data: bytes) -> Sequence[Item]:
        """Take the next bytes and return the messages that they complete."""

    def resume(self) -> Sequence[Item]:
        """Continue after ``too_large``, if ``max_payload`` is now larger."""


class Buffered:
    """The base of all splitters: the bytes kept between two reads."""

    __slots__ = ("_held", "_need", "corrupt", "max_payload", "too_large")

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload
        self.too_large = self.corrupt = False
        self._held: bytearray | None = None
        self._need = 0

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes and return the messages that they complete."""
        raise NotImplementedError

    def resume(self) -> list[Item]:
        """Continue after ``too_large``, if ``max_payload`` is now larger."""
        if self._need == _LOST:
            return []
        self.too_large = False
        held, self._held = self._held, None
        return [] if held is None else self.feed(bytes(held))

    @property
    def buffered(self) -> int:
        """Number of bytes held that do not make a message yet."""
        return 0 if self._held is None else len(self._held)

    def _complete(self, data: bytes) -> bytes:
        """Append to the held bytes; return all of them once there are enough, else nothing."""
        held = self._held
        assert held is not None
        if self.too_large:
            self._spare(held, data)
            return b""
        # Appending to a bytearray is amortised: a peer that sends one byte at a time
        # costs no more than one that sends the message whole.
        held += data
        if len(held) < self._need:
            return b""
        self._held = None
        return bytes(held)

    def _spare(self, held: bytearray, data: bytes) -> None:
        """Keep the bytes after a refusal, for a later resume."""
        if self._need != _LOST and len(held) + len(data) <= MAX_SPARE:
            held += data
        else:
            held.clear()
            self._need = _LOST

    def _keep(self, data: bytes, start: int, need: int) -> None:
        """Hold the bytes after ``start`` until there are ``need`` of them."""
        self._held = bytearray(data[start:] if start else data)
        self._need = need

    def _stop(self, data: bytes, start: int, header: int, length: int) -> None:
        """Keep the incomplete message at ``start``, or refuse it."""
        if length > self.max_payload:
            self._refuse(data, start)
        else:
            self._keep(data, start, header + length)

    def _refuse(self, data: bytes, start: int) -> None:
        """Stop before the message at ``start``, whose size is over the limit."""
        self.too_large = True
        self._keep(data, start, 0)

    def _give_up(self) -> None:
        """Give up the stream: the data is invalid, so its length has no meaning."""
        self.too_large = self.corrupt = True
        self._held = bytearray()
        self._need = _LOST


class FrameSplitter(Buffered):
    """``frame``: opcode u8, length u32 little-endian, payload."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes and return the messages that they complete."""
        if self._held is not None:
            data = self._complete(data)
        out: list[Item] = []
        size = len(data)
        start = 0
        limit = self.max_payload
        while (body := start + FRAME_HEADER) <= size:
            opcode, length = _unpack_frame(data, start)
            end = body + length
            if end > size or length > limit:
                self._stop(data, start, FRAME_HEADER, length)
                return out
            if opcode == OP_BINARY or opcode == OP_TEXT:  # noqa: SIM109  a tuple is slower
                if length:  # the first clients send empty ones, which have no meaning
                    out.append(data[body:end])
            else:
                out.append(Control(opcode, data[body:end]))
            start = end
        if start != size:
            self._keep(data, start, FRAME_HEADER)
        return out


class Int32Splitter(Buffered):
    """``int32``: length u32 big-endian, payload; Twisted's ``Int32StringReceiver``."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes and return the messages that they complete."""
        if self._held is not None:
            data = self._complete(data)
        out: list[Item] = []
        size = len(data)
        start = 0
        limit = self.max_payload
        while (body := start + INT32_HEADER) <= size:
            (length,) = _unpack_int32(data, start)
            end = body + length
            if end > size or length > limit:
                self._stop(data, start, INT32_HEADER, length)
                return out
            if length:
                out.append(data[body:end])
            start = end
        if start != size:
            self._keep(data, start, INT32_HEADER)
        return out


class TlvSplitter(Buffered):
    """``tlv``: length u32 little-endian, id u32 little-endian, payload."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes and return the messages that they complete."""
        size = len(data)
        limit = self.max_payload
        if self._held is not None:
            data = self._complete(data)
            size = len(data)
        elif size >= TLV_HEADER:
            # Fast path: most reads are one whole message.
            length, message_id = _unpack_tlv(data)
            if length == size - TLV_HEADER and length <= limit:
                return [Tlv(message_id, data[TLV_HEADER:])]
        out: list[Item] = []
        start = 0
        while (body := start + TLV_HEADER) <= size:
            length, message_id = _unpack_tlv(data, start)
            end = body + length
            if end > size or length > limit:
                self._stop(data, start, TLV_HEADER, length)
                return out
            out.append(Tlv(message_id, data[body:end]))
            start = end
        if start != size:
            self._keep(data, start, TLV_HEADER)
        return out


class LineSplitter(Buffered):
    """``line``: payload, LF; a CR before the LF is dropped, empty lines are skipped.

    If ``on_crlf`` is set, it is called when the first non-empty line ends with CR LF. That
    is before the line is returned, so that its answer can end with CR LF too.
    """

    __slots__ = ("_begun", "on_crlf")

    def __init__(self, max_payload: int) -> None:
        super().__init__(max_payload)
        self.on_crlf: Callable[[], object] | None = None
        self._begun = False

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes and return the messages that they complete."""
        if self._held is None:
            if self._begun and data.find(b"\n") == len(data) - 1:
                # Fast path: most reads are one whole line.
                payload = data[:-2] if data.endswith(b"\r\n") else data[:-1]
                if payload and len(payload) <= self.max_payload:
                    return [payload]
        else:
            if not self.too_large:
                # Only the new bytes can hold the end of the line.
                self._need = 0 if b"\n" in data else self.max_payload + 1
            data = self._complete(data)
        lines = data.split(b"\n")
        rest = lines.pop()
        if not self._begun:
            self._begin(lines)
        out, start = self._payloads(data, lines)
        if rest and not self.too_large:
            # One byte over the limit may still be the CR of a line that ends.
            if len(rest) > self.max_payload + (rest[-1] == 0x0D):
                self._refuse(data, start)
            else:
                self._held = bytearray(rest)  # the next read says how many are needed
        return out

    def _begin(self, lines: Sequence[bytes]) -> None:
        """Call ``on_crlf`` if the first non-empty line ends with CR LF."""
        for line in lines:
            if line.rstrip(b"\r"):
                self._begun = True
                on_crlf, self.on_crlf = self.on_crlf, None
                if on_crlf is not None and line.endswith(b"\r"):
                    on_crlf()
                return

    def _payloads(self, data: bytes, lines: Sequence[bytes]) -> tuple[list[Item], int]:
        """Return the payloads of whole lines, and where the rest begins."""
        limit = self.max_payload
        out: list[Item] = []
        start = 0
        for line in lines:
            payload = line[:-1] if line.endswith(b"\r") else line
            if len(payload) > limit:
                self._refuse(data, start)
                break
            if payload:
                out.append(payload)
            start += len(line) + 1
        return out, start


class Discarding:
    """The splitter of a peer whose data is dropped."""

    __slots__ = ("corrupt", "max_payload", "too_large")

    def __init__(self, max_payload: int = 0) -> None:
        self.max_payload = max_payload
        self.too_large = self.corrupt = False

    def feed(self, data: bytes) -> Sequence[Item]:
        """Drop the bytes."""
        return ()

    def resume(self) -> Sequence[Item]:
        """Return nothing: no data is held."""
        return ()
