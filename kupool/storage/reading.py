"""Reads a SQLite file of another process without changing it.

The process that owns the file continues to write. Reading creates and updates no tables: a file of
another version is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from twisted.internet.defer import Deferred, DeferredLock, fail
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from kupool.storage.database import DatabaseClosed, DatabaseUnusable, SqliteConnection, damaged
from kupool.storage.migrations import SchemaTooNew, available
from kupool.storage.verify import is_damage

T = TypeVar("T")

#: KiB of pages that a connection keeps in memory.
CACHE = 2048

#: Seconds to wait for a lock on the file.
PATIENCE = 30.0


class SchemaTooOld(DatabaseUnusable):
    """The database was written by an older version of KuPool and is not updated yet."""


class ReadOnlyDatabase:
    """Reads a SQLite file, with the interface of :class:`kupool.storage.database.Database`.

    Work is done in a thread, in order, and not in a transaction.
    """

    def __init__(self, reactor: Any, path: Path, schema: str) -> None:
        self.reactor = reactor
        self.path = path
        self._schema = schema
        #: Why the file cannot be used now: nobody writes it here, who would have to know.
        self.problem = ""
        self._connection: SqliteConnection | None = None
        self._turn = DeferredLock()

    def open(self) -> Deferred[None]:
        """Open the file; fails with :class:`DatabaseUnusable`, also if it is damaged, with
        :class:`SchemaTooOld` or :class:`SchemaTooNew`.
        """
        return self._turn.run(self._in_thread, self._open)

    def _open(self) -> None:
        try:
            self._connection = connect_to_read(self.path)
            check_schema(self._connection, self._schema, self.path)
        except sqlite3.Error as error:
            if is_damage(error):
                raise
            raise DatabaseUnusable(f"database {self.path}: {error}") from error

    def run(
        self, call: Callable[[SqliteConnection], T], *, alone: bool = False, single: bool = False
    ) -> Deferred[T]:
        """Do some reading with the connection; not in a transaction."""
        connection = self._connection
        if connection is None:
            return fail(DatabaseClosed(f"{self.path.name} is not open"))
        return self._turn.run(self._in_thread, call, connection)

    def _in_thread(self, call: Callable[..., T], *values: Any) -> Deferred[T]:
        pool = self.reactor.getThreadPool()
        return deferToThreadPool(self.reactor, pool, call, *values).addErrback(self._named)

    def _named(self, failure: Failure) -> Failure:
        """Name the damaged file in an error, if damage is the cause."""
        if is_damage(failure.value):
            return Failure(damaged(self.path, str(failure.value)))
        return failure

    def close(self) -> Deferred[None]:
        """Close the file; may be called again."""
        return self._turn.run(self._close)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def connect_to_read(path: Path) -> SqliteConnection:
    """Open an existing SQLite file, which this connection never changes; blocks.

    A connection in write mode removes the files beside the database that it created; one in
    read-only mode would leave them.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        isolation_level=None,
        timeout=PATIENCE,
        check_same_thread=False,
        factory=SqliteConnection,
    )
    try:
        connection.execute("PRAGMA query_only=ON")
        connection.execute(f"PRAGMA cache_size=-{CACHE}")
    except BaseException:
        connection.close()
        raise
    return connection


def check_schema(connection: sqlite3.Connection, schema: str, path: Path) -> None:
    """Refuse tables of another version; raises :class:`SchemaTooOld` or :class:`SchemaTooNew`."""
    newest = available(schema)[-1][0]
    known = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name = 'schema_version'"
    ).fetchone()[0]
    version = 0
    if known:
        version = connection.execute(
            "SELECT coalesce(max(version), 0) FROM schema_version"
        ).fetchone()[0]
    if version > newest:
        raise SchemaTooNew(
            f"the {schema} database has schema version {version}, this version knows {newest}"
        )
    if version < newest:
        raise SchemaTooOld(
            f"database {path}: it has schema version {version}, this version needs {newest}; "
            "start the daemon of this version once, which updates it"
        )


__all__ = ["ReadOnlyDatabase", "SchemaTooOld", "check_schema", "connect_to_read"]
