"""The position of a consumer group in a log of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.log import DeliveredEntry, Entry, ISubscription
from kupool.timing.progress import ContiguousProgress

#: Seconds after an append until consumers are told. The answers are sent first, and a consumer that
#: takes many entries at once needs less time for each.
WAKE_DELAY = 0.02

#: The most entries handed to a consumer in one reactor turn.
READ_CHUNK = 250


@dataclass(frozen=True)
class RetrySettings:
    """How often an entry is delivered, and the delay before it is delivered again (seconds)."""

    attempts: int = 5
    delay: float = 1.0


class LocalLog(Protocol):
    """The methods that a subscription uses of its log."""

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` entries that follow the position ``after``."""

    def keep_place(self, group: str, position: int) -> Deferred[None]:
        """Save that a group has processed everything up to a position."""

    def bury(self, group: str, delivery: DeliveredEntry, reason: str) -> Deferred[None]:
        """Move an entry to the dead letters."""


@implementer(ISubscription)
class LocalSubscription:
    """Delivers the entries after a position, and moves the position as they are processed."""

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
        self._progress = ContiguousProgress(place + 1)
        self._next = place
        self._reading = False
        self._stopped = False
        self._waking: IDelayedCall | None = None
        self._delayed: set[IDelayedCall] = set()
        self._saving: Deferred[None] = succeed(None)
        #: The position last saved or being saved; -1 if that failed.
        self._saved = place

    @property
    def place(self) -> int:
        """The position up to which everything has been processed."""
        return self._progress.position - 1

    @property
    def unacknowledged(self) -> int:
        """The number of entries from the first unprocessed one to the last delivered one."""
        return len(self._progress)

    def wake(self) -> None:
        """Fetch appended entries, as far as the prefetch allows."""
        room = self._prefetch - len(self._progress)
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
            self._progress.add(entry.position)
        # There may be more: fetch them in another turn, as a consumer takes its time.
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
        self._progress.settle([delivery.entry.position for delivery in deliveries])
        self._save()
        self.wake()

    def nack(self, delivery: DeliveredEntry, reason: str, retry: bool) -> None:
        """An entry could not be processed: deliver it again, or move it to the dead letters."""
        if self._stopped or not self._progress.is_open(delivery.entry.position):
            return  # it is delivered again at the next start, or is settled already
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
        # Until the dead letter is saved, the entry stays unprocessed and blocks the position.
        if not self._stopped:
            self._log.error(
                "A dead letter could not be saved, trying again: {reason}",
                reason=failure.getErrorMessage(),
            )
            self._later(self._bury, delivery, reason)

    def _save(self) -> None:
        """Save the position; one save runs at a time, and the newest position is saved last."""
        if self._saved == self.place or not self._saving.called:
            return
        self._saved = self.place
        self._saving = self._source.keep_place(self._group, self.place)
        self._saving.addCallbacks(lambda _: self._save(), self._not_saved)

    def _not_saved(self, failure: Failure) -> None:
        # Harmless: repeated entries are recognized by their ids.
        self._saved = -1
        self._log.warn(
            "The position of a consumer could not be saved: {reason}", reason=str(failure.value)
        )

    def stop(self) -> Deferred[None]:
        """Deliver nothing more, and save the position; fires when it is saved."""
        self._stopped = True
        delayed, self._delayed = self._delayed, set()
        if self._waking is not None:
            delayed.add(self._waking)
            self._waking = None
        for timer in delayed:
            timer.cancel()
        done: Deferred[None] = Deferred()

        def check(_: object) -> None:
            # The end of a save starts the next one if the position has moved meanwhile.
            if self._saving.called:
                done.callback(None)
            else:
                self._saving.addBoth(check)

        self._save()
        self._saving.addBoth(check)
        return done
