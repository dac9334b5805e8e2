"""What waits for one slow subscription: bounded, in order, and what was dropped of it. Pure."""

from __future__ import annotations

from collections import deque
from enum import Enum
from itertools import islice

from kupool.live.publications import NewPublication, PublicationGap
from kupool.live.rules import QueueLimits, QueuePolicy

#: Most places of dropped messages, besides one for each that waits, before they are joined.
_SPARE = 32

#: The lowest priority.
_LOWEST = 1


class QueueResult(Enum):
    """What became of a message that was given to a queue."""

    KEPT = "kept"
    DROPPED = "dropped"
    #: Everything has to be dropped, and read from the history later.
    REPLAY = "replay"
    #: The connection has to be closed.
    DISCONNECT = "disconnect"


class WaitingPublication:
    """A publication that waits, or the place of ``missed`` dropped ones.

    ``before`` is the position of the subscription before it, and ``at`` the one after it.
    ``encoded`` is None for the place of dropped ones.
    """

    __slots__ = ("at", "before", "encoded", "key", "missed", "priority", "reason", "until")

    def __init__(
        self, encoded: bytes | None, before: int, at: int, publication: NewPublication
    ) -> None:
        self.encoded = encoded
        self.before = before
        self.at = at
        self.priority = int(publication.priority)
        self.key = publication.key or f"{publication.device}:{publication.event_type}"
        self.until = 0.0
        self.missed = 0
        self.reason = ""

    def drop(self, reason: str) -> None:
        """Make it the place of a dropped one."""
        self.encoded = None
        self.missed = 1
        self.reason = reason

    def join(self, later: WaitingPublication) -> None:
        """Add the place of dropped ones that follows it."""
        self.at = later.at
        self.missed += later.missed

    def gap(self) -> PublicationGap:
        """Return what was dropped."""
        return PublicationGap(self.missed, self.before + 1, self.at, self.reason)


class SubscriptionQueue:
    """The publications of one subscription that wait, in order.

    A publication takes the place of waiting ones of lower priority if there is no other room.
    ``drops`` counts the dropped ones by reason.
    """

    __slots__ = (
        "_by_key",
        "_entries",
        "_limits",
        "_places",
        "_policy",
        "_size",
        "_urgent",
        "drops",
    )

    def __init__(self, policy: QueuePolicy, limits: QueueLimits) -> None:
        self._policy = policy
        self._limits = limits
        self._entries: deque[WaitingPublication] = deque()
        #: The number of entries that are the place of dropped ones.
        self._places = 0
        self._size = 0
        #: How many wait of each priority.
        self._urgent = [0, 0, 0, 0]
        self._by_key: dict[str, WaitingPublication] = {}
        self.drops: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of publications that wait."""
        return len(self._entries) - self._places

    @property
    def empty(self) -> bool:
        """Whether nothing waits, and no gap has to be told."""
        return not self._entries

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size

    @property
    def priority(self) -> int:
        """The highest priority that waits; all that is before it has to be sent first."""
        return next((level for level in (3, 2) if self._urgent[level]), _LOWEST)

    @property
    def by_priority(self) -> tuple[int, ...]:
        """How many wait of each priority; there is none of priority 0."""
        return tuple(self._urgent)

    @property
    def start(self) -> int:
        """The position of the subscription before all of this."""
        return self._entries[0].before

    def add(self, entry: WaitingPublication, now: float) -> QueueResult:
        """Add a publication, and drop what the policy demands."""
        self.drop_late(now)
        policy = self._policy
        if policy is QueuePolicy.LATEST:
            older = self._by_key.get(entry.key)
            if older is not None:
                self._drop(older, "replaced")
        while len(self) and not self._has_room(entry):
            if policy is QueuePolicy.REPLAY:
                return QueueResult.REPLAY
            if policy is QueuePolicy.DISCONNECT:
                return QueueResult.DISCONNECT
            victim = self._victim(entry)
            if victim is None:
                entry.drop("full")
                self._count(entry)
                self._add_place(entry)
                return QueueResult.DROPPED
            self._drop(victim, "full")
        entry.until = now + self._limits.deadline
        self._entries.append(entry)
        self._size += len(entry.encoded or b"")
        self._urgent[entry.priority] += 1
        if policy is QueuePolicy.LATEST:
            self._by_key[entry.key] = entry
        return QueueResult.KEPT

    def take(self, now: float) -> tuple[PublicationGap | None, WaitingPublication | None]:
        """Remove and return the next gap and publication, as far as there are any."""
        self.drop_late(now)
        self._join_first()
        entries, gap = self._entries, None
        if entries and entries[0].encoded is None:
            gap = entries.popleft().gap()
            self._places -= 1
        if not entries:
            return gap, None
        entry = entries.popleft()
        self._forget(entry)
        return gap, entry

    def drop_late(self, now: float) -> None:
        """With the policy *wait*, drop those whose time has passed."""
        if self._policy is not QueuePolicy.WAIT:
            return
        while (oldest := self._oldest()) is not None and oldest.until <= now:
            self._drop(oldest, "late")

    def add_gap(self, gap: PublicationGap) -> None:
        """Add a gap that was found elsewhere, behind what waits."""
        place = WaitingPublication(None, gap.first - 1, gap.last, NewPublication(data=b""))
        place.missed, place.reason = gap.missed, gap.reason
        self._count(place)
        self._add_place(place)

    # -- room

    def _has_room(self, entry: WaitingPublication) -> bool:
        limits = self._limits
        size = self._size + len(entry.encoded or b"")
        return len(self) < limits.messages and size <= limits.size

    def _oldest(self) -> WaitingPublication | None:
        """Return the oldest publication; before it there is the place of dropped ones at most."""
        self._join_first()
        return next((each for each in islice(self._entries, 2) if each.encoded is not None), None)

    def _victim(self, entry: WaitingPublication) -> WaitingPublication | None:
        """Return the oldest one of the lowest priority that has to go for another; or None."""
        lowest = next(level for level, count in enumerate(self._urgent) if count)
        if self._policy in (QueuePolicy.DROP_OLDEST, QueuePolicy.LATEST):
            gives_way = lowest <= entry.priority
        else:
            gives_way = lowest < entry.priority
        if not gives_way:
            return None
        return next(
            each for each in self._entries if each.encoded is not None and each.priority == lowest
        )

    # -- what is dropped

    def _drop(self, entry: WaitingPublication, reason: str) -> None:
        self._forget(entry)
        entry.drop(reason)
        self._count(entry)
        self._places += 1
        if entry is self._entries[0] or self._entries[0].encoded is None:
            self._join_first()
        if self._places > len(self) + _SPARE:
            self._join_all()

    def _forget(self, entry: WaitingPublication) -> None:
        self._size -= len(entry.encoded or b"")
        self._urgent[entry.priority] -= 1
        if self._by_key.get(entry.key) is entry:
            del self._by_key[entry.key]

    def _count(self, entry: WaitingPublication) -> None:
        self.drops[entry.reason] = self.drops.get(entry.reason, 0) + entry.missed

    def _add_place(self, entry: WaitingPublication) -> None:
        if self._entries and self._entries[-1].encoded is None:
            self._entries[-1].join(entry)
        else:
            self._entries.append(entry)
            self._places += 1

    def _join_first(self) -> None:
        """Join the places at the beginning."""
        entries = self._entries
        while len(entries) > 1 and entries[0].encoded is None and entries[1].encoded is None:
            first = entries.popleft()
            first.join(entries.popleft())
            entries.appendleft(first)
            self._places -= 1

    def _join_all(self) -> None:
        joined: deque[WaitingPublication] = deque()
        for entry in self._entries:
            if entry.encoded is None and joined and joined[-1].encoded is None:
                joined[-1].join(entry)
                self._places -= 1
            else:
                joined.append(entry)
        self._entries = joined


__all__ = ["QueueResult", "SubscriptionQueue", "WaitingPublication"]
