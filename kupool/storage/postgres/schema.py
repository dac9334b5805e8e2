"""The tables of a PostgreSQL database: creates, updates and checks them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, execute

from kupool.storage.database import DatabaseUnusable
from kupool.storage.migrations import (
    EXPECTED_SUBMISSIONS,
    FILLS,
    SchemaTooNew,
    available,
    statements,
)

#: The lock while tables are created or changed: "kupool" in ASCII, and a number.
MIGRATION_LOCK = 0x6B75706F6F6C << 8

#: The rights on its tables that the daemon needs.
_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


#: Matches a statement of a migration, after its comments, and its table.
_OF_TABLE = re.compile(
    r"^(?:CREATE TABLE IF NOT EXISTS|ALTER TABLE|CREATE INDEX IF NOT EXISTS \w+ ON) (\w+)",
    re.MULTILINE,
)


class BlockingCursor:
    """A cursor of psycopg2 with the interface of txpostgres: its Deferreds have fired already."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def execute(self, query: str, values: Sequence[object] | None = None) -> Deferred[None]:
        """Execute a statement; blocks."""
        return execute(self._cursor.execute, query, values)

    def fetchone(self) -> Any:
        """Return the next row."""
        return self._cursor.fetchone()

    def fetchall(self) -> Any:
        """Return the rows that are left."""
        return self._cursor.fetchall()


async def prepare(cursor: Any, schema: str, *, update: bool = True) -> None:
    """Create or update the tables, in the cursor's transaction, and check that they can be used.

    Raises :class:`DatabaseUnusable` or :class:`SchemaTooNew`. Without ``update``, tables of an
    older version are refused.
    """
    await cursor.execute(
        "SELECT current_setting('server_encoding'), current_setting('transaction_read_only')"
    )
    encoding, read_only = cursor.fetchone()
    if encoding != "UTF8":
        raise DatabaseUnusable(f"the encoding of the database is {encoding}, it must be UTF8")
    if read_only == "on":
        raise DatabaseUnusable("the database is read-only: a standby, or set so")
    if not await _version(cursor):
        await _check_shape(cursor)
    await _migrate(cursor, schema, update)
    await _check_privileges(cursor)


#: Settings of a server without which it may lose a commit that it has confirmed.
_SAFE = ("fsync", "full_page_writes", "synchronous_commit")


async def unsafe_settings(cursor: Any) -> list[str]:
    """Return the settings that are off and have to be on for durable commits."""
    await cursor.execute(
        "SELECT name FROM pg_settings WHERE name = ANY(%s) AND setting = 'off' ORDER BY name",
        (list(_SAFE),),
    )
    return [name for (name,) in cursor.fetchall()]


#: The table that another program may have created, and the accepted types of its columns.
_SUBMISSIONS = {
    "username": ("character varying", "text"),
    "timestamp": ("timestamp without time zone",),
    "submission_count": ("integer", "bigint"),
}

_SHORTEST_NAME = 255


async def _check_shape(cursor: Any) -> None:
    """Check whether an existing table of counts can be used."""
    await cursor.execute("SELECT relkind FROM pg_class WHERE oid = to_regclass('submissions')")
    row = cursor.fetchone()
    if row is None:
        return
    if row[0] not in ("r", "p"):
        raise _unfit("is not a table")
    await cursor.execute(
        "SELECT attname, format_type(atttypid, NULL), "
        "CASE WHEN atttypid = 'varchar'::regtype AND atttypmod > 4 THEN atttypmod - 4 END, "
        "attnotnull AND NOT atthasdef AND attidentity = '' AND attgenerated = '' "
        "FROM pg_attribute WHERE attrelid = to_regclass('submissions') AND attnum > 0 "
        "AND NOT attisdropped"
    )
    columns = {name: tuple(rest) for name, *rest in cursor.fetchall()}
    for name, kinds in _SUBMISSIONS.items():
        if name not in columns:
            raise _unfit(f"has no column {name}")
        kind, length, _ = columns[name]
        if kind not in kinds or (length is not None and length < _SHORTEST_NAME):
            shown = kind if length is None else f"{kind}({length})"
            raise _unfit(f"has a column {name} of type {shown}")
    for name, (_, _, wanted) in columns.items():
        if wanted and name not in _SUBMISSIONS:
            raise _unfit(f"has a column {name} that may not be empty")
    await cursor.execute(
        "SELECT attname FROM pg_constraint, unnest(conkey) AS key (number), pg_attribute "
        "WHERE conrelid = to_regclass('submissions') AND contype = 'p' "
        "AND attrelid = conrelid AND attnum = key.number ORDER BY attnum"
    )
    key = [name for (name,) in cursor.fetchall()]
    if sorted(key) != ["timestamp", "username"]:
        raise _unfit(f"has the primary key ({', '.join(key)})" if key else "has no primary key")


def _unfit(what: str) -> DatabaseUnusable:
    return DatabaseUnusable(
        f"the table submissions {what}; {EXPECTED_SUBMISSIONS}, or use another database or schema"
    )


async def _migrate(cursor: Any, schema: str, update: bool) -> None:
    """Apply the missing migrations. If none is missing, no right to create tables is needed."""
    migrations = available(schema)
    newest = migrations[-1][0]
    version = await _version(cursor)
    if version > newest:
        raise SchemaTooNew(
            f"the database has schema version {version}, this version knows {newest}"
        )
    if version == newest:
        return
    if not update:
        raise DatabaseUnusable(
            f"the database has schema version {version}, this version needs {newest}; start the "
            "daemon of this version once, which updates it"
        )
    await cursor.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
    await cursor.execute(
        "CREATE TABLE IF NOT EXISTS schema_version (version INT PRIMARY KEY, "
        "applied_at TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'))"
    )
    # Another process may have been faster; only that statement showed its work.
    version = await _version(cursor)
    for number, sql in migrations:
        if number > version:
            await cursor.execute(sql)
            await cursor.execute("INSERT INTO schema_version (version) VALUES (%s)", (number,))


async def _version(cursor: Any) -> int:
    await cursor.execute("SELECT to_regclass('schema_version') IS NOT NULL")
    if not cursor.fetchone()[0]:
        return 0
    await cursor.execute("SELECT coalesce(max(version), 0) FROM schema_version")
    return int(cursor.fetchone()[0])


#: The tables of topics in RabbitMQ.
TOPIC_TABLES = (
    "log_topics",
    "log_lows",
    "log_group_positions",
    "log_groups",
    "log_group_leases",
    "log_delays",
    "log_once",
    "log_identity",
)

#: The tables that the daemon writes to.
TABLES = (
    "submissions",
    "worker_submissions",
    "submissions_hour",
    "submissions_day",
    "worker_submissions_hour",
    "worker_submissions_day",
    "rejections",
    "worker_rejections",
    "daily_users",
    "daily_workers",
    "rejection_flushes",
    "applied_batches",
    "job_history",
    "job_ids",
    "rollups",
    "pool_identity",
    "log_epochs",
    "log_marks",
    "log_forgotten",
    "log_gaps",
    "counted_minutes",
    "rebuilds",
    "retention_clock",
    "migration",
    "owner",
    *TOPIC_TABLES,
)


async def missing(cursor: Any) -> list[str]:
    """Return the tables that do not exist, for example because one was dropped."""
    await cursor.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NULL",
        (list(TABLES),),
    )
    return [name for (name,) in cursor.fetchall()]


async def revive(cursor: Any, schema: str) -> None:
    """Create tables again that were dropped; the others are not touched."""
    dropped = await missing(cursor)
    if not dropped:
        return
    for _, sql in available(schema):
        for statement in statements(sql):
            if _table(statement) in dropped or FILLS.search(statement):
                await cursor.execute(statement)


def _table(statement: str) -> str:
    """Return the table that a statement of a migration creates or changes."""
    found = _OF_TABLE.search(statement)
    return found[1] if found is not None else ""


async def _check_privileges(cursor: Any) -> None:
    await cursor.execute(
        "SELECT current_user, privilege, string_agg(name, ', ') "
        "FROM unnest(%s::text[]) AS name, unnest(%s::text[]) AS privilege "
        "WHERE to_regclass(name) IS NOT NULL AND NOT has_table_privilege(name, privilege) "
        "GROUP BY privilege ORDER BY privilege LIMIT 1",
        (list(TABLES), list(_PRIVILEGES)),
    )
    for user, privilege, names in cursor.fetchall():
        raise DatabaseUnusable(f"user {user} has no permission to {privilege} on {names}")
