"""When answers are due: a few timers for many, and none is late before it was read."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

K = TypeVar("K", bound=Hashable)

#: Reactor turns that reading may take before what has not been read counts as not there.
MOST_TURNS = 1000


class Look:
    """A judgement that waits until nothing more is read."""

    def __init__(
        self, clock: IReactorTime, progress: Callable[[], int], judge: Callable[[], object]
    ) -> None:
        self._clock = clock
        self._progress = progress
        self._judge = judge
        self._seen = progress()
        self._turns = 0
        self._call: IDelayedCall = clock.callLater(0, self._look)

    def _look(self) -> None:
        self._turns += 1
        seen, self._seen = self._seen, self._progress()
        if self._seen == seen or self._turns > MOST_TURNS:
            self._judge()
        else:
            self._call = self._clock.callLater(0, self._look)

    def cancel(self) -> None:
        """Judge nothing; harmless afterwards."""
        if self._call.active():
            self._call.cancel()


class Reading:
    """Lets what has arrived be read before anything is judged by its absence.

    After a pause of this process's own, as a stopped process or a blocked reactor has it,
    timers fire first, and the answers that came in time still lie in the sockets.
    ``progress`` returns a number that grows with what is read.
    """

    def __init__(self, clock: IReactorTime, progress: Callable[[], int]) -> None:
        self._clock = clock
        self._progress = progress

    def then(self, judge: Callable[[], object]) -> Look:
        """Call ``judge`` once a reactor turn has read nothing more."""
        return Look(self._clock, self._progress, judge)


class _Row(Generic[K]):
    """The keys that have the same time to go, in the order in which they are due."""

    def __init__(self) -> None:
        self.due: dict[K, float] = {}
        self.timer: IDelayedCall | None = None


class Deadlines(Generic[K]):
    """Calls ``late`` with each key whose time is over and that was not removed before.

    Keys with the same time to go share a timer, so that one costs no more than an entry.
    """

    def __init__(
        self, clock: IReactorTime, reading: Reading, late: Callable[[K, float], object]
    ) -> None:
        self._clock = clock
        self._reading = reading
        self._late = late
        self._rows: dict[float, _Row[K]] = {}
        self._row_of: dict[K, float] = {}
        self._looks: dict[float, Look] = {}

    def add(self, key: K, seconds: float) -> None:
        """Note that something is due in so many seconds."""
        row = self._rows.get(seconds)
        if row is None:
            row = self._rows[seconds] = _Row()
        row.due[key] = self._clock.seconds() + seconds
        self._row_of[key] = seconds
        if row.timer is None and seconds not in self._looks:
            row.timer = self._clock.callLater(seconds, self._fire, seconds)

    def remove(self, key: K) -> None:
        """Expect it no longer; harmless for a key that is not there."""
        seconds = self._row_of.pop(key, None)
        if seconds is None:
            return
        row = self._rows[seconds]
        del row.due[key]
        if not row.due:
            self._drop(seconds)

    def clear(self) -> None:
        """Expect nothing any more."""
        self._row_of.clear()
        for seconds in list(self._rows):
            self._drop(seconds)

    def _drop(self, seconds: float) -> None:
        row = self._rows.pop(seconds)
        if row.timer is not None:
            row.timer.cancel()
        look = self._looks.pop(seconds, None)
        if look is not None:
            look.cancel()

    def _fire(self, seconds: float) -> None:
        row = self._rows[seconds]
        row.timer = None
        wait = next(iter(row.due.values())) - self._clock.seconds()
        if wait > 0:
            row.timer = self._clock.callLater(wait, self._fire, seconds)
        else:
            self._looks[seconds] = self._reading.then(lambda: self._judge(seconds))

    def _judge(self, seconds: float) -> None:
        del self._looks[seconds]
        row = self._rows[seconds]
        now = self._clock.seconds()
        for key in [key for key, due in row.due.items() if due <= now]:
            # One that is late may end the connection, and with it all the others.
            if self._row_of.get(key) == seconds and key in row.due:
                self.remove(key)
                self._late(key, seconds)
        row_now = self._rows.get(seconds)
        if row_now is not None and row_now.timer is None and seconds not in self._looks:
            self._fire(seconds)


__all__ = ["MOST_TURNS", "Deadlines", "Look", "Reading"]
