"""Many deadlines behind one delayed call: what waits costs nothing until its time."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Floating point leaves a clock this much short of a sum, in seconds.
_EPSILON = 1e-9

#: Those that are called in one turn of the reactor.
CHUNK = 500

#: Cancelled entries that are kept before they are looked for.
_SPARE = 64


class Timer:
    """Something that will be called; cancelled when ``call`` is None."""

    __slots__ = ("at", "call")

    def __init__(self, at: float, call: Callable[[], object] | None) -> None:
        self.at = at
        self.call = call

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at


class Timers:
    """Calls things at their time; ``now`` is in seconds of the clock."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.now: Callable[[], float] = clock.seconds
        self._heap: list[Timer] = []
        self._cancelled = 0
        self._next: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def add(self, at: float, call: Callable[[], object]) -> Timer:
        """Call something at a time; one that has passed is as soon as may be."""
        timer = Timer(at, call)
        heappush(self._heap, timer)
        if self._heap[0] is timer:
            self._arrange()
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Do not call it; harmless when that has happened, or for None."""
        if timer is None or timer.call is None:
            return
        timer.call = None
        self._cancelled += 1
        if self._cancelled > _SPARE and self._cancelled * 2 > len(self._heap):
            self._heap = [t for t in self._heap if t.call is not None]
            heapify(self._heap)
            self._cancelled = 0
            self._arrange()

    def passed(self, at: float) -> bool:
        """Say whether a time has come."""
        return self.now() >= at - _EPSILON

    def clear(self) -> None:
        """Cancel everything."""
        self._heap.clear()
        self._cancelled = 0
        self._arrange()

    def _arrange(self) -> None:
        """See to it that the clock calls when the first is due."""
        pending = self._next
        if pending is not None and pending.active():
            if self._heap and pending.getTime() <= self._heap[0].at:
                return  # it comes early enough, finds nothing, and arranges the next
            pending.cancel()
        self._next = None
        if self._heap:
            wait = max(0.0, self._heap[0].at - self.now())
            self._next = self._clock.callLater(wait, self._due)

    def _due(self) -> None:
        self._next = None
        until = self.now() + _EPSILON
        try:
            for _ in range(CHUNK):
                if not self._heap or self._heap[0].at > until:
                    break
                timer = heappop(self._heap)
                call, timer.call = timer.call, None
                if call is None:
                    self._cancelled -= 1
                else:
                    call()
        finally:
            self._arrange()


__all__ = ["Timer", "Timers"]
