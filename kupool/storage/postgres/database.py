"""A PostgreSQL database: one connection to count with, and some for all else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.storage.database import DatabaseClosed, DatabaseUnusable
from kupool.storage.migrations import SchemaTooNew
from kupool.storage.postgres.address import Address, parse_address
from kupool.storage.postgres.schema import BlockingCursor, prepare, revive

if TYPE_CHECKING:
    from kupool.storage.postgres.link import Link

T = TypeVar("T")

#: Work in a transaction: gets a cursor, whose ``execute`` is awaited.
Work = Callable[[Any], Awaitable[T]]

#: The folder of migrations.
SCHEMA = "postgres"

#: Errors of two transactions in each other's way, after which the same again may succeed.
_AGAIN = ("40001", "40P01")

#: How often a transaction is tried that other transactions are in the way of.
TRIES = 3

#: Seconds until it is tried again.
AGAIN_AFTER = 0.05


class DatabaseUnavailable(Exception):
    """The database cannot be used at the moment; says which and why."""


@dataclass(frozen=True)
class PostgresSettings:
    """How the database is used.

    ``others`` connections do what is not counting. A statement may take ``timeout``
    seconds before its connection is given up, one of maintenance ``long_timeout``. So much
    work may wait for each connection: ``waiting``. Closing waits ``patience`` seconds.
    """

    others: int = 2
    timeout: float = 30.0
    long_timeout: float = 900.0
    waiting: int = 200
    patience: float = 5.0


class PostgresDatabase:
    """Connections to a PostgreSQL database, which come back by themselves when lost.

    ``dsn`` is a URL or made of ``key=value`` pairs. Where the database cannot be reached,
    :meth:`open` fails, or, with ``patient``, tries for ever. Calls made while there is no
    connection fail with :class:`DatabaseUnavailable`: nothing waits for it to come back.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        dsn: str,
        settings: PostgresSettings | None = None,
        *,
        patient: bool = False,
    ) -> None:
        self.reactor = reactor
        self.settings = settings or PostgresSettings()
        self._dsn = dsn
        self._patient = patient
        self._where = "PostgreSQL"
        self._writer: Link | None = None
        self._others: list[Link] = []
        self._closed = self._lost = False
        self._pause: Deferred[Any] | None = None
        self._opening: Deferred[None] | None = None

    # -- opening and closing

    def check(self) -> None:
        """Connect, make or update the tables, and disconnect; blocks.

        For a process that does nothing else yet. Raises what :meth:`open` fails with.
        """
        import psycopg2

        from kupool.storage.postgres.trouble import explain

        address = self._parse()
        try:
            timeout = max(2, round(address.timeout))
            connection = psycopg2.connect(
                self._dsn,
                connect_timeout=timeout,
                client_encoding="UTF8",
                fallback_application_name="kupool",
            )
            with closing(connection), connection, connection.cursor() as cursor:
                problems: list[Failure] = []
                preparing = Deferred.fromCoroutine(prepare(BlockingCursor(cursor), SCHEMA))
                preparing.addErrback(problems.append)
                for failure in problems:
                    failure.raiseException()
        except (psycopg2.Error, DatabaseUnusable) as error:
            raise DatabaseUnusable(f"{self._where}: {explain(error)}") from None

    def open(self) -> Deferred[None]:
        """Connect, and make or update the tables.

        Fails with :class:`DatabaseUnusable` or :class:`SchemaTooNew`; may then be called
        again.
        """
        self._closed = False
        self._opening = Deferred.fromCoroutine(self._open())
        return _unbound(self._opening)

    async def _open(self) -> None:
        from kupool.storage.postgres.link import Link
        from kupool.storage.postgres.trouble import TROUBLE, explain

        address = self._parse()
        writer = self._writer = Link(self.reactor, address, self.settings.timeout, self._changed)
        try:
            await self._connect(writer)
            await writer.transact(lambda cursor: prepare(cursor, SCHEMA))
            self._others = [
                Link(self.reactor, address, self.settings.timeout, _ignore)
                for _ in range(self.settings.others)
            ]
            for link in self._others:
                try:
                    await link.connect()
                except TROUBLE:
                    link.lost(Failure())  # goes on trying
        except BaseException as error:
            await self._end_links(0.1)
            if isinstance(error, (DatabaseUnusable, *TROUBLE)):
                raise DatabaseUnusable(f"{self._where}: {explain(error)}") from None
            raise

    async def _connect(self, link: Link) -> None:
        """Connect; with patience for as long as it takes."""
        from kupool.storage.postgres.link import FIRST_DELAY, LONGEST_DELAY
        from kupool.storage.postgres.trouble import ConnectFailed

        delay, told = FIRST_DELAY, ""
        while True:
            try:
                return await link.connect()
            except ConnectFailed as error:
                if not self._patient or self._closed:
                    raise
                if str(error) != told:
                    told = str(error)
                    self._log.error(
                        "{where}: {reason}; trying again", where=self._where, reason=told
                    )
            self._pause = deferLater(self.reactor, delay)
            try:
                await self._pause
            except CancelledError:
                raise ConnectFailed("closed") from None
            finally:
                self._pause = None
            delay = min(2 * delay, LONGEST_DELAY)

    def _parse(self) -> Address:
        address = parse_address(self._dsn)
        self._where = address.shown
        return address

    def close(self) -> Deferred[None]:
        """Finish what was begun, within reason, and disconnect; may be called again."""
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        return Deferred.fromCoroutine(self._end_links(self.settings.patience))

    async def _end_links(self, patience: float) -> None:
        links = [*self._others, *([self._writer] if self._writer is not None else [])]
        self._others, self._writer = [], None
        for ending in [Deferred.fromCoroutine(link.end(patience)) for link in links]:
            await ending

    def _changed(self, reason: str) -> None:
        if reason and not self._lost:
            self._log.error("{where} is lost: {reason}", where=self._where, reason=reason)
        elif reason:
            self._log.error("{where}: {reason}; trying again", where=self._where, reason=reason)
        elif not reason and self._lost:
            self._log.info("{where} is back", where=self._where)
        self._lost = bool(reason)

    @property
    def problem(self) -> str:
        """Why nothing can be counted at the moment; empty when it can."""
        if self._writer is None:
            return f"{self._where}: not open"
        reason = self._writer.problem
        return f"{self._where}: {reason}" if reason else ""

    # -- work

    def count(self, work: Work[T]) -> Deferred[T]:
        """Do some work in a transaction on the connection for counting, in order.

        What ``work`` raises comes back; what goes wrong with the database does as
        :class:`DatabaseUnavailable`, or as :class:`DatabaseClosed`. Then nothing of it
        remains, unless the connection was lost with the answer to the commit.
        Cancelling the Deferred does not stop the work. It may be done more than once,
        each time in a transaction of its own.
        """
        return self._run(lambda: self._writer, work, self.settings.timeout)

    def run(self, work: Work[T], *, maintenance: bool = False) -> Deferred[T]:
        """Do some work beside the counting, in no particular order; as :meth:`count`."""
        limit = self.settings.long_timeout if maintenance else self.settings.timeout
        return self._run(self._least_busy, work, limit)

    def query(self, sql: str, values: Sequence[object] = ()) -> Deferred[Any]:
        """Return the rows of one statement; fails as :meth:`count`."""

        async def fetch(cursor: Any) -> Any:
            await cursor.execute(sql, values)
            return cursor.fetchall()

        return self.run(fetch)

    async def revive(self, cursor: Any) -> None:
        """Make tables again that were dropped, in the transaction of a cursor."""
        await revive(cursor, SCHEMA)

    def _least_busy(self) -> Link | None:
        """Return the connection with least to do, of those that are connected if any is."""
        return min(
            self._others, key=lambda link: (bool(link.problem), link.waiting), default=self._writer
        )

    def _run(self, choose: Callable[[], Link | None], work: Work[T], limit: float) -> Deferred[T]:
        link = choose()
        if self._closed or link is None:
            return fail(DatabaseClosed(f"{self._where} is not open"))
        if link.waiting >= self.settings.waiting:
            return fail(DatabaseUnavailable(f"{self._where}: too much waits for it"))
        return _unbound(Deferred.fromCoroutine(self._transact(link, work, limit)))

    async def _transact(self, link: Link, work: Work[T], limit: float) -> T:
        from kupool.storage.postgres.trouble import TROUBLE, ConnectionDead, explain

        for left in reversed(range(TRIES)):
            try:
                return await link.transact(work, limit)
            except ConnectionDead:
                raise DatabaseUnavailable(f"{self._where}: {link.problem}") from None
            except TROUBLE as error:
                if left and getattr(error, "pgcode", None) in _AGAIN:
                    # The other transaction first: at once, this one may be in its way again.
                    await deferLater(self.reactor, AGAIN_AFTER)
                    continue
                raise DatabaseUnavailable(f"{self._where}: {explain(error)}") from error
        raise AssertionError("unreachable")


def _ignore(reason: str) -> None:
    """Nothing to say: the connection for counting speaks for all."""


def _unbound(work: Deferred[T]) -> Deferred[T]:
    """Return a Deferred for the same result that can be cancelled without harm to the work."""
    waiter: Deferred[T] = Deferred()
    work.addBoth(waiter.callback)
    return waiter


__all__ = [
    "DatabaseUnavailable",
    "DatabaseUnusable",
    "PostgresDatabase",
    "PostgresSettings",
    "SchemaTooNew",
]
