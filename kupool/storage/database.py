"""A SQLite database in a thread of its own, with group commit.

Work is queued by the reactor and done in order. All work that was queued while one transaction was
written goes into the next one, so they share the cost of making it durable. None of it runs on the
reactor.

Before and after each commit the thread checks that the file is still where it was opened. It
reports nothing as written that the next start would not find. A file that turns out to be damaged
is not used any more.
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

#: The most pieces of work in one transaction.
GROUP = 256

#: Seconds after a check of the files in which a commit is not preceded by another one.
FRESH = 0.001

#: The mode of every file that is made.
PRIVATE = 0o600

#: Errors of the file itself, which every other piece of work would meet, too.
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


#: What is lost with a file if the caller says nothing else.
LOST = "what only it held is lost then"


class DatabaseClosed(Exception):
    """The database is not open."""


class DatabaseUnusable(Exception):
    """The file cannot be used as a database; says which and why."""


class DatabaseDamaged(DatabaseUnusable):
    """The content of the file is wrong; says what can be done about it."""


class PlaceLost(DatabaseUnusable):
    """The file is no longer where it was opened; says what happened to it."""


class SqliteConnection(sqlite3.Connection):
    """A connection with one shared cursor: read a result before the next ``execute``.

    Python's own connection makes a cursor for each statement and keeps weak references to two
    hundred of them. Scattered in memory, each can keep a megabyte from being returned to the
    system.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursor = cursor = self.cursor()
        self.execute = cursor.execute  # type: ignore[method-assign]
        self.executemany = cursor.executemany  # type: ignore[method-assign]

    def close(self) -> None:
        """Close the file, even if a result was not read to its end."""
        with suppress(sqlite3.ProgrammingError):  # it is closed
            self._cursor.close()  # else SQLite would wait for it, and keep its log
        super().close()


class _Work(NamedTuple):
    call: Callable[[SqliteConnection], Any]
    done: Deferred[Any]
    alone: bool
    single: bool
    durable: bool


class Database:
    """A SQLite file with a write-ahead log; durable with ``synchronous`` FULL.

    ``schema`` names the folder of numbered migrations under ``kupool/storage/sql``. ``lost`` says
    in a few words what is lost if the file is damaged. Calls return Deferreds that fire on the
    reactor; an exception in a piece of work fails its own Deferred.
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
        #: Why the file must not be used now: it was moved, or is damaged. Otherwise empty.
        self.problem = ""
        #: Whether the file was closed properly and had no problem.
        self.closed_clean = False
        #: A problem that lasts until the file is opened again.
        self._final: DatabaseUnusable | None = None
        self._guard: Guard | None = None
        self._verify_later = False
        self._verifier: Verifier | None = None
        self._looking = False
        #: Whether commits wait for the disk now.
        self._waits = True
        #: When the files were last checked after a commit, on the monotonic clock.
        self._looked_at = 0.0
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed: Deferred[None] | None = None
        #: Work that the thread has taken from the queue for its next transaction.
        self._next: _Work | None = None

    @property
    def reactor(self) -> Any:
        """The reactor that the Deferreds fire on."""
        return self._reactor

    def check(self, verify: bool = False) -> None:
        """Open the file, make or update its tables, and close it again; blocks.

        With ``verify`` its pages are checked; those of a large file later, in a thread, once it is
        open. Raises what :meth:`open` fails with.
        """
        at_once = False
        if verify:
            with suppress(OSError):  # there is no file yet
                size = self.path.stat().st_size
                at_once = 0 < size <= AT_ONCE
                self._verify_later = size > AT_ONCE
        self._connect(at_once).close()

    def open(self) -> Deferred[None]:
        """Open the file, and make or update its tables; fires when it can be used.

        Fails with :class:`DatabaseUnusable` (:class:`DatabaseDamaged` is one) or with
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
        durable: bool = True,
    ) -> Deferred[T]:
        """Do some work in a transaction, shared with others unless it must be ``alone``.

        ``call`` gets the connection and runs in the database's thread. If the transaction cannot be
        written, it is rolled back and the Deferred fails: with :class:`PlaceLost` if the file was
        moved, deleted or replaced, with :class:`DatabaseDamaged` if its content is wrong.
        ``single`` says that the work is one statement. If it shares its transaction with nothing,
        it then runs without an explicit transaction, which costs less. Without ``durable`` the
        system may lose it with the power, unless a later transaction is durable; the file stays
        sound, and the end of this process loses nothing.
        """
        if self._thread is None or self._closed is not None:
            return fail(DatabaseClosed(f"{self.path.name} is not open"))
        done: Deferred[T] = Deferred()
        self._queue.put(_Work(call, done, alone, single, durable))
        return done

    def look(self) -> None:
        """Check, in the thread, whether the file is still in its place; see :attr:`problem`.

        For times without writes, because each commit checks by itself. Does nothing while another
        check waits for its turn.
        """
        if self._looking or self._thread is None or self._closed is not None:
            return

        def looked(_: object) -> None:
            self._looking = False

        self._looking = True
        self.run(_nothing, single=True).addBoth(looked)

    def close(self) -> Deferred[None]:
        """Finish the queued work and close the file; may be called again."""
        if self._closed is None:
            self._closed = Deferred()
            if self._thread is None:
                self._closed.callback(None)
            else:
                self._queue.put(None)
        return after(self._closed)

    def _not_opened(self, opened: Deferred[None], failure: Failure) -> None:
        """Give up, and fail everything that waits."""
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
        except BaseException:  # nothing else would report the end of the thread
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

        This is a separate method so that the thread, while it waits, keeps no finished work alive.
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
        """Stop using the file; returns the error that says so."""
        error = damaged(self.path, detail, self._lost)
        self._final = error
        self.problem = str(error)
        return error

    def _execute(self, connection: SqliteConnection, group: list[_Work]) -> list[Any]:
        """Do a group of work in one transaction; return results, or Failures."""
        changes = connection.total_changes
        try:
            self._wait_for_disk(connection, any(work.durable for work in group))
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
        except BaseException as error:  # raised by the work: the thread continues
            failure = Failure(self._damaged(str(error))) if is_damage(error) else self._told(error)
            with suppress(sqlite3.Error):  # a full disk has rolled it back already
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            if isinstance(error, PlaceLost):
                self._rescue(connection)
            if len(group) == 1 or _concerns_all(error):
                return [failure] * len(group)
        # One piece of work failed, and the whole transaction with it: do each one alone.
        return [outcome for work in group for outcome in self._execute(connection, [work])]

    def _wait_for_disk(self, connection: SqliteConnection, wait: bool) -> None:
        """Have commits wait until they are on the disk, or not: a commit that does brings the
        earlier ones there, too.
        """
        if wait != self._waits:
            connection.execute(f"PRAGMA synchronous={self._synchronous if wait else 'NORMAL'}")
            self._waits = wait

    def _told(self, error: BaseException) -> Failure:
        """Return the failure of a transaction; an error of the file names the file."""
        if isinstance(error, sqlite3.Error) and _concerns_all(error):
            unusable = DatabaseUnusable(f"database {self.path}: {error}")
            unusable.__cause__ = error
            return Failure(unusable)
        return Failure()

    def _check_before(self) -> None:
        """Raise the reason why nothing must be committed, if there is one.

        Each check releases the interpreter to other threads. If the last commit was checked just
        now, that is enough.
        """
        if self.problem or self._final or time.monotonic() > self._looked_at + FRESH:
            assert self._guard is not None
            self._check(self._guard.check(), written=False)

    def _check(self, what: str, written: bool) -> None:
        """Raise the reason why the file must not be used: what happened to it, or an earlier
        problem.

        With ``written``, something has just been committed. If the file is elsewhere, the next
        start may or may not find that commit, which was reported as failed. Only reading the file
        again tells, so the file is not used until then.
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
        """Save the contents of a write-ahead log that was deleted while it is still open.

        It has commits that were reported as durable. The file itself is in its place and can take
        them.
        """
        if self._guard is not None and self._guard.only_log:
            with suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def _gather(self) -> tuple[list[_Work], bool]:
        """Wait for work and take what there is; the second value says whether to end after it."""
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
    """Create a file that only its owner may read and write, or make an existing one private.

    SQLite gives the files beside it the same mode. Errors are left to SQLite, which reports them.
    """
    with suppress(OSError):
        try:
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        except FileExistsError:
            # By name: closing a descriptor of the file would drop SQLite's locks on it.
            for name in (path, f"{path}-wal", f"{path}-shm"):
                with suppress(FileNotFoundError):
                    if os.stat(name).st_mode & 0o777 & ~PRIVATE:
                        os.chmod(name, PRIVATE)
        else:
            os.fchmod(made, PRIVATE)  # whatever the umask
            os.close(made)


def connect(path: Path, synchronous: str = "FULL") -> SqliteConnection:
    """Open a SQLite file with the options that the whole project uses; blocks."""
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


def touch(connection: sqlite3.Connection) -> None:
    """Write a page without changing anything: to see whether that is possible, or to have a
    durable commit, which brings what was committed before it to the disk.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version:d}")


def damaged(path: Path, detail: str, lost: str = LOST) -> DatabaseDamaged:
    """Return the error that a file is damaged and what to do, in one line."""
    return DatabaseDamaged(
        f"database {path} is damaged: {detail}; stop the daemon, move the file and its -wal away "
        f"and start it again, or use 'kupool restore' with a backup; {lost}"
    )


def _nothing(connection: sqlite3.Connection) -> None:
    """Do nothing."""


def _deliver(group: list[_Work], outcomes: list[Any]) -> None:
    for work, outcome in zip(group, outcomes, strict=True):
        if isinstance(outcome, Failure):
            work.done.errback(outcome)
        else:
            work.done.callback(outcome)


def _concerns_all(error: BaseException) -> bool:
    """Say whether an error is of the file itself, so that other work fails, too."""
    if isinstance(error, DatabaseUnusable):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _OF_THE_FILE
