"""Periodic work: enforces limits, rolls up old rows, and drops old entries.

The retention clock decides what is old, never the wall clock alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kupool.daemon.memory import Memory
from kupool.daemon.parts import Parts
from kupool.log import LogUnavailable
from kupool.settings import SubmissionSettings
from kupool.stats.retention import RetentionClock
from kupool.timing.waiting import after

#: Seconds between two checks of the limits, between two saves of the retention clock's time, and
#: between two removals of old data.
LOOK = 1.0
KEEP = 60.0
CLEAR = 600.0

#: The time limit for saving that time: a stop does not wait for an unavailable store.
KEEPING = 1.0


class Housekeeping:
    """Enforces the limits that no single event enforces.

    ``settings`` returns the current settings, ``wall`` seconds since the epoch, and ``running``
    seconds on a clock that nobody sets and that stops while the machine sleeps. ``watch`` is called
    at each check of the limits.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        running: Callable[[], float],
        parts: Parts,
        *,
        settings: Callable[[], SubmissionSettings],
        memory: Memory,
        watch: Callable[[], object] = lambda: None,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._running = running
        self._parts = parts
        self._retention: RetentionClock | None = None
        #: Whether the last attempt to save the time failed.
        self._not_kept = False
        self._settings = settings
        self._memory = memory
        self._watch = watch
        self._loops: list[tuple[LoopingCall, float]] = [
            (LoopingCall(self._look), LOOK),
            (LoopingCall(self._keep), KEEP),
            (LoopingCall(self._clear), CLEAR),
        ]
        for loop, _ in self._loops:
            loop.clock = clock
        self._clearing: Deferred[None] | None = None

    async def start(self) -> None:
        """Start; the first removal of old data is some minutes later."""
        kept = await self._parts.stats.retention_time()
        newest = self._parts.coordinator.newest_save
        self._retention = RetentionClock(kept, self._wall(), self._running(), newest)
        # Entries begin to age now, not at the first removal.
        await self._parts.log.trim(self._seconds, 0, 0)
        for loop, seconds in self._loops:
            loop.start(seconds, now=False).addErrback(
                lambda failure: self._log.failure(
                    "Housekeeping stopped because of an error", failure
                )
            )

    async def stop(self) -> None:
        """Stop, after running work."""
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        if self._clearing is not None:
            await after(self._clearing)
        await self._keep_retention_time()

    def _look(self) -> None:
        self._parts.coordinator.relieve()
        self._parts.coordinator.save_again()
        self._parts.clock_watch.look()
        self._memory.look()
        self._parts.activity.look()
        for database in self._parts.databases:
            database.look()
        self._watch()
        now = self._now()
        if self._parts.topics is not None:
            self._parts.topics.cleanup.look(now)

    def _now(self) -> float:
        """Return the time of the retention clock, in seconds since the epoch."""
        assert self._retention is not None
        return self._retention.tick(self._wall(), self._running())

    @property
    def _seconds(self) -> float:
        """The time of the retention clock."""
        assert self._retention is not None
        return self._retention.seconds

    def _keep(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._keep_retention_time())

    async def _keep_retention_time(self) -> None:
        """Save the time of the retention clock: without it, the clock of the next run lags."""
        if self._retention is None:
            return
        self._now()
        try:
            keeping: Deferred[None] = self._parts.stats.keep_retention_time(self._seconds)
            await keeping.addTimeout(KEEPING, self._clock)
        except GeneratorExit:
            raise  # the coroutine is closed
        except BaseException as error:
            if not self._not_kept:
                why = str(error) or "no answer from the store"
                self._log.warn("The time of the retention clock could not be saved: {why}", why=why)
            self._not_kept = True
        else:
            self._not_kept = False

    def _clear(self) -> Deferred[None]:
        clearing = Deferred.fromCoroutine(self.clear())

        def done(result: Any) -> None:
            self._clearing = None
            if result is not None:
                # A database that is unavailable or full gets another attempt later.
                self._log.warn(
                    "Old rows could not be deleted: {reason}", reason=result.getErrorMessage()
                )

        self._clearing = clearing
        return clearing.addBoth(done)

    async def clear(self) -> None:
        """Drop and roll up data that is older than its retention."""
        settings, now, parts = self._settings(), self._now(), self._parts
        retention = settings.log_retention
        # Ages in the log are differences on the retention clock: where the wall clock is
        # behind that, as in 1970, they must not be noted by it.
        dropped = await parts.log.trim(self._seconds, retention, settings.log_max_size)
        moved = await parts.stats.roll_up(
            max(0, int(now - settings.keep_minutes)) if settings.keep_minutes else 0,
            max(0, int(now - settings.keep_hours)) if settings.keep_hours else 0,
        )
        if settings.keep_minutes:
            await parts.stats.forget_rejections(max(0, int(now - settings.keep_minutes)))
        with suppress(LogUnavailable):  # while it is away, nothing is known to be dropped
            await self._forget_batches()
        if dropped or moved:
            self._log.info(
                "Dropped {dropped} log entries, rolled up {moved} rows",
                dropped=dropped,
                moved=moved,
            )

    async def _forget_batches(self) -> None:
        """Delete the ids of batches that the log has dropped, if the log was compared with the
        counts.
        """
        parts = self._parts
        state = await parts.stats.state()
        extent = await parts.log.extent(state.identity, state.mark)
        if extent.identity == state.identity:
            await parts.stats.forget_batches(min(extent.first, state.mark.position))
