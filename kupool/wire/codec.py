"""The interface of codecs, and what the codecs of this package share.

A codec has two methods and two attributes. Sizes are of the data alone, in bytes. They are
limited in both directions: :meth:`Codec.pack` raises :class:`MessageTooLarge`, and a
splitter stops at a header that announces too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kupool.wire.framing import Framing
from kupool.wire.packets import UNLIMITED, MessageTooLarge, NumberedMessage
from kupool.wire.splitters import Splitter, Tlv

#: The default limit of a codec, in bytes.
MAX_PAYLOAD = 65536

#: A message to encode: data alone, which gets the id 0 if the codec has ids, or both.
Packable = bytes | Tlv | NumberedMessage


class Codec(Protocol):
    """A way to encode and decode messages."""

    name: str
    #: The largest payload in bytes, in both directions.
    max_payload: int

    def pack(self, message: Packable) -> bytes:
        """Return the bytes of one message.

        Raises :class:`MessageTooLarge`, or another :class:`ValueError` for a message that
        the codec cannot encode.
        """

    def splitter(self, max_payload: int) -> Splitter:
        """Return a splitter for one peer, with a limit of at most ``max_payload``.

        It never raises, whatever the bytes are, and never allocates the size that a header
        announces.
        """


def framing_of(codec: Codec) -> Framing:
    """Return the framing that connections use for a codec."""

    def join(payloads: Sequence[bytes]) -> bytes:
        return b"".join(map(codec.pack, payloads))

    twin = with_crlf(codec)
    crlf = None if twin is None else framing_of(twin)
    return Framing(codec.name, codec.splitter, codec.pack, join, codec.pack, crlf=crlf)


def with_crlf(codec: Codec) -> Codec | None:
    """Return the variant of a codec for a peer that ends its lines with CR LF.

    A codec of lines provides it by a method of this name; for other codecs it is None.
    """
    twin: Codec | None = getattr(codec, "with_crlf", lambda: None)()
    return twin


class Limited:
    """The base of codecs with a limit; 0 means no limit.

    ``most`` is the largest payload that the codec can encode. Raises :class:`ValueError`
    for a negative limit.
    """

    name: str
    #: Whether data may contain any byte.
    transparent = True

    def __init__(self, max_payload: int, most: int = UNLIMITED) -> None:
        if max_payload < 0:
            raise ValueError(f"max_payload is {max_payload}, expected 0 or more")
        self.max_payload = min(max_payload or UNLIMITED, most)

    def _limit(self, asked: int) -> int:
        return min(asked, self.max_payload)

    def _check(self, size: int) -> None:
        if size > self.max_payload:
            raise MessageTooLarge(size, self.max_payload)

    def _data_of(self, message: Packable) -> bytes:
        """Return the data of a message, for a codec without ids."""
        if isinstance(message, bytes):
            return message
        raise ValueError(f"{self.name} has no message ids")


__all__ = ["MAX_PAYLOAD", "Codec", "Limited", "Packable", "framing_of", "with_crlf"]
