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

_DISK = frozenset((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR))


class DatabaseClosed(Exception):
    """The database is not open."""


class _Work(NamedTuple):
    call: Callable[[sqlite3.Connection], Any]
    done: Deferred[Any]
    alone: bool


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

    def open(self) -> Deferred[None]:
        """Open the file, make or update its tables; fires when it can be used."""
        opened: Deferred[None] = Deferred()
        self._thread = threading.Thread(
            target=self._run, args=(opened,), name=f"sqlite-{self.path.stem}", daemon=True
        )
        self._thread.start()
        return opened

    def run(self, call: Callable[[sqlite3.Connection], T], alone: bool = False) -> Deferred[T]:
        """Do some work in a transaction, shared with others unless it must be ``alone``.

        ``call`` gets the connection and runs in the database's thread. When the
        transaction cannot be written, the Deferred fails and nothing of it remains.
        """
        if self._thread is None or self._closed is not None:
            return fail(DatabaseClosed(f"{self.path.name} is not open"))
        done: Deferred[T] = Deferred()
        self._queue.put(_Work(call, done, alone))
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

    # -- in the thread

    def _run(self, opened: Deferred[None]) -> None:
        try:
            connection = connect(self.path, self._synchronous)
            migrate(connection, self._schema)
        except Exception:
            self._thread = None
            self._reactor.callFromThread(opened.errback, Failure())
            return
        self._reactor.callFromThread(opened.callback, None)
        ended = False
        while not ended:
            group, ended = self._gather()
            if group:
                outcomes = _execute(connection, group)
                self._reactor.callFromThread(_deliver, group, outcomes)
        connection.close()
        assert self._closed is not None
        self._reactor.callFromThread(self._closed.callback, None)

    def _gather(self) -> tuple[list[_Work], bool]:
        """Wait for work and take what is there; the second value says to end after it."""
        work = self._queue.get()
        group: list[_Work] = []
        while work is not None:
            group.append(work)
            if work.alone or len(group) >= GROUP:
                return group, False
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True


def connect(path: Path, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open a SQLite file as every part of the project does; blocks."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30.0, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _deliver(group: list[_Work], outcomes: list[Any]) -> None:
    for work, outcome in zip(group, outcomes, strict=True):
        if isinstance(outcome, Failure):
            work.done.errback(outcome)
        else:
            work.done.callback(outcome)


def _execute(connection: sqlite3.Connection, group: list[_Work]) -> list[Any]:
    """Do a group of work in one transaction; return results, or Failures."""
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
    """Say whether an error is of the disk, so that no other work can fare better."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DISK
