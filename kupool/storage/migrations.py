"""Numbered SQL files, applied in order, each once."""

from __future__ import annotations

import re
import sqlite3
from contextlib import suppress
from importlib.resources import files

_NAME = re.compile(r"(\d{4})_\w+\.sql")


#: The table of counts that is needed, and what to do if an existing one is different.
EXPECTED_SUBMISSIONS = (
    "expected is (username VARCHAR(255), timestamp TIMESTAMP, submission_count INT, "
    "PRIMARY KEY (username, timestamp)): rename it or change it"
)

#: The accepted types of its columns in SQLite.
_SUBMISSIONS = {
    "username": re.compile("(VAR)?CHAR|TEXT"),
    "timestamp": re.compile("TIMESTAMP|DATETIME|TEXT"),
    "submission_count": re.compile("(BIG)?INT"),
}


#: The statements of a migration that fill the tables of days from the other counts. They may be
#: executed again.
FILLS = re.compile(
    r"^(?:UPDATE|INSERT INTO|DELETE FROM|LOCK TABLE) (?:daily_\w+|rollups)\b", re.MULTILINE
)


class SchemaTooNew(Exception):
    """The database was written by a newer version of KuPool."""


def available(schema: str) -> list[tuple[int, str]]:
    """Return the migrations of a schema as (number, SQL), in order."""
    found = []
    for file in files("kupool.storage").joinpath("sql", schema).iterdir():
        match = _NAME.fullmatch(file.name)
        if match is not None:
            found.append((int(match[1]), file.read_text("utf-8")))
    return sorted(found)


def migrate(connection: sqlite3.Connection, schema: str) -> None:
    """Apply the missing migrations to a SQLite database; raises :class:`SchemaTooNew`, and
    :class:`sqlite3.NotSupportedError` if an existing table of counts is unsuitable.
    """
    _check_shape(connection)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_version ("
        "version INTEGER PRIMARY KEY, applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    )
    row = connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
    migrations = available(schema)
    newest = migrations[-1][0]
    if row[0] > newest:
        raise SchemaTooNew(
            f"the {schema} database has schema version {row[0]}, this version knows {newest}"
        )
    for number, sql in migrations:
        if number > row[0]:
            _apply(connection, number, sql)


def _check_shape(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA table_info(submissions)").fetchall()
    if not found:
        return
    columns = {name: (kind, needed, key) for _, name, kind, needed, _, key in found}
    for name, kinds in _SUBMISSIONS.items():
        if name not in columns:
            raise _unfit(f"has no column {name}")
        if kinds.match(columns[name][0].upper()) is None:
            raise _unfit(f"has a column {name} of type {columns[name][0]}")
    for _, name, _, needed, default, _ in found:
        if needed and default is None and name not in _SUBMISSIONS:
            raise _unfit(f"has a column {name} that may not be empty")
    keys = [name for name, (_, _, key) in columns.items() if key]
    if sorted(keys) != ["timestamp", "username"]:
        raise _unfit(f"has the primary key ({', '.join(keys)})" if keys else "has no primary key")


def _unfit(what: str) -> sqlite3.NotSupportedError:
    return sqlite3.NotSupportedError(f"the table submissions {what}; {EXPECTED_SUBMISSIONS}")


def _apply(connection: sqlite3.Connection, number: int, sql: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been faster. From here on nobody else writes.
        done = connection.execute(
            "SELECT 1 FROM schema_version WHERE version = ?", (number,)
        ).fetchone()
        if done is None:
            for statement in statements(sql):
                connection.execute(statement)
            connection.execute("INSERT INTO schema_version (version) VALUES (?)", (number,))
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


def statements(sql: str) -> list[str]:
    """Split a migration into its statements; each ends with a semicolon at a line's end.

    Raises :class:`ValueError` if the last one does not end.
    """
    found, pending = [], ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    if any(line.strip() and not line.lstrip().startswith("--") for line in pending.splitlines()):
        raise ValueError(f"a statement of the migration does not end: {pending.strip()}")
    return found
