"""Publications that are held for a moment while the live channels are overloaded.

Each device of a channel has a lane, which is served in order: nothing of a device passes anything
else of it. In a lane, a normal publication takes the place of the waiting normal one of the same
type, and goes to the end; who has published that one learns it at once. The lanes get their turns
by priority, as in :mod:`kupool.live.backlog`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred

from kupool.live.backlog import WEIGHTS
from kupool.live.publications import (
    NewPublication,
    PublicationPriority,
    PublishedRecord,
    replaced,
)

#: Publishes to a channel.
Publish = Callable[[str, NewPublication], Deferred[PublishedRecord]]

#: A lane: a channel and a device; the device may be empty.
LaneKey = tuple[str, str]

_HIGH = PublicationPriority.HIGH
_NORMAL = PublicationPriority.NORMAL


class HeldPublication:
    """A publication that waits, and the answer to who has published it."""

    __slots__ = ("done", "new", "older")

    def __init__(self, new: NewPublication) -> None:
        self.new = new
        #: How many it has replaced.
        self.older = 0
        self.done: Deferred[PublishedRecord] = Deferred()


class _Lane:
    """What waits of one device, in order: by type if it may be replaced, else by a number."""

    __slots__ = ("entries", "high")

    def __init__(self) -> None:
        self.entries: dict[str | int, HeldPublication] = {}
        #: How many are of high priority.
        self.high = 0

    @property
    def priority(self) -> int:
        return _HIGH if self.high else _NORMAL


class HeldPublications:
    """What is held, by lanes. ``merged`` counts publications that were replaced by newer ones."""

    def __init__(self, publish: Publish) -> None:
        self.merged = 0
        self._publish = publish
        self._lanes: dict[LaneKey, _Lane] = {}
        #: The lanes in the order of their turns, by priority.
        self._rings: tuple[dict[LaneKey, None], ...] = ({}, {}, {})
        self._credits = list(WEIGHTS)
        #: How many publications wait by priority.
        self._waiting = {_NORMAL: 0, _HIGH: 0}
        self._number = 0

    def __len__(self) -> int:
        """Return the number of publications that wait."""
        return sum(self._waiting.values())

    def waiting(self, priority: int) -> int:
        """Return how many publications of a priority wait."""
        return self._waiting.get(PublicationPriority(priority), 0)

    def hold(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        """Hold a publication that is not an emergency.

        Fires when it is published, or replaced by a newer one. Only a normal publication that
        names its device is replaced.
        """
        lane_key = (channel, new.device)
        lane = self._lanes.get(lane_key)
        if lane is None:
            lane = self._lanes[lane_key] = _Lane()
        key: str | int = self._number
        if _merges(new):
            key = new.event_type
        else:
            self._number += 1
        held = HeldPublication(new)
        older = lane.entries.pop(key, None)
        lane.entries[key] = held
        lane.high += new.priority == _HIGH
        self._enter(lane_key, lane)
        if older is None:
            self._waiting[PublicationPriority(new.priority)] += 1
        else:
            self.merged += 1
            held.older = older.older + 1
            older.done.callback(replaced(older.new))
        return held.done

    def replaces(self, channel: str, new: NewPublication) -> bool:
        """Return whether a publication would take the place of one that waits."""
        lane = self._lanes.get((channel, new.device))
        return lane is not None and _merges(new) and new.event_type in lane.entries

    def release_next(self) -> bool:
        """Publish the one whose turn it is; returns False if nothing waits."""
        lane_key = self._next()
        if lane_key is None:
            return False
        lane = self._lanes[lane_key]
        held = self._first(lane_key, lane)
        if lane.entries:
            self._enter(lane_key, lane)
        self._send(lane_key[0], held)
        return True

    def release_device(self, channel: str, device: str) -> None:
        """Publish all that waits of a device, as something of it is to follow at once."""
        lane_key = (channel, device)
        while (lane := self._lanes.get(lane_key)) is not None:
            self._send(channel, self._first(lane_key, lane))

    def release_all(self) -> None:
        """Publish everything."""
        while self.release_next():
            pass

    # -- lanes

    def _next(self) -> LaneKey | None:
        if not self._lanes:
            return None
        while True:
            for priority in (_HIGH, _NORMAL):
                ring = self._rings[priority]
                if ring and self._credits[priority]:
                    self._credits[priority] -= 1
                    lane_key = next(iter(ring))
                    del ring[lane_key]
                    return lane_key
            self._credits[:] = WEIGHTS

    def _enter(self, lane_key: LaneKey, lane: _Lane) -> None:
        """Give a lane its turns, in the ring of its priority."""
        priority = lane.priority
        if lane_key not in self._rings[priority]:
            self._leave(lane_key)
            self._rings[priority][lane_key] = None

    def _leave(self, lane_key: LaneKey) -> None:
        for ring in self._rings:
            ring.pop(lane_key, None)

    def _first(self, lane_key: LaneKey, lane: _Lane) -> HeldPublication:
        """Remove and return the first of a lane, and the lane if it was the last."""
        held = lane.entries.pop(next(iter(lane.entries)))
        priority = PublicationPriority(held.new.priority)
        lane.high -= priority == _HIGH
        self._waiting[priority] -= 1
        if not lane.entries:
            del self._lanes[lane_key]
            self._leave(lane_key)
        return held

    def _send(self, channel: str, held: HeldPublication) -> None:
        new = held.new
        if held.older:
            new = msgspec.structs.replace(new, merged=held.older)
        self._publish(channel, new).chainDeferred(held.done)


def _merges(new: NewPublication) -> bool:
    return new.priority == _NORMAL and bool(new.device)


__all__ = ["HeldPublication", "HeldPublications", "LaneKey", "Publish"]
