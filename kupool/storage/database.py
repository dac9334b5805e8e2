"""A SQLite database behind one thread of its own, with group commit.

Work is queued from the reactor and done in order. What has gathered while one
transaction was written goes into the next as a whole, so that the cost of making
bytes durable is shared by all who wait for it. Nothing of it runs on the reactor.

Before and after each commit it is looked whether the file still is where it was opened, and
nothing is answered as written that the next start would not find. A file that turns out to
be damaged is not used any further.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from kupool.storage.guard import Guard
from kupool.storage.migrations import migrate
from kupool.storage.verify import AT_ONCE, Verifier, is_damage, quick_check
from kupool.timing.waiting import after

T = TypeVar("T")

#: Pieces of work that share one transaction at the most.
GROUP = 256

#: Seconds for which a look at the files before a commit is spared after one.
FRESH = 0.001

#: The mode of every file that is made.
PRIVATE = 0o600

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


#: What is lost with a file of which nothing more is known.
LOST = "what only it held is lost then"


class DatabaseClosed(Exception):
    """The database is not open."""


class DatabaseUnusable(Exception):
    """The file cannot be used as a database; says which and why."""


class DatabaseDamaged(DatabaseUnusable):
    """What is in the file is wrong; says what can be done about it."""


class PlaceLost(DatabaseUnusable):
    """The file is not where it was opened any more; says what happened to it."""


class SqliteConnection(sqlite3.Connection):
    """A connection with one cursor for all: read a result before the next ``execute``.

    Python's own makes a cursor for each, and keeps a weak reference to it until there
    are two hundred: scattered as those are, each can keep a megabyte of freed memory
    from going back to the system.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursor = cursor = self.cursor()
        self.execute = cursor.execute  # type: ignore[method-assign]
        self.executemany = cursor.executemany  # type: ignore[method-assign]

    def close(self) -> None:
        """Close the file, also where a result was not read to its end."""
        with suppress(sqlite3.ProgrammingError):  # it is closed
            self._cursor.close()  # else SQLite would wait for it, and keep its log
        super().close()


class _Work(NamedTuple):
    call: Callable[[SqliteConnection], Any]
    done: Deferred[Any]
    alone: bool
    single: bool


class Database:
    """A SQLite file, written ahead and, with ``synchronous`` FULL, durably.

    ``schema`` names the folder of numbered migrations under ``kupool/storage/sql``;
    ``lost`` says in a few words what is lost with the file, for whom it is damaged.
    Calls return Deferreds that fire on the reactor; what a piece of work raises comes
    back through its own.
    """

    def __init__(
        self,
        reactor: Any,
        path: Path,
        schema: str,
        *,
        synchronous: str = "FULL",
        lost: str = LOST,
    ) -> None:
        self._reactor = reactor
        self.path = path
        self._schema = schema
        self._synchronous = synchronous
        self._lost = lost
        #: Why the file must not be used now: it was moved, or is damaged. Empty otherwise.
        self.problem = ""
        #: Whether the file was closed in order, with nothing wrong.
        self.closed_clean = False
        #: What stays so until the file is opened anew.
        self._final: DatabaseUnusable | None = None
        self._guard: Guard | None = None
        self._verify_later = False
        self._verifier: Verifier | None = None
        self._looking = False
        #: When the last commit was looked at, on the monotonic clock.
        self._looked_at = 0.0
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed: Deferred[None] | None = None
        #: Taken from the queue by the thread, and left for its next transaction.
        self._next: _Work | None = None

    @property
    def reactor(self) -> Any:
        """The reactor that the Deferreds fire on."""
        return self._reactor

    def check(self, verify: bool = False) -> None:
        """Open the file, make or update its tables, and close it again; blocks.

        With ``verify``, its pages are looked at: a large file's in a thread, once it is
        open. Raises what :meth:`open` fails with.
        """
        at_once = False
        if verify:
            with suppress(OSError):  # there is none yet
                size = self.path.stat().st_size
                at_once = 0 < size <= AT_ONCE
                self._verify_later = size > AT_ONCE
        self._connect(at_once).close()

    def open(self) -> Deferred[None]:
        """Open the file, make or update its tables; fires when it can be used.

        Fails with :class:`DatabaseUnusable`, :class:`DatabaseDamaged` for one, or with
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
        call: Callable[[SqliteConnection], T],
        *,
        alone: bool = False,
        single: bool = False,
    ) -> Deferred[T]:
        """Do some work in a transaction, shared with others unless it must be ``alone``.

        ``call`` gets the connection and runs in the database's thread. When the
        transaction cannot be written, the Deferred fails and nothing of it remains: with
        :class:`PlaceLost` where the file has been moved, deleted or replaced, with
        :class:`DatabaseDamaged` where its content is wrong.
        ``single`` says that the work is one statement: with nothing to share it with,
        that is a transaction by itself, which costs less than one around it.
        """
        if self._thread is None or self._closed is not None:
            return fail(DatabaseClosed(f"{self.path.name} is not open"))
        done: Deferred[T] = Deferred()
        self._queue.put(_Work(call, done, alone, single))
        return done

    def look(self) -> None:
        """Look, in the thread, whether the file still is in its place; see :attr:`problem`.

        For while nothing is written, as each commit looks by itself. Does nothing while
        another look waits for its turn.
        """
        if self._looking or self._thread is None or self._closed is not None:
            return

        def looked(_: object) -> None:
            self._looking = False

        self._looking = True
        self.run(_nothing, single=True).addBoth(looked)

    def close(self) -> Deferred[None]:
        """Finish what is queued and close the file; may be called again."""
        if self._closed is None:
            self._closed = Deferred()
            if self._thread is None:
                self._closed.callback(None)
            else:
                self._queue.put(None)
        return after(self._closed)

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
            self._guard = self._watch(connection)
        except BaseException:  # nothing else would say that the thread has ended
            self._reactor.callFromThread(self._not_opened, opened, Failure())
            return
        if self._verify_later:
            self._verifier = Verifier(self.path, self._damaged)
            self._verifier.start()
        self._reactor.callFromThread(opened.callback, None)
        while self._serve(connection):
            pass
        if self._verifier is not None:
            self._verifier.stop()
        in_order = not self.problem and not self._guard.check()
        with suppress(sqlite3.Error):
            connection.close()
            self.closed_clean = in_order
        self._guard.close()
        assert self._closed is not None
        self._reactor.callFromThread(self._closed.callback, None)

    def _serve(self, connection: SqliteConnection) -> bool:
        """Do one group of work; returns whether there may be more.

        A method of its own, so that the thread does not keep alive what it has done
        while it waits for more.
        """
        group, ended = self._gather()
        if group:
            outcomes = self._execute(connection, group)
            self._reactor.callFromThread(_deliver, group, outcomes)
        return not ended

    def _connect(self, verify: bool = False) -> SqliteConnection:
        make_private(self.path)
        try:
            connection = connect(self.path, self._synchronous)
            try:
                damage = quick_check(connection) if verify else ""
                if damage:
                    raise self._damaged(damage)
                migrate(connection, self._schema)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            if is_damage(error):
                raise self._damaged(str(error)) from error
            raise DatabaseUnusable(f"database {self.path}: {error}") from error
        return connection

    def _watch(self, connection: SqliteConnection) -> Guard:
        try:
            return Guard(self.path)
        except OSError as error:
            connection.close()
            raise DatabaseUnusable(
                f"database {self.path}: {error.filename}: {error.strerror}"
            ) from error

    def _damaged(self, detail: str) -> DatabaseDamaged:
        """Use the file no further; returns what says so."""
        error = damaged(self.path, detail, self._lost)
        self._final = error
        self.problem = str(error)
        return error

    def _execute(self, connection: SqliteConnection, group: list[_Work]) -> list[Any]:
        """Do a group of work in one transaction; return results, or Failures."""
        changes = connection.total_changes
        try:
            if len(group) == 1 and group[0].single:
                self._check_before()
                outcomes = [group[0].call(connection)]
            else:
                connection.execute("BEGIN IMMEDIATE")
                outcomes = [work.call(connection) for work in group]
                self._check_before()
                connection.execute("COMMIT")
            assert self._guard is not None
            self._check(self._guard.check_files(), connection.total_changes != changes)
            self._looked_at = time.monotonic()
            return outcomes
        except BaseException as error:  # of the work: the thread goes on
            failure = Failure(self._damaged(str(error))) if is_damage(error) else self._told(error)
            with suppress(sqlite3.Error):  # a full disk has rolled it back already
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            if isinstance(error, PlaceLost):
                self._rescue(connection)
            if len(group) == 1 or _concerns_all(error):
                return [failure] * len(group)
        # One piece of work failed and took the others down with it: each for itself.
        return [outcome for work in group for outcome in self._execute(connection, [work])]

    def _told(self, error: BaseException) -> Failure:
        """Return the failure of a transaction: of the file by name where it is the file's."""
        if isinstance(error, sqlite3.Error) and _concerns_all(error):
            unusable = DatabaseUnusable(f"database {self.path}: {error}")
            unusable.__cause__ = error
            return Failure(unusable)
        return Failure()

    def _check_before(self) -> None:
        """Raise why nothing must be committed, if there is a reason.

        Every look lets another thread have the interpreter. Where the last commit was looked
        at just now, that will do.
        """
        if self.problem or self._final or time.monotonic() > self._looked_at + FRESH:
            assert self._guard is not None
            self._check(self._guard.check(), written=False)

    def _check(self, what: str, written: bool) -> None:
        """Raise why the file must not be used: for what happened to it, if anything did, or
        for what has been found before.

        With ``written``, something has been committed. What was committed to a file that is
        elsewhere may be there at the next start or not, and was reported as failed: only
        reading it anew tells, so that the file is not used until then.
        """
        if self._final is not None:
            self.problem = str(self._final)
            raise self._final.with_traceback(None)
        if not what:
            self.problem = ""
            return
        if written:
            what += "; something may be in it that was not confirmed: restart the daemon"
            self._final = PlaceLost(what)
        else:
            what += "; put it back or restart the daemon"
        self.problem = what
        raise PlaceLost(what)

    def _rescue(self, connection: SqliteConnection) -> None:
        """Save what is in a write-ahead log that was deleted, while it is still open.

        It holds what has been answered for; the file itself is in its place and can take it.
        """
        if self._guard is not None and self._guard.only_log:
            with suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

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


def make_private(path: Path) -> None:
    """Make a file that its owner alone may read and write, or make one so that is there.

    SQLite gives the files beside it the same mode. What cannot be done is left to SQLite to
    complain about.
    """
    with suppress(OSError):
        try:
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        except FileExistsError:
            # By name: to close a descriptor of it would drop SQLite's locks on the file.
            for name in (path, f"{path}-wal", f"{path}-shm"):
                with suppress(FileNotFoundError):
                    if os.stat(name).st_mode & 0o777 & ~PRIVATE:
                        os.chmod(name, PRIVATE)
        else:
            os.fchmod(made, PRIVATE)  # whatever the umask
            os.close(made)


def connect(path: Path, synchronous: str = "FULL") -> SqliteConnection:
    """Open a SQLite file as every part of the project does; blocks."""
    connection = sqlite3.connect(
        path, isolation_level=None, timeout=30.0, check_same_thread=False, factory=SqliteConnection
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def damaged(path: Path, detail: str, lost: str = LOST) -> DatabaseDamaged:
    """Return what says that a file is damaged, and what can be done about it, in one line."""
    return DatabaseDamaged(
        f"database {path} is damaged: {detail}; stop the daemon, move the file and its -wal away "
        f"and start it again, or use 'kupool restore' with a backup; {lost}"
    )


def _nothing(connection: sqlite3.Connection) -> None:
    """Do nothing, which is work like any other."""


def _deliver(group: list[_Work], outcomes: list[Any]) -> None:
    for work, outcome in zip(group, outcomes, strict=True):
        if isinstance(outcome, Failure):
            work.done.errback(outcome)
        else:
            work.done.callback(outcome)


def _concerns_all(error: BaseException) -> bool:
    """Say whether an error is of the file, so that no other work can fare better."""
    if isinstance(error, DatabaseUnusable):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _OF_THE_FILE
