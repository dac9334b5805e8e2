"""Compression of batches by the names that settings use. Pure.

All of them write and read the standard container of their format, so that tools and libraries in
other languages can read them: gzip (RFC 1952), the snappy framing format, the LZ4 frame, zstd.
"""

from __future__ import annotations

from typing import Any

import cramjam

from kupool.topics.errors import CorruptBatch, UnknownCodec

#: The name of no compression.
PLAIN = "none"

#: Every name that a setting may have.
CODECS = (PLAIN, "gzip", "snappy", "lz4", "zstd")


def compress(codec: str, data: bytes) -> bytes:
    """Return data compressed; raises :class:`UnknownCodec`."""
    if codec == PLAIN:
        return data
    return bytes(_module(codec).compress(data))


def decompress(codec: str, data: bytes, size: int) -> bytes:
    """Return data of ``size`` bytes that was compressed; it never takes more memory than that.

    Raises :class:`UnknownCodec`, and :class:`CorruptBatch` if it is not what it should be, or is
    more or less than ``size`` bytes.
    """
    if codec == PLAIN:
        found = len(data)
    else:
        module, out = _module(codec), bytearray(size)
        try:
            found = module.decompress_into(data, out)
        except cramjam.DecompressionError as error:
            raise CorruptBatch(f"the {codec} data cannot be decompressed: {error}") from None
        data = bytes(out)
    if found != size:
        raise CorruptBatch(f"the {codec} data has {found} bytes, {size} were announced")
    return data


def _module(codec: str) -> Any:
    if codec not in CODECS:
        raise UnknownCodec(f"unknown compression {codec!r:.40}: use one of {', '.join(CODECS)}")
    return getattr(cramjam, codec)


__all__ = ["CODECS", "PLAIN", "compress", "decompress"]
