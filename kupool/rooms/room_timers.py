"""The timers of one room; each run of a timer is queued as a message of the room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from kupool.rooms.tasks import TaskStatistics
from kupool.rooms.timers import LobbyTimers, RoomTimer

#: The callback of a timer, which gets the room and the timer's key.
TimerCall = Callable[[Any, str], object]


class TimerRun(msgspec.Struct, eq=False):
    """A run of a timer that waits in the queue, or has begun.

    ``due`` is in seconds of the clock. ``function`` is None for a timer that queues an event.
    """

    key: str
    name: str
    due: float
    function: TimerCall | None
    begun: bool = False


class RunQueue(Protocol):
    """The queue of timer runs: a room."""

    def tell(self, event: object) -> None:
        """Queue a run, however much waits."""


class RoomTimers:
    """The timers of one room, which are among those of all rooms in ``timers``.

    ``tasks`` counts skipped runs. Each :class:`TimerRun` is queued in ``queue``, which calls
    :meth:`begin` when it is the run's turn, and :meth:`end` when it has ended.
    """

    __slots__ = ("_queue", "_runs", "_tasks", "_timers")

    def __init__(self, timers: LobbyTimers, tasks: TaskStatistics, queue: RunQueue) -> None:
        self._timers = timers
        self._tasks = tasks
        self._queue = queue
        #: The waiting or running runs, by key.
        self._runs: dict[str, TimerRun] | None = None

    def once(self, key: str, delay: float, call: TimerCall | None) -> None:
        """Run once, ``delay`` seconds from now; replaces a timer of the same key."""
        self._timers.once(self, key, delay, _fire, data=call, counted=False)
        self._forget_run(key)

    def repeat(self, key: str, interval: float, call: TimerCall | None) -> None:
        """Run every ``interval`` seconds; a run is skipped while the previous one has not ended."""
        self._timers.repeat(self, key, interval, _fire, data=call, counted=False)
        self._forget_run(key)

    def has(self, key: str) -> bool:
        """Say whether a timer is set, or a run of it waits."""
        run = None if self._runs is None else self._runs.get(key)
        waits = run is not None and not run.begun
        return waits or self._timers.get(self, key) is not None

    def cancel(self, key: str) -> bool:
        """Cancel a timer and its waiting run; returns whether there was a timer."""
        return self._timers.cancel(self, key) | self._forget_run(key)

    def cancel_prefix(self, prefix: str) -> int:
        """Cancel the timers whose keys have this prefix; returns how many there were."""
        keys = {*self._timers.keys(self), *(self._runs or ())}
        return sum(self.cancel(key) for key in keys if key.startswith(prefix))

    def _forget_run(self, key: str) -> bool:
        """Cancel a run that waits for its turn."""
        run = None if self._runs is None else self._runs.get(key)
        if self._runs is None or run is None or run.begun:
            return False
        del self._runs[key]
        return True

    def fired(self, timer: RoomTimer) -> None:
        """Queue a run of a timer that is due."""
        if self._runs is None:
            self._runs = {}
        if timer.interval and timer.key in self._runs:
            self._tasks.of(timer.name).skipped += 1
            return
        function: Any = timer.data  # as it was given to once() or repeat()
        run = self._runs[timer.key] = TimerRun(timer.key, timer.name, timer.was_due, function)
        self._queue.tell(run)

    def begin(self, run: TimerRun) -> bool:
        """Begin a run; returns False if it was cancelled or replaced."""
        run.begun = self._runs is not None and self._runs.get(run.key) is run
        return run.begun

    def end(self, run: TimerRun) -> None:
        """End a run: another one of its key may be queued."""
        if self._runs is not None and self._runs.get(run.key) is run:
            del self._runs[run.key]
        if not self._runs:
            self._runs = None  # an idle room need not have it


def _fire(timer: RoomTimer) -> None:
    timers = timer.room
    assert isinstance(timers, RoomTimers)
    timers.fired(timer)


__all__ = ["RoomTimers", "RunQueue", "TimerCall", "TimerRun"]
