"""Every table of a store that is moved, described once for both SQL engines. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

#: Kinds of values during a move: ``str``, ``int``, ``float``, ``bytes``, a time as ``str`` in UTC,
#: and a truth value as ``bool``. Each may be None.
TEXT, INTEGER, REAL, BYTES, TIME, FLAG = "text", "integer", "real", "bytes", "time", "flag"

#: A row, its values in the order of the table's columns.
Row = tuple[Any, ...]


class Column(NamedTuple):
    """A column; ``place`` says whether it holds a position in the log."""

    name: str
    kind: str
    place: bool = False


@dataclass(frozen=True)
class Table:
    """A table, and the columns that make up its key.

    ``summed`` is the column of which the sum is shown, empty for none.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    summed: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def places(self) -> tuple[int, ...]:
        """The indices of the columns that hold positions."""
        return tuple(n for n, column in enumerate(self.columns) if column.place)

    @property
    def holds_places(self) -> bool:
        """Whether any column holds a position."""
        return bool(self.places)

    def key_of(self, row: Row) -> Row:
        """Return the key of a row."""
        return tuple(row[self.names.index(name)] for name in self.key)


def _counts(name: str) -> Table:
    workers = (Column("worker", TEXT),) if name.startswith("worker") else ()
    columns = (
        Column("username", TEXT),
        *workers,
        Column("timestamp", TIME),
        Column("submission_count", INTEGER),
    )
    return Table(name, tuple(c.name for c in columns[:-1]), columns, "submission_count")


def _days(name: str) -> Table:
    workers = (Column("worker", TEXT),) if name.endswith("workers") else ()
    key = (Column("day", TIME), Column("username", TEXT), *workers)
    columns = (
        *key,
        Column("accepted", INTEGER),
        Column("rejected", INTEGER),
        Column("last_minute", TIME),
    )
    return Table(name, tuple(column.name for column in key), columns, "accepted")


def _one_row(name: str, *columns: Column) -> Table:
    return Table(name, ("only_row",), (Column("only_row", INTEGER), *columns))


#: The tables that are moved, in this order.
TABLES = (
    *map(
        _counts,
        (
            "submissions",
            "worker_submissions",
            "submissions_hour",
            "submissions_day",
            "worker_submissions_hour",
            "worker_submissions_day",
        ),
    ),
    Table(
        "rejections",
        ("username", "code", "timestamp"),
        (
            Column("username", TEXT),
            Column("code", INTEGER),
            Column("timestamp", TIME),
            Column("rejection_count", INTEGER),
        ),
        "rejection_count",
    ),
    Table(
        "worker_rejections",
        ("username", "worker", "code", "timestamp"),
        (
            Column("username", TEXT),
            Column("worker", TEXT),
            Column("code", INTEGER),
            Column("timestamp", TIME),
            Column("rejection_count", INTEGER),
        ),
        "rejection_count",
    ),
    _days("daily_users"),
    _days("daily_workers"),
    Table(
        "applied_batches",
        ("batch_id",),
        (
            Column("batch_id", TEXT),
            Column("digest", BYTES),
            Column("minute", TIME),
            Column("applied_at", TIME),
            Column("position", INTEGER, place=True),
        ),
    ),
    Table(
        "job_history",
        ("job_id",),
        (
            Column("job_id", INTEGER),
            Column("server_nonce", TEXT),
            Column("created_at", REAL),
            Column("log_position", INTEGER, place=True),
            Column("boot_id", TEXT),
            Column("boot_seconds", REAL),
        ),
    ),
    _one_row("job_ids", Column("reserved_until", INTEGER)),
    Table("rollups", ("grain",), (Column("grain", TEXT), Column("before", TIME))),
    Table(
        "log_marks",
        ("position",),
        (Column("position", INTEGER, place=True), Column("entry_id", TEXT)),
    ),
    _one_row("log_forgotten", Column("position", INTEGER, place=True)),
    # Lost positions do not change: they belong to an earlier epoch.
    Table(
        "log_gaps",
        ("first_position",),
        (
            Column("first_position", INTEGER),
            Column("last_position", INTEGER),
            Column("found_at", INTEGER),
            Column("reason", TEXT),
        ),
    ),
    Table(
        "counted_minutes",
        ("minute",),
        (
            Column("minute", INTEGER),
            Column("after_position", INTEGER, place=True),
            Column("to_position", INTEGER, place=True),
        ),
    ),
    _one_row("rebuilds", Column("serial", INTEGER)),
    _one_row("retention_clock", Column("seconds", REAL)),
)

#: The identity of the pool comes last: a store without it is not complete.
POOL = _one_row("pool_identity", Column("pool_id", TEXT), Column("taken_over_before", INTEGER))
EPOCHS = Table(
    "log_epochs",
    ("number",),
    (Column("number", INTEGER), Column("epoch", TEXT), Column("begins_after", INTEGER)),
)

#: Tables that are not moved: they are about one process, or about the tables themselves.
LEFT = ("schema_version", "migration", "rejection_flushes", "owner")


def named(name: str) -> Table:
    """Return the table of a name; raises :class:`KeyError`."""
    return {table.name: table for table in (*TABLES, POOL, EPOCHS)}[name]


__all__ = [
    "BYTES",
    "EPOCHS",
    "FLAG",
    "INTEGER",
    "LEFT",
    "POOL",
    "REAL",
    "TABLES",
    "TEXT",
    "TIME",
    "Column",
    "Row",
    "Table",
    "named",
]
