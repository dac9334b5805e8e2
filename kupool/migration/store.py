"""The interface of a store that takes part in a move: rows of its tables, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from kupool.log import Epoch, Identity, Mark
from kupool.migration.notes import MoveNote
from kupool.migration.positions import PositionMap
from kupool.migration.tables import EPOCHS, POOL, TABLES, Row, Table, named

#: Rows that are read or written at once.
CHUNK = 10_000


class Store(Protocol):
    """A store that a command has opened. All methods block, and belong to one transaction until
    :meth:`commit`.
    """

    @property
    def shown(self) -> str:
        """The store in messages, without secrets."""

    @property
    def place(self) -> tuple[Any, ...]:
        """A value that is the same for the same store."""

    def rows(self, table: Table, after: Sequence[Any] | None = None) -> Iterator[list[Row]]:
        """Yield the rows of a table after a key, in the order of the key, in pieces."""

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows that are not there yet."""

    def renumber(self, table: Table, positions: PositionMap) -> None:
        """Convert the positions in a table to those of another log."""

    def clear(self, table: Table) -> None:
        """Remove all rows of a table."""

    def holds(self, table: Table) -> bool:
        """Say whether a table has rows."""

    def count(self, table: Table) -> int:
        """Return how many rows a table has."""

    def counted(self, batch_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are counted."""

    def notes(self) -> dict[str, MoveNote]:
        """Return the store's notes about moves, by direction."""

    def note(self, note: MoveNote) -> None:
        """Save a note about a move; it replaces the note of the same direction."""

    def drop_note(self, direction: str) -> None:
        """Remove the note of that direction."""

    def commit(self) -> None:
        """Commit the open transaction."""

    def close(self) -> None:
        """Roll back what was not committed, and close the store."""


def every_row(store: Store, table: Table) -> list[Row]:
    """Return all rows of a small table."""
    return [row for rows in store.rows(table) for row in rows]


def identity_of(store: Store) -> Identity | None:
    """Return the identity of a store's pool; None if it has none."""
    pools = every_row(store, POOL)
    if not pools:
        return None
    epochs = tuple(Epoch(epoch, after) for _, epoch, after in every_row(store, EPOCHS))
    return Identity(pools[0][1], epochs)


def mark_of(store: Store) -> Mark:
    """Return the position in the log up to which everything is counted."""
    marks = every_row(store, named("log_marks"))
    return Mark(*marks[-1]) if marks else Mark(0)


def forgotten_of(store: Store) -> int:
    """Return the position up to which ids may have been forgotten."""
    rows = every_row(store, named("log_forgotten"))
    return int(rows[0][1]) if rows else 0


def newest_job(store: Store) -> int:
    """Return the highest job id that may have been used."""
    newest = [int(row[0]) for row in every_row(store, named("job_history"))]
    newest += [int(row[1]) for row in every_row(store, named("job_ids"))]
    return max(newest, default=0)


def found_in(store: Store) -> list[str]:
    """Return the names of the tables that have rows."""
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
