"""The timers of rooms, by room and key, one-shot or repeating, in one queue."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from sys import intern
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.callbacks import attempt
from kupool.errors import TOO_MANY_REQUESTS, RequestError
from kupool.rooms.tasks import TaskStatistics
from kupool.timing.timers import GRAIN, MAX_TICKS, TimerQueue


class RoomTimer(msgspec.Struct, gc=False, eq=False):
    """A waiting timer under ``(room, key)``.

    ``due`` is in seconds of the clock. ``interval`` is 0 for a one-shot timer. ``was_due`` is when
    a firing timer was due. ``name`` is the name under which its runs are counted, unless
    ``counted`` is False. ``data`` belongs to the caller; the last three belong to the queue. Timers
    are not tracked by the garbage collector, which would take long for a million of them: the queue
    unlinks each one.
    """

    room: Hashable
    key: str
    due: float
    interval: float
    callback: Callable[[RoomTimer], object]
    name: str
    data: object
    counted: bool
    was_due: float = 0.0
    running: bool = False
    before: RoomTimer | None = None
    after: RoomTimer | None = None
    place: int = -1


class LobbyTimers:
    """Timers by (room, key); a room is any hashable object.

    A timer fires at its time or up to one ``tick`` (seconds) after it, never before (within
    rounding). At most ``per_turn`` timers are handled in one turn of the reactor. Beyond ``limit``
    timers (0: no limit) a further one is refused. Callbacks get the :class:`RoomTimer`; an
    exception in one is logged and counted, and does not affect others. With ``tasks``, runs are
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
        self.limit = limit
        self.tasks = tasks
        self._seconds = clock.seconds
        self._queue: TimerQueue[RoomTimer] = TimerQueue(clock, self._fire, tick, per_turn=per_turn)
        self._longest = MAX_TICKS * tick
        self._grain = GRAIN * tick
        self._rooms: dict[Hashable, dict[str, RoomTimer]] = {}

    @property
    def tick(self) -> float:
        """Seconds by which a timer may be late."""
        return self._queue.tick

    @property
    def turns(self) -> int:
        """The number of calls by the reactor."""
        return self._queue.turns

    def __len__(self) -> int:
        """Return how many timers wait."""
        return self._queue.count

    # -- setting and cancelling

    def once(
        self,
        room: Hashable,
        key: str,
        delay: float,
        callback: Callable[[RoomTimer], object],
        *,
        name: str = "",
        data: object = None,
        counted: bool = True,
        always: bool = False,
    ) -> RoomTimer:
        """Fire once, in ``delay`` seconds; replaces a timer of the same room and key.

        Without a ``name``, runs are counted under the key up to its first colon. With ``always``
        the limit does not apply, for timers that are limited otherwise. Raises :class:`ValueError`
        for a delay below 0 or above a century, and :class:`RequestError` if there are too many
        timers.
        """
        timer = RoomTimer(room, key, delay, 0.0, callback, name, data, counted)
        return self._add(timer, delay, always)

    def repeat(
        self,
        room: Hashable,
        key: str,
        interval: float,
        callback: Callable[[RoomTimer], object],
        *,
        name: str = "",
        data: object = None,
        counted: bool = True,
    ) -> RoomTimer:
        """Fire every ``interval`` seconds, first after one interval; otherwise as ``once``.

        Firings keep to the grid of the first one. Firings that a stalled process missed are counted
        and not made up for. A firing is skipped while the Deferred or coroutine of the previous one
        has not finished. Raises :class:`ValueError` also for an interval below one tick.
        """
        if interval < self.tick:
            raise ValueError(f"an interval of {interval} s, and a tick of {self.tick} s")
        timer = RoomTimer(room, key, interval, interval, callback, name, data, counted)
        return self._add(timer, interval, always=False)

    def get(self, room: Hashable, key: str) -> RoomTimer | None:
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
        self._queue.remove(timer)
        return True

    def cancel_prefix(self, room: Hashable, prefix: str = "") -> int:
        """Cancel the timers of a room whose keys have this prefix; returns how many there were.

        The time for it grows with the number of the room's timers.
        """
        keys = [key for key in self._rooms.get(room, ()) if key.startswith(prefix)]
        for key in keys:
            self.cancel(room, key)
        return len(keys)

    def stop(self) -> None:
        """Cancel every timer, and the reactor's call."""
        for timers in list(self._rooms.values()):
            for timer in list(timers.values()):
                self._forget(timer)
                self._queue.remove(timer)
        self._queue.stop()

    def _add(self, timer: RoomTimer, delay: float, always: bool) -> RoomTimer:
        if not 0 <= delay <= self._longest:
            raise ValueError(f"a delay of {delay} seconds")
        room, key, queue = timer.room, timer.key, self._queue
        timers = self._rooms.get(room)
        replaced = None if timers is None else timers.get(key)
        if replaced is not None:
            queue.remove(replaced)
        elif self.limit and queue.count >= self.limit and not always:
            raise RequestError(TOO_MANY_REQUESTS.about(f"{self.limit} timers"))
        timer.due = self._seconds() + delay
        timer.name = intern(timer.name or key.partition(":")[0])
        if timers is None:
            self._rooms[room] = {key: timer}
        else:
            timers[key] = timer
        queue.add(timer)
        return timer

    def _forget(self, timer: RoomTimer) -> None:
        timers = self._rooms[timer.room]
        del timers[timer.key]
        if not timers:
            del self._rooms[timer.room]

    # -- time

    def _fire(self, timer: RoomTimer) -> None:
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

    def _again(self, timer: RoomTimer) -> int:
        """Queue a repeating timer for its next firing; returns how many firings it missed."""
        late = self._seconds() - timer.due + self._grain
        missed = max(0, int(late / timer.interval))
        timer.due += (missed + 1) * timer.interval
        self._queue.add(timer)
        return missed

    def _ended(self, result: Any, timer: RoomTimer) -> Any:
        timer.running = False
        return result

    def _failed(self, failure: Any, timer: RoomTimer) -> None:
        self._log.failure("The timer {key} failed", failure, key=timer.key)


__all__ = ["LobbyTimers", "RoomTimer"]
