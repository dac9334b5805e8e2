"""Records, partitions and settings as values of JSON, and back. Pure."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping

import msgspec

from kupool.errors import BAD_PARAMS, RequestError
from kupool.topics.api.params import RecordParams, RecordsParams
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Record
from kupool.topics.service import Written
from kupool.topics.settings import TopicSettings

#: The most records of one request, as of one transaction: each takes time before it is written.
REQUEST_RECORDS = 10_000

#: The words for the ends of a partition.
EARLIEST, LATEST = ENDS = ("earliest", "latest")


def bad(text: str) -> RequestError:
    """Return the refusal of params."""
    return RequestError(BAD_PARAMS.about(text))


def new_records(params: RecordsParams) -> list[NewRecord]:
    """Return the records to write, at least one; raises ``bad params``."""
    one, many = params.value, params.records
    if (one is None) == (many is None):
        raise bad("records or value: expected one of them")
    if many is None:
        assert one is not None
        many = [RecordParams(one, params.key, params.headers, params.timestamp, params.base64)]
    if not many:
        raise bad("records: expected at least one")
    if len(many) > REQUEST_RECORDS:
        raise bad(f"records: expected {REQUEST_RECORDS} at most, not {len(many)}")
    return [_new_record(each, number) for number, each in enumerate(many)]


def _new_record(given: RecordParams, number: int) -> NewRecord:
    try:
        to_bytes = _from_base64 if given.base64 else str.encode
        key = None if given.key is None else to_bytes(given.key)
        return NewRecord(to_bytes(given.value), key, given.headers, given.timestamp)
    except ValueError as error:
        raise bad(f"record {number}: {error}") from None


def _from_base64(text: str) -> bytes:
    return b64decode(text, validate=True)


def shown_record(record: Record) -> dict[str, object]:
    """Return a record that was read; what is empty is left out."""
    shown: dict[str, object] = {"offset": record.offset, "timestamp": record.timestamp}
    value, key = record.value, record.key
    try:
        shown["value"] = value.decode()
        if key is not None:
            shown["key"] = key.decode()
    except UnicodeDecodeError:
        shown["value"] = b64encode(value).decode()
        if key is not None:
            shown["key"] = b64encode(key).decode()
        shown["base64"] = True
    if record.headers:
        shown["headers"] = record.headers
    return shown


def shown_place(partition: Partition) -> dict[str, object]:
    """Return a partition of a topic."""
    return {"topic": partition.topic, "partition": partition.number}


def shown_places(partitions: Iterable[Partition]) -> list[dict[str, object]]:
    """Return partitions, sorted."""
    return [shown_place(each) for each in sorted(partitions)]


def shown_written(written: Iterable[Written]) -> list[dict[str, int]]:
    """Return where records were written."""
    return [{"partition": each.partition, "offset": each.offset} for each in written]


def shown_settings(settings: TopicSettings) -> Mapping[str, object]:
    """Return all settings of a topic."""
    return msgspec.structs.asdict(settings)


def end_or_time(at: int | str) -> int | str:
    """Return one of :data:`ENDS`, or a time in milliseconds since the epoch; raises
    ``bad params``. A query string has numbers as text.
    """
    if isinstance(at, int) or at in ENDS:
        return at
    if at.isascii() and at.isdecimal():
        return int(at)
    raise bad(f"at: expected {EARLIEST}, {LATEST} or milliseconds since the epoch, not {at!r:.30}")


__all__ = [
    "EARLIEST",
    "ENDS",
    "LATEST",
    "REQUEST_RECORDS",
    "bad",
    "end_or_time",
    "new_records",
    "shown_place",
    "shown_places",
    "shown_record",
    "shown_settings",
    "shown_written",
]
