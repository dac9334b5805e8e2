"""Events that were published lately: publishing one again publishes nothing.

An event counts as published when it has been kept, not before. So a failure loses none: who tries
again publishes it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from kupool.timing.waiting import Waiters

T = TypeVar("T")


class _RecentEvent(Generic[T]):
    """An event that is being published, or was; ``result`` is None before."""

    __slots__ = ("result", "until", "waiting")

    def __init__(self, until: float) -> None:
        self.until = until
        self.result: T | None = None
        self.waiting: Waiters[T] | None = None


class RecentEvents(Generic[T]):
    """Remembers the results of up to ``most`` events, each for so many ``seconds``.

    ``now`` returns seconds of a clock that is never set. ``repeated`` counts events that were
    published again.
    """

    def __init__(self, now: Callable[[], float], *, most: int, seconds: float) -> None:
        self._now = now
        self._most = most
        self._seconds = seconds
        #: The oldest first.
        self._events: dict[Hashable, _RecentEvent[T]] = {}
        self.repeated = 0

    def __len__(self) -> int:
        return len(self._events)

    def once(self, key: Hashable, publish: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Publish an event unless it was; fires with the result of the first time.

        If publishing fails, so do those who have tried again meanwhile, and it is forgotten.
        """
        self.forget_old()
        event = self._events.get(key)
        if event is not None:
            self.repeated += 1
            if event.result is not None:
                return succeed(event.result)
            event.waiting = event.waiting or Waiters()
            return event.waiting.wait()
        event = self._events[key] = _RecentEvent(self._now() + self._seconds)
        if len(self._events) > self._most:
            del self._events[next(iter(self._events))]
        return publish().addCallbacks(
            self._kept, self._failed, callbackArgs=(event,), errbackArgs=(key, event)
        )

    def forget_old(self) -> None:
        """Forget the events whose time has passed."""
        events, now = self._events, self._now()
        while events:
            key = next(iter(events))
            if events[key].until > now:
                return
            del events[key]

    def _kept(self, result: T, event: _RecentEvent[T]) -> T:
        event.result = result
        self._tell(event, result)
        return result

    def _failed(self, failure: Failure, key: Hashable, event: _RecentEvent[T]) -> Failure:
        if self._events.get(key) is event:
            del self._events[key]
        self._tell(event, failure)
        return failure

    def _tell(self, event: _RecentEvent[T], result: T | Failure) -> None:
        waiting, event.waiting = event.waiting, None
        if waiting is not None:
            waiting.tell(result)


__all__ = ["RecentEvents"]
