"""A consumer group's place in a log that this process holds itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.log import DeliveredEntry, Entry, ISubscription

#: Seconds after an append until consumers are told: the answers go out first, and a
#: consumer that takes many entries at once costs less for each.
WAKE_DELAY = 0.02

#: Entries handed to a consumer in one reactor turn at the most.
READ_CHUNK = 250


@dataclass(frozen=True)
class RetrySettings:
    """How often an entry is delivered, and the delay before it comes again (seconds)."""

    attempts: int = 5
    delay: float = 1.0


class LocalLog(Protocol):
    """What a subscription asks of its log."""

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` entries that follow the position ``after``."""

    def keep_place(self, group: str, position: int) -> Deferred[None]:
        """Remember that a group has processed everything up to a position."""

    def bury(self, group: str, delivery: DeliveredEntry, reason: str) -> Deferred[None]:
        """Put an entry among the dead letters."""


@implementer(ISubscription)
class LocalSubscription:
    """Delivers the entries after a place, and moves the place as they are processed."""

    _log = Logger()

    def __init__(
        self,
        log: LocalLog,
        clock: IReactorTime,
        group: str,
        consumer: Any,
        *,
        place: int,
        prefetch: int,
        retry: RetrySettings,
    ) -> None:
        self._source = log
        self._clock = clock
        self._group = group
        self._consumer = consumer
        self._prefetch = prefetch
        self._retry = retry
        #: Everything up to here has been processed.
        self.place = place
        self._next = place
        #: Position -> whether it is processed; by position, as entries come in order.
        self._unsettled: dict[int, bool] = {}
        self._reading = False
        self._stopped = False
        self._waking: IDelayedCall | None = None
        self._delayed: set[IDelayedCall] = set()
        self._saving: Deferred[None] = succeed(None)
        #: The place last kept, or on its way; -1 when that failed.
        self._saved = place

    @property
    def unacknowledged(self) -> int:
        """Entries from the first that is not processed to the last delivered."""
        return len(self._unsettled)

    def wake(self) -> None:
        """Fetch what has been appended, as far as the prefetch allows."""
        room = self._prefetch - len(self._unsettled)
        if self._reading or self._stopped or room <= 0:
            return
        self._reading = True
        fetched = self._source.read(self._next, min(room, READ_CHUNK))
        fetched.addCallbacks(self._fetched, self._not_fetched)
        fetched.addErrback(lambda f: self._log.failure("A consumer of the log failed", f))
        fetched.addCallback(self._read)

    def _fetched(self, entries: Sequence[Entry]) -> None:
        if self._stopped or not entries:
            return
        self._next = entries[-1].position
        for entry in entries:
            self._unsettled[entry.position] = False
        # There may be more: in a turn of its own, as a consumer takes its time.
        if self._waking is None:
            self._waking = self._clock.callLater(0, self._wake_again)
        self._consumer.received([DeliveredEntry(entry, 1) for entry in entries])

    def _read(self, _: object) -> None:
        self._reading = False

    def _wake_again(self) -> None:
        self._waking = None
        self.wake()

    def _not_fetched(self, failure: Failure) -> None:
        if not self._stopped:
            self._log.failure("The log could not be read; trying again", failure)
            self._later(self.wake)

    def _later(self, call: Callable[..., object], *args: object) -> None:
        def due() -> None:
            self._delayed.discard(timer)
            call(*args)

        timer = self._clock.callLater(self._retry.delay, due)
        self._delayed.add(timer)

    def ack(self, deliveries: Sequence[DeliveredEntry]) -> None:
        """Entries have been processed and will not be delivered again."""
        unsettled = self._unsettled
        for delivery in deliveries:
            if delivery.entry.position in unsettled:
                unsettled[delivery.entry.position] = True
        # The place is before the first entry that is still open.
        passed = list(takewhile(unsettled.__getitem__, unsettled))
        for position in passed:
            del unsettled[position]
        if passed:
            self.place = passed[-1]
        self._save()
        self.wake()

    def nack(self, delivery: DeliveredEntry, reason: str, retry: bool) -> None:
        """An entry could not be processed: deliver it again, or bury it."""
        if self._stopped or self._unsettled.get(delivery.entry.position, True):
            return  # it comes again with the next start, or is settled
        if retry and delivery.attempt < self._retry.attempts:
            again = DeliveredEntry(delivery.entry, delivery.attempt + 1)
            self._later(self._consumer.received, [again])
        else:
            self._bury(delivery, reason)

    def _bury(self, delivery: DeliveredEntry, reason: str) -> None:
        buried = self._source.bury(self._group, delivery, reason)
        buried.addCallbacks(
            lambda _: self.ack([delivery]), self._not_buried, errbackArgs=(delivery, reason)
        )
        buried.addErrback(lambda f: self._log.failure("A dead letter could not be settled", f))

    def _not_buried(self, failure: Failure, delivery: DeliveredEntry, reason: str) -> None:
        # Until it is kept it stays unsettled, and in the way of what follows.
        if not self._stopped:
            self._log.error(
                "A dead letter could not be saved, trying again: {reason}",
                reason=failure.getErrorMessage(),
            )
            self._later(self._bury, delivery, reason)

    def _save(self) -> None:
        """Keep the place; one save at a time, the newest place wins."""
        if self._saved == self.place or not self._saving.called:
            return
        self._saved = self.place
        self._saving = self._source.keep_place(self._group, self.place)
        self._saving.addCallbacks(lambda _: self._save(), self._not_saved)

    def _not_saved(self, failure: Failure) -> None:
        # Harmless: what is delivered again is known by its id.
        self._saved = -1
        self._log.warn(
            "The position of a consumer could not be saved: {reason}", reason=str(failure.value)
        )

    def stop(self) -> Deferred[None]:
        """Deliver nothing more, and keep the place; fires when it is kept."""
        self._stopped = True
        delayed, self._delayed = self._delayed, set()
        if self._waking is not None:
            delayed.add(self._waking)
            self._waking = None
        for timer in delayed:
            timer.cancel()
        done: Deferred[None] = Deferred()

        def check(_: object) -> None:
            # A save that ends begins the next one, when the place has moved meanwhile.
            if self._saving.called:
                done.callback(None)
            else:
                self._saving.addBoth(check)

        self._save()
        self._saving.addBoth(check)
        return done
