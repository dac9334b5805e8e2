"""The params of our own protocol's methods for live channels, and of ``/events``. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import msgspec

from kupool.live.failures import InvalidPublication, InvalidWish
from kupool.live.filters import LONGEST_VALUE, MOST_VALUES, PublicationFilter, tag_test
from kupool.live.publications import (
    ClientDetails,
    NewPublication,
    PublicationPriority,
    StreamPosition,
)
from kupool.live.rules import QUEUE_PROFILES, QueuePolicy
from kupool.live.wishes import HistoryWishes, SubscribeWishes

#: The most tags of a publication.
MOST_TAGS = 64


class DeliveryParams(msgspec.Struct, kw_only=True):
    """How a subscriber wants to be served.

    ``policy`` is a :class:`QueuePolicy`, ``queue`` a profile of :data:`QUEUE_PROFILES`,
    ``max_rate`` in publications a second. The rest says which publications the subscriber wants:
    of a priority, from some devices, of some types, with tags as :func:`tag_test` reads them.
    """

    policy: str = ""
    queue: str = ""
    max_rate: float = 0.0
    min_priority: int = PublicationPriority.NORMAL
    devices: Sequence[str] = ()
    types: Sequence[str] = ()
    tags: dict[str, Any] | None = None

    def wishes(self, **more: Any) -> SubscribeWishes:
        """Return the wishes of a subscriber, with ``more`` of their fields.

        Raises :class:`InvalidWish`.
        """
        if self.policy and self.policy not in {each.value for each in QueuePolicy}:
            known = ", ".join(each.value for each in QueuePolicy)
            raise InvalidWish(f"policy: {self.policy!r:.40} is none of {known}")
        if self.queue and self.queue not in QUEUE_PROFILES:
            raise InvalidWish(f"queue: {self.queue!r:.40} is none of {', '.join(QUEUE_PROFILES)}")
        if not 0 <= self.max_rate < inf:
            raise InvalidWish("max_rate: expected a number of 0 or more")
        _check_priority("min_priority", self.min_priority, InvalidWish)
        for name, values in (("devices", self.devices), ("types", self.types)):
            if len(values) > MOST_VALUES:
                raise InvalidWish(f"{name}: has more than {MOST_VALUES} values")
        wanted = PublicationFilter(
            min_priority=self.min_priority,
            devices=self.devices,
            event_types=self.types,
            tags=None if self.tags is None else tag_test(msgspec.json.encode(self.tags)),
        )
        return SubscribeWishes(
            policy=QueuePolicy(self.policy) if self.policy else None,
            queue=QUEUE_PROFILES[self.queue] if self.queue else None,
            max_rate=self.max_rate,
            wanted=wanted,
            **more,
        )


class ChannelSubscribeParams(DeliveryParams, kw_only=True):
    """The params of ``subscribe``.

    With ``offset`` the session gets what was published after it, if ``epoch`` is that of the
    channel; with ``at``, a time in milliseconds since the epoch, what was published from then on.
    """

    channel: str
    offset: int | None = None
    epoch: str = ""
    at: float | None = None
    join_leave: bool = False

    def position(self) -> StreamPosition | None:
        """Return the position to recover from; raises :class:`InvalidWish`."""
        if self.offset is None:
            return None
        if self.at is not None:
            raise InvalidWish("offset and at: give one of them")
        return position_of(self.offset, self.epoch)


class ChannelParams(msgspec.Struct):
    """The params of methods that need no more than a channel."""

    channel: str


class EventParams(msgspec.Struct, kw_only=True):
    """What may be said of a publication as an event."""

    priority: int = PublicationPriority.NORMAL
    device: str = ""
    type: str = ""
    key: str = ""
    sequence: int = 0

    def event(
        self, data: bytes, *, event_id: str, tags: Mapping[str, str], info: ClientDetails | None
    ) -> NewPublication:
        """Return the publication; raises :class:`InvalidPublication`."""
        _check_priority("priority", self.priority, InvalidPublication)
        texts = (event_id, self.device, self.type, self.key)
        if any(len(text) > LONGEST_VALUE for text in texts):
            raise InvalidPublication(f"a text has more than {LONGEST_VALUE} characters")
        if len(tags) > MOST_TAGS:
            raise InvalidPublication(f"tags: more than {MOST_TAGS}")
        if self.sequence and not (0 < self.sequence < 2**63 and self.device):
            raise InvalidPublication("sequence: expected 1 or more, and the device that it is of")
        return NewPublication(
            data=data,
            info=info,
            tags=tags,
            event_id=event_id,
            priority=PublicationPriority(self.priority),
            device=self.device,
            event_type=self.type,
            key=self.key,
            sequence=self.sequence,
        )


class ChannelPublishParams(EventParams, kw_only=True):
    """The params of ``publish``; ``data`` is any JSON."""

    channel: str
    data: msgspec.Raw
    event_id: str = ""
    tags: dict[str, str] = msgspec.field(default_factory=dict)

    def publication(self, info: ClientDetails) -> NewPublication:
        """Return what a client publishes; raises :class:`InvalidPublication`."""
        # A copy: the raw JSON would keep the whole message in memory.
        data = bytes(self.data)
        return self.event(data, event_id=self.event_id, tags=self.tags, info=info)


class ChannelHistoryParams(msgspec.Struct, kw_only=True):
    """The params of ``history``."""

    channel: str
    limit: int = 100
    offset: int | None = None
    epoch: str = ""
    reverse: bool = False

    def wishes(self) -> HistoryWishes:
        """Return what part of the history is asked for; raises :class:`InvalidWish`."""
        if self.limit < 0:
            raise InvalidWish("limit: expected 0 or more")
        since = None if self.offset is None else position_of(self.offset, self.epoch)
        return HistoryWishes(self.limit, since, self.reverse)


def position_of(offset: int, epoch: str) -> StreamPosition:
    """Return a position that a client names; raises :class:`InvalidWish`."""
    if not 0 <= offset < 2**63:
        raise InvalidWish("offset: expected 0 or more")
    return StreamPosition(offset, epoch)


def _check_priority(
    name: str, priority: int, error: type[InvalidWish] | type[InvalidPublication]
) -> None:
    if priority not in {each.value for each in PublicationPriority}:
        raise error(f"{name}: must be 1 (normal), 2 (high) or 3 (emergency)")


__all__ = [
    "ChannelHistoryParams",
    "ChannelParams",
    "ChannelPublishParams",
    "ChannelSubscribeParams",
    "DeliveryParams",
    "position_of",
]
