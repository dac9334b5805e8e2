"""A store as a move sees it: rows of described tables, read and written in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from kupool.log import Epoch, Identity, Mark
from kupool.migration.notes import MoveNote
from kupool.migration.positions import PositionMap
from kupool.migration.tables import EPOCHS, POOL, TABLES, Row, Table, named

#: Rows that are read, and written, in one piece.
CHUNK = 10_000


class Store(Protocol):
    """A store, opened by a command. All of it blocks, and is in one transaction until
    :meth:`commit`.
    """

    @property
    def shown(self) -> str:
        """The store in messages, without secrets."""

    @property
    def place(self) -> tuple[Any, ...]:
        """What two stores that are the same have in common."""

    def rows(self, table: Table, after: Sequence[Any] | None = None) -> Iterator[list[Row]]:
        """Yield the rows of a table in the order of its key, in pieces, from after a key."""

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows, none of which is there."""

    def renumber(self, table: Table, positions: PositionMap) -> None:
        """Turn the positions in a table into those of another log."""

    def clear(self, table: Table) -> None:
        """Remove all rows of a table."""

    def holds(self, table: Table) -> bool:
        """Say whether a table has rows."""

    def count(self, table: Table) -> int:
        """Return how many rows a table has."""

    def counted(self, batch_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that were counted."""

    def notes(self) -> dict[str, MoveNote]:
        """Return what the store says of moves, by direction."""

    def note(self, note: MoveNote) -> None:
        """Say something of a move, in the place of what was said of that direction."""

    def drop_note(self, direction: str) -> None:
        """Say nothing more of that direction."""

    def commit(self) -> None:
        """Keep what was done."""

    def close(self) -> None:
        """Undo what was not kept, and let the store go."""


def every_row(store: Store, table: Table) -> list[Row]:
    """Return all rows of a small table."""
    return [row for rows in store.rows(table) for row in rows]


def identity_of(store: Store) -> Identity | None:
    """Return of which pool a store is; None where it does not say so."""
    pools = every_row(store, POOL)
    if not pools:
        return None
    epochs = tuple(Epoch(epoch, after) for _, epoch, after in every_row(store, EPOCHS))
    return Identity(pools[0][1], epochs)


def mark_of(store: Store) -> Mark:
    """Return the place in the log up to which everything is counted."""
    marks = every_row(store, named("log_marks"))
    return Mark(*marks[-1]) if marks else Mark(0)


def forgotten_of(store: Store) -> int:
    """Return the position up to which ids may have been forgotten."""
    rows = every_row(store, named("log_forgotten"))
    return int(rows[0][1]) if rows else 0


def newest_job(store: Store) -> int:
    """Return the highest id of a job that may have been given out."""
    newest = [int(row[0]) for row in every_row(store, named("job_history"))]
    newest += [int(row[1]) for row in every_row(store, named("job_ids"))]
    return max(newest, default=0)


def found_in(store: Store) -> list[str]:
    """Return the names of the tables that hold anything."""
    return [table.name for table in (*TABLES, POOL, EPOCHS) if store.holds(table)]


__all__ = [
    "CHUNK",
    "Store",
    "every_row",
    "forgotten_of",
    "found_in",
    "identity_of",
    "mark_of",
    "newest_job",
]
