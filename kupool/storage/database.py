"""A SQLite database behind one thread of its own, with group commit.

Work is queued from the reactor and done in order. What has gathered while one
transaction was written goes into the next as a whole, so that the cost of making
bytes durable is shared by all who wait for it. Nothing of it runs on the reactor.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from kupool.storage.migrations import migrate

T = TypeVar("T")

#: Pieces of work that share one transaction at the most.
GROUP = 256

#: Errors of the file as a whole, which no other work would be spared.
_OF_THE_FILE = frozenset(
    (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )
)


class DatabaseClosed(Exception):
    """The database is not open."""


class DatabaseUnusable(Exception):
    """The file cannot be used as a database; says which and why."""


class Connection(sqlite3.Connection):
    """A connection with one cursor for all: read a result before the next ``execute``.

    Python's own makes a cursor for each, and keeps a weak reference to it until there
    are two hundred: scattered as those are, each can keep a megabyte of freed memory
    from going back to the system.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cursor = self.cursor()
        self.execute = cursor.execute  # type: ignore[method-assign]
        self.executemany = cursor.executemany  # type: ignore[method-assign]


class _Work(NamedTuple):
    call: Callable[[Connection], Any]
    done: Deferred[Any]
    alone: bool
    single: bool


class Database:
    """A SQLite file, written ahead and, with ``synchronous`` FULL, durably.

    ``schema`` names the folder of numbered migrations under ``kupool/storage/sql``.
    Calls return Deferreds that fire on the reactor; what a piece of work raises comes
    back through its own.
    """

    def __init__(self, reactor: Any, path: Path, schema: str, synchronous: str = "FULL") -> None:
        self._reactor = reactor
        self.path = path
        self._schema = schema
        self._synchronous = synchronous
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed: Deferred[None] | None = None
        #: Taken from the queue by the thread, and left for its next transaction.
        self._next: _Work | None = None

    def check(self) -> None:
        """Open the file, make or update its tables, and close it again; blocks.

        Raises what :meth:`open` fails with.
        """
        self._connect().close()

    def open(self) -> Deferred[None]:
        """Open the file, make or update its tables; fires when it can be used.

        Fails with :class:`DatabaseUnusable`, or with
        :class:`kupool.storage.migrations.SchemaTooNew`.
        """
        opened: Deferred[None] = Deferred()
        self._thread = threading.Thread(
            target=self._run, args=(opened,), name=f"sqlite-{self.path.stem}", daemon=True
        )
        self._thread.start()
        return opened

    def run(
        self,
        call: Callable[[Connection], T],
        *,
        alone: bool = False,
        single: bool = False,
    ) -> Deferred[T]:
        """Do some work in a transaction, shared with others unless it must be ``alone``.

        ``call`` gets the connection and runs in the database's thread. When the
        transaction cannot be written, the Deferred fails and nothing of it remains.
        ``single`` says that the work is one statement: with nothing to share it with,
        that is a transaction by itself, which costs less than one around it.
        """
        if self._thread is None or self._closed is not None:
            return fail(DatabaseClosed(f"{self.path.name} is not open"))
        done: Deferred[T] = Deferred()
        self._queue.put(_Work(call, done, alone, single))
        return done

    def close(self) -> Deferred[None]:
        """Finish what is queued and close the file; may be called again."""
        if self._closed is None:
            self._closed = Deferred()
            if self._thread is None:
                self._closed.callback(None)
            else:
                self._queue.put(None)
        waiter: Deferred[None] = Deferred()
        self._closed.addBoth(lambda _: waiter.callback(None))
        return waiter

    def _not_opened(self, opened: Deferred[None], failure: Failure) -> None:
        """Give up, and tell everyone who waits."""
        self._thread, closed = None, self._closed
        opened.errback(failure)
        while not self._queue.empty():
            work = self._queue.get()
            if work is not None:
                work.done.errback(DatabaseClosed(f"{self.path.name} could not be opened"))
        if closed is not None:
            closed.callback(None)

    # -- in the thread

    def _run(self, opened: Deferred[None]) -> None:
        try:
            connection = self._connect()
        except Exception:
            self._reactor.callFromThread(self._not_opened, opened, Failure())
            return
        self._reactor.callFromThread(opened.callback, None)
        while self._serve(connection):
            pass
        with suppress(sqlite3.Error):
            connection.close()
        assert self._closed is not None
        self._reactor.callFromThread(self._closed.callback, None)

    def _serve(self, connection: Connection) -> bool:
        """Do one group of work; returns whether there may be more.

        A method of its own, so that the thread does not keep alive what it has done
        while it waits for more.
        """
        group, ended = self._gather()
        if group:
            outcomes = _execute(connection, group)
            self._reactor.callFromThread(_deliver, group, outcomes)
        return not ended

    def _connect(self) -> Connection:
        try:
            connection = connect(self.path, self._synchronous)
            try:
                migrate(connection, self._schema)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise DatabaseUnusable(f"database {self.path}: {error}") from error
        return connection

    def _gather(self) -> tuple[list[_Work], bool]:
        """Wait for work and take what is there; the second value says to end after it."""
        work, self._next = self._next, None
        if work is None:
            work = self._queue.get()
        group: list[_Work] = []
        while work is not None:
            if work.alone and group:
                self._next = work
                return group, False
            group.append(work)
            if work.alone or len(group) >= GROUP:
                return group, False
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True


def connect(path: Path, synchronous: str = "FULL") -> Connection:
    """Open a SQLite file as every part of the project does; blocks."""
    connection = sqlite3.connect(
        path, isolation_level=None, timeout=30.0, check_same_thread=False, factory=Connection
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _deliver(group: list[_Work], outcomes: list[Any]) -> None:
    for work, outcome in zip(group, outcomes, strict=True):
        if isinstance(outcome, Failure):
            work.done.errback(outcome)
        else:
            work.done.callback(outcome)


def _execute(connection: Connection, group: list[_Work]) -> list[Any]:
    """Do a group of work in one transaction; return results, or Failures."""
    if len(group) == 1 and group[0].single:
        try:
            return [group[0].call(connection)]
        except Exception:
            return [Failure()]
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [work.call(connection) for work in group]
        connection.execute("COMMIT")
        return outcomes
    except Exception as error:
        failure = Failure()
        with suppress(sqlite3.Error):  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        if len(group) == 1 or _concerns_all(error):
            return [failure] * len(group)
    # One piece of work failed and took the others down with it: each for itself.
    return [outcome for work in group for outcome in _execute(connection, [work])]


def _concerns_all(error: Exception) -> bool:
    """Say whether an error is of the file, so that no other work can fare better."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _OF_THE_FILE
