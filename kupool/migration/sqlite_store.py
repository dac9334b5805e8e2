"""A store in a SQLite file that takes part in a move."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kupool.migration.notes import SELECT_NOTES, MoveNote
from kupool.migration.positions import PositionMap, mapped_marks
from kupool.migration.store import CHUNK, every_row
from kupool.migration.tables import FLAG, Row, Table
from kupool.storage.database import connect

#: Values in one statement: every SQLite accepts 999.
_VALUES = 900


class SqliteStore:
    """The tables of ``storage/sql/store``, which exist already."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection = connect(path)

    @property
    def shown(self) -> str:
        """The file."""
        return str(self._path)

    @property
    def place(self) -> tuple[Any, ...]:
        """The file, whichever path was used."""
        return ("sqlite", str(self._path.resolve()))

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        # A cursor for each call, because rows are read while others are written.
        return self._connection.cursor().execute(statement, values)

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._execute("BEGIN IMMEDIATE")

    def rows(self, table: Table, after: Sequence[Any] | None = None) -> Iterator[list[Row]]:
        """Yield the rows of a table in the order of its key, in pieces."""
        key = ", ".join(table.key)
        where = "" if after is None else f"WHERE ({key}) > ({_marks(len(table.key))}) "
        cursor = self._execute(
            f"SELECT {', '.join(table.names)} FROM {table.name} {where}ORDER BY {key}",
            tuple(after or ()),
        )
        flags = [n for n, column in enumerate(table.columns) if column.kind == FLAG]
        while rows := cursor.fetchmany(CHUNK):
            yield [_with_flags(row, flags) for row in rows] if flags else rows

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows that are not there yet."""
        self._begin()
        self._connection.cursor().executemany(
            f"INSERT INTO {table.name} ({', '.join(table.names)}) "
            f"VALUES ({_marks(len(table.columns))})",
            rows,
        )

    def renumber(self, table: Table, positions: PositionMap) -> None:
        """Convert the positions in a table to those of another log."""
        if table.name == "log_marks":
            marks = mapped_marks(positions, every_row(self, table))
            self.clear(table)
            self.insert(table, marks)
            return
        self._begin()
        columns = [table.columns[number].name for number in table.places]
        changes = ", ".join(f"{name} = {positions.sql(name)}" for name in columns)
        self._execute(f"UPDATE {table.name} SET {changes}")

    def clear(self, table: Table) -> None:
        """Remove all rows of a table."""
        self._begin()
        self._execute(f"DELETE FROM {table.name}")

    def holds(self, table: Table) -> bool:
        """Say whether a table has rows."""
        (holds,) = self._execute(f"SELECT EXISTS (SELECT 1 FROM {table.name})").fetchone()
        return bool(holds)

    def count(self, table: Table) -> int:
        """Return how many rows a table has."""
        (count,) = self._execute(f"SELECT count(*) FROM {table.name}").fetchone()
        return int(count)

    def counted(self, batch_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are counted."""
        found: set[str] = set()
        for start in range(0, len(batch_ids), _VALUES):
            part = batch_ids[start : start + _VALUES]
            rows = self._execute(
                f"SELECT batch_id FROM applied_batches WHERE batch_id IN ({_marks(len(part))})",
                part,
            )
            found.update(batch_id for (batch_id,) in rows)
        return found

    def notes(self) -> dict[str, MoveNote]:
        """Return the store's notes about moves, by direction."""
        rows = self._execute(SELECT_NOTES)
        return {row[0]: MoveNote(*row) for row in rows}

    def note(self, note: MoveNote) -> None:
        """Save a note about a move."""
        self._begin()
        self._execute(
            "INSERT OR REPLACE INTO migration (direction, other, state, progress, changed_at) "
            "VALUES (?, ?, ?, ?, ?)",
            note,
        )

    def drop_note(self, direction: str) -> None:
        """Remove the note of that direction."""
        self._begin()
        self._execute("DELETE FROM migration WHERE direction = ?", (direction,))

    def commit(self) -> None:
        """Commit the open transaction."""
        if self._connection.in_transaction:
            self._execute("COMMIT")

    def close(self) -> None:
        """Roll back what was not committed, and close the file."""
        self._connection.close()


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _with_flags(row: Row, flags: Sequence[int]) -> Row:
    values = list(row)
    for number in flags:
        values[number] = None if values[number] is None else bool(values[number])
    return tuple(values)


__all__ = ["SqliteStore"]
