"""Records, as producers write them and as consumers read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec


class NewRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record to write.

    ``key`` decides about the partition, and about compaction. ``timestamp`` is in milliseconds
    since the epoch; None takes the time at which it is written. In a batch it is an array of these
    fields, in this order.
    """

    value: bytes
    key: bytes | None = None
    headers: dict[str, str] = {}
    timestamp: int | None = None


def sizes_of(records: Sequence[NewRecord | Record]) -> list[int]:
    """Return the bytes of records, as limits count them: value, key, and the text of headers."""
    return [
        len(each.value)
        + (0 if each.key is None else len(each.key))
        + (_size_of_headers(each.headers) if each.headers else 0)
        for each in records
    ]


def _size_of_headers(headers: Mapping[str, str]) -> int:
    return sum(len(name.encode()) + len(text.encode()) for name, text in headers.items())


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record that was read; ``timestamp`` is in milliseconds since the epoch."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    headers: Mapping[str, str]


def content_hash(record: NewRecord) -> bytes:
    """Return a hash of a record's key and value, of 16 bytes; no key is not an empty one."""
    key = b"" if record.key is None else len(record.key).to_bytes(8, "big") + record.key
    return blake2b(key + b"/" + record.value, digest_size=16).digest()


def key_hash(key: bytes) -> bytes:
    """Return a hash of a key, of 16 bytes."""
    return blake2b(key, digest_size=16).digest()


class Stamp(NamedTuple):
    """The mark of an idempotent producer: sent again, it gets the offset of the first time."""

    producer: str
    sequence: int


__all__ = ["NewRecord", "Record", "Stamp", "content_hash", "key_hash", "sizes_of"]
