"""The results of the operations, as a client decodes them. Pure.

The operations and their params are those of :mod:`kupool.topics.api`. A result is decoded to the
type in :data:`REMOTE_OPERATIONS`, which checks what can be checked of a single value.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from kupool.topics.remote.bodies import PartitionNumber, ReadBody, Whole
from kupool.topics.settings import MOST_PARTITIONS

#: Most entries of one page of a list.
PAGE = 100

_Partitions = Annotated[int, msgspec.Meta(ge=1, le=MOST_PARTITIONS)]


class _Result(msgspec.Struct):
    pass


# -- topics


class TopicEntry(_Result):
    """A topic in a list."""

    topic: str
    partitions: _Partitions


class TopicPage(_Result):
    """A page of topics; ``next`` is the name that the next page begins with."""

    topics: Annotated[list[TopicEntry], msgspec.Meta(max_length=PAGE)]
    next: str | None = None


class TopicSet(_Result):
    """A topic and all its settings; ``warning`` says what a change means for keys."""

    topic: str
    settings: dict[str, Any]
    warning: str = ""


class PartitionEntry(_Result):
    """What a partition holds: offsets from ``low`` to below ``high``; ``size`` in bytes."""

    partition: PartitionNumber
    low: Whole
    high: Whole
    size: Whole
    leader: str = ""


class TopicDetails(_Result):
    """Result of ``topic.describe``."""

    topic: str
    settings: dict[str, Any]
    partitions: Annotated[
        list[PartitionEntry], msgspec.Meta(min_length=1, max_length=MOST_PARTITIONS)
    ]


# -- records


class WrittenEntry(_Result):
    """Where a record was written."""

    partition: PartitionNumber
    offset: Whole


class ProduceResult(_Result):
    """Result of ``log.produce``: a place for each record, or their number in a transaction."""

    written: list[WrittenEntry] = []
    added: Whole = 0


class FetchResult(_Result):
    """Result of ``log.fetch``."""

    records: list[ReadBody]
    next: Whole
    low: Whole
    high: Whole


class OffsetsResult(_Result):
    """Result of ``log.offsets``: one for each partition."""

    offsets: Annotated[list[Whole], msgspec.Meta(min_length=1, max_length=MOST_PARTITIONS)]


class DelayResult(_Result):
    """Result of ``log.delay``: the ids of the batches."""

    ids: list[Whole]


class DelayedEntry(_Result):
    """A batch that is not due yet; ``due`` is in milliseconds since the epoch."""

    id: Whole
    due: Whole
    partition: PartitionNumber
    records: Whole


class DelayedNext(_Result):
    """The place of the first batch of the next page."""

    due: Whole
    id: Whole


class DelayedResult(_Result):
    """Result of ``log.delayed``, and where the next page begins."""

    batches: list[DelayedEntry]
    next: DelayedNext | None = None


class CancelResult(_Result):
    """Result of ``log.cancel``: whether it was there, and so was never written."""

    cancelled: bool


class BeginResult(_Result):
    """Result of ``log.begin``."""

    transaction: str
    timeout_ms: Whole


class CommitResult(_Result):
    """Result of ``log.commit``: the places of the records of each produce."""

    written: list[list[WrittenEntry]]


# -- dead letters


class DeadPosition(_Result):
    """A place among the dead letters of a topic."""

    partition: PartitionNumber
    offset: Whole


class DeadSource(_Result):
    """Where a dead letter was."""

    topic: str
    partition: PartitionNumber
    offset: Whole


class DeadEntry(_Result):
    """A dead letter; its record has the key, the value and the headers of the source."""

    partition: PartitionNumber
    offset: Whole
    source: DeadSource
    group: str
    reason: str
    attempts: Whole
    record: ReadBody


class DeadPage(_Result):
    """Result of ``log.dead``."""

    dead: list[DeadEntry]
    next: DeadPosition | None = None


class RedriveResult(_Result):
    """Result of ``log.redrive``."""

    redriven: Whole


class PurgeResult(_Result):
    """Result of ``log.purge``."""

    purged: Whole


# -- groups


class GroupsResult(_Result):
    """Result of ``group.list``."""

    groups: list[str]


class PlaceEntry(_Result):
    """A partition of a topic in an answer."""

    topic: str
    partition: PartitionNumber


class PlaceResult(_Result):
    """Result of ``group.join`` and ``group.heartbeat``."""

    member: str
    generation: Whole
    assigned: list[PlaceEntry]
    revoked: list[PlaceEntry] = []


class GroupMemberEntry(_Result):
    """A member of a group; ``last_seen_ms`` is how long ago it was heard."""

    member: str
    topics: list[str]
    assigned: list[PlaceEntry] = []
    revoked: list[PlaceEntry] = []
    session_timeout_ms: Whole = 0
    last_seen_ms: Whole = 0


class PositionEntry(_Result):
    """How far a group is in a partition; without ``committed`` it has saved nothing."""

    topic: str
    partition: PartitionNumber
    committed: Whole | None = None
    lag: Whole = 0
    lag_ms: Whole | None = None
    owner: str | None = None


class GroupDetails(_Result):
    """Result of ``group.describe``."""

    group: str
    generation: Whole
    members: list[GroupMemberEntry] = []
    positions: list[PositionEntry] = []


class ResetEntry(_Result):
    """The offset of a group in a partition, before and after a reset."""

    partition: PartitionNumber
    after: Whole
    before: Whole | None = None


class ResetResult(_Result):
    """Result of ``group.reset``."""

    offsets: list[ResetEntry]


class EncodedRecordsParams(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Params of ``log.produce`` and ``log.delay``, with records that are JSON already.

    Its fields are those of :class:`~kupool.topics.api.params.ProduceParams` and
    :class:`~kupool.topics.api.params.DelayParams`.
    """

    topic: str
    records: list[msgspec.Raw]
    partition: int | None = None
    producer: str | None = None
    sequence: int | None = None
    transaction: str | None = None
    at_ms: int | None = None
    after_ms: int | None = None


class RemoteOperation(NamedTuple):
    """An operation as a client calls it: the type of its result, and whether to repeat it.

    If ``again`` is true, a second one does no harm when the answer of the first was lost.
    """

    result: Any
    again: bool = True


#: The operations, by the names of :data:`kupool.topics.api.table.OPERATIONS`.
REMOTE_OPERATIONS: dict[str, RemoteOperation] = {
    "topic.list": RemoteOperation(TopicPage),
    "topic.create": RemoteOperation(TopicSet, again=False),
    "topic.change": RemoteOperation(TopicSet),
    "topic.delete": RemoteOperation(bool, again=False),
    "topic.describe": RemoteOperation(TopicDetails),
    "log.capabilities": RemoteOperation(dict[str, Any]),
    "log.produce": RemoteOperation(ProduceResult, again=False),
    "log.fetch": RemoteOperation(FetchResult),
    "log.offsets": RemoteOperation(OffsetsResult),
    "log.delay": RemoteOperation(DelayResult, again=False),
    "log.delayed": RemoteOperation(DelayedResult),
    "log.cancel": RemoteOperation(CancelResult, again=False),
    "log.begin": RemoteOperation(BeginResult),
    "log.commit": RemoteOperation(CommitResult, again=False),
    "log.abort": RemoteOperation(bool, again=False),
    "log.dead": RemoteOperation(DeadPage),
    "log.bury": RemoteOperation(bool),
    "log.redrive": RemoteOperation(RedriveResult, again=False),
    "log.purge": RemoteOperation(PurgeResult, again=False),
    "group.list": RemoteOperation(GroupsResult),
    "group.join": RemoteOperation(PlaceResult),
    "group.heartbeat": RemoteOperation(PlaceResult),
    "group.leave": RemoteOperation(bool, again=False),
    "group.commit": RemoteOperation(bool),
    "group.describe": RemoteOperation(GroupDetails),
    "group.reset": RemoteOperation(ResetResult),
    "group.delete": RemoteOperation(bool, again=False),
}
