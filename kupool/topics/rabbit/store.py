"""Where topics in RabbitMQ, and the positions of their groups, are kept: PostgreSQL or SQLite."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from kupool.storage.database import Database, DatabaseClosed, DatabaseUnusable
from kupool.storage.postgres import DatabaseUnavailable, PostgresDatabase
from kupool.topics.errors import TopicsUnavailable
from kupool.topics.rabbit.statements import StatementCursor

T = TypeVar("T")

#: Statements of :mod:`kupool.topics.rabbit.statements` to do in one transaction.
StoreWork = Callable[[StatementCursor], Coroutine[Any, Any, T]]

#: The pieces of work in one transaction of PostgreSQL, and those that may wait for one.
TOGETHER = 100
MOST_WAITING = 10_000


class ITopicStore(Interface):
    """Runs statements in transactions of a database."""

    shared = Attribute("Whether several nodes use it.")

    def open() -> Deferred[None]:
        """Open the database, and make its tables."""

    def run(work: StoreWork[T]) -> Deferred[T]:
        """Do some work in a transaction; it may be done more than once, with the last one kept.

        Fails with :class:`TopicsUnavailable` if the database cannot be used, and with what the work
        raises. Then nothing is kept.
        """

    def run_in_order(work: StoreWork[T]) -> Deferred[T]:
        """Do the same, after all earlier work of this method."""

    def problem() -> str:
        """Return why the database cannot be used now; empty if it can."""

    def close() -> Deferred[None]:
        """Finish running work and disconnect; may be called again."""


class SqliteStatementCursor:
    """Runs statements on a connection of SQLite; what is awaited is done already."""

    now = "((julianday('now') - 2440587.5) * 86400.0)"
    share = alone = ""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []

    async def execute(self, sql: str, values: Sequence[object] = ()) -> None:
        """Execute a statement; blocks."""
        self._rows = self._connection.execute(sql.replace("%s", "?"), values).fetchall()

    def fetchall(self) -> list[Any]:
        """Return the rows of the last statement."""
        return self._rows


class PostgresStatementCursor:
    """Runs statements on a cursor of PostgreSQL."""

    now = "extract(epoch FROM now())::float8"
    share = "FOR SHARE"
    alone = "FOR UPDATE"

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def execute(self, sql: str, values: Sequence[object] = ()) -> Awaitable[object]:
        """Execute a statement."""
        done: Awaitable[object] = self._cursor.execute(sql, values)
        return done

    def fetchall(self) -> list[Any]:
        """Return the rows of the last statement."""
        rows: list[Any] = self._cursor.fetchall()
        return rows


def run_at_once(connection: sqlite3.Connection, work: StoreWork[T]) -> T:
    """Do some work in the transaction of a connection of SQLite; blocks.

    So the positions of a group are saved with what was derived from its records::

        positions = {Partition("orders", 0): 65_537}
        run_at_once(connection, lambda cursor: commit_positions(cursor, "sums", positions))

    In PostgreSQL that is ``await commit_positions(PostgresStatementCursor(cursor), ...)``.
    """
    running = work(SqliteStatementCursor(connection))
    try:
        running.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a statement waited for something")


@implementer(ITopicStore)
class SqliteTopicStore:
    """Keeps them in a file of one node; ``database`` has the schema ``topics_rabbit``."""

    shared = False

    def __init__(self, database: Database) -> None:
        self._database = database
        self._problem = ""

    def open(self) -> Deferred[None]:
        """Open the file, and make its tables."""
        return self._database.open()

    def run(self, work: StoreWork[T]) -> Deferred[T]:
        """Do some work in a transaction; all work is done in order."""
        done = self._database.run(lambda connection: run_at_once(connection, work))
        return done.addCallbacks(self._worked, self._failed)

    run_in_order = run

    def _worked(self, result: T) -> T:
        self._problem = ""
        return result

    def _failed(self, failure: Failure) -> Failure:
        if failure.check(DatabaseUnusable, DatabaseClosed, sqlite3.Error) is None:
            return failure
        self._problem = failure.getErrorMessage()
        raise TopicsUnavailable(self._problem) from failure.value

    def problem(self) -> str:
        """Return why the file cannot be used now."""
        return self._problem or self._database.problem

    def close(self) -> Deferred[None]:
        """Finish running work and close the file."""
        return self._database.close()


class _Gathered(NamedTuple):
    work: StoreWork[Any]
    done: Deferred[Any]


@implementer(ITopicStore)
class PostgresTopicStore:
    """Keeps them in a database that several nodes share."""

    shared = True

    _log = Logger()

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        #: Work that waits for the transaction under way, and who waits for it.
        self._gathered: deque[_Gathered] = deque()
        self._busy = False

    def open(self) -> Deferred[None]:
        """Connect, and make the tables."""
        return self._database.open()

    def run(self, work: StoreWork[T]) -> Deferred[T]:
        """Do some work in a transaction."""
        done = self._database.run(lambda cursor: work(PostgresStatementCursor(cursor)))
        return done.addErrback(_not_done)

    def run_in_order(self, work: StoreWork[T]) -> Deferred[T]:
        """Do some work in order. What is asked for during a transaction shares the next one."""
        if len(self._gathered) >= MOST_WAITING:
            return fail(TopicsUnavailable("too much work waits for the database"))
        done: Deferred[T] = Deferred()
        self._gathered.append(_Gathered(work, done))
        if not self._busy:
            self._busy = True
            Deferred.fromCoroutine(self._work()).addErrback(
                lambda failure: self._log.failure("Working in the database failed", failure)
            )
        return done

    async def _work(self) -> None:
        try:
            while self._gathered:
                group = [
                    self._gathered.popleft() for _ in range(min(TOGETHER, len(self._gathered)))
                ]
                for each, outcome in zip(group, await self._outcomes(group), strict=True):
                    each.done.callback(outcome)  # a Failure fails it
        finally:
            self._busy = False

    async def _outcomes(self, group: Sequence[_Gathered]) -> Sequence[Any]:
        """Do a group of work in one transaction; returns results, or Failures."""

        async def work(cursor: Any) -> list[Any]:
            statements = PostgresStatementCursor(cursor)
            return [await each.work(statements) for each in group]

        try:
            return await self._database.count(work).addErrback(_not_done)
        except Exception:
            if len(group) == 1:
                return [Failure()]
        # One piece of work failed, and the whole transaction with it: do each one alone.
        return [outcome for each in group for outcome in await self._outcomes([each])]

    def problem(self) -> str:
        """Return why the database cannot be used now."""
        return self._database.problem

    def close(self) -> Deferred[None]:
        """Finish running work and disconnect."""
        return self._database.close()


def _not_done(failure: Failure) -> Failure:
    if failure.check(DatabaseUnavailable, DatabaseClosed, DatabaseUnusable) is None:
        return failure
    raise TopicsUnavailable(failure.getErrorMessage()) from failure.value


__all__ = [
    "ITopicStore",
    "PostgresStatementCursor",
    "PostgresTopicStore",
    "SqliteStatementCursor",
    "SqliteTopicStore",
    "StoreWork",
    "run_at_once",
]
