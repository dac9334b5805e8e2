"""The topic of the daemon's events: written by the daemon, a batch a moment.

An event is a record of JSON: ``{"type":TYPE,"id":ID,"at":MS,...}``. Those who tell of one never
wait. While the topic cannot be written, events are dropped and counted; the next one that is
written after that says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.timing.waiting import Waiters
from kupool.topics.errors import TopicExists
from kupool.topics.own_topics import EVENTS
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.service import Topics
from kupool.topics.settings import TopicSettings

#: The type of the event that says how many were dropped.
DROPPED = "events.dropped"

#: Its settings: nobody waits for an event, so it need not be on the disk at once.
SETTINGS = TopicSettings(
    durability="interval", retention_time=7 * 24 * 3600.0, retention_bytes=256 * 1024 * 1024
)

#: Seconds after an event in which others may join its batch.
DELAY = 0.2

#: Seconds after a failure until the topic is tried again, whether there are new events or not.
RETRY = 1.0

#: The most events in one batch, so that no turn of the reactor takes long.
AT_ONCE = 500

#: The most events that wait.
MOST_WAITING = 10_000

#: The newest events that are kept where topics are in memory.
KEPT_IN_MEMORY = 5_000


class EventWriter:
    """Writes events to the topic.

    ``engine`` creates the topic, which users cannot. ``wall`` returns seconds since the epoch.
    ``instance`` makes the ids of this process's events unique.
    """

    _log = Logger()

    def __init__(
        self,
        topics: Topics,
        engine: Any,
        clock: IReactorTime,
        wall: Callable[[], float],
        *,
        instance: str,
    ) -> None:
        self._topics = topics
        self._engine = engine
        self._clock = clock
        self._wall = wall
        self._instance = instance
        self._encode = msgspec.json.Encoder().encode
        self._serial = 0
        self._waiting: list[NewRecord] = []
        self._timer: IDelayedCall | None = None
        self._writing = self._closing = False
        #: Those who wait until everything is written or dropped.
        self._done: Waiters[None] = Waiters()
        #: Events that were dropped, and how many of them no event has told of.
        self.dropped = self._untold = 0

    def open(self) -> Deferred[None]:
        """Create the topic if there is none; if that fails, the first event tries again."""
        return Deferred.fromCoroutine(self._ensure()).addErrback(self._not_made)

    async def _ensure(self) -> None:
        if self._engine.topic(EVENTS) is None:
            with suppress(TopicExists):  # another node was faster
                await self._engine.create(EVENTS, SETTINGS)

    def _not_made(self, failure: Failure) -> None:
        self._log.warn(
            "Topic {topic} could not be created, trying again later: {reason}",
            topic=EVENTS,
            reason=failure.getErrorMessage(),
        )

    def tell(self, kind: str, event: Mapping[str, object], key: str = "") -> None:
        """Take an event of a type; ``at`` in it, in milliseconds, is now if it is missing.

        Events of one ``key`` have it as the key of their records.
        """
        if self._closing or len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            self._untold += 1
            return
        self._waiting.append(self._record(kind, event, key))
        if self._timer is None and not self._writing:
            self._timer = self._clock.callLater(DELAY, self._write)

    def write(self, kind: str, event: Mapping[str, object]) -> Deferred[None]:
        """Write an event of a type at once; fires when it is written.

        Fails as :meth:`kupool.topics.service.Topics.produce` does.
        """
        return Deferred.fromCoroutine(self._produce([self._record(kind, event)], 0))

    def _record(self, kind: str, event: Mapping[str, object], key: str = "") -> NewRecord:
        self._serial += 1
        at = int(self._wall() * 1000)
        head = {"type": kind, "id": f"{self._instance}-{self._serial}", "at": at}
        return NewRecord(self._encode({**head, **event}), key=key.encode() if key else None)

    def _write(self) -> None:
        self._timer = None
        self._writing = True
        taken, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
        untold, self._untold = self._untold, 0
        Deferred.fromCoroutine(self._produce(taken, untold)).addCallbacks(
            lambda _: self._ended(DELAY if len(self._waiting) < AT_ONCE else 0.0),
            self._failed,
            errbackArgs=(len(taken), untold),
        ).addErrback(lambda failure: self._log.failure("Events cannot be written", failure))

    async def _produce(self, taken: list[NewRecord], untold: int) -> None:
        await self._ensure()
        if untold:
            taken = [self._record(DROPPED, {"count": untold}), *taken]
        written = await self._topics.produce(EVENTS, taken)
        if not self._engine.capabilities.persistent:
            # A crowd that connects must not use up the memory until the next look at retention.
            place = written[-1]
            oldest = place.offset + 1 - KEPT_IN_MEMORY
            if oldest > 0:
                await self._engine.drop_below(Partition(EVENTS, place.partition), oldest)

    def _failed(self, failure: Failure, taken: int, untold: int) -> None:
        if not untold:
            self._log.warn(
                "Events are dropped, because topic {topic} cannot be written: {reason}",
                topic=EVENTS,
                reason=failure.getErrorMessage(),
            )
        self.dropped += taken
        self._untold += untold + taken
        self._ended(RETRY)

    def _ended(self, delay: float) -> None:
        self._writing = False
        if self._waiting and self._closing:
            self._write()
        elif self._closing:
            self._done.tell(None)
        elif self._waiting or self._untold:
            self._timer = self._clock.callLater(delay, self._write)

    def close(self, seconds: float = 1.0) -> Deferred[None]:
        """Write what waits; fires when that is done or dropped, or after so many seconds.

        Takes no more events.
        """
        self._closing = True
        done = self._done.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._write()
        elif not self._writing:
            self._done.tell(None)
        return done.addTimeout(seconds, self._clock, lambda *_: None)


__all__ = [
    "DELAY",
    "DROPPED",
    "EVENTS",
    "KEPT_IN_MEMORY",
    "MOST_WAITING",
    "RETRY",
    "SETTINGS",
    "EventWriter",
]
