"""Copies the tables of a store, and compares them row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator

from kupool.migration import CannotMove
from kupool.migration.positions import PositionMap, mapped_marks
from kupool.migration.progress import MoveProgress
from kupool.migration.reports import Compared, Report
from kupool.migration.store import Store, every_row
from kupool.migration.tables import TABLES, Row, Table

#: Lets other work of the process run between two pieces.
Pause = Callable[[], Awaitable[object]]

#: Saves the progress, in the transaction of the target.
Keep = Callable[[MoveProgress], None]


async def copy_tables(
    source: Store,
    target: Store,
    progress: MoveProgress,
    keep: Keep,
    *,
    report: Report,
    pause: Pause,
) -> None:
    """Copy every table, from the saved progress on; each piece is one transaction."""
    names = [table.name for table in TABLES]
    begun = names.index(progress.table) if progress.table else 0
    for table in TABLES[begun:]:
        after = progress.key if table.name == progress.table else None
        report.begin(f"Copying {table.name}", source.count(table))
        for rows, key in _pieces(source, table, progress.positions, after):
            target.insert(table, rows)
            progress.table, progress.key = table.name, list(key)
            keep(progress)
            target.commit()
            report.advance(len(rows))
            await pause()


def _pieces(
    source: Store, table: Table, positions: PositionMap, after: list[object] | None
) -> Iterator[tuple[list[Row], Row]]:
    """Yield rows with the target's positions, and the source's key of the last one."""
    if table.name == "log_marks":
        # Several rows may become one, so look at all of them together; they are few.
        rows = every_row(source, table)
        if rows and after is None:
            yield mapped_marks(positions, rows), table.key_of(rows[-1])
        return
    for rows in source.rows(table, after):
        key = table.key_of(rows[-1])
        yield ([positions.row(table, row) for row in rows] if table.holds_places else rows), key


async def compare_tables(
    source: Store, target: Store, positions: PositionMap, *, report: Report, pause: Pause
) -> list[Compared]:
    """Compare every table, row by row; raises :class:`CannotMove` at the first difference."""
    found = []
    for table in TABLES:
        report.begin(f"Comparing {table.name}", 2 * source.count(table))
        theirs = await fold(source, table, positions, report=report, pause=pause)
        source.commit()  # a server does not wait for ever for the end of a transaction
        ours = await fold(target, table, None, report=report, pause=pause)
        target.commit()
        if theirs != ours:
            raise CannotMove(
                f"table {table.name} differs: {_shown(theirs)} in {source.shown}, "
                f"{_shown(ours)} in {target.shown}; empty the target and start again"
            )
        found.append(theirs)
    return found


async def fold(
    store: Store, table: Table, positions: PositionMap | None, *, report: Report, pause: Pause
) -> Compared:
    """Return the number, the sum and a checksum of the rows, with the target's positions."""
    digest, count, total = hashlib.sha256(), 0, 0
    summed = table.names.index(table.summed) if table.summed else -1
    pieces: Iterator[list[Row]]
    if positions is None:
        pieces = store.rows(table)
    else:
        pieces = (rows for rows, _ in _pieces(store, table, positions, None))
    for rows in pieces:
        for row in rows:
            digest.update(repr(row).encode("utf-8", "surrogatepass"))
        count += len(rows)
        total += sum(row[summed] for row in rows) if table.summed else 0
        report.advance(len(rows))
        await pause()
    return Compared(table.name, count, total if table.summed else None, digest.hexdigest())


async def renumber_tables(
    store: Store, positions: PositionMap, report: Report, pause: Pause
) -> list[Compared]:
    """Convert all positions in a store to those of another log, in the open transaction.

    Raises :class:`CannotMove` if the rows are not as expected afterwards.
    """
    found = []
    for table in TABLES:
        if not table.holds_places:
            continue
        report.begin(f"Renumbering {table.name}", 2 * store.count(table))
        theirs = await fold(store, table, positions, report=report, pause=pause)
        store.renumber(table, positions)
        ours = await fold(store, table, None, report=report, pause=pause)
        if theirs != ours:
            raise CannotMove(f"table {table.name} could not be renumbered; nothing was changed")
        found.append(theirs)
    return found


def _shown(found: Compared) -> str:
    total = "" if found.total is None else f" with {found.total} in all"
    return f"{found.number} rows{total} ({found.checksum[:12]})"


__all__ = ["Keep", "Pause", "compare_tables", "copy_tables", "fold", "renumber_tables"]
