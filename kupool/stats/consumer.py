"""The consumer of the log that makes the counts: it acknowledges batches after the commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from zope.interface import implementer

from kupool.log import DeliveredEntry, IConsumer, ILog, ISubscription, Mark
from kupool.stats import Applied, BatchCounts, IStatsStore, Rejection
from kupool.stats.fold import fold_entry
from kupool.timing.doubling import Doubling
from kupool.wire.batches import PoisonBatch

#: The consumer group of the counts.
GROUP = "stats"

#: The longest time between two attempts to commit, in seconds.
_LONGEST_BACKOFF = 30.0


@dataclass(frozen=True)
class ConsumerSettings:
    """When counts are committed: every ``interval`` seconds, or when ``buffer`` batches are
    pending.

    ``prefetch`` limits the batches taken from the log.
    """

    interval: float = 1.0
    buffer: int = 250
    prefetch: int = 4000


@implementer(IConsumer)
class StatsConsumer:
    """Commits every batch of the log to a store exactly once.

    ``take_rejections`` returns the rejections since its last call.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: IStatsStore,
        take_rejections: Callable[[], Counter[Rejection]] = Counter,
        settings: ConsumerSettings | None = None,
    ) -> None:
        self._clock = clock
        self._store: Any = store
        self._take_rejections = take_rejections
        self._settings = settings or ConsumerSettings()
        self._pending: list[tuple[DeliveredEntry, BatchCounts]] = []
        self._rejections: Counter[Rejection] = Counter()
        self._subscription: ISubscription | None = None
        self._source: ILog | None = None
        #: Whether deliveries are in order and carry their positions in the log.
        self._positional = False
        self._loop = LoopingCall(self.flush)
        self._loop.clock = clock
        self._busy = self._stopped = False
        self._began = 0.0
        self._backoffs = Doubling(self._settings.interval, _LONGEST_BACKOFF)
        self._backoff = 0.0
        self._retry: IDelayedCall | None = None
        self.poisoned = self.repeated = self.committed = 0
        #: Why the last commit failed; empty if it did not fail.
        self.problem = ""

    async def start(self, log: ILog, after: int | None = None) -> None:
        """Start to take entries after a position, or those that were not acknowledged."""
        self._source = log
        self._positional = log.positional
        self._subscription = await log.consume(GROUP, self, self._settings.prefetch, after)
        self._loop.start(self._settings.interval, now=False).addErrback(
            lambda failure: self._log.failure(
                "The commits of the counts stopped because of an error", failure
            )
        )

    def received(self, deliveries: Sequence[DeliveredEntry]) -> None:
        """Count some entries; unreadable ones go to the dead letters."""
        if self._stopped:
            return
        for delivery in deliveries:
            entry = delivery.entry
            position = entry.position if self._positional else 0
            try:
                counts = fold_entry(entry.body, position, delivery.earlier)
            except PoisonBatch as error:
                self._bury(delivery, str(error))
            else:
                self._pending.append((delivery, counts))
        if len(self._pending) >= self._settings.buffer:
            self.flush()

    def _bury(self, delivery: DeliveredEntry, reason: str) -> None:
        self.poisoned += 1
        self._log.error(
            "Log entry {id} at {position} cannot be counted: {reason}",
            id=delivery.entry.entry_id,
            position=delivery.entry.position,
            reason=reason,
        )
        assert self._subscription is not None
        self._subscription.nack(delivery, reason, False)

    def flush(self) -> None:
        """Commit pending batches, unless a commit is running or must wait."""
        if self._busy or self._stopped or self._retry is not None:
            return
        if not self._rejections:
            # Batches of a failed commit go first, so that the pending ones stay limited.
            self._rejections = self._take_rejections()
        if not self._pending and not self._rejections:
            return
        self._busy = True
        self._began = self._clock.seconds()
        taken, self._pending = self._pending, []
        rejections, self._rejections = self._rejections, Counter()
        mark = None
        if taken and self._positional:
            last = taken[-1][0].entry
            mark = Mark(last.position, last.entry_id)
        self._store.apply([counts for _, counts in taken], rejections, mark).addCallbacks(
            self._committed, self._failed, callbackArgs=(taken,), errbackArgs=(taken, rejections)
        ).addErrback(
            lambda failure: self._log.failure("A commit of the counts failed unexpectedly", failure)
        )

    def _committed(self, applied: Applied, taken: list[tuple[DeliveredEntry, BatchCounts]]) -> None:
        self._busy = False
        if self.problem:
            self._log.info("The counts are committed again")
        self.problem, self._backoff = "", 0.0
        self.committed += applied.new
        self.repeated += applied.repeated
        if self._stopped:
            return  # unacknowledged batches come again, and are recognized by their ids
        conflicts = set(applied.conflicts)
        counted = []
        for delivery, counts in taken:
            if (counts.batch_id, counts.digest) in conflicts:
                self._bury(delivery, "a batch of this id with other content was counted before")
            else:
                counted.append(delivery)
        assert self._subscription is not None
        self._subscription.ack(counted)
        if len(self._pending) >= self._settings.buffer:
            self.flush()

    def _failed(
        self,
        failure: Any,
        taken: list[tuple[DeliveredEntry, BatchCounts]],
        rejections: Counter[Rejection],
    ) -> None:
        self._busy = False
        self._pending = taken + self._pending
        self._rejections = rejections
        if not self.problem:
            self._log.error(
                "The counts cannot be committed, trying again: {reason}",
                reason=failure.getErrorMessage(),
            )
        self.problem = failure.getErrorMessage()
        self._backoff = self._backoffs.after(self._backoff)
        if not self._stopped:
            self._retry = self._clock.callLater(self._backoff, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.flush()

    @property
    def pending(self) -> int:
        """Batches taken from the log and not committed."""
        return len(self._pending)

    @property
    def _done(self) -> int:
        """Batches that the log need not deliver again."""
        return self.committed + self.repeated + self.poisoned

    @property
    def committing(self) -> float:
        """Seconds since the running commit began; 0 if none is running."""
        return self._clock.seconds() - self._began if self._busy else 0.0

    async def drain(self, deadline: float, patience: float = inf) -> bool:
        """Commit everything in the log; returns False if that did not finish before ``deadline``.

        The deadline is a time of the clock. It also ends after ``patience`` seconds without
        progress, as when the store or the log is unavailable. The rest is counted at the next
        start.
        """
        self._cancel_retry()  # a last attempt, even if it is too early for one
        came, moved = self._done, self._clock.seconds()
        while self._source is not None and self._clock.seconds() < deadline:
            self.flush()
            depth = self._source.status().depth
            if not (self._busy or self._pending or self._rejections or depth):
                return True
            if self._done > came:
                came, moved = self._done, self._clock.seconds()
            elif self._clock.seconds() - moved >= patience:
                return False
            await deferLater(self._clock, 0.02)
        return self._source is None

    async def stop(self) -> None:
        """Take no more entries, and keep the position in the log."""
        self._stopped = True
        if self._loop.running:
            self._loop.stop()
        self._cancel_retry()
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.stop()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None


__all__ = ["GROUP", "ConsumerSettings", "StatsConsumer"]
