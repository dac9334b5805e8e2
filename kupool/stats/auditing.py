"""The audit: compares the counts with the log they were made from, and corrects them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kupool.log import Entry, Extent, Gap, ILog, ISpool
from kupool.stats import BatchCounts, IStatsStore, MinuteCount
from kupool.stats.fold import fold_entry, read_entry
from kupool.stats.side_by_side import (
    LOST,
    ComparedRange,
    Coverage,
    SideBySide,
    Skipped,
    UncountedBatches,
)
from kupool.stats.snapshot import Snapshot
from kupool.wire.batches import PoisonBatch

#: Bytes and entries of the log that are in memory at once.
BYTES_AT_ONCE = 2 * 1024 * 1024
ENTRIES_AT_ONCE = 1000

#: Rows corrected in one transaction, and ids of batches looked up at once.
CORRECTED_AT_ONCE = 1000
IDS_AT_ONCE = 1000

#: Seconds between two checks of the batches that wait to be counted, and how long they may wait
#: without progress before they count as lost.
LOOK = 0.25
PATIENCE = 5.0

#: Called with the current step, and the part of it that is done, from 0 to 1.
Progress = Callable[[str, float], None]

READING = "Reading the log"
COMPARING = "Comparing"
CORRECTING = "Correcting"


class NotComparable(Exception):
    """Log and store cannot be compared; the text says why, and what to do."""


class Audit(NamedTuple):
    """The result of a comparison.

    ``unreadable`` counts entries of the log that are not batches, and so are never counted.
    ``beyond`` says that the range includes minutes before those that can be compared.
    """

    compared: ComparedRange
    skipped: Sequence[Skipped]
    waiting: UncountedBatches
    differences: int
    unreadable: int
    gaps: Sequence[tuple[Gap, str]]
    beyond: bool

    @property
    def lost(self) -> bool:
        """Whether a part of the log is missing for another reason than its retention."""
        return bool(self.gaps) or any(skipped.reason == LOST for skipped in self.skipped)


class Rebuilt(NamedTuple):
    """The result of a rebuild: corrected rows, and newly counted batches; ``waiting`` batches are
    still not counted.
    """

    found: Audit
    corrected: int
    counted: int
    waiting: UncountedBatches


class Auditor:
    """Compares a log and a store, once; a daemon may be using both.

    ``spool`` is the spool before the log, if there is one. Without a ``clock`` the audit does not
    wait: batches that are not counted yet are reported as such at once.
    """

    def __init__(
        self,
        log: ILog,
        store: IStatsStore,
        both: SideBySide,
        clock: IReactorTime | None = None,
        *,
        progress: Progress = lambda what, part: None,
        spool: ISpool | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._log: Any = log
        self._store: Any = store
        self._both = both
        self._clock = clock
        self._progress = progress
        self._spool: Any = spool
        self._patience = patience
        self._unreadable = 0

    async def audit(self, start: int, end: int) -> Audit:
        """Compare a range of minutes, in seconds since the epoch.

        Raises :class:`NotComparable`.
        """
        both = self._both
        extent = await self._extent()
        if self._spool is not None:
            await self._read_spool()
        await self._store.snapshot(both, start, end)
        snapshot = both.snapshot
        assert snapshot is not None
        _check(extent, snapshot)
        await self._read_log(extent, max(extent.last, snapshot.mark.position))
        coverage = await self._coverage()
        await self._settle()
        for part in both.compare(start, end, coverage):
            self._progress(COMPARING, part)
            await self._pause(0)
        skipped = both.skipped()
        least = max(snapshot.rolled_up_before, snapshot.taken_over_before)
        return Audit(
            both.compared(),
            skipped,
            both.waiting(),
            both.differences(),
            self._unreadable,
            snapshot.gaps,
            start > 0 and (bool(skipped) or start < least),
        )

    async def rebuild(self) -> Rebuilt:
        """Make the rows equal to the log as far as possible, and count missing batches.

        Counts that a daemon adds meanwhile are kept: rows are adjusted, not replaced. Raises
        :class:`NotComparable`, and :class:`kupool.stats.snapshot.Superseded` if another rebuild
        finished first.
        """
        await self._store.revive()
        found = await self.audit(0, 2**40)
        corrected = await self._correct(found.differences)
        counted = await self._count_missing()
        return Rebuilt(found, corrected, counted, self._both.waiting())

    # -- looking

    async def _extent(self) -> Extent:
        state = await self._store.state()
        extent: Extent = await self._log.extent(state.identity, state.mark)
        return extent

    async def _coverage(self) -> Coverage:
        """Return the range that the log covers. Call it after reading, as a trim may run
        meanwhile.
        """
        extent, trimmed = await self._extent(), await self._log.trimmed()
        after = extent.first - 1
        if trimmed is not None:
            by_retention = after <= trimmed
        else:
            of = extent.identity
            by_retention = of is None or not of.begins_after or after > of.begins_after
        return Coverage(after, extent.last, by_retention)

    async def _read_spool(self) -> None:
        position = 0
        while entries := await self._spool.read_spool(position, ENTRIES_AT_ONCE // 10):
            self._both.spooled(self._folded(entries))
            position = entries[-1].position

    async def _read_log(self, extent: Extent, last: int) -> None:
        before = position = extent.first - 1
        total = max(1, last - before)
        self._progress(READING, 0.0)
        async for entries in self._entries(position, last):
            if self._log.positional:
                self._find_holes(extent, position, entries)
            self._both.logged(self._folded(entries))
            position = entries[-1].position
            self._progress(READING, min(1.0, (position - before) / total))

    def _find_holes(self, extent: Extent, position: int, entries: Sequence[Entry]) -> None:
        """Find positions without an entry; only at the start of an epoch are they expected."""
        assert extent.identity is not None
        begins = {epoch.begins_after for epoch in extent.identity.epochs}
        for entry in entries:
            missing = range(position + 1, entry.position)
            if missing and missing[-1] not in begins:
                self._both.hole(missing[0], missing[-1])
            position = entry.position

    async def _entries(self, after: int, last: int) -> AsyncIterator[Sequence[Entry]]:
        """Yield the entries after a position up to another, in pieces."""
        limit = 10
        while after < last:
            entries = await self._log.read(after, limit)
            if not entries:
                return
            yield entries
            after = entries[-1].position
            size = sum(len(entry.body) for entry in entries) // len(entries) + 1
            limit = min(max(BYTES_AT_ONCE // size, 1), ENTRIES_AT_ONCE, 2 * limit)

    def _folded(
        self, entries: Sequence[Entry], fold: Callable[[bytes, int], BatchCounts] = read_entry
    ) -> list[BatchCounts]:
        batches = []
        for entry in entries:
            try:
                batch = fold(entry.body, entry.position)
            except PoisonBatch:
                self._unreadable += 1
                continue
            if batch.usernames:
                batches.append(batch)
        return batches

    async def _settle(self) -> None:
        """Wait for acknowledged batches to be counted, as long as there is progress."""
        waited = 0.0
        while (before := self._both.waiting().batches) and waited <= self._patience:
            await self._look_again()
            if self._both.waiting().batches < before:
                waited = 0.0
            elif self._clock is None:
                return
            await self._pause(LOOK)
            waited += LOOK

    async def _look_again(self) -> None:
        last = ""
        while ids := self._both.waiting_ids(last, IDS_AT_ONCE):
            left = set(await self._store.unapplied(ids))
            self._both.counted_since(name for name in ids if name not in left)
            last = ids[-1]

    async def _pause(self, seconds: float) -> None:
        if self._clock is not None:
            paused: Deferred[None] = deferLater(self._clock, seconds)
            await paused

    # -- corrections

    async def _correct(self, total: int) -> int:
        assert self._both.snapshot is not None
        serial, corrected = self._both.snapshot.serial, 0
        rows: list[MinuteCount] = []
        for found in self._both.difference_rows():
            missing = found.logged - found.counted
            rows.append(MinuteCount(found.username, found.worker, found.minute, missing))
            if len(rows) == CORRECTED_AT_ONCE:
                serial = await self._store.correct(rows, serial)
                corrected, rows = corrected + len(rows), []
                self._progress(CORRECTING, corrected / total)
        if rows:
            await self._store.correct(rows, serial)
        return corrected + len(rows)

    async def _count_missing(self) -> int:
        """Count batches that are in the log and were not counted; returns how many."""
        snapshot = self._both.snapshot
        assert snapshot is not None
        first, last = self._both.waiting_positions()
        counted = 0
        async for entries in self._entries(max(first - 1, snapshot.forgotten), last):
            folded = self._folded(entries, fold_entry)
            batches = [batch for batch in folded if self._both.is_waiting(batch.batch_id)]
            if batches:
                counted += (await self._store.apply(batches, {})).new
                self._both.counted_since(batch.batch_id for batch in batches)
        return counted


def _check(extent: Extent, snapshot: Snapshot) -> None:
    """Raise :class:`NotComparable` if log and store do not belong together."""
    if snapshot.identity is None:
        raise NotComparable(
            "the store does not say of which log it was counted; start the daemon once, which "
            "compares the two"
        )
    if extent.identity is None:
        raise NotComparable(
            "the log does not say of which pool it is; start the daemon once, which compares it "
            "with the store"
        )
    if extent.identity.pool_id != snapshot.identity.pool_id:
        raise NotComparable(
            f"the log belongs to pool {extent.identity.pool_id} and the store to pool "
            f"{snapshot.identity.pool_id}; put back the log and the store of one pool"
        )
    if extent.identity != snapshot.identity:
        raise NotComparable(
            "the log and the store are of different epochs: one of them was restored or replaced; "
            "start the daemon once, which finds what they have in common"
        )


__all__ = ["Audit", "Auditor", "NotComparable", "Progress", "Rebuilt"]
