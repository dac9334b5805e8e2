"""The operations of the wire protocol that a client uses: their params and their results. Pure.

:data:`OPERATIONS` is the one table of them. Each is the method of its name; the results are decoded
to the types that it names, which check what can be checked of a single value.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from kupool.topics.remote.bodies import PartitionNumber, ReadBody, Whole
from kupool.topics.settings import MOST_PARTITIONS

#: Most entries of one page of a list.
PAGE = 100

_Partitions = Annotated[int, msgspec.Meta(ge=1, le=MOST_PARTITIONS)]


class _Params(msgspec.Struct, omit_defaults=True):
    pass


class _Result(msgspec.Struct):
    pass


class NoParams(_Params):
    """Params of operations that need none."""


# -- topics


class TopicListParams(_Params):
    """Params of ``topic.list``: the name that the page begins with."""

    start: str | None = None


class TopicEntry(_Result):
    """A topic in a list."""

    topic: str
    partitions: _Partitions


class TopicPage(_Result):
    """A page of topics; ``next`` is the name that the next page begins with."""

    topics: Annotated[list[TopicEntry], msgspec.Meta(max_length=PAGE)]
    next: str | None = None


class TopicParams(_Params):
    """Params of operations on one topic."""

    topic: str


class TopicSettingsParams(_Params):
    """Params of ``topic.create`` and ``topic.change``."""

    topic: str
    settings: dict[str, Any] = {}


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


class ProduceParams(_Params):
    """Params of ``log.produce``; ``records`` are as :func:`encode_record` makes them."""

    topic: str
    records: list[msgspec.Raw]
    partition: int | None = None
    producer: str | None = None
    sequence: int | UnsetType = UNSET
    transaction: str | int | None = None


class WrittenEntry(_Result):
    """Where a record was written."""

    partition: PartitionNumber
    offset: Whole


class ProduceResult(_Result):
    """Result of ``log.produce``: a place for each record, or their number in a transaction."""

    written: list[WrittenEntry] = []
    added: Whole = 0


class FetchParams(_Params):
    """Params of ``log.fetch``."""

    topic: str
    partition: int
    max_bytes: int
    offset: int | UnsetType = UNSET
    at: str | int | UnsetType = UNSET
    group: str | UnsetType = UNSET
    wait_ms: int = 0


class FetchResult(_Result):
    """Result of ``log.fetch``."""

    records: list[ReadBody]
    next: Whole
    low: Whole
    high: Whole


class OffsetsParams(_Params):
    """Params of ``log.offsets``: ``at`` is ``earliest``, ``latest`` or milliseconds."""

    topic: str
    at: str | int = "latest"


class OffsetsResult(_Result):
    """Result of ``log.offsets``: one for each partition."""

    offsets: Annotated[list[Whole], msgspec.Meta(min_length=1, max_length=MOST_PARTITIONS)]


class DelayParams(_Params):
    """Params of ``log.delay``; times are in milliseconds."""

    topic: str
    records: list[msgspec.Raw]
    at_ms: int | UnsetType = UNSET
    after_ms: int | UnsetType = UNSET
    partition: int | None = None


class DelayResult(_Result):
    """Result of ``log.delay``: the ids of the batches."""

    ids: list[str | int]


class DelayedEntry(_Result):
    """A batch that is not due yet; ``due`` is in milliseconds since the epoch."""

    id: str | int
    due: Whole
    partition: PartitionNumber
    records: Whole


class DelayedResult(_Result):
    """Result of ``log.delayed``."""

    batches: list[DelayedEntry]


class CancelParams(_Params):
    """Params of ``log.cancel``."""

    topic: str
    id: str | int


class CancelResult(_Result):
    """Result of ``log.cancel``: whether it was there, and so was never written."""

    cancelled: bool


class BeginResult(_Result):
    """Result of ``log.begin``."""

    transaction: str | int
    timeout_ms: Whole


class TransactionParams(_Params):
    """Params of ``log.commit`` and ``log.abort``."""

    transaction: str | int


class CommitResult(_Result):
    """Result of ``log.commit``: the places of the records of each produce."""

    written: list[list[WrittenEntry]]


# -- dead letters


class DeadPlace(_Result):
    """A place among the dead letters of a topic."""

    partition: PartitionNumber
    offset: Whole


class DeadParams(_Params):
    """Params of ``log.dead``: the source topic, and where to go on."""

    topic: str
    partition: int | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    limit: int = 100


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
    next: DeadPlace | None = None


class BuryParams(_Params):
    """Params of ``log.bury``."""

    group: str
    member: str
    generation: int
    topic: str
    partition: int
    offset: int
    reason: str
    attempts: int


class DeadChoice(_Params):
    """Params of ``log.redrive`` and ``log.purge``: one dead letter, or all of a topic."""

    topic: str
    partition: int | UnsetType = UNSET
    offset: int | UnsetType = UNSET


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


class PlaceParams(_Params):
    """A partition of a topic in a request."""

    topic: str
    partition: int


class JoinParams(_Params):
    """Params of ``group.join``."""

    group: str
    member: str
    topics: list[str]
    session_timeout_ms: int


class HeartbeatParams(_Params):
    """Params of ``group.heartbeat``; without ``holding`` it gives nothing back."""

    group: str
    member: str
    generation: int
    holding: list[PlaceParams] | UnsetType = UNSET


class PlaceResult(_Result):
    """Result of ``group.join`` and ``group.heartbeat``."""

    member: str
    generation: Whole
    assigned: list[PlaceEntry]
    revoked: list[PlaceEntry] = []


class LeaveParams(_Params):
    """Params of ``group.leave``."""

    group: str
    member: str


class PositionParams(_Params):
    """The offset that a group reads next in a partition."""

    topic: str
    partition: int
    offset: int


class CommitParams(_Params):
    """Params of ``group.commit``."""

    group: str
    member: str
    generation: int
    offsets: list[PositionParams]


class GroupParams(_Params):
    """Params of operations on one group."""

    group: str


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


class ResetParams(_Params):
    """Params of ``group.reset``: ``at`` for all partitions, or an offset in one."""

    group: str
    topic: str
    at: str | int | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    partition: int | UnsetType = UNSET
    dry_run: bool = False


class ResetEntry(_Result):
    """The offset of a group in a partition, before and after a reset."""

    partition: PartitionNumber
    after: Whole
    before: Whole | None = None


class ResetResult(_Result):
    """Result of ``group.reset``."""

    offsets: list[ResetEntry]


class Operation(NamedTuple):
    """An operation: its params, its result, and what sending it ``again`` means.

    If ``again`` is true, a second one does no harm when the answer of the first was lost.
    """

    params: Any
    result: Any
    again: bool = True


#: Every operation that a client uses, by the name of its method.
OPERATIONS: dict[str, Operation] = {
    "topic.list": Operation(TopicListParams, TopicPage),
    "topic.create": Operation(TopicSettingsParams, TopicSet, again=False),
    "topic.change": Operation(TopicSettingsParams, TopicSet),
    "topic.delete": Operation(TopicParams, bool, again=False),
    "topic.describe": Operation(TopicParams, TopicDetails),
    "log.capabilities": Operation(NoParams, dict[str, Any]),
    "log.produce": Operation(ProduceParams, ProduceResult, again=False),
    "log.fetch": Operation(FetchParams, FetchResult),
    "log.offsets": Operation(OffsetsParams, OffsetsResult),
    "log.delay": Operation(DelayParams, DelayResult, again=False),
    "log.delayed": Operation(TopicParams, DelayedResult),
    "log.cancel": Operation(CancelParams, CancelResult, again=False),
    "log.begin": Operation(NoParams, BeginResult),
    "log.commit": Operation(TransactionParams, CommitResult, again=False),
    "log.abort": Operation(TransactionParams, bool, again=False),
    "log.dead": Operation(DeadParams, DeadPage),
    "log.bury": Operation(BuryParams, bool),
    "log.redrive": Operation(DeadChoice, RedriveResult, again=False),
    "log.purge": Operation(DeadChoice, PurgeResult, again=False),
    "group.list": Operation(NoParams, GroupsResult),
    "group.join": Operation(JoinParams, PlaceResult),
    "group.heartbeat": Operation(HeartbeatParams, PlaceResult),
    "group.leave": Operation(LeaveParams, bool, again=False),
    "group.commit": Operation(CommitParams, bool),
    "group.describe": Operation(GroupParams, GroupDetails),
    "group.reset": Operation(ResetParams, ResetResult),
    "group.delete": Operation(GroupParams, bool, again=False),
}
