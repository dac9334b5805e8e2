"""A queue of timers: a million of them on one timer of the reactor.

Time is cut into ticks. A timer waits in the slot of its tick, or, when that is far off, in
a wider slot that is spread over narrower ones when its time comes: a hierarchical timing
wheel. The next occupied slot is found from bit masks, so that an idle queue costs nothing and a
long gap costs no more than a short one. Timers are linked lists, so that adding and cancelling
take the same time however many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: A slot of one level is as wide as all slots of the level below: 256 of them.
_BITS = 8
_SLOTS = 1 << _BITS
_LEVELS = 5
_MASK = _SLOTS - 1

#: The largest delay, in ticks; far beyond any use, and far within the levels.
MAX_TICKS = 1 << (_BITS * _LEVELS - 2)

#: One object for each slot's number, shared by all timers that wait in it.
_PLACES = tuple(range(_LEVELS * _SLOTS))

#: Float times that differ by less than this part of a tick are the same.
GRAIN = 1e-6

#: What makes a whole number of ticks out of a part of one, when it is cut off.
_UP = 1.0 - GRAIN

#: Seconds of a tick of :class:`Timers`.
TICK = 0.001

#: Timers that :class:`Timers` calls in one turn of the reactor.
CHUNK = 500


class Waiting(Protocol):
    """Something that waits in a queue until it is ``due``, in seconds of the clock.

    The rest is the queue's; ``place`` is below 0 at first, and while it does not wait.
    """

    due: float
    before: Any
    after: Any
    place: int


W = TypeVar("W", bound=Waiting)


class TimerQueue(Generic[W]):
    """Calls ``fire`` with each of those that wait, when it is due.

    That is at its time or up to one ``tick`` (seconds) after it, never before (to rounding). At
    most ``per_turn`` are handled in one turn of the reactor. What ``fire`` raises is logged and
    stops nobody else.
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
        # What is in a slot, for those that are not empty: few, in most of many queues.
        self._heads: dict[int, W] = {}
        self._tails: dict[int, W] = {}
        self._occupied = [0] * _LEVELS
        #: The first tick for which something came to wait in a slot since that was empty.
        self._firsts: dict[int, int] = {}
        self._spreading = -1
        self._count = 0
        self._turning = False
        self._wake: IDelayedCall | None = None
        self._wake_tick: float = float("inf")
        #: The tick at which the first occupied slot begins: time does not pass it unseen.
        self._limit: float = float("inf")

    def __len__(self) -> int:
        """Return how many wait."""
        return self._count

    def add(self, timer: W) -> None:
        """Let one wait that does not yet; one that is due already waits for the next tick.

        With ``at_once`` it is fired in the next turn, unless it was added while others are.
        Raises :class:`ValueError` for one that is due beyond a century.
        """
        now = self._seconds()
        if not timer.due - now <= self._longest:
            raise ValueError(f"a timer in {timer.due - now} seconds")
        tick = int((now - self._start) * self._rate + GRAIN)
        if not self._turning and self._at < tick < self._limit:
            self._at = tick  # nothing waits before it
        if self._turning or not self._at_once:
            tick += 1
        self._count += 1
        self._place(timer, tick)

    def remove(self, timer: W) -> None:
        """Let one wait no more; it has to."""
        self._unlink(timer)
        self._count -= 1

    def stop(self) -> None:
        """Cancel the timer of the reactor, where nobody is left that waits."""
        if not self._count:
            self._limit = float("inf")
            self._sleep_until(float("inf"))

    def clear(self) -> None:
        """Let nobody wait any more."""
        for place in list(self._heads):
            while (head := self._heads.get(place)) is not None:
                self.remove(head)
        self.stop()

    # -- the slots

    def _tick_at(self, when: float) -> int:
        """Return the last tick that has begun."""
        return int((when - self._start) * self._rate + GRAIN)

    def _place(self, timer: W, earliest: int) -> None:
        """Put a timer into the slot of its time, or of ``earliest``, a tick."""
        tick = int((timer.due - self._start) * self._rate + _UP)
        if tick < earliest:
            tick = earliest
        # The level is that of the highest digit in which the tick differs from now's.
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
        """Be called at a tick, or not at all when it is infinite."""
        self._wake_tick = tick
        if tick == float("inf"):
            if self._wake is not None:
                self._wake.cancel()
                self._wake = None
            return
        # Half a grain early: rounding must not make it late by as much as a clock's step.
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
            # A wide slot is spread when its first timer is due: nothing is, before.
            self._sleep_until(self._firsts[place])

    def _empty(self, place: int, left: int) -> int:
        """Fire the timers of a narrow slot or spread those of a wider one, some at most."""
        heads = self._heads
        while left and (timer := heads.get(place)) is not None:
            left -= 1
            self._unlink(timer)
            if place < _SLOTS:
                self._count -= 1
                try:
                    self._fire(timer)
                except BaseException:  # it is this timer's failure, and no other's
                    self._log.failure("A timer failed")
            else:
                self._place(timer, self._at)
        return left


class Timer:
    """Something that will be called; ``call`` is None once it has been, or is cancelled."""

    __slots__ = ("after", "before", "call", "due", "place")

    def __init__(self, due: float, call: Callable[[], object]) -> None:
        self.due = due
        self.call: Callable[[], object] | None = call
        self.before: Timer | None = None
        self.after: Timer | None = None
        self.place = -1


class Timers:
    """Calls things at their time, to a millisecond; ``now`` is in seconds of the clock."""

    def __init__(self, clock: IReactorTime) -> None:
        self.now: Callable[[], float] = clock.seconds
        self._queue: TimerQueue[Timer] = TimerQueue(
            clock, _call, TICK, per_turn=CHUNK, at_once=True
        )

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._queue)

    def add(self, at: float, call: Callable[[], object]) -> Timer:
        """Call something at a time; at one that has passed, as soon as may be."""
        timer = Timer(at, call)
        self._queue.add(timer)
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Do not call it; harmless when that has happened, or for None."""
        if timer is not None and timer.place >= 0:
            timer.call = None
            self._queue.remove(timer)

    def passed(self, at: float) -> bool:
        """Say whether a time has come, as exactly as timers know."""
        return self.now() >= at - GRAIN * TICK

    def clear(self) -> None:
        """Cancel everything."""
        self._queue.clear()


def _call(timer: Timer) -> None:
    call, timer.call = timer.call, None
    if call is not None:
        call()


__all__ = ["CHUNK", "GRAIN", "MAX_TICKS", "TICK", "Timer", "TimerQueue", "Timers", "Waiting"]
