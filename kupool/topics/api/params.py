"""The params of the operations. Pure.

Times are in milliseconds since the epoch, durations in milliseconds. ``at`` is a time, or
``earliest`` or ``latest``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

#: The largest offset and generation: 63 bits, as engines store them.
MOST = 2**63 - 1

#: The latest time: the end of the year 9999.
LATEST_TIME = 253_402_300_799_999

#: The longest time that a fetch waits for records, in milliseconds.
LONGEST_WAIT = 60_000

#: Bytes of the records that a fetch returns, unless it says otherwise.
FETCH_BYTES = 1024 * 1024

_Offset = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
_Generation = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=LATEST_TIME)]
_Name = Annotated[str, msgspec.Meta(max_length=249)]
_Short = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
_At = _Time | Annotated[str, msgspec.Meta(max_length=20)]


class NoParams(msgspec.Struct):
    """Operations without params."""


# -- topics


class TopicListParams(msgspec.Struct):
    """Params of ``topic.list``: from this name on."""

    start: _Name = ""


class TopicParams(msgspec.Struct):
    """Params of operations that are about a topic."""

    topic: _Name


class TopicCreateParams(msgspec.Struct):
    """Params of ``topic.create``; what the settings leave out has its default."""

    topic: _Name
    settings: dict[str, object] = {}


class TopicChangeParams(msgspec.Struct):
    """Params of ``topic.change``; what the settings leave out stays as it is."""

    topic: _Name
    settings: dict[str, object]


# -- records


class RecordParams(msgspec.Struct):
    """A record to write; with ``base64`` the key and the value are base64."""

    value: str
    key: str | None = None
    headers: dict[str, str] = {}
    timestamp: _Time | None = None
    base64: bool = False


class RecordsParams(msgspec.Struct, kw_only=True):
    """Records to write to a topic: ``records``, or the fields of one."""

    topic: _Name
    records: list[RecordParams] | None = None
    value: str | None = None
    key: str | None = None
    headers: dict[str, str] = {}
    timestamp: _Time | None = None
    base64: bool = False
    partition: _Number | None = None


class ProduceParams(RecordsParams, kw_only=True):
    """Params of ``log.produce``."""

    producer: _Short | None = None
    sequence: _Offset | None = None
    transaction: _Short | None = None


class FetchParams(msgspec.Struct):
    """Params of ``log.fetch``: from an offset or a time on, or where a group is."""

    topic: _Name
    partition: _Number
    offset: _Offset | None = None
    at: _At | None = None
    group: _Name | None = None
    max_bytes: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = FETCH_BYTES
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_WAIT)] = 0


class OffsetsParams(msgspec.Struct):
    """Params of ``log.offsets``."""

    topic: _Name
    at: _At = "latest"


class DelayParams(RecordsParams, kw_only=True):
    """Params of ``log.delay``: at a time, or after some."""

    at_ms: _Time | None = None
    after_ms: _Time | None = None


class DelayedParams(msgspec.Struct):
    """Params of ``log.delayed``: from the batch that is due at a time, and has an id, on."""

    topic: _Name
    due: _Offset = 0
    id: _Offset = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1000


class CancelParams(msgspec.Struct):
    """Params of ``log.cancel``; ``id`` is of ``log.delay``."""

    topic: _Name
    id: _Offset


class TransactionParams(msgspec.Struct):
    """Params of ``log.commit`` and ``log.abort``."""

    transaction: _Short


# -- dead letters


class DeadParams(msgspec.Struct):
    """Params of ``log.dead``: ``topic`` is the one that the records are from."""

    topic: _Name
    partition: _Number | None = None
    offset: _Offset = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class DeadPlaceParams(msgspec.Struct):
    """Params of ``log.redrive`` and ``log.purge``: one dead letter, or all."""

    topic: _Name
    partition: _Number | None = None
    offset: _Offset | None = None


class BuryParams(msgspec.Struct):
    """Params of ``log.bury``: the record that a member could not process."""

    group: _Name
    member: _Name
    generation: _Generation
    topic: _Name
    partition: _Number
    offset: _Offset
    reason: str
    attempts: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


# -- groups


class PartitionParams(msgspec.Struct):
    """A partition of a topic."""

    topic: _Name
    partition: _Number


class PositionParams(msgspec.Struct):
    """The offset that a group reads next in a partition."""

    topic: _Name
    partition: _Number
    offset: _Offset


class GroupParams(msgspec.Struct):
    """Params of operations that are about a group."""

    group: _Name


class JoinParams(msgspec.Struct):
    """Params of ``group.join``; without a ``member`` one is made."""

    group: _Name
    topics: list[_Name]
    member: _Name | None = None
    session_timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=86_400_000)] = 10_000


class HeartbeatParams(msgspec.Struct):
    """Params of ``group.heartbeat``; without ``holding`` the member gives nothing back."""

    group: _Name
    member: _Name
    generation: _Generation
    holding: list[PartitionParams] | None = None


class LeaveParams(msgspec.Struct):
    """Params of ``group.leave``."""

    group: _Name
    member: _Name


class CommitParams(msgspec.Struct):
    """Params of ``group.commit``."""

    group: _Name
    member: _Name
    generation: _Generation
    offsets: list[PositionParams]


class ResetParams(msgspec.Struct):
    """Params of ``group.reset``: to a time or an offset, in all partitions or in one."""

    group: _Name
    topic: _Name
    at: _At | None = None
    offset: _Offset | None = None
    partition: _Number | None = None
    dry_run: bool = False


__all__ = [
    "FETCH_BYTES",
    "LATEST_TIME",
    "LONGEST_WAIT",
    "MOST",
    "BuryParams",
    "CancelParams",
    "CommitParams",
    "DeadParams",
    "DeadPlaceParams",
    "DelayParams",
    "DelayedParams",
    "FetchParams",
    "GroupParams",
    "HeartbeatParams",
    "JoinParams",
    "LeaveParams",
    "NoParams",
    "OffsetsParams",
    "PartitionParams",
    "PositionParams",
    "ProduceParams",
    "RecordParams",
    "RecordsParams",
    "ResetParams",
    "TopicChangeParams",
    "TopicCreateParams",
    "TopicListParams",
    "TopicParams",
    "TransactionParams",
]
