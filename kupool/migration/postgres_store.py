"""A store in PostgreSQL that takes part in a move."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from kupool.migration.notes import SELECT_NOTES, MoveNote
from kupool.migration.positions import PositionMap, mapped_marks
from kupool.migration.store import CHUNK, every_row
from kupool.migration.tables import BYTES, TEXT, TIME, Column, Row, Table
from kupool.storage.postgres.address import parse_address
from kupool.storage.postgres.blocking import connect, keep_daemons_off

#: The characters that COPY needs escaped, with their escapes.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class PostgresStore:
    """The tables of ``storage/sql/postgres``, which exist already.

    Methods raise the exceptions of psycopg2 if the database is unavailable.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._shown = parse_address(dsn).shown
        self._connection = connect(dsn)
        self._place: tuple[Any, ...] = (
            "pg",
            *self._ask(
                "SELECT pg_postmaster_start_time()::text, current_database(), current_schema()"
            )[0],
        )
        self.commit()

    def keep_daemons_off(self) -> None:
        """Lock the database until it is closed; raises
        :class:`kupool.storage.database.DatabaseUnusable`.
        """
        keep_daemons_off(self._connection, lambda: connect(self._dsn))

    @property
    def shown(self) -> str:
        """The database and its server."""
        return self._shown

    @property
    def place(self) -> tuple[Any, ...]:
        """The running server, the database and its schema, whichever address was used."""
        return self._place

    def _ask(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def rows(self, table: Table, after: Sequence[Any] | None = None) -> Iterator[list[Row]]:
        """Yield the rows of a table in the order of its key, in pieces."""
        columns = {column.name: column for column in table.columns}
        key = ", ".join(_ordered(columns[name]) for name in table.key)
        where = "" if after is None else f"WHERE ({key}) > ({_places(table, columns)}) "
        raw = [n for n, column in enumerate(table.columns) if column.kind == BYTES]
        with self._connection.cursor(f"kupool_{table.name}") as cursor:
            cursor.execute(
                f"SELECT {', '.join(map(_read, table.columns))} FROM {table.name} "
                f"{where}ORDER BY {key}",
                tuple(after or ()),
            )
            while rows := cursor.fetchmany(CHUNK):
                yield [_with_bytes(row, raw) for row in rows] if raw else rows

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows that are not there yet."""
        lines = "".join("\t".join(map(_copied, row)) + "\n" for row in rows)
        with self._connection.cursor() as cursor:
            cursor.copy_expert(
                f"COPY {table.name} ({', '.join(table.names)}) FROM STDIN", io.StringIO(lines)
            )

    def renumber(self, table: Table, positions: PositionMap) -> None:
        """Convert the positions in a table to those of another log."""
        if table.name == "log_marks":
            marks = mapped_marks(positions, every_row(self, table))
            self.clear(table)
            self.insert(table, marks)
            return
        columns = [table.columns[number].name for number in table.places]
        changes = ", ".join(f"{name} = {positions.sql(name)}" for name in columns)
        self._ask(f"UPDATE {table.name} SET {changes}")

    def clear(self, table: Table) -> None:
        """Remove all rows of a table."""
        self._ask(f"DELETE FROM {table.name}")

    def holds(self, table: Table) -> bool:
        """Say whether a table has rows."""
        return bool(self._ask(f"SELECT EXISTS (SELECT FROM {table.name})")[0][0])

    def count(self, table: Table) -> int:
        """Return how many rows a table has."""
        return int(self._ask(f"SELECT count(*) FROM {table.name}")[0][0])

    def counted(self, batch_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are counted."""
        rows = self._ask(
            "SELECT batch_id FROM applied_batches WHERE batch_id = ANY(%s::text[])",
            (list(batch_ids),),
        )
        return {batch_id for (batch_id,) in rows}

    def notes(self) -> dict[str, MoveNote]:
        """Return the store's notes about moves, by direction."""
        rows = self._ask(SELECT_NOTES)
        return {row[0]: MoveNote(*row) for row in rows}

    def note(self, note: MoveNote) -> None:
        """Save a note about a move."""
        self._ask(
            "INSERT INTO migration (direction, other, state, progress, changed_at) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (direction) DO UPDATE SET "
            "other = excluded.other, state = excluded.state, progress = excluded.progress, "
            "changed_at = excluded.changed_at",
            note,
        )

    def drop_note(self, direction: str) -> None:
        """Remove the note of that direction."""
        self._ask("DELETE FROM migration WHERE direction = %s", (direction,))

    def commit(self) -> None:
        """Commit the open transaction."""
        self._connection.commit()

    def close(self) -> None:
        """Roll back what was not committed, and disconnect."""
        self._connection.close()


def _ordered(column: Column) -> str:
    """Return an expression that orders by a column as SQLite does, byte by byte."""
    return f'{column.name} COLLATE "C"' if column.kind == TEXT else column.name


def _places(table: Table, columns: dict[str, Column]) -> str:
    return ", ".join("%s::timestamp" if columns[name].kind == TIME else "%s" for name in table.key)


def _read(column: Column) -> str:
    return f"{column.name}::text" if column.kind == TIME else column.name


def _with_bytes(row: Row, raw: Sequence[int]) -> Row:
    values = list(row)
    for number in raw:
        values[number] = None if values[number] is None else bytes(values[number])
    return tuple(values)


def _copied(value: Any) -> str:
    """Return a value in the text format of COPY."""
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    return repr(value)


__all__ = ["PostgresStore"]
