"""Sweeps: read the log itself for batches that its queue did not deliver, and count them.

RabbitMQ has two copies of the log, a queue and a stream. Messages that were purged or deleted with
the queue are still in the stream. So the store keeps a mark in the stream, and a sweep reads on
from the mark now and then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.log import Entry, IdentityMismatch, ILog, Mark
from kupool.stats import BatchCounts, IStatsStore
from kupool.stats.comparison import Comparison
from kupool.stats.fold import MAX_ID, fold_entry
from kupool.timing.doubling import Doubling
from kupool.wire.batches import VERSION, Batch, PoisonBatch, encode_batch

#: Entries processed in one turn.
CHUNK = 100

#: Seconds for which a failure is not reported to the operator.
FAILING = 180.0


@dataclass(frozen=True)
class SweepSettings:
    """Times of sweeps, in seconds.

    ``every`` is the time between two sweeps. ``patience`` is the time for the consumer to count
    what it may be processing. ``retry`` is the time to the next attempt after a failure, doubled
    each time up to ``every``.
    """

    every: float = 60.0
    patience: float = 3.0
    retry: float = 1.0


class Sweeper:
    """Counts batches of a log that were not delivered, and moves the store's mark.

    ``compare`` (:func:`kupool.stats.comparison.compare`) checks whether log and store still belong
    together, and updates both. It is called before each sweep, because a stream may be replaced at
    any time. ``new_id`` returns a new unique id, ``wall`` seconds since the epoch.

    The consumer of the queue counts at the same time: the ids decide which of the two was first.
    The mark moves once in a sweep, in the transaction that counts the last missing batches, so that
    batches counted meanwhile are recorded under the previous mark.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        log: ILog,
        store: IStatsStore,
        *,
        compare: Callable[[], Awaitable[Comparison]],
        new_id: Callable[[], str],
        settings: SweepSettings | None = None,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._source: Any = log
        self._store: Any = store
        self._compare = compare
        self._new_id = new_id
        self._settings = settings or SweepSettings()
        self._running: Deferred[None] | None = None
        self._next: IDelayedCall | None = None
        self._pause: Deferred[None] | None = None
        self._again = self._started = self._stopped = False
        self._backoffs = Doubling(self._settings.retry, self._settings.every)
        self._backoff = 0.0
        self._failing_since: float | None = None
        #: Positions left for a sweep that is the first one, or that has found missing batches.
        #: Other sweeps are short and find nothing.
        self._left = 0
        #: Batches that were missing in the store and were counted.
        self.counted = 0
        #: Completed sweeps.
        self.done = 0
        #: Why the last sweep failed; empty if it did not fail.
        self.problem = ""

    @property
    def concern(self) -> str:
        """A problem that an operator should know of; empty if there is none."""
        if self._left:
            return (
                "submissions that the log has and the counts lack are being counted; "
                f"{self._left} positions of the log are left"
            )
        if self._running is not None and not self.done:
            return (
                "the log is being compared with the counts, and submissions that the counts lack "
                "are being counted"
            )
        since = self._failing_since
        if since is None or self._clock.seconds() - since < FAILING:
            return ""
        return f"the log has not been compared with the counts for a while: {self.problem}"

    # -- when

    async def begin(self, seconds: float = inf) -> None:
        """Run the first sweep, and then one at every interval.

        Waits for the first sweep, but at most for the given seconds; the sweep then continues.
        """
        self._source.watch(self.soon)
        self._started = True
        self._run(patience=0.0)
        if self._running is not None:
            await self._wait(self._running, seconds)

    def soon(self) -> None:
        """Sweep now, or once more after the running sweep."""
        if self._running is not None:
            self._again = True
        elif self._started and not self._stopped:
            self._run(self._settings.patience)

    async def stop(self, seconds: float = inf) -> None:
        """Run a last sweep, within the given seconds."""
        if self._stopped or not self._started:
            return
        self._stopped = True
        deadline = self._clock.seconds() + seconds
        if self._pause is not None:
            self._pause.callback(None)  # the consumer has ended: nobody else counts
        if self._running is not None:
            await self._wait(self._running, seconds)
        if self._running is None:
            self._run(patience=0.0)
            if self._running is not None:
                await self._wait(self._running, deadline - self._clock.seconds())

    async def _wait(self, running: Deferred[None], seconds: float) -> None:
        done: Deferred[None] = Deferred()
        running.addCallback(lambda _: None if done.called else done.callback(None))
        if seconds < inf:
            done.addTimeout(max(seconds, 0.0), self._clock, lambda *_: None)
        await done

    def _run(self, patience: float) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        running = Deferred.fromCoroutine(self._swept(patience))
        self._running = running
        running.addCallbacks(self._succeeded, self._failed)
        running.addCallback(self._ended)
        running.addErrback(
            lambda failure: self._log.failure(
                "The comparison of the log with the counts failed", failure
            )
        )

    def _succeeded(self, _: object) -> None:
        if self.problem:
            self._log.info("The log is compared with the counts again")
            self._source.refuse("")
        self.problem, self._failing_since, self._backoff = "", None, 0.0
        self.done += 1

    def _failed(self, failure: Any) -> None:
        problem = failure.getErrorMessage()
        mismatch = failure.check(IdentityMismatch) is not None
        if mismatch:
            self._source.refuse(problem)
        if problem != self.problem:
            level = self._log.error if mismatch else self._log.info
            level("The log cannot be compared with the counts: {reason}", reason=problem)
        self.problem = problem
        if self._failing_since is None:
            self._failing_since = self._clock.seconds()
        self._backoff = self._backoffs.after(self._backoff)

    def _ended(self, _: object) -> None:
        self._running = None
        again, self._again = self._again, False
        if not self._stopped:
            wait = 0.0 if again else self._backoff or self._settings.every
            self._next = self._clock.callLater(wait, self._due)

    def _due(self) -> None:
        self._next = None
        self._run(self._settings.patience)

    # -- what

    async def _swept(self, patience: float) -> None:
        try:
            await self._sweep(patience)
        finally:
            self._left = 0

    async def _sweep(self, patience: float) -> None:
        compared = await self._compare()
        position, end = compared.plan.resume, float(compared.extent.last)
        mark, begins_after = compared.state.mark, compared.plan.identity.begins_after
        marked = not compared.changed and mark.entry_id and mark.position > begins_after
        if not marked:
            # The mark must name an entry of the newest epoch. Otherwise a replaced stream could not
            # be told from this one.
            await self._note()
        if not marked or not patience:
            end = inf  # up to the note, or to the end as nobody else counts now
        before, last = self.counted, None
        if not self.done:
            self._left = max(0, compared.extent.last - position)
        pending: list[BatchCounts] = []
        while entries := [e for e in await self._read(position) if e.position <= end]:
            await self._count(pending)
            missing = await self._missing(entries)
            if missing and patience:
                # The consumer may be about to count them.
                await self._wait_for_consumer(patience)
                patience = 0.0
                missing = await self._missing(entries)
            pending = _fold(missing)
            position = entries[-1].position
            if pending or self.counted > before or not self.done:
                self._left = max(0, compared.extent.last - position)
            last = next((e for e in reversed(entries) if _can_be_kept(e.entry_id)), last)
        if last is not None:
            await self._count(pending, Mark(last.position, last.entry_id))
        else:
            await self._count(pending)
        if self.counted > before:
            self._log.warn(
                "Counted {count} batches that are in the log and were not in the store",
                count=self.counted - before,
            )

    async def _wait_for_consumer(self, seconds: float) -> None:
        pause = self._pause = Deferred()
        call = self._clock.callLater(seconds, pause.callback, None)
        await pause
        self._pause = None
        if call.active():
            call.cancel()

    async def _note(self) -> None:
        """Append a batch without submissions."""
        name, at = self._new_id(), int(self._wall() * 1000)
        await self._source.append(name, encode_batch(Batch(VERSION, name, at, [], [], [])))

    async def _read(self, position: int) -> Sequence[Entry]:
        found: Sequence[Entry] = await self._source.read(position, CHUNK)
        return found

    async def _missing(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the entries whose batches have not been counted, according to their ids."""
        ids = [entry.entry_id for entry in entries if _can_be_kept(entry.entry_id)]
        missing = set(await self._store.unapplied(ids)) if ids else set()
        return [e for e in entries if e.entry_id in missing or not _can_be_kept(e.entry_id)]

    async def _count(self, batches: list[BatchCounts], mark: Mark | None = None) -> None:
        if batches or mark is not None:
            applied = await self._store.apply(batches, {}, mark)
            with_users = sum(1 for batch in batches if batch.usernames)
            self.counted += min(applied.new, with_users)


def _fold(entries: Sequence[Entry]) -> list[BatchCounts]:
    """Return the counts of entries; unreadable ones are left to the consumer."""
    found = []
    for entry in entries:
        try:
            found.append(fold_entry(entry.body, entry.position))
        except PoisonBatch:
            continue
    return found


def _can_be_kept(entry_id: str) -> bool:
    """Return whether a store can hold an id: strangers may have sent anything."""
    return 0 < len(entry_id) <= MAX_ID and "\0" not in entry_id


__all__ = ["SweepSettings", "Sweeper"]
