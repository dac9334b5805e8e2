"""Publications of live channels, and positions in their streams. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec


def one_line(data: bytes) -> bytes:
    """Return JSON text without line breaks, which end a message; raises :class:`ValueError`."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
        return msgspec.json.format(data, indent=-1) if b"\n" in data or b"\r" in data else data
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None


class PublicationPriority(IntEnum):
    """How urgent a publication is."""

    NORMAL = 1
    HIGH = 2
    EMERGENCY = 3


class ClientDetails(NamedTuple):
    """Who a client is, as others see it.

    ``user`` is empty for an anonymous one. ``connection_info`` and ``channel_info`` are JSON, or
    empty.
    """

    client_id: str
    user: str
    connection_info: bytes = b""
    channel_info: bytes = b""


class NewPublication(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is published to a channel.

    ``data`` is JSON text. ``info`` is the client that publishes; None for the server. With an
    ``event_id``, publishing it again within a bounded window publishes nothing. ``device`` is
    where an event comes from, and ``event_type`` what kind it is. Of publications with the same
    ``key``, a subscription with the policy *latest* keeps only the newest. ``merged`` is how many
    older ones of the same device and type it stands for, which were not published. ``sequence``
    grows by one from each event of a device to the next; with 1 the device begins anew. The channel
    gives one to an event of a device that has none, which is 0.
    """

    data: bytes
    info: ClientDetails | None = None
    tags: Mapping[str, str] = {}
    event_id: str = ""
    priority: int = PublicationPriority.NORMAL
    device: str = ""
    event_type: str = ""
    key: str = ""
    merged: int = 0
    sequence: int = 0


class PublishedRecord(NewPublication, frozen=True, kw_only=True, gc=False):
    """A publication that its channel has taken.

    ``offset`` grows from one publication of the channel to the next; it is 0 in a channel without
    history. ``time`` is in seconds since the epoch. One that is ``replaced`` was not published, and
    its offset and time are 0: a newer one of the same device and type came while it waited.
    """

    offset: int
    time: float
    replaced: bool = False


def replaced(new: NewPublication) -> PublishedRecord:
    """Return a publication whose place a newer one has taken."""
    return msgspec.structs.replace(published(new, 0, 0.0), replaced=True)


def published(new: NewPublication, offset: int, time: float) -> PublishedRecord:
    """Return a publication that was taken at an offset and a time."""
    return PublishedRecord(
        data=new.data,
        info=new.info,
        tags=new.tags,
        event_id=new.event_id,
        priority=new.priority,
        device=new.device,
        event_type=new.event_type,
        key=new.key,
        merged=new.merged,
        sequence=new.sequence,
        offset=offset,
        time=time,
    )


class StreamPosition(NamedTuple):
    """A position in the stream of a channel: all up to ``offset`` is behind it.

    The ``epoch`` changes when the stream is lost, so that offsets begin anew. An empty one, with
    offset 0, is the position of a client that has none yet.
    """

    offset: int
    epoch: str


class HistoryPart(NamedTuple):
    """Publications of a stream after an offset, ascending.

    ``missed`` is how many publications before the first one of these are lost; it is a lower bound
    unless ``exact``. ``more`` is whether later ones are kept that are not among these. ``position``
    is the end of the stream when it was read.
    """

    publications: Sequence[PublishedRecord]
    position: StreamPosition
    missed: int = 0
    exact: bool = True
    more: bool = False


class MissedCount(NamedTuple):
    """How many publications there were after an offset; a lower bound unless ``exact``."""

    missed: int
    exact: bool = True


class PublicationGap(NamedTuple):
    """What a subscription did not get, and will not get.

    ``missed`` publications, a lower bound unless ``exact``, with offsets ``first`` to ``last``; the
    offsets are 0 in a channel without history. ``reason`` is one of :data:`GAP_REASONS`.
    """

    missed: int
    first: int
    last: int
    reason: str
    exact: bool = True


#: Why a subscription missed something: its queue was full; its messages waited too long; newer ones
#: of the same key replaced them; the history no longer has them; too much was under way.
GAP_REASONS = ("full", "late", "replaced", "history", "overload")


__all__ = [
    "GAP_REASONS",
    "ClientDetails",
    "HistoryPart",
    "MissedCount",
    "NewPublication",
    "PublicationGap",
    "PublicationPriority",
    "PublishedRecord",
    "StreamPosition",
    "one_line",
    "published",
    "replaced",
]
