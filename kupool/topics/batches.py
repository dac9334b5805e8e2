"""Batches of records as bytes: what an engine stores. Pure.

A batch is the byte 1, which is the version; then the CRC-32 of all that follows, in four bytes,
big-endian; then a MessagePack array::

    [id, time, codec, count, size, payload]

``id`` is unique: a reader drops a batch that it has seen. ``time`` is when it was written, in
milliseconds since the epoch. ``payload`` is compressed with ``codec``, and has ``size`` bytes
before that. Decompressed it is a MessagePack array of ``count`` records, each an array::

    [value, key or nil, headers, timestamp or nil]

``value`` and ``key`` are binary, ``headers`` is a map of texts, and ``timestamp`` in milliseconds
since the epoch; without one, that of the batch is meant. The record at index ``i`` has the offset
of the batch plus ``i``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from zlib import crc32

import msgspec

from kupool.topics.compression import PLAIN, compress, decompress
from kupool.topics.errors import CorruptBatch
from kupool.topics.records import NewRecord, Record

VERSION = 1

#: The version and the CRC-32.
_HEAD = Struct(">BI")

#: The most records in a batch: in RabbitMQ an offset has 16 bits for the place in its batch.
MOST_RECORDS = 65_535

#: The most bytes of a batch before compression that a reader takes.
MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Compression:
    """How batches are compressed: those of at least ``threshold`` bytes, if that makes them
    smaller.
    """

    codec: str = PLAIN
    threshold: int = 1024


def array_head(count: int) -> bytes:
    """Return how MessagePack begins an array of so many elements, up to 65,535."""
    return bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2)


class _RecordBatch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    batch_id: str
    time: int
    codec: str
    count: int
    size: int
    payload: bytes


class _BatchHead(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is before the payload, which is not looked at."""

    batch_id: str
    time: int
    codec: str
    count: int
    size: int


class RecordCodec:
    """Encodes and decodes batches; keeps nothing between calls."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._encode = msgspec.msgpack.Encoder().encode
        self._batch = msgspec.msgpack.Decoder(_RecordBatch).decode
        self._batch_head = msgspec.msgpack.Decoder(_BatchHead).decode
        self._records = msgspec.msgpack.Decoder(list[NewRecord]).decode

    def payload(self, records: Sequence[NewRecord]) -> bytes:
        """Return records as they are in a batch, before compression."""
        return self._encode(records)

    def join(self, payloads: Sequence[tuple[int, bytes]]) -> bytes:
        """Return the payload of the records of several, each with the number of its records."""
        count = sum(records for records, _ in payloads)
        return array_head(count) + b"".join(
            [payload[len(array_head(records)) :] for records, payload in payloads]
        )

    def encode(
        self, records: Sequence[NewRecord], batch_id: str, now: int, compression: Compression
    ) -> bytes:
        """Return a batch of 1 to :data:`MOST_RECORDS` records; ``now`` is in milliseconds since
        the epoch. Raises :class:`ValueError` for another number.
        """
        return self.encode_payload(
            self._encode(records), len(records), (batch_id, now), compression=compression
        )

    def encode_payload(
        self, plain: bytes, count: int, made: tuple[str, int], *, compression: Compression
    ) -> bytes:
        """Return a batch of so many records that are encoded already; ``made`` is its id and time.

        Raises as :meth:`encode` does.
        """
        if not 0 < count <= MOST_RECORDS:
            raise ValueError(f"a batch has 1 to {MOST_RECORDS} records, not {count}")
        codec, payload = PLAIN, plain
        if compression.codec != PLAIN and len(plain) >= compression.threshold:
            smaller = compress(compression.codec, plain)
            if len(smaller) < len(plain):
                codec, payload = compression.codec, smaller
        batch_id, now = made
        body = self._encode(_RecordBatch(batch_id, now, codec, count, len(plain), payload))
        return _HEAD.pack(VERSION, crc32(body)) + body

    def plain_size(self, body: bytes) -> int:
        """Return how many bytes the records of a batch have once they are decompressed.

        Of what is no batch, its own size.
        """
        try:
            return max(len(body), self._batch_head(memoryview(body)[_HEAD.size :]).size)
        except (ValueError, RecursionError):
            return len(body)

    def decode(self, body: bytes, base: int) -> tuple[str, list[Record]]:
        """Return the id of a batch and its records; ``base`` is the offset of the first.

        Raises :class:`CorruptBatch`, whatever the bytes are, or :class:`UnknownCodec`.
        """
        if len(body) < _HEAD.size:
            raise CorruptBatch(f"it has {len(body)} bytes, that is no batch")
        version, crc = _HEAD.unpack_from(body)
        if version != VERSION:
            raise CorruptBatch(f"it has version {version}, expected {VERSION}")
        rest = memoryview(body)[_HEAD.size :]
        if crc32(rest) != crc:
            raise CorruptBatch("its checksum is wrong: bytes of it have changed")
        try:
            batch = self._batch(rest)
        except (ValueError, RecursionError) as error:
            raise CorruptBatch(f"it is no batch: {error}") from None
        if not 0 <= batch.size <= self._most:
            raise CorruptBatch(f"it announces {batch.size} bytes, the limit is {self._most}")
        plain = decompress(batch.codec, batch.payload, batch.size)
        try:
            found = self._records(plain)
        except (ValueError, RecursionError) as error:
            raise CorruptBatch(f"its records cannot be read: {error}") from None
        if len(found) != batch.count:
            raise CorruptBatch(f"it has {len(found)} records, {batch.count} were announced")
        time = batch.time
        return batch.batch_id, [
            Record(
                offset,
                time if each.timestamp is None else each.timestamp,
                each.key,
                each.value,
                each.headers,
            )
            for offset, each in enumerate(found, base)
        ]


__all__ = ["MOST_BYTES", "MOST_RECORDS", "VERSION", "Compression", "RecordCodec"]
