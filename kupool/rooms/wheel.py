"""A hierarchical timing wheel: a million timers on one timer of the reactor.

Time is cut into ticks. A timer waits in the slot of its tick, or, when that is far off, in
a wider slot that is spread over narrower ones when its time comes. The next occupied slot
is found from bit masks, so that an idle wheel costs nothing and a long gap costs no more
than a short one. Timers are linked lists, so that adding and cancelling take the same
time however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import ceil, floor
from sys import intern
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.callbacks import attempt
from kupool.errors import TOO_MANY_REQUESTS, RequestError
from kupool.rooms.tasks import TaskStatistics

#: A slot of one level is as wide as all slots of the level below: 256 of them.
_BITS = 8
_SLOTS = 1 << _BITS
_LEVELS = 5
_MASK = _SLOTS - 1

#: The largest delay or interval, in ticks; far beyond any use, and far within the levels.
_MAX_TICKS = 1 << (_BITS * _LEVELS - 2)

#: One object for each slot's number, shared by all timers that wait in it.
_PLACES = tuple(range(_LEVELS * _SLOTS))

#: Float times that differ by less than this part of a tick are the same.
_GRAIN = 1e-6


class Timer(msgspec.Struct, gc=False, eq=False):
    """A timer that waits under ``(room, key)``.

    ``due`` is in seconds of the wheel's clock, ``interval`` 0 for a timer that fires once;
    ``was_due`` is when one that fires should have. ``name`` is what its runs are counted
    under, unless ``counted`` is False; ``data`` is the caller's own. Timers are kept out of
    the garbage collector's sight, which would stall on a million of them: the wheel unlinks
    each.
    """

    room: Hashable
    key: str
    due: float
    interval: float
    callback: Callable[[Timer], object]
    name: str
    data: object = None
    counted: bool = True
    was_due: float = 0.0
    running: bool = False
    _before: Timer | None = None
    _after: Timer | None = None
    _place: int = -1


class Wheel:
    """Timers by (room, key), where a room is anything hashable.

    A timer fires at its time or up to one ``tick`` (seconds) after it, never before (to
    rounding). At
    most ``per_turn`` timers are handled in one turn of the reactor; beyond ``limit``
    timers (0: any number) one more is refused. Callbacks get the :class:`Timer`; what one
    raises is logged and counted, and stops nobody else. Where ``tasks`` is given, runs are
    counted there under the timer's name.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        tick: float = 0.05,
        *,
        tasks: TaskStatistics | None = None,
        per_turn: int = 1000,
        limit: int = 0,
    ) -> None:
        if tick <= 0:
            raise ValueError(f"a tick of {tick} seconds")
        self.tick = tick
        self.limit = limit
        self.tasks = tasks
        self.turns = 0
        self._clock = clock
        self._per_turn = per_turn
        self._start = clock.seconds()
        self._at = 0
        self._heads: list[Timer | None] = [None] * (_LEVELS * _SLOTS)
        self._tails: list[Timer | None] = [None] * (_LEVELS * _SLOTS)
        self._occupied = [0] * _LEVELS
        self._spreading = -1
        self._rooms: dict[Hashable, dict[str, Timer]] = {}
        self._count = 0
        self._turning = False
        self._wake: IDelayedCall | None = None
        self._wake_tick: float = float("inf")

    def __len__(self) -> int:
        """Return how many timers wait."""
        return self._count

    # -- what callers do

    def once(
        self,
        room: Hashable,
        key: str,
        delay: float,
        callback: Callable[[Timer], object],
        name: str = "",
        *,
        data: object = None,
        counted: bool = True,
        always: bool = False,
    ) -> Timer:
        """Fire once, ``delay`` seconds from now; replaces a timer of the same room and key.

        Without a ``name`` runs are counted under the key, up to its first colon. With
        ``always`` the limit does not apply: for what is bounded otherwise. Raises
        :class:`ValueError` for a delay below 0 or beyond a century, and
        :class:`RequestError` when there are too many timers.
        """
        timer = Timer(room, key, delay, 0.0, callback, name, data, counted)
        return self._add(timer, delay, always)

    def repeat(
        self,
        room: Hashable,
        key: str,
        interval: float,
        callback: Callable[[Timer], object],
        name: str = "",
        *,
        data: object = None,
        counted: bool = True,
    ) -> Timer:
        """Fire every ``interval`` seconds, first after one of them; otherwise as ``once``.

        Firings keep to the first one's grid. Those that a stalled process missed are
        counted and not made up for; one that is due while the Deferred or coroutine of
        the one before has not ended is skipped. Raises :class:`ValueError` also for an
        interval below one tick.
        """
        if interval < self.tick:
            raise ValueError(f"an interval of {interval} s, and a tick of {self.tick} s")
        timer = Timer(room, key, interval, interval, callback, name, data, counted)
        return self._add(timer, interval, always=False)

    def get(self, room: Hashable, key: str) -> Timer | None:
        """Return the timer that waits under a room and key, if any."""
        timers = self._rooms.get(room)
        return None if timers is None else timers.get(key)

    def keys(self, room: Hashable) -> list[str]:
        """Return the keys of a room's timers."""
        return list(self._rooms.get(room, ()))

    def cancel(self, room: Hashable, key: str) -> bool:
        """Cancel one timer; returns whether it was there."""
        timer = self.get(room, key)
        if timer is None:
            return False
        self._forget(timer)
        self._unlink(timer)
        return True

    def cancel_prefix(self, room: Hashable, prefix: str = "") -> int:
        """Cancel the timers of a room whose keys begin so; returns how many there were.

        Takes as long as the room has timers.
        """
        keys = [key for key in self._rooms.get(room, ()) if key.startswith(prefix)]
        for key in keys:
            self.cancel(room, key)
        return len(keys)

    def stop(self) -> None:
        """Cancel every timer, and the reactor's."""
        for timers in list(self._rooms.values()):
            for timer in list(timers.values()):
                self._forget(timer)
                self._unlink(timer)
        self._sleep_until(float("inf"))

    # -- the slots

    def _add(self, timer: Timer, delay: float, always: bool) -> Timer:
        if not 0 <= delay <= _MAX_TICKS * self.tick:
            raise ValueError(f"a delay of {delay} seconds")
        self.cancel(timer.room, timer.key)
        if self.limit and self._count >= self.limit and not always:
            raise RequestError(TOO_MANY_REQUESTS.about(f"{self.limit} timers"))
        now = self._clock.seconds()
        timer.due = now + delay
        timer.name = intern(timer.name or timer.key.partition(":")[0])
        self._rooms.setdefault(timer.room, {})[timer.key] = timer
        self._count += 1
        tick = self._tick_at(now)
        if not self._turning and self._at < tick < self._wake_tick:
            self._at = tick  # nothing waits before it
        self._place(timer, tick + 1)
        return timer

    def _tick_at(self, when: float) -> int:
        """Return the last tick that has begun."""
        return floor((when - self._start) / self.tick + _GRAIN)

    def _place(self, timer: Timer, earliest: int) -> None:
        """Put a timer into the slot of its time, or of ``earliest``, a tick."""
        tick = max(ceil((timer.due - self._start) / self.tick - _GRAIN), earliest)
        # The level is that of the highest digit in which the tick differs from now's.
        level = ((tick ^ self._at) | 1).bit_length() - 1 >> 3
        index = (tick >> (_BITS * level)) & _MASK
        place = _PLACES[level * _SLOTS + index]
        timer._place = place
        last = self._tails[place]
        if last is None:
            self._heads[place] = timer
            self._occupied[level] |= 1 << index
        else:
            last._after = timer
            timer._before = last
        self._tails[place] = timer
        begins = tick >> (_BITS * level) << (_BITS * level)
        if not self._turning and begins < self._wake_tick:
            self._sleep_until(begins)

    def _unlink(self, timer: Timer) -> None:
        place, before, after = timer._place, timer._before, timer._after
        if before is None:
            self._heads[place] = after
        else:
            before._after = after
        if after is None:
            self._tails[place] = before
        else:
            after._before = before
        if before is None and after is None:
            self._occupied[place >> _BITS] &= ~(1 << (place & _MASK))
        timer._before = timer._after = None
        timer._place = -1

    def _forget(self, timer: Timer) -> None:
        timers = self._rooms[timer.room]
        del timers[timer.key]
        if not timers:
            del self._rooms[timer.room]
        self._count -= 1

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
        begins = self._start + (tick - _GRAIN / 2) * self.tick
        delay = max(0.0, begins - self._clock.seconds())
        if self._wake is None:
            self._wake = self._clock.callLater(delay, self._turn)
        else:
            self._wake.reset(delay)

    def _next(self) -> tuple[int, int] | None:
        """Return the next occupied slot and the tick at which it begins."""
        if self._spreading >= 0 and self._heads[self._spreading] is not None:
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
        now = self._tick_at(self._clock.seconds())
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
            self._sleep_until(float("inf"))
        else:
            if found[1] > now:
                self._at = max(self._at, now)
            self._sleep_until(found[1])

    def _empty(self, place: int, left: int) -> int:
        """Fire the timers of a narrow slot or spread those of a wider one, some at most."""
        heads = self._heads
        while left and (timer := heads[place]) is not None:
            left -= 1
            self._unlink(timer)
            if place < _SLOTS:
                self._fire(timer)
            else:
                self._place(timer, self._at)
        return left

    def _fire(self, timer: Timer) -> None:
        due, tasks = timer.due, self.tasks
        timer.was_due = due
        if timer.interval:
            missed = self._again(timer)
            if tasks is not None and missed:
                tasks.of(timer.name).missed += missed
            if timer.running:
                if tasks is not None:
                    tasks.of(timer.name).skipped += 1
                return
        else:
            self._forget(timer)
        if tasks is None or not timer.counted:
            result = attempt(timer.callback, timer)
        else:
            result = attempt(tasks.run, timer.name, due, timer.callback, timer)
        if isinstance(result, Failure):
            self._failed(result, timer)
        elif isinstance(result, Deferred):
            timer.running = True
            result.addBoth(self._ended, timer)
            result.addErrback(self._failed, timer)

    def _again(self, timer: Timer) -> int:
        """Put a repeating timer where it fires next; returns how many firings it missed."""
        now = self._clock.seconds()
        missed = max(0, floor((now - timer.due + _GRAIN * self.tick) / timer.interval))
        timer.due += (missed + 1) * timer.interval
        self._place(timer, self._tick_at(now) + 1)
        return missed

    def _ended(self, result: Any, timer: Timer) -> Any:
        timer.running = False
        return result

    def _failed(self, failure: Any, timer: Timer) -> None:
        self._log.failure("The timer {key} failed", failure, key=timer.key)


__all__ = ["Timer", "Wheel"]
