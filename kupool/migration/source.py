"""Checks whether a pool can be moved: log and store fit together, and everything is counted.

Only the daemon counts: it knows its queue, its spool and its database, and counts exactly once. If
something is not counted, the daemon has to be started and stopped once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kupool.log import Entry, Extent, IdentityMismatch, StoreState, reconcile
from kupool.migration import CannotMove
from kupool.migration.log_copy import Entries
from kupool.migration.logs import ENTRIES, LogSide
from kupool.migration.progress import MoveProgress
from kupool.migration.store import (
    Store,
    forgotten_of,
    identity_of,
    mark_of,
    newest_job,
)
from kupool.migration.tables import TABLES, named
from kupool.wire.batches import PoisonBatch, decode_head

_REMEDY = "start the daemon with the old settings once more, and stop it with SIGTERM"


async def examine(store: Store, log: Any, side: LogSide, new_id: Any) -> MoveProgress:
    """Return what is to be moved; raises :class:`CannotMove` if not all of it is counted.

    ``log`` is the ``ILog``, opened. ``side`` is the same log as a :class:`LogSide`.
    """
    identity = identity_of(store)
    mark = mark_of(store)
    if identity is None and not any(store.holds(table) for table in TABLES):
        raise CannotMove(f"{store.shown} has nothing to move")
    if identity is None:
        raise CannotMove(f"{store.shown} is of a release before: {_REMEDY}, which upgrades it")
    extent: Extent = await log.extent(identity, mark)
    holds = store.holds(named("applied_batches")) or store.holds(named("job_history"))
    state = StoreState(identity, mark, forgotten_of(store), holds)
    try:
        plan = reconcile(extent, state, new_id)
    except IdentityMismatch as error:
        raise CannotMove(str(error)) from None
    if plan.identity != identity or plan.gap is not None or not plan.keep_jobs:
        raise CannotMove(f"{plan.text or 'log and store do not fit together'}: {_REMEDY}")
    waiting = await side.waiting()
    missing = await _uncounted(store, log, side, mark.position)
    if waiting or missing:
        number = max(waiting, missing)
        raise CannotMove(f"{number} entries of {side.shown} are not counted yet: {_REMEDY}")
    return MoveProgress(
        source="",
        target="",
        pool_id=identity.pool_id,
        epochs=[(epoch.epoch, epoch.begins_after) for epoch in identity.epochs],
        first=extent.first,
        last=extent.last,
        mark=mark.position,
        newest_job=newest_job(store),
    )


async def _uncounted(store: Store, log: Any, side: LogSide, mark: int) -> int:
    """Return how many entries above the mark are neither counted nor dead letters."""
    entries = Entries(log, mark)
    missing: list[Entry] = []
    while piece := await entries.piece():
        missing += _not_counted(store, piece)
        if len(missing) > ENTRIES:
            return len(missing)
    if missing:
        dead = {letter.entry_id async for letter in side.dead_letters()}
        missing = [entry for entry in missing if entry.entry_id not in dead]
    return len(missing)


def _not_counted(store: Store, entries: Sequence[Entry]) -> list[Entry]:
    wanted: dict[str, Entry] = {}
    missing = []
    for entry in entries:
        try:
            head = decode_head(entry.body)
        except PoisonBatch:
            missing.append(entry)
            continue
        if head.usernames:  # no other entry has anything to count
            wanted[head.batch] = entry
    counted = store.counted(list(wanted))
    return missing + [entry for name, entry in wanted.items() if name not in counted]


__all__ = ["examine"]
