"""Counts made again from the log, and compared with it: rebuild and audit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kupool.log import ILog
from kupool.stats import BatchCounts, IStatsStore, MinuteCount
from kupool.stats.fold import as_rows, fold_entry, fold_rows
from kupool.wire.batches import PoisonBatch

CHUNK = 500

#: Called with (entries read, entries in all).
Progress = Callable[[int, int], None]


class Replayed(NamedTuple):
    """The batches of a log. ``start`` is the first minute that it holds completely,
    in seconds since the epoch.
    """

    batches: list[BatchCounts]
    position: int
    start: int
    poisoned: int


class Difference(NamedTuple):
    """A row whose count differs: 0 where the row is missing."""

    username: str
    worker: str
    minute: int
    logged: int
    counted: int


class RebuildGaveUp(Exception):
    """The daemon counted faster than the log could be read again."""


async def replay(
    log: ILog, progress: Progress = lambda done, total: None, since: Replayed | None = None
) -> Replayed:
    """Read a log from its beginning, or on from what was read before."""
    source: Any = log
    batches = {} if since is None else {b.batch_id: b for b in since.batches}
    position = 0 if since is None else since.position
    start = None if since is None else since.start
    poisoned = 0 if since is None else since.poisoned
    last = source.status().appended
    while True:
        entries = await source.read(position, CHUNK)
        if not entries:
            return Replayed(list(batches.values()), position, start or 0, poisoned)
        if start is None:
            # What was trimmed may have belonged to the minute of the first entry.
            first = entries[0]
            start = 0 if first.position == 1 else (int(first.appended_at) // 60 + 1) * 60
        for entry in entries:
            try:
                batch = fold_entry(entry.body)
            except PoisonBatch:
                poisoned += 1
                continue
            batches.setdefault(batch.batch_id, batch)
        position = entries[-1].position
        progress(position, max(last, position))


async def rebuild(
    log: ILog, store: IStatsStore, progress: Progress = lambda done, total: None
) -> int:
    """Make the per-minute rows again from the log; returns how many batches that took.

    Works while the daemon runs: what it counts meanwhile is read as well. Raises
    :class:`RebuildGaveUp` when that does not come to an end.
    """
    target: Any = store
    replayed = await replay(log, progress)
    for _ in range(20):
        if await target.replace(replayed.start, replayed.batches):
            return len(replayed.batches)
        replayed = await replay(log, progress, replayed)
    raise RebuildGaveUp("the log grew faster than it could be read; try again")


async def audit(
    log: ILog,
    store: IStatsStore,
    start: int,
    end: int,
    progress: Progress = lambda done, total: None,
) -> tuple[list[Difference], int, int]:
    """Compare log and per-minute rows in a range of minutes.

    Returns the differences, and the range that could be compared: it begins where the
    log is complete and the rows are not rolled up, and ends before the first minute
    with a batch that waits to be counted.
    """
    target: Any = store
    replayed = await replay(log, progress)
    waiting = set(await target.unapplied([b.batch_id for b in replayed.batches]))
    start = max(start, replayed.start, await target.rolled_up_before())
    end = min([end, *(b.minute for b in replayed.batches if b.batch_id in waiting)])
    chosen = [b for b in replayed.batches if start <= b.minute < end]
    logged = {_key(row): row.submissions for row in as_rows(fold_rows(chosen))}
    counted = {_key(row): row.submissions for row in await target.rows(start, end)}
    differences = [
        Difference(*key, logged.get(key, 0), counted.get(key, 0))
        for key in sorted(logged.keys() | counted.keys())
        if logged.get(key, 0) != counted.get(key, 0)
    ]
    return differences, start, end


def _key(row: MinuteCount) -> tuple[str, str, int]:
    return row.username, row.worker, row.minute


__all__ = ["Difference", "RebuildGaveUp", "Replayed", "audit", "rebuild", "replay"]
