"""The log in memory, for tests and trials. It is lost with the process."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from kupool.log import (
    DeliveredEntry,
    Entry,
    Extent,
    Identity,
    ILog,
    ILogReader,
    ISubscription,
    LogBounds,
    LogStatus,
    LogUnavailable,
    Mark,
)
from kupool.log.groups import WAKE_DELAY, LocalSubscription, RetrySettings

#: Bytes of an entry besides its body: the objects that hold it.
ENTRY_BYTES = 350

#: The number of dead letters kept for inspection.
MAX_DEAD = 1000


@implementer(ILog)
class MemoryLog:
    """Keeps up to ``capacity`` bytes of entries, with :data:`ENTRY_BYTES` added for each.

    Acknowledged entries are removed to make room. If only unacknowledged entries are left, the log
    is full and accepts nothing. ``wall`` returns seconds since the epoch.
    """

    persistent = False
    instant = True
    positional = True

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        capacity: int = 64 * 1024 * 1024,
        retry: RetrySettings | None = None,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._capacity = capacity
        self._retry = retry or RetrySettings()
        self._entries: list[Entry] = []
        self._bytes = 0
        self._trimmed = 0
        self._last = 0
        self._dead = 0
        self._identity: Identity | None = None
        #: The seconds that the retention clock has advanced, and its time at the last trim.
        self._age = 0.0
        self._trimmed_at: float | None = None
        #: Positions, each with the time of the age clock when it was new, oldest first.
        self._ages: dict[int, float] = {}
        self._waking: IDelayedCall | None = None
        self._groups: dict[str, LocalSubscription] = {}
        #: Those who are told of new entries, besides the groups.
        self._watchers: list[Callable[[], object]] = []
        self.dead_letters: list[tuple[str, DeliveredEntry, str]] = []

    def open(self) -> Deferred[None]:
        """Prepare the log."""
        return succeed(None)

    def extent(self, known: Identity | None, mark: Mark) -> Deferred[Extent]:
        """Return the extent of the log."""
        first = self._entries[0].position if self._entries else self._last + 1
        place = min((s.place for s in self._groups.values()), default=0)
        return succeed(Extent(self._identity, first, self._last, bool(self._entries), place))

    def identify(self, identity: Identity) -> Deferred[None]:
        """Set the identity."""
        self._identity = identity
        self._last = max(self._last, identity.begins_after)
        return succeed(None)

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        """Append an entry, unless the log is full of unacknowledged entries."""
        size = len(body) + ENTRY_BYTES
        if self._bytes + size > self._capacity and not self._make_room(size):
            return fail(LogUnavailable("the memory log is full"))
        self._last += 1
        self._entries.append(Entry(self._last, entry_id, self._wall(), body))
        self._bytes += size
        if self._waking is None and (self._groups or self._watchers):
            self._waking = self._clock.callLater(WAKE_DELAY, self._wake)
        return succeed(None)

    def _wake(self) -> None:
        self._waking = None
        for subscription in self._groups.values():
            subscription.wake()
        for told in self._watchers:
            told()

    def watch(self, told: Callable[[], object]) -> None:
        """Have ``told`` called soon after entries were appended."""
        self._watchers.append(told)

    def _make_room(self, size: int) -> bool:
        """Drop processed entries, oldest first, a tenth of the capacity at once."""
        processed = min((s.place for s in self._groups.values()), default=0)
        target = self._capacity - max(size, self._capacity // 10)
        dropped = 0
        for entry in self._entries:
            if entry.position > processed or self._bytes <= target:
                break
            self._bytes -= len(entry.body) + ENTRY_BYTES
            dropped += 1
        del self._entries[:dropped]
        return self._bytes + size <= self._capacity

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` entries that follow the position ``after``."""
        start = bisect_right(self._entries, after, key=lambda entry: entry.position)
        return succeed(self._entries[start : start + limit])

    def consume(
        self, group: str, consumer: Any, prefetch: int, after: int | None = None
    ) -> Deferred[ISubscription]:
        """Deliver the entries after ``after``, or those that a group has not acknowledged."""
        before = self._groups.get(group)
        place = before.place if before is not None else 0
        if after is not None:
            place = after
        subscription = LocalSubscription(
            self, self._clock, group, consumer, place=place, prefetch=prefetch, retry=self._retry
        )
        self._groups[group] = subscription
        self._clock.callLater(0, subscription.wake)
        return succeed(subscription)

    def keep_place(self, group: str, position: int) -> Deferred[None]:
        """Do nothing: the subscription itself keeps the position."""
        return succeed(None)

    def bury(self, group: str, delivery: DeliveredEntry, reason: str) -> Deferred[None]:
        """Move an entry to the dead letters."""
        self._dead += 1
        self.dead_letters.append((group, delivery, reason))
        del self.dead_letters[:-MAX_DEAD]
        return succeed(None)

    def trim(self, now: float, max_age: float, max_bytes: int) -> Deferred[int]:
        """Drop acknowledged entries that are too old, or beyond a size."""
        processed = min((s.place for s in self._groups.values()), default=0)
        if self._trimmed_at is not None:
            self._age += max(0.0, now - self._trimmed_at)
        self._trimmed_at = now
        self._ages.setdefault(self._last, self._age)
        old = 0
        if max_age:
            before = self._age - max_age
            due = [position for position, seconds in self._ages.items() if seconds <= before]
            old = max(due, default=0)
        dropped = 0
        for entry in self._entries:
            large = max_bytes and self._bytes > max_bytes
            if entry.position > processed or not (entry.position <= old or large):
                break
            self._bytes -= len(entry.body) + ENTRY_BYTES
            dropped += 1
        if dropped:
            self._trimmed = self._entries[dropped - 1].position
        del self._entries[:dropped]
        if self._entries:
            kept = self._entries[0].position
            self._ages = {p: seconds for p, seconds in self._ages.items() if p >= kept}
        else:
            self._ages.clear()
        return succeed(dropped)

    def trimmed(self) -> Deferred[int | None]:
        """Return the newest position that a trim dropped."""
        return succeed(self._trimmed)

    def reader(self) -> MemoryLogReader:
        """Return a reader of this log."""
        return MemoryLogReader(self)

    def contents(self) -> tuple[Sequence[Entry], LogBounds]:
        """Return the entries that it has, oldest first, and their bounds."""
        first = self._entries[0].position if self._entries else self._last + 1
        return self._entries, LogBounds(first, self._last, self._bytes)

    def status(self) -> LogStatus:
        """Return the status of the log."""
        # What the epoch begins after, there may be no entries up to.
        newest = self._entries[-1].position if self._entries else 0
        place = min((s.place for s in self._groups.values()), default=newest)
        return LogStatus(self._last, max(0, newest - place), self._dead, "")

    def close(self) -> Deferred[None]:
        """Stop waking consumers."""
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        return succeed(None)


@implementer(ILogReader)
class MemoryLogReader:
    """Reads a log in memory, which has nothing to wait for."""

    def __init__(self, log: MemoryLog) -> None:
        self._source = log

    def open(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)

    def read(self, after: int, max_bytes: int) -> Deferred[Sequence[Entry]]:
        """Return the entries that follow a position, up to ``max_bytes``."""
        entries, _ = self._source.contents()
        found: list[Entry] = []
        for place in range(bisect_right(entries, after, key=_position), len(entries)):
            max_bytes -= len(entries[place].body)
            if max_bytes < 0 and found:
                break
            found.append(entries[place])
        return succeed(found)

    def bounds(self) -> Deferred[LogBounds]:
        """Return what the log has."""
        return succeed(self._source.contents()[1])

    def find(self, at: float) -> Deferred[int]:
        """Return the position of the first entry that was appended at a time or later."""
        entries, bounds = self._source.contents()
        place = bisect_left(entries, at, key=_appended_at)
        return succeed(entries[place].position if place < len(entries) else bounds.last + 1)

    def watch(self, told: Callable[[], object]) -> None:
        """Have ``told`` called soon after entries were appended."""
        self._source.watch(told)

    def close(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)


def _position(entry: Entry) -> int:
    return entry.position


def _appended_at(entry: Entry) -> float:
    return entry.appended_at
