"""What clients ask: by minute for a day, and at this moment.

Nothing is counted here for each request. Once a second the counters of the pool are read, and what
they grew by belongs to the minute of that second.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.activity.minutes import (
    KEPT_MINUTES,
    MINUTE,
    MinuteCounts,
    MinuteRecord,
    decode_minute,
    encode_minute,
)
from kupool.timing.chunks import Breaks
from kupool.timing.histogram import Histogram

#: Seconds for which :meth:`RequestMinutes.rates` looks back, and those of the rejections and the
#: latency.
RATE_SECONDS = 10.0
LATELY = 60.0

#: Seconds between two looks above which the clock was set, or the process did not run.
STEADY = 3.0

#: Seconds in which what is read again is put together, so that readers need no memory.
TOGETHER = 0.5

#: The most times until an answer that are kept of the last minute.
MOST_SAMPLES = 2000


class RunningTotals(NamedTuple):
    """The counters of the pool since its start: requests by their method, accepted submissions,
    and rejections by the text of their error.
    """

    methods: Mapping[str, int]
    accepted: int
    rejections: Mapping[str, int]


class Latency(NamedTuple):
    """The times until the answer that a half, and 99 of 100, of the requests did not exceed, in
    seconds.
    """

    p50: float
    p99: float


class ShownMinute(NamedTuple):
    """The counts of a minute, which is in seconds since the epoch."""

    minute: int
    record: MinuteRecord
    latency: Latency | None


class RequestMinutes:
    """Reads the counters each second, and keeps the minutes of a day.

    ``totals`` returns the counters. ``wall`` returns seconds since the epoch. ``store`` keeps the
    minutes over a restart.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        totals: Callable[[], RunningTotals],
        store: Any,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._totals = totals
        self._store = store
        #: The minutes that are over, encoded: that takes the least memory.
        self._minutes: dict[int, bytes] = {}
        self._minute = 0
        #: When the counters were last read, in seconds since the epoch.
        self._looked = 0.0
        self._counts = MinuteCounts()
        self._before = RunningTotals({}, 0, {})
        #: Of the last seconds: when, accepted, and rejections by their text.
        self._lately: deque[tuple[float, int, Counter[str]]] = deque()
        self._samples: deque[tuple[float, float]] = deque(maxlen=MOST_SAMPLES)
        #: Minutes that could not be stored yet.
        self._unsaved: set[int] = set()
        self._failing = False
        self._call: IDelayedCall | None = None

    async def start(self) -> None:
        """Load what was kept, and begin to count."""
        now = self._wall()
        self._looked = now
        self._minute = _minute_of(now)
        try:
            kept = await self._store.load(self._minute - KEPT_MINUTES * MINUTE)
        except Exception as error:
            self._not_stored(error)
            kept = []
        for minute, text in kept:
            self._take(minute, text)
        mine = self._minutes.pop(self._minute, None)
        self._counts = MinuteCounts() if mine is None else MinuteCounts.of(decode_minute(mine))
        self._before = self._totals()
        self._plan(now)

    def _take(self, minute: int, text: bytes | str) -> None:
        try:
            record = decode_minute(text)
            MinuteCounts.of(record)
        except (ValueError, IndexError) as error:
            self._log.warn(
                "The requests of a minute cannot be read, and are left out: {reason}",
                reason=str(error),
            )
        else:
            self._minutes[minute] = encode_minute(record)

    async def stop(self) -> None:
        """Count what is new, and store the minute that has begun."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
            self._look(self._wall())
            self._unsaved.add(self._minute)
            await self._save()
        try:
            await self._store.close()
        except Exception as error:
            self._not_stored(error)

    # counting

    def answered(self, seconds: float) -> None:
        """Take the time that a submission took until it was answered."""
        self._counts.latency.add(seconds)
        self._samples.append((self._clock.seconds(), seconds))

    def _plan(self, now: float) -> None:
        # At whole seconds of the wall clock, so that each minute has its own.
        self._call = self._clock.callLater(1.0 - now % 1.0, self._tick)

    def _tick(self) -> None:
        now = self._wall()
        self._plan(now)
        self._look(now)

    def _look(self, now: float) -> None:
        """Add what the counters grew by to the minute in which that was."""
        # A timer may be a little late, or early: what is counted was between the two looks.
        passed, self._looked = now - self._looked, now
        minute = _minute_of(now - passed / 2 if 0.0 <= passed <= STEADY else now)
        if minute != self._minute:
            self._begin(minute)
        totals, before = self._totals(), self._before
        self._before = totals
        rejections = Counter(dict(totals.rejections))
        rejections.subtract(before.rejections)
        accepted = totals.accepted - before.accepted
        counts = self._counts
        counts.accepted += accepted
        counts.rejected += rejections.total()
        counts.methods.update(totals.methods)
        counts.methods.subtract(before.methods)
        at = self._clock.seconds()
        if self._lately and at - self._lately[-1][0] < TOGETHER:
            at, earlier, others = self._lately.pop()
            accepted, rejections = accepted + earlier, rejections + others
        self._lately.append((at, accepted, +rejections))
        while self._lately[0][0] <= self._clock.seconds() - LATELY:
            self._lately.popleft()

    def _begin(self, minute: int) -> None:
        """Put the counts of the minute aside, and begin those of another one."""
        self._minutes[self._minute] = encode_minute(self._counts.record())
        self._unsaved.add(self._minute)
        self._minute = minute
        mine = self._minutes.pop(minute, None)  # the clock was set back
        self._counts = MinuteCounts() if mine is None else MinuteCounts.of(decode_minute(mine))
        oldest = minute - KEPT_MINUTES * MINUTE
        for old in [each for each in self._minutes if each <= oldest]:
            del self._minutes[old]
        for new in sorted(self._minutes)[KEPT_MINUTES:]:  # the clock was ahead
            del self._minutes[new]
        self._unsaved &= self._minutes.keys()
        Deferred.fromCoroutine(self._save()).addErrback(
            lambda failure: self._log.failure("Requests cannot be kept", failure)
        )

    async def _save(self) -> None:
        """Store the minutes that are not stored yet; those that fail are tried again later."""
        unsaved, self._unsaved = self._unsaved, set()
        rows = [
            (minute, self._encoded(minute))
            for minute in sorted(unsaved)
            if minute in self._minutes or minute == self._minute
        ]
        try:
            await self._store.save(rows, self._minute - KEPT_MINUTES * MINUTE)
        except Exception as error:
            self._unsaved |= unsaved
            self._not_stored(error)
        else:
            self._failing = False

    def _encoded(self, minute: int) -> bytes:
        if minute == self._minute:
            return encode_minute(self._counts.record())
        return self._minutes[minute]

    def _not_stored(self, error: Exception) -> None:
        if not self._failing:
            why = Failure(error).getErrorMessage()
            self._log.warn("Requests by minute are kept in memory alone: {reason}", reason=why)
        self._failing = True

    # reading

    async def minutes(self, number: int) -> list[ShownMinute]:
        """Return the last minutes, the oldest first, without those in which nobody counted."""
        self._catch_up()
        breaks, found = Breaks(self._clock), []
        first = self._minute - (number - 1) * MINUTE
        past = range(first, self._minute)  # the clock may have been ahead
        known = {minute: text for minute, text in self._minutes.items() if minute in past}
        known[self._minute] = encode_minute(self._counts.record())
        for minute in sorted(known):
            record = decode_minute(known[minute])
            found.append(ShownMinute(minute, record, _latency(record)))
            await breaks.take()
        return found

    def _catch_up(self) -> None:
        """Count what is new since the last second."""
        if self._call is not None:
            self._look(self._wall())

    def rates(self) -> tuple[float, float]:
        """Return how many submissions are accepted and rejected in a second."""
        since = self._clock.seconds() - RATE_SECONDS
        recent = [entry for entry in self._lately if entry[0] > since]
        accepted = sum(count for _, count, _ in recent)
        rejected = sum(counts.total() for _, _, counts in recent)
        return accepted / RATE_SECONDS, rejected / RATE_SECONDS

    def rejections(self) -> dict[str, int]:
        """Return the rejections of the last minute by the text of their error, most first."""
        self._catch_up()
        found: Counter[str] = Counter()
        for _, _, counts in self._lately:
            found.update(counts)
        return dict(found.most_common())

    def latency(self) -> Latency | None:
        """Return how long submissions took in the last minute; None if there were none."""
        since = self._clock.seconds() - LATELY
        recent = sorted(seconds for at, seconds in self._samples if at > since)
        if not recent:
            return None
        return Latency(_of(recent, 0.5), _of(recent, 0.99))


def _of(ordered: Sequence[float], part: float) -> float:
    """Return what a part of sorted numbers does not exceed."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)]


def _latency(record: MinuteRecord) -> Latency | None:
    if not record.latency:
        return None
    histogram = Histogram.restored(record.latency, record.longest)
    return Latency(histogram.quantile(0.5), histogram.quantile(0.99))


def _minute_of(seconds: float) -> int:
    return int(seconds) // MINUTE * MINUTE


__all__ = [
    "LATELY",
    "MOST_SAMPLES",
    "RATE_SECONDS",
    "Latency",
    "RequestMinutes",
    "RunningTotals",
    "ShownMinute",
]
