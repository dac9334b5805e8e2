"""A timer queue: a million timers on one timer of the reactor.

It is a hierarchical timing wheel. Time is divided into ticks. A timer waits in the slot of
its tick; a distant timer waits in a wider slot, which is spread over narrower ones when its
time comes. Bit masks find the next occupied slot, so an idle queue costs nothing and a long
gap costs no more than a short one. Slots are linked lists, so adding and cancelling take
constant time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: A slot of one level is as wide as all 256 slots of the level below.
_BITS = 8
_SLOTS = 1 << _BITS
_LEVELS = 5
_MASK = _SLOTS - 1

#: The largest delay, in ticks; the levels cover it.
MAX_TICKS = 1 << (_BITS * _LEVELS - 2)

#: One int object per slot number, shared by all timers in that slot.
_PLACES = tuple(range(_LEVELS * _SLOTS))

#: Times that differ by less than this fraction of a tick count as equal.
GRAIN = 1e-6

#: Added before truncation, to round up to a whole tick.
_UP = 1.0 - GRAIN

#: The tick of :class:`Timers`, in seconds.
TICK = 0.001

#: Most timers that :class:`Timers` calls in one reactor turn.
CHUNK = 500


class Waiting(Protocol):
    """A timer that waits in a queue until it is ``due``, in seconds of the clock.

    The other attributes belong to the queue; ``place`` is negative while it does not wait.
    """

    due: float
    before: Any
    after: Any
    place: int


W = TypeVar("W", bound=Waiting)


class TimerQueue(Generic[W]):
    """Calls ``fire`` with each timer when it is due.

    It fires up to one ``tick`` (in seconds) late, and never early (except for rounding). At
    most ``per_turn`` timers are handled in one reactor turn. An exception in ``fire`` is
    logged and does not affect other timers.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        fire: Callable[[W], object],
        tick: float,
        *,
        per_turn: int,
        at_once: bool = False,
    ) -> None:
        if tick <= 0:
            raise ValueError(f"a tick of {tick} seconds")
        self.tick = tick
        self.turns = 0
        self._clock = clock
        self._seconds = clock.seconds
        self._rate = 1 / tick
        self._longest = MAX_TICKS * tick
        self._fire = fire
        self._at_once = at_once
        self._per_turn = per_turn
        self._start = clock.seconds()
        self._at = 0
        # The timers of each slot that is not empty; most queues have few of those.
        self._heads: dict[int, W] = {}
        self._tails: dict[int, W] = {}
        self._occupied = [0] * _LEVELS
        #: The earliest tick of the timers added to a slot since it was empty.
        self._firsts: dict[int, int] = {}
        self._spreading = -1
        #: The number of waiting timers.
        self.count = 0
        self._turning = False
        self._wake: IDelayedCall | None = None
        self._wake_tick: float = float("inf")
        #: The tick at which the first occupied slot begins.
        self._limit: float = float("inf")

    def add(self, timer: W) -> None:
        """Add a timer that is not waiting; one that is already due waits for the next tick.

        With ``at_once`` it is fired in the next turn, unless it is added while timers are
        being fired. Raises :class:`ValueError` for one that is due in more than a century.
        """
        now = self._seconds()
        if not timer.due - now <= self._longest:
            raise ValueError(f"a timer in {timer.due - now} seconds")
        tick = int((now - self._start) * self._rate + GRAIN)
        if not self._turning and self._at < tick < self._limit:
            self._at = tick  # no timer waits before it
        if self._turning or not self._at_once:
            tick += 1
        self.count += 1
        self._place(timer, tick)

    def remove(self, timer: W) -> None:
        """Remove a waiting timer."""
        self._unlink(timer)
        self.count -= 1

    def stop(self) -> None:
        """Cancel the reactor's timer if no timer waits."""
        if not self.count:
            self._limit = float("inf")
            self._sleep_until(float("inf"))

    def clear(self) -> None:
        """Remove all timers."""
        for place in list(self._heads):
            while (head := self._heads.get(place)) is not None:
                self.remove(head)
        self.stop()

    # -- the slots

    def _tick_at(self, when: float) -> int:
        """Return the last tick that has begun."""
        return int((when - self._start) * self._rate + GRAIN)

    def _place(self, timer: W, earliest: int) -> None:
        """Put a timer into the slot of its tick, but not before the tick ``earliest``."""
        tick = int((timer.due - self._start) * self._rate + _UP)
        if tick < earliest:
            tick = earliest
        # The level is that of the highest digit in which the tick differs from the current one.
        level = ((tick ^ self._at) | 1).bit_length() - 1 >> 3
        index = (tick >> (_BITS * level)) & _MASK
        place = _PLACES[level * _SLOTS + index]
        timer.place = place
        last = self._tails.get(place)
        if last is None:
            self._heads[place] = timer
            self._occupied[level] |= 1 << index
            self._firsts[place] = tick
        else:
            last.after = timer
            timer.before = last
            if tick < self._firsts[place]:
                self._firsts[place] = tick
        self._tails[place] = timer
        if not self._turning and tick < self._wake_tick:
            self._limit = min(self._limit, tick >> (_BITS * level) << (_BITS * level))
            self._sleep_until(tick)

    def _unlink(self, timer: W) -> None:
        place, before, after = timer.place, timer.before, timer.after
        if before is None:
            if after is None:
                del self._heads[place], self._tails[place], self._firsts[place]
                self._occupied[place >> _BITS] &= ~(1 << (place & _MASK))
            else:
                self._heads[place] = after
                after.before = timer.after = None
        elif after is None:
            self._tails[place] = before
            before.after = timer.before = None
        else:
            before.after, after.before = after, before
            timer.before = timer.after = None
        timer.place = -1

    # -- time

    def _sleep_until(self, tick: float) -> None:
        """Schedule the reactor's timer at a tick; at infinity, cancel it."""
        self._wake_tick = tick
        if tick == float("inf"):
            if self._wake is not None:
                self._wake.cancel()
                self._wake = None
            return
        # Half a grain early, so that rounding does not delay it by a step of the clock.
        begins = self._start + (tick - GRAIN / 2) * self.tick
        delay = max(0.0, begins - self._seconds())
        if self._wake is None:
            self._wake = self._clock.callLater(delay, self._turn)
        else:
            self._wake.reset(delay)

    def _next(self) -> tuple[int, int] | None:
        """Return the next occupied slot and the tick at which it begins."""
        if self._spreading in self._heads:
            return self._spreading, self._at
        for level in range(_LEVELS):
            shift = _BITS * level
            here = (self._at >> shift) & _MASK
            mask = self._occupied[level] >> here
            if mask:
                index = here + (mask & -mask).bit_length() - 1
                block = self._at >> (shift + _BITS) << (shift + _BITS)
                return level * _SLOTS + index, block + (index << shift)
        return None

    def _turn(self) -> None:
        self._wake = None
        self.turns += 1
        now = self._tick_at(self._seconds())
        left = self._per_turn
        self._turning = True
        found = self._next()
        while found is not None and found[1] <= now and left:
            place, self._at = found
            self._spreading = place if place >= _SLOTS else -1
            left = self._empty(place, left)
            found = self._next()
        self._turning = False
        if found is None:
            self._at = max(self._at, now)
            self._limit = float("inf")
            self._sleep_until(float("inf"))
        else:
            place, self._limit = found
            if self._limit > now:
                self._at = max(self._at, now)
            # Spread a wide slot when its first timer is due.
            self._sleep_until(self._firsts[place])

    def _empty(self, place: int, left: int) -> int:
        """Fire the timers of a narrow slot, or spread those of a wider one, up to a limit."""
        heads = self._heads
        while left and (timer := heads.get(place)) is not None:
            left -= 1
            self._unlink(timer)
            if place < _SLOTS:
                self.count -= 1
                try:
                    self._fire(timer)
                except BaseException:  # the other timers must still fire
                    self._log.failure("A timer failed")
            else:
                self._place(timer, self._at)
        return left


class Timer:
    """A scheduled call; ``call`` is None once it was made or cancelled."""

    __slots__ = ("after", "before", "call", "due", "place")

    def __init__(self, due: float, call: Callable[[], object]) -> None:
        self.due = due
        self.call: Callable[[], object] | None = call
        self.before: Timer | None = None
        self.after: Timer | None = None
        self.place = -1


class Timers:
    """Schedules calls with a resolution of a millisecond; ``now`` is in seconds of the clock."""

    def __init__(self, clock: IReactorTime) -> None:
        self.now: Callable[[], float] = clock.seconds
        self._queue: TimerQueue[Timer] = TimerQueue(
            clock, _call, TICK, per_turn=CHUNK, at_once=True
        )

    def __len__(self) -> int:
        """Return the number of waiting calls."""
        return self._queue.count

    def add(self, at: float, call: Callable[[], object]) -> Timer:
        """Schedule a call; a time that has passed means as soon as possible."""
        timer = Timer(at, call)
        self._queue.add(timer)
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Cancel a call; does nothing if it was already made, or for None."""
        if timer is not None and timer.place >= 0:
            timer.call = None
            self._queue.remove(timer)

    def passed(self, at: float) -> bool:
        """Return whether a time has passed, at the resolution of the timers."""
        return self.now() >= at - GRAIN * TICK

    def clear(self) -> None:
        """Cancel all calls."""
        self._queue.clear()


def _call(timer: Timer) -> None:
    call, timer.call = timer.call, None
    if call is not None:
        call()


__all__ = ["CHUNK", "GRAIN", "MAX_TICKS", "TICK", "Timer", "TimerQueue", "Timers", "Waiting"]
