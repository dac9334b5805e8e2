"""What a client asks for when it subscribes, and what it gets. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from kupool.live.filters import PublicationFilter
from kupool.live.publications import (
    ClientDetails,
    MissedCount,
    PublishedRecord,
    StreamPosition,
)
from kupool.live.rules import QueueLimits, QueuePolicy

if TYPE_CHECKING:
    from kupool.live.subscription import LiveSubscription


class SubscribeWishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for, and what is decided for it.

    The client asks for ``positioned``, ``recoverable`` and ``join_leave``, and gets them where the
    rule of the channel lets it. ``recover`` is its last position; ``partial`` says that it wants
    what is left of the history if some is lost, and ``in_reply`` that the reply has no more
    publications than that; the others follow. ``policy``, ``queue``, ``max_rate`` (publications a
    second; 0 is no limit) and ``wanted`` say how it wants to be served.

    ``permitted`` says that somebody else has decided that it may subscribe, such as a token.
    A token may also decide what the rule does otherwise: ``force_recovery``, ``force_positions``,
    ``push_join_leave``, ``emit_presence`` and ``emit_join_leave``; None follows the rule.
    ``channel_info`` is JSON, or empty.
    """

    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    recover: StreamPosition | None = None
    partial: bool = False
    in_reply: int | None = None
    policy: QueuePolicy | None = None
    queue: QueueLimits | None = None
    max_rate: float = 0.0
    wanted: PublicationFilter | None = None
    permitted: bool = False
    force_recovery: bool | None = None
    force_positions: bool | None = None
    push_join_leave: bool | None = None
    emit_presence: bool | None = None
    emit_join_leave: bool | None = None
    channel_info: bytes = b""


class SubscribeOutcome(NamedTuple):
    """A subscription that waits for its :meth:`~LiveSubscription.start`.

    Its client gets nothing before. So a reply that is written first precedes all publications.

    ``position`` is the client's position, if the subscription is ``positioned``: before
    ``publications``, which the reply hands over. ``was_recovering`` says that it asked for
    recovery, and ``recovered`` that nothing is missing: what did not fit into ``publications``
    follows as soon as it has started. If it was not recovered, ``missed`` counts what it will not
    get; None if nobody can know, as the stream is another one.
    """

    subscription: LiveSubscription
    positioned: bool
    recoverable: bool
    position: StreamPosition
    publications: Sequence[PublishedRecord] = ()
    was_recovering: bool = False
    recovered: bool = False
    missed: MissedCount | None = None


class HistoryWishes(NamedTuple):
    """What part of the history a client asks for.

    The ``limit`` oldest publications, or the oldest after ``since``. With ``reverse`` the newest,
    or the newest before ``since``, the newest first. A ``limit`` of 0 asks for the position alone;
    one below 0 for as many as the service returns at once.
    """

    limit: int = 0
    since: StreamPosition | None = None
    reverse: bool = False


class HistoryFound(NamedTuple):
    """Publications in the order that was asked for, and the end of the stream."""

    publications: Sequence[PublishedRecord]
    position: StreamPosition


class PresenceCounts(NamedTuple):
    """How many clients are subscribed, and of how many users; all anonymous ones are one user."""

    clients: int
    users: int


class ChannelFound(NamedTuple):
    """A channel with subscribers, or with a history in memory."""

    name: str
    clients: int


__all__ = [
    "ChannelFound",
    "ClientDetails",
    "HistoryFound",
    "HistoryWishes",
    "PresenceCounts",
    "SubscribeOutcome",
    "SubscribeWishes",
]
