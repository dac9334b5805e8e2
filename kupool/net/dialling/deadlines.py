"""When answers are due: none counts as late before what has arrived was read."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kupool.timing.timers import CHUNK, GRAIN, MAX_TICKS, TICK, TimerQueue

K = TypeVar("K", bound=Hashable)

#: Reactor turns that reading may take before what has not been read counts as not there.
MOST_TURNS = 1000

#: Seconds, years of them, from which on a deadline is none.
FOR_EVER = MAX_TICKS * TICK / 2

#: Seconds by which the queue of timers may be early.
_EARLY = GRAIN * TICK


class Look:
    """A judgement that waits until nothing more is read."""

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

    def then(self, judge: Callable[[float], object]) -> Look:
        """Call ``judge`` once a reactor turn has read nothing more.

        It gets the time, in seconds of the clock, at which that turn began: what had arrived
        by then has been read.
        """
        return Look(self._clock, self._progress, judge)


class _Row(Generic[K]):
    """The keys that have the same time to go, by when they are due, the first one first.

    It waits in a queue for the one that was first when it was put there.
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
    """Calls ``late`` with each key whose time is over and that was not removed before.

    Keys with the same time to go wait as one in the queue of timers: most calls of a client
    have the same timeout, and are answered before it is over.
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
        #: Rows with keys whose time is over, while what came for them may lie unread.
        self._unjudged: list[_Row[K]] = []
        self._look: Look | None = None

    def add(self, key: K, seconds: float) -> None:
        """Note that something is due in so many seconds."""
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
        """Expect it no longer; harmless for a key that is not there."""
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
                self._queue.stop()  # a client that waits for nothing sets no timer

    def clear(self) -> None:
        """Expect nothing any more."""
        for key in list(self._row_of):
            self.remove(key)

    def _forget(self, row: _Row[K]) -> None:
        """Judge a row no more, if it was to be."""
        if row in self._unjudged:
            self._unjudged.remove(row)
        if not self._unjudged and self._look is not None:
            self._look.cancel()
            self._look = None

    def _over(self, row: _Row[K]) -> None:
        """The time of a row has come: it is that of one of its keys, or of one that has gone."""
        row.due = next(iter(row.keys.values()))
        if row.due > self._seconds() + _EARLY:
            self._queue.add(row)
            return
        self._unjudged.append(row)
        if self._look is None:
            self._look = self._reading.then(self._judge)

    def _judge(self, read: float) -> None:
        """Call those late that were due at a time up to which all has been read."""
        self._look = None
        rows, self._unjudged = self._unjudged, []
        for row in rows:
            limit = read + _EARLY
            for key in [key for key, due in row.keys.items() if due <= limit]:
                # One that is late may end the connection, and with it all the others.
                if row.keys.get(key, inf) <= limit:
                    self.remove(key)
                    self._late(key, row.seconds)
            if row.keys:
                self._over(row)


__all__ = ["MOST_TURNS", "Deadlines", "Look", "Reading"]
