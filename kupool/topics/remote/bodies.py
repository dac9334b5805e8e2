"""Records in requests and answers: as text, or as base64 if they are no text. Pure."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Annotated

import msgspec

from kupool.topics.records import NewRecord, Record

#: An offset, a time or a number of something: never negative, and no more than 63 bits.
Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

#: The number of a partition.
PartitionNumber = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class NewBody(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """A record in a request; with ``base64``, its value and its key are that."""

    value: str
    key: str | None = None
    headers: dict[str, str] = {}
    timestamp: int | None = None
    base64: bool = False


class ReadBody(msgspec.Struct, kw_only=True, gc=False):
    """A record in an answer; as a :class:`NewBody`."""

    offset: Whole
    timestamp: int
    value: str = ""
    key: str | None = None
    headers: dict[str, str] = {}
    base64: bool = False


_encode = msgspec.json.Encoder().encode


def encode_record(record: NewRecord) -> msgspec.Raw:
    """Return a record as JSON."""
    value, key, base64 = _texts(record.value, record.key)
    body = NewBody(
        value=value,
        key=key,
        headers=record.headers,
        timestamp=record.timestamp,
        base64=base64,
    )
    return msgspec.Raw(_encode(body))


def _texts(value: bytes, key: bytes | None) -> tuple[str, str | None, bool]:
    try:
        return value.decode(), None if key is None else key.decode(), False
    except UnicodeDecodeError:
        return b64encode(value).decode(), None if key is None else b64encode(key).decode(), True


def decode_record(body: ReadBody) -> Record:
    """Return the record of an answer; raises :class:`ValueError` if it is no base64."""
    value = _bytes(body.value, body.base64)
    key = None if body.key is None else _bytes(body.key, body.base64)
    return Record(body.offset, body.timestamp, key, value, body.headers)


def decode_records(bodies: Sequence[ReadBody], *, start: int, end: int) -> list[Record]:
    """Return the records of an answer, whose offsets grow from ``start`` to below ``end``.

    Raises :class:`ValueError` if one is out of place, or is no base64.
    """
    records = []
    for body in bodies:
        if not start <= body.offset < end:
            raise ValueError(f"a record at offset {body.offset}, expected {start} to {end - 1}")
        records.append(decode_record(body))
        start = body.offset + 1
    return records


def _bytes(text: str, base64: bool) -> bytes:
    return b64decode(text, validate=True) if base64 else text.encode()


__all__ = [
    "NewBody",
    "PartitionNumber",
    "ReadBody",
    "Whole",
    "decode_record",
    "decode_records",
    "encode_record",
]
