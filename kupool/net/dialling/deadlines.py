"""Deadlines of answers; received data is read before an answer counts as late."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kupool.timing.timers import CHUNK, GRAIN, MAX_TICKS, TICK, TimerQueue

K = TypeVar("K", bound=Hashable)

#: Most reactor turns to read received data before a missing answer counts as late.
MOST_TURNS = 1000

#: Seconds, many years, from which on a timeout means no deadline.
FOR_EVER = MAX_TICKS * TICK / 2

#: Seconds by which the timer queue may fire early.
_EARLY = GRAIN * TICK


class Look:
    """A pending check that runs once all received data has been read."""

    def __init__(
        self, clock: IReactorTime, progress: Callable[[], int], judge: Callable[[float], object]
    ) -> None:
        self._clock = clock
        self._progress = progress
        self._judge = judge
        self._seen = progress()
        self._turns = 0
        self._since = clock.seconds()
        self._call: IDelayedCall = clock.callLater(0, self._look)

    def _look(self) -> None:
        self._turns += 1
        seen, self._seen = self._seen, self._progress()
        if self._seen == seen or self._turns > MOST_TURNS:
            self._judge(self._since)
        else:
            self._since = self._clock.seconds()
            self._call = self._clock.callLater(0, self._look)

    def cancel(self) -> None:
        """Cancel the check; does nothing once it has run."""
        if self._call.active():
            self._call.cancel()


class Reading:
    """Delays a check until all received data has been read.

    After a pause of this process (it was stopped, or its reactor was blocked), timers fire
    first, while answers that arrived in time are still in the socket buffers. ``progress``
    returns a number that grows with the data read.
    """

    def __init__(self, clock: IReactorTime, progress: Callable[[], int]) -> None:
        self._clock = clock
        self._progress = progress

    def then(self, judge: Callable[[float], object]) -> Look:
        """Call ``judge`` once a reactor turn has read nothing more.

        It gets the time, in seconds of the clock, at which that turn began: data that had
        arrived by then has been read.
        """
        return Look(self._clock, self._progress, judge)


class _Row(Generic[K]):
    """The keys with one timeout, in the order of their deadlines.

    It waits in the timer queue for the deadline that was first when it was queued.
    """

    __slots__ = ("after", "before", "due", "keys", "place", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.keys: dict[K, float] = {}
        self.due = 0.0
        self.before: _Row[K] | None = None
        self.after: _Row[K] | None = None
        self.place = -1


class Deadlines(Generic[K]):
    """Calls ``late`` with each key whose deadline has passed, unless it was removed before.

    Keys with the same timeout share one timer: most calls of a client have the same
    timeout, and are answered before it.
    """

    def __init__(
        self, clock: IReactorTime, reading: Reading, late: Callable[[K, float], object]
    ) -> None:
        self._seconds = clock.seconds
        self._reading = reading
        self._late = late
        self._queue: TimerQueue[_Row[K]] = TimerQueue(
            clock, self._over, TICK, per_turn=CHUNK, at_once=True
        )
        self._rows: dict[float, _Row[K]] = {}
        self._row_of: dict[K, _Row[K]] = {}
        #: Rows with expired keys whose answers may have arrived but are not read yet.
        self._unjudged: list[_Row[K]] = []
        self._look: Look | None = None

    def add(self, key: K, seconds: float) -> None:
        """Add a key whose answer is due in some seconds."""
        due = self._seconds() + seconds
        row = self._rows.get(seconds)
        if row is None:
            row = self._rows[seconds] = _Row(seconds)
            if seconds < FOR_EVER:
                row.due = due
                self._queue.add(row)
        row.keys[key] = due
        self._row_of[key] = row

    def remove(self, key: K) -> None:
        """Remove a key; does nothing if it is not there."""
        row = self._row_of.pop(key, None)
        if row is None:
            return
        del row.keys[key]
        if not row.keys:
            del self._rows[row.seconds]
            if row.place >= 0:
                self._queue.remove(row)
            else:
                self._forget(row)
            if not self._rows:
                self._queue.stop()  # a client without pending calls sets no timer

    def clear(self) -> None:
        """Remove all keys."""
        for key in list(self._row_of):
            self.remove(key)

    def _forget(self, row: _Row[K]) -> None:
        """Cancel the pending check of a row."""
        if row in self._unjudged:
            self._unjudged.remove(row)
        if not self._unjudged and self._look is not None:
            self._look.cancel()
            self._look = None

    def _over(self, row: _Row[K]) -> None:
        """The timer of a row has fired: one of its keys, or a removed one, has expired."""
        row.due = next(iter(row.keys.values()))
        if row.due > self._seconds() + _EARLY:
            self._queue.add(row)
            return
        self._unjudged.append(row)
        if self._look is None:
            self._look = self._reading.then(self._judge)

    def _judge(self, read: float) -> None:
        """Call ``late`` for the keys that were due before all data was read."""
        self._look = None
        rows, self._unjudged = self._unjudged, []
        for row in rows:
            limit = read + _EARLY
            for key in [key for key, due in row.keys.items() if due <= limit]:
                # A late answer may end the connection, which removes all other keys.
                if row.keys.get(key, inf) <= limit:
                    self.remove(key)
                    self._late(key, row.seconds)
            if row.keys:
                self._over(row)


__all__ = ["MOST_TURNS", "Deadlines", "Look", "Reading"]
