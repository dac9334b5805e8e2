"""What a codec is, and what the codecs of this package have in common.

A codec is two methods and two values; whoever writes one can serve it. Sizes are of the
data alone, in bytes, and limited in both directions: :meth:`Codec.pack` raises
:class:`MessageTooLarge`, and a splitter stops at a header that announces too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kupool.wire.framing import Framing
from kupool.wire.packets import UNLIMITED, MessageTooLarge, NumberedMessage
from kupool.wire.splitters import Splitter, Tlv

#: The limit of a codec that is given none, in bytes.
MAX_PAYLOAD = 65536

#: What can be packed: data alone, which goes under the id 0 where there are ids, or both.
Packable = bytes | Tlv | NumberedMessage


class Codec(Protocol):
    """One way to put messages on a wire."""

    name: str
    #: The largest payload in bytes, in both directions.
    max_payload: int

    def pack(self, message: Packable) -> bytes:
        """Return the bytes of one message.

        Raises :class:`MessageTooLarge`, or another :class:`ValueError` for a message
        that the codec cannot express.
        """

    def splitter(self, max_payload: int) -> Splitter:
        """Return what cuts the bytes of one peer; never more than ``max_payload``.

        No bytes make it raise, and it allocates nothing on the word of a header.
        """


def framing_of(codec: Codec) -> Framing:
    """Return the framing that connections use, of a codec."""

    def join(payloads: Sequence[bytes]) -> bytes:
        return b"".join(map(codec.pack, payloads))

    twin = with_crlf(codec)
    crlf = None if twin is None else framing_of(twin)
    return Framing(codec.name, codec.splitter, codec.pack, join, codec.pack, crlf=crlf)


def with_crlf(codec: Codec) -> Codec | None:
    """Return what answers a peer that ends its lines with CR LF, of a codec that has lines.

    A codec says so by a method of this name.
    """
    twin: Codec | None = getattr(codec, "with_crlf", lambda: None)()
    return twin


class Limited:
    """What codecs have in common: a limit, of which 0 stands for none.

    ``most`` is what the codec can express at all. Raises :class:`ValueError` for a
    negative limit.
    """

    name: str
    #: Whether data of any bytes arrives as it is.
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
        raise ValueError(f"{self.name} carries no message ids")


__all__ = ["MAX_PAYLOAD", "Codec", "Limited", "Packable", "framing_of", "with_crlf"]
