"""Delayed records: written now, and readable from a time on.

They are kept by the engine, so that they survive a restart. Times are those of the wall clock: it
is looked at each second while something is delayed, so that a clock that is set is noticed. A
record comes at most a second late, unless the process does not run at its time; then it comes when
the process runs again. Records never come early.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.timing.waiting import and_then
from kupool.topics.errors import TopicError
from kupool.topics.interfaces import FIRST_DELAY, DelayedBatch, DelayPlace
from kupool.topics.records import NewRecord
from kupool.topics.service import Topics, Writing

#: The most seconds between two looks at the clock.
LOOK = 1.0


class DelayedRecords:
    """The delayed records of some topics. ``wall`` returns seconds since the epoch."""

    _log = Logger()

    def __init__(self, topics: Topics, clock: IReactorTime, wall: Callable[[], float]) -> None:
        self._topics = topics
        self._engine: Any = topics.engine
        self._clock = clock
        self._wall = wall
        self._timer: IDelayedCall | None = None
        #: Whether a look is under way, and whether another one has to follow it.
        self._looking = self._again = False
        #: Why the last look failed: said once, however often it is tried again.
        self._problem = ""
        self._stopped = False

    def start(self) -> None:
        """Begin to write what is due, also from before the start."""
        self._look()

    def stop(self) -> None:
        """Write nothing more; what is delayed stays in the engine."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def schedule(
        self, topic: str, records: Sequence[NewRecord], at: float, *, partition: int | None = None
    ) -> Deferred[list[int]]:
        """Have records written at a time, in seconds since the epoch; a past one is now.

        Fires with the ids of the batches that they make, once these are durable. Fails as
        :meth:`Topics.produce` does.
        """
        if not records:
            return fail(ValueError("there is no record to delay"))
        try:
            prepared = self._topics.prepare(Writing(topic, tuple(records), partition))
        except TopicError as error:
            return fail(error)

        def kept(ids: list[int]) -> list[int]:
            self._look()
            return ids

        # Up, so that none comes early.
        delayed: Deferred[list[int]] = self._engine.delay(prepared.encode(), ceil(at * 1000))
        return delayed.addCallback(kept)

    def waiting(
        self, topic: str, start: DelayPlace = FIRST_DELAY, limit: int | None = None
    ) -> Deferred[Sequence[DelayedBatch]]:
        """Return the batches of a topic that are not due yet, those due first first, from a place
        on, ``limit`` at most.
        """
        found: Deferred[Sequence[DelayedBatch]] = self._engine.delayed(topic, start, limit)
        return found

    def cancel(self, topic: str, delay_id: int) -> Deferred[bool]:
        """Forget a batch of a topic; returns whether it was there, and so was never written."""
        gone: Deferred[bool] = self._engine.cancel(topic, delay_id)
        return gone

    def _look(self) -> None:
        if self._stopped or self._looking:
            self._again = True
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._looking = True
        Deferred.fromCoroutine(and_then(self._write_due(), self._looked)).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        reason = failure.getErrorMessage()
        if reason != self._problem:
            self._log.warn(
                "Delayed records could not be written, trying again: {reason}", reason=reason
            )
        self._problem = reason

    async def _looked(self) -> None:
        self._looking = False
        if self._again and not self._stopped:
            self._again = False
            self._look()

    async def _write_due(self) -> None:
        wait: float | None = LOOK
        try:
            for partition in await self._engine.append_due(int(self._wall() * 1000)):
                self._topics.tell(partition)
            due = await self._engine.next_due()
            wait = None if due is None else min(LOOK, max(0.0, due / 1000 - self._wall()))
            self._problem = ""
        finally:
            if wait is not None and not self._stopped:
                self._timer = self._clock.callLater(wait, self._look)


__all__ = ["LOOK", "DelayedRecords"]
