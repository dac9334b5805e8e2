"""The timers of a room: each run of one is a message of the room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from kupool.rooms.audience import Audience
from kupool.rooms.events import RoomGone, TimerFired
from kupool.rooms.settings import House
from kupool.rooms.wheel import RoomTimer

#: What a timer of a room calls, with the room and the timer's key.
TimerCall = Callable[[Any, str], object]


@dataclass(slots=True, eq=False)
class TimerRun:
    """A run of a timer that waits for its turn, or has begun."""

    key: str
    name: str
    due: float
    function: TimerCall | None
    begun: bool = False


class Timed(Audience):
    """A room's timers; :class:`kupool.rooms.room.Room` adds the queue in which they wait."""

    __slots__ = ("_closing", "_runs")

    def __init__(self, code: str, house: House) -> None:
        super().__init__(code, house)
        self._closing = False
        #: The runs that wait or are at work, by key.
        self._runs: dict[str, TimerRun] | None = None

    @property
    def closing(self) -> bool:
        """Whether the room takes nothing more."""
        return self._closing

    def once(self, key: str, delay: float, call: TimerCall | None = None) -> None:
        """Call something, ``delay`` seconds from now, as one message of the room.

        Replaces a timer of the same key. Without ``call`` the room gets the event
        :class:`TimerFired`. Raises :class:`RoomGone` in a room that is closing.
        """
        self._check_open()
        self._house.wheel.once(self, key, delay, _fire, data=call, counted=False)
        self._forget_run(key)

    def repeat(self, key: str, interval: float, call: TimerCall | None = None) -> None:
        """Do so every ``interval`` seconds; skipped while the last run has not ended."""
        self._check_open()
        self._house.wheel.repeat(self, key, interval, _fire, data=call, counted=False)
        self._forget_run(key)

    def _check_open(self) -> None:
        if self._closing:
            raise RoomGone(self.code)

    def has_timer(self, key: str) -> bool:
        """Say whether a timer is set, or a run of it waits."""
        run = None if self._runs is None else self._runs.get(key)
        waits = run is not None and not run.begun
        return waits or self._house.wheel.get(self, key) is not None

    def cancel(self, key: str) -> bool:
        """Cancel a timer; returns whether there was one. A run that waits comes no more."""
        return self._house.wheel.cancel(self, key) | self._forget_run(key)

    def cancel_prefix(self, prefix: str = "") -> int:
        """Cancel the timers whose keys begin so; returns how many there were."""
        keys = {*self._house.wheel.keys(self), *(self._runs or ())}
        return sum(self.cancel(key) for key in keys if key.startswith(prefix))

    def _forget_run(self, key: str) -> bool:
        """Let a run of a timer not happen that waits for its turn."""
        run = None if self._runs is None else self._runs.get(key)
        if self._runs is None or run is None or run.begun:
            return False
        del self._runs[key]
        return True

    # -- what the wheel and the room's queue do

    def timer_fired(self, timer: RoomTimer) -> None:
        """Queue what a timer is for; called by the wheel."""
        if self._runs is None:
            self._runs = {}
        if timer.interval and timer.key in self._runs:
            self._house.tasks.of(timer.name).skipped += 1
            return
        function = cast("TimerCall | None", timer.data)
        run = self._runs[timer.key] = TimerRun(timer.key, timer.name, timer.was_due, function)
        self.tell(run)

    def tell(self, event: object) -> None:
        """Queue an event whatever waits."""
        raise NotImplementedError

    def begin(self, run: TimerRun) -> bool:
        """Say whether a run has neither been cancelled nor replaced; it begins then."""
        run.begun = self._runs is not None and self._runs.get(run.key) is run
        return run.begun

    def call(self, run: TimerRun) -> object:
        """Do what a timer is for, and count it."""
        return self._house.tasks.run(run.name, run.due, self._call_it, run)

    def _call_it(self, run: TimerRun) -> object:
        if run.function is not None:
            return run.function(self, run.key)
        return self._house.hooks.on_dispatch_system_message(cast(Any, self), TimerFired(run.key))

    def end(self, run: TimerRun) -> None:
        """A run has ended: another one of its key may be queued."""
        if self._runs is not None and self._runs.get(run.key) is run:
            del self._runs[run.key]
        if not self._runs:
            self._runs = None  # an idle room need not have it


def _fire(timer: RoomTimer) -> None:
    room = timer.room
    assert isinstance(room, Timed)
    room.timer_fired(timer)


__all__ = ["Timed", "TimerCall", "TimerRun"]
