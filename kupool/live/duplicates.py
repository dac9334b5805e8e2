"""Events that were published lately: publishing one again publishes nothing.

An event counts as published when it has been kept, not before. So a failure loses none: who tries
again publishes it. If it cannot be found out whether an event was published, it is published,
perhaps again: too much is better than too little.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableMapping
from typing import Generic, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.timing.waiting import Waiters

T = TypeVar("T")

#: Why publications were not compared with all earlier ones.
FULL = "more events than can be remembered"
BROKEN = "the memory of events fails"

#: The seconds of which the share of repeated events is told.
RECENT = 60.0


class RecentEvent(Generic[T]):
    """An event that is being published, or was; ``result`` is None before."""

    __slots__ = ("result", "until", "waiting")

    def __init__(self, until: float) -> None:
        self.until = until
        self.result: T | None = None
        self.waiting: Waiters[T] | None = None


class DuplicateCounts(NamedTuple):
    """The publications that had an event id since the start, and how many of them were repeated.

    ``unchecked`` could not be looked up, and were published. ``pushed_out`` were forgotten before
    their time, as there were too many. ``rate`` is the share of repeated ones in the last full
    minute, from 0 to 1.
    """

    with_id: int
    repeated: int
    unchecked: int
    pushed_out: int
    rate: float


class RecentEvents(Generic[T]):
    """Remembers the results of up to ``most`` events, each for so many ``seconds``.

    ``now`` returns seconds of a clock that is never set. ``troubled`` is called with the reason,
    :data:`FULL` or :data:`BROKEN`, for each publication that may be there twice for it. ``events``
    are where they are kept, the oldest first.
    """

    _log = Logger()

    def __init__(
        self,
        now: Callable[[], float],
        *,
        most: int,
        seconds: float,
        troubled: Callable[[str], object] = lambda reason: None,
        events: MutableMapping[Hashable, RecentEvent[T]] | None = None,
    ) -> None:
        self._now = now
        self._most = most
        self._seconds = seconds
        self._troubled = troubled
        self._events: MutableMapping[Hashable, RecentEvent[T]] = {} if events is None else events
        self._with_id = self._repeated = self._unchecked = self._pushed_out = 0
        self._minute = _Share(now)

    def __len__(self) -> int:
        return len(self._events)

    @property
    def repeated(self) -> int:
        """The events that were published again."""
        return self._repeated

    @property
    def counts(self) -> DuplicateCounts:
        """What has happened since the start."""
        return DuplicateCounts(
            self._with_id,
            self._repeated,
            self._unchecked,
            self._pushed_out,
            self._minute.last(),
        )

    def once(self, key: Hashable, publish: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Publish an event unless it was; fires with the result of the first time.

        If publishing fails, so do those who have tried again meanwhile, and it is forgotten.
        """
        self._with_id += 1
        try:
            event, known = self._find(key)
        except Exception:
            if not self._unchecked:
                self._log.failure("Events that are published again cannot be noticed")
            self._unchecked += 1
            self._troubled(BROKEN)
            return publish()
        self._minute.count(known)
        if known:
            self._repeated += 1
            if event.result is not None:
                return succeed(event.result)
            event.waiting = event.waiting or Waiters()
            return event.waiting.wait()
        return publish().addCallbacks(
            self._kept, self._failed, callbackArgs=(event,), errbackArgs=(key, event)
        )

    def learn(self, key: Hashable, result: T, age: float) -> None:
        """Remember an event that was published ``age`` seconds ago, by somebody else perhaps."""
        until = self._now() + self._seconds - max(0.0, age)
        if until > self._now() and key not in self._events:
            event = self._add(key, until)
            event.result = result

    def forget_old(self) -> None:
        """Forget the events whose time has passed."""
        events, now = self._events, self._now()
        while events:
            key = next(iter(events))
            if events[key].until > now:
                return
            del events[key]

    def _find(self, key: Hashable) -> tuple[RecentEvent[T], bool]:
        """Return an event, and whether it was known; remembers it."""
        self.forget_old()
        event = self._events.get(key)
        if event is not None:
            if event.until > self._now():
                return event, True
            del self._events[key]  # it was learned, so an older one may be before it
        return self._add(key, self._now() + self._seconds), False

    def _add(self, key: Hashable, until: float) -> RecentEvent[T]:
        event = self._events[key] = RecentEvent(until)
        if len(self._events) > self._most:
            del self._events[next(iter(self._events))]
            self._pushed_out += 1
            self._troubled(FULL)
        return event

    def _kept(self, result: T, event: RecentEvent[T]) -> T:
        event.result = result
        self._tell(event, result)
        return result

    def _failed(self, failure: Failure, key: Hashable, event: RecentEvent[T]) -> Failure:
        try:
            if self._events.get(key) is event:
                del self._events[key]
        except Exception:
            self._log.failure("An event that was not published cannot be forgotten")
        self._tell(event, failure)
        return failure

    def _tell(self, event: RecentEvent[T], result: T | Failure) -> None:
        waiting, event.waiting = event.waiting, None
        if waiting is not None:
            waiting.tell(result)


class _Share:
    """The share of events that were repeated, in the last full minute of a clock."""

    __slots__ = ("_all", "_last", "_now", "_repeated", "_since")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since: float | None = None
        self._all = self._repeated = 0
        self._last = 0.0

    def count(self, repeated: bool) -> None:
        """Count an event."""
        self._turn(self._now())
        self._all += 1
        self._repeated += repeated

    def last(self) -> float:
        """Return the share in the last full minute; 0 if nothing was counted."""
        self._turn(self._now())
        return self._last

    def _turn(self, now: float) -> None:
        if self._since is None:
            self._since = now
        passed = now - self._since
        if passed < RECENT:
            return
        full = self._all and passed < 2 * RECENT
        self._last = self._repeated / self._all if full else 0.0
        self._all = self._repeated = 0
        self._since += passed // RECENT * RECENT


__all__ = ["BROKEN", "FULL", "DuplicateCounts", "RecentEvent", "RecentEvents"]
