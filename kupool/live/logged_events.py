"""Learns from the logs of durable channels which events were published lately.

A process that is killed after it has written an event, and before it has told the publisher, leaves
a publisher that sends the event again. The next process has it in its log. So before the first
event with an id is published to a durable channel, the newest part of its log is read.

If that fails, or takes long, events are published all the same, perhaps again, and operators are
told; too much is better than too little. After a while it is tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.live.interfaces import IChannelStore
from kupool.live.publications import HistoryPart, PublishedRecord
from kupool.live.rules import ChannelRule
from kupool.timing.waiting import Waiters

#: Seconds for which events wait while a log is read.
PATIENCE = 5.0

#: Seconds until a log that could not be read is read again.
AGAIN = 30.0

#: The most publications of one read.
_AT_ONCE = 1000

#: Why publications were not compared with all earlier ones.
UNREAD = "the log of a durable channel cannot be read"
LONG = "the log of a durable channel has more events than can be remembered"


class LogWindow(NamedTuple):
    """What of a log is read: records of the last ``seconds``, of which the newest ``most``."""

    seconds: float
    most: int


#: A durable channel, its topic and its partition.
_Log = tuple[str, str, int]

#: Is given the name of a channel, and an event of its log that has an id; the oldest come first.
TakeEvent = Callable[[str, PublishedRecord], object]


class LoggedEvents:
    """Reads the log of each durable channel once, and passes the events of a ``window`` on.

    ``wall`` returns seconds since the epoch. ``take`` gets what is found, and ``troubled`` the
    reason, :data:`UNREAD` or :data:`LONG`, if that is not all. A channel whose rule names another
    partition has another log.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        window: LogWindow,
        *,
        take: TakeEvent,
        troubled: Callable[[str], object],
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._window = window
        self._take = take
        self._troubled = troubled
        #: Until when the log of a channel is not read again; it was read if that is for ever.
        self._until: dict[_Log, float] = {}
        self._reading: dict[_Log, Waiters[None]] = {}

    def knows(self, rule: ChannelRule) -> bool:
        """Return whether the log of a durable channel need not be read now."""
        return self._until.get(_log_of(rule), -inf) > self._clock.seconds()

    def under_way(self, rule: ChannelRule) -> bool:
        """Return whether the log of a durable channel is being read."""
        return _log_of(rule) in self._reading

    def learn(self, rule: ChannelRule, store: IChannelStore) -> Deferred[None]:
        """Read the log of a durable channel; never fails, also if it cannot be read."""
        log = _log_of(rule)
        waiters = self._reading.get(log)
        if waiters is not None:
            return waiters.wait()
        waiters = self._reading[log] = Waiters()
        waiter = waiters.wait()
        done = Deferred.fromCoroutine(self._read(rule.pattern, store))
        done.addTimeout(PATIENCE, self._clock)
        done.addErrback(self._unread, rule.pattern)
        done.addErrback(lambda failure: self._log.failure("A log cannot be learned", failure))
        done.addBoth(self._go_on, log)
        return waiter

    def _go_on(self, all_read: object, log: _Log) -> None:
        self._until[log] = inf if all_read else self._clock.seconds() + AGAIN
        self._reading.pop(log).tell(None)

    async def _read(self, channel: str, store: IChannelStore) -> bool:
        since = self._wall() - self._window.seconds
        first = (await store.before(since)).offset
        offset = (await store.before(since, self._window.most)).offset
        if offset > first:
            self._troubled(LONG)
        while True:
            part: HistoryPart = await store.after(offset, _AT_ONCE)
            for each in part.publications:
                if each.event_id:
                    self._take(channel, each)
            if not part.publications or not part.more:
                return True
            offset = part.publications[-1].offset

    def _unread(self, failure: Failure, channel: str) -> None:
        self._log.warn(
            "Events in channel {channel} may be there twice, as its log cannot be read: {reason}",
            channel=channel,
            reason=failure.getErrorMessage() or "no answer",
        )
        self._troubled(UNREAD)


def _log_of(rule: ChannelRule) -> _Log:
    return rule.pattern, rule.topic, rule.partition


__all__ = [
    "AGAIN",
    "LONG",
    "PATIENCE",
    "UNREAD",
    "LogWindow",
    "LoggedEvents",
]
