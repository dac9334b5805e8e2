"""A PostgreSQL database: one connection for counting, one for queries, and others for all else."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.storage.database import DatabaseClosed, DatabaseUnusable
from kupool.storage.migrations import SchemaTooNew
from kupool.storage.postgres.address import PostgresAddress, parse_address
from kupool.storage.postgres.owner import (
    DatabaseOwner,
    InUse,
    NotOwner,
    Ownership,
    set_keepalives,
    switches_sessions,
)
from kupool.storage.postgres.schema import (
    BlockingCursor,
    prepare,
    revive,
    unsafe_settings,
)

if TYPE_CHECKING:
    from kupool.storage.postgres.link import PostgresLink

T = TypeVar("T")

#: Work in a transaction: gets a cursor, whose ``execute`` is awaited.
DatabaseWork = Callable[[Any], Awaitable[T]]

#: The folder of migrations.
SCHEMA = "postgres"

#: Errors of conflicting transactions, after which a second try may succeed.
_AGAIN = ("40001", "40P01")

#: The most attempts of a transaction that conflicts with others.
TRIES = 3

#: Seconds until the next attempt.
AGAIN_AFTER = 0.05

#: Seconds in which the session of an owner may end after its process has ended.
GONE_PATIENCE = 15.0


class DatabaseUnavailable(Exception):
    """The database cannot be used at the moment; names it and says why."""


@dataclass(frozen=True)
class PostgresSettings:
    """How the database is used.

    ``others`` is the number of connections that neither count nor query; one more is for queries. A
    statement may take ``timeout`` seconds before its connection is closed, one of maintenance
    ``long_timeout``. ``waiting`` limits the work that waits for each connection. Closing waits
    ``patience`` seconds.
    """

    others: int = 2
    timeout: float = 30.0
    long_timeout: float = 900.0
    waiting: int = 200
    patience: float = 5.0


class PostgresDatabase:
    """Connections to a PostgreSQL database, which reconnect by themselves.

    ``dsn`` is a URL or made of ``key=value`` pairs. If the database cannot be reached, :meth:`open`
    fails, or with ``patient`` tries indefinitely. Calls without a connection fail with
    :class:`DatabaseUnavailable`: they do not wait for one.

    With ``own``, this process is the only daemon that writes there: :meth:`open` fails while
    another daemon owns the database, and nothing is written after another has taken over. If the
    log is ``shared`` with the previous daemon and that one may still run, its jobs are retired,
    because nobody knows what it still accepts for them.

    Without ``update``, :meth:`open` creates no tables, and fails if they are of an older version.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        dsn: str,
        settings: PostgresSettings | None = None,
        *,
        patient: bool = False,
        own: Literal["", "alone", "shared"] = "",
        update: bool = True,
    ) -> None:
        self.reactor = reactor
        self.settings = settings or PostgresSettings()
        self._dsn = dsn
        self._patient = patient
        self._where = "PostgreSQL"
        self._writer: PostgresLink | None = None
        self._others: list[PostgresLink] = []
        self._reader: PostgresLink | None = None
        self._ownership = Ownership() if own else None
        self._shared = own == "shared"
        self._update = update
        #: What may be lost or counted twice after a power cut, and why; empty if nothing.
        self.risk = ""
        self._closed = self._lost = False
        self._pause: Deferred[Any] | None = None
        self._opening: Deferred[None] | None = None

    # -- opening and closing

    def check(self) -> None:
        """Connect, create or update the tables, and disconnect; blocks.

        For a process that does nothing else yet. Raises what :meth:`open` fails with.
        """
        import psycopg2

        from kupool.storage.postgres.trouble import explain

        self._parse()
        try:
            with closing(self._connect_blocking()) as connection:
                self._begin_blocking(connection)
                with connection, connection.cursor() as cursor:
                    _now(prepare(BlockingCursor(cursor), SCHEMA, update=self._update))
        except (psycopg2.Error, DatabaseUnusable, NotOwner) as error:
            raise DatabaseUnusable(f"{self._where}: {explain(error)}") from None

    def _connect_blocking(self) -> Any:
        import psycopg2

        return psycopg2.connect(
            self._dsn,
            connect_timeout=max(2, round(self._parse().timeout)),
            client_encoding="UTF8",
            fallback_application_name="kupool",
        )

    def _begin_blocking(self, connection: Any) -> None:
        """Take the lock; waits a while until the session of a daemon that is gone has ended."""
        ownership, deadline = self._ownership, time.monotonic() + GONE_PATIENCE
        while ownership is not None:
            connection.autocommit = True
            try:
                with connection.cursor() as cursor:
                    backend = connection.get_backend_pid()
                    _now(ownership.begin(BlockingCursor(cursor), backend, self._switches_now))
                    connection.autocommit = False
                    return
            except InUse as error:
                gone = error.owner is not None and error.owner.gone
                if not gone or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    async def _switches_now(self) -> bool:
        return switches_sessions(self._connect_blocking)

    async def _switches(self) -> bool:
        reactor = self.reactor
        return await deferToThreadPool(
            reactor, reactor.getThreadPool(), switches_sessions, self._connect_blocking
        )

    def open(self) -> Deferred[None]:
        """Connect, and create or update the tables.

        Fails with :class:`DatabaseUnusable` or :class:`SchemaTooNew`; may then be called again.
        """
        self._closed = False
        self._opening = Deferred.fromCoroutine(self._open())
        return _unbound(self._opening)

    async def _open(self) -> None:
        from kupool.storage.postgres.link import PostgresLink
        from kupool.storage.postgres.trouble import TROUBLE, explain

        address = self._parse()
        limit, own, others = self.settings.timeout, None, None
        if self._ownership is not None:
            own, others = self._begin, self._begin_other
        writer = self._writer = PostgresLink(self.reactor, address, limit, self._changed, begin=own)
        try:
            await self._connect(writer)
            previous = await writer.transact(self._prepare)
            if self._ownership is not None:
                self._ownership.settled(previous)
            self._others = [
                PostgresLink(self.reactor, address, limit, _ignore, begin=others)
                for _ in range(self.settings.others)
            ]
            self._reader = PostgresLink(self.reactor, address, limit, _ignore, begin=others)
            for link in (*self._others, self._reader):
                try:
                    await link.connect()
                except TROUBLE:
                    link.lost(Failure())  # goes on trying
        except GeneratorExit:
            raise  # the coroutine is closed: it may not wait again
        except BaseException as error:
            await self._end_links(0.1)
            if isinstance(error, (DatabaseUnusable, *TROUBLE)):
                raise DatabaseUnusable(f"{self._where}: {explain(error)}") from None
            raise

    async def _prepare(self, cursor: Any) -> DatabaseOwner | None:
        await prepare(cursor, SCHEMA, update=self._update)
        if self._ownership is None:
            return None
        return await self._ownership.claim(cursor, retire_jobs=self._shared)

    async def _begin(self, cursor: Any, backend: int) -> None:
        """Begin a session for counting."""
        assert self._ownership is not None
        await self._ownership.begin(cursor, backend, self._switches)
        self._note_risk(await unsafe_settings(cursor))

    def _note_risk(self, names: Sequence[str]) -> None:
        """Log once which settings of the server make its commits unsafe, or that none does."""
        if not names:
            self.risk = ""
            return
        risk = (
            f"{self._where}: {', '.join(names)} off: after a power cut or a crash of the server "
            "submissions may count twice or not at all; turn these settings on"
        )
        if risk != self.risk:
            self.risk = risk
            self._log.warn("{risk}", risk=risk)

    async def _begin_other(self, cursor: Any, backend: int) -> None:
        await set_keepalives(cursor)

    async def _connect(self, link: PostgresLink) -> None:
        """Connect; with ``patient``, try until it succeeds."""
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

    def _parse(self) -> PostgresAddress:
        address = parse_address(self._dsn)
        self._where = address.shown
        return address

    def close(self) -> Deferred[None]:
        """Finish the work within ``patience``, and disconnect; may be called again."""
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        return Deferred.fromCoroutine(self._end_links(self.settings.patience))

    async def _end_links(self, patience: float) -> None:
        single = (self._reader, self._writer)
        links = [*self._others, *(link for link in single if link is not None)]
        self._others, self._reader, self._writer = [], None, None
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
        """Why nothing can be counted at the moment; empty if there is no problem."""
        if self._writer is None:
            return f"{self._where}: not open"
        reason = self._writer.problem
        return f"{self._where}: {reason}" if reason else ""

    @property
    def taken_over(self) -> str:
        """Which other daemon has taken over the database; empty while this one owns it."""
        return "" if self._ownership is None else self._ownership.taken_over

    @property
    def previous_owner(self) -> DatabaseOwner | None:
        """The owner of the database before this process; None for nobody."""
        return None if self._ownership is None else self._ownership.previous

    @property
    def previous_owner_gone(self) -> bool:
        """Whether the previous owner has certainly ended."""
        return self._ownership is None or self._ownership.previous_gone

    @property
    def jobs_retired(self) -> bool:
        """Whether the jobs of the previous owner were retired."""
        return self._shared and not self.previous_owner_gone

    def release(self) -> Deferred[None]:
        """Record that this process writes nothing more, and that its work is complete."""
        ownership = self._ownership
        if ownership is None or not ownership.term or ownership.taken_over:
            return succeed(None)
        return self.count(ownership.release)

    # -- work

    def count(self, work: DatabaseWork[T]) -> Deferred[T]:
        """Do some work in a transaction on the connection for counting, in order.

        It also fails if another owner has taken over. An exception of ``work`` fails the Deferred.
        A fault of the database fails it with :class:`DatabaseUnavailable` or
        :class:`DatabaseClosed`. Everything is then rolled back, unless the connection was lost
        before the answer to the commit. Cancelling the Deferred does not stop the work. The work
        may be done more than once, each time in a new transaction.
        """
        ownership = self._ownership
        checked = work

        async def check_and_work(cursor: Any) -> T:
            assert ownership is not None
            await ownership.check_session(cursor)
            return await work(cursor)

        if ownership is not None:
            checked = check_and_work
        return self._run(lambda: self._writer, checked, self.settings.timeout)

    def write(self, work: DatabaseWork[T], *, maintenance: bool = False) -> Deferred[T]:
        """Do some work that writes, beside the counting; see :meth:`run` and :meth:`count`."""
        ownership = self._ownership
        checked = work

        async def check_and_work(cursor: Any) -> T:
            assert ownership is not None
            # Long work does not prevent another daemon from taking over, because its late writes do
            # no harm.
            await ownership.check(cursor, hold=not maintenance)
            return await work(cursor)

        if ownership is not None:
            checked = check_and_work
        return self.run(checked, maintenance=maintenance)

    def run(self, work: DatabaseWork[T], *, maintenance: bool = False) -> Deferred[T]:
        """Do some work beside the counting, in no particular order; see :meth:`count`."""
        limit = self.settings.long_timeout if maintenance else self.settings.timeout
        return self._run(self._least_busy, work, limit)

    def query(self, sql: str, values: Sequence[object] = ()) -> Deferred[Any]:
        """Return the rows of one statement that reads; fails like :meth:`count`."""

        async def fetch(cursor: Any) -> Any:
            await cursor.execute(sql, values)
            return cursor.fetchall()

        return self.read(fetch)

    def read(self, work: DatabaseWork[T]) -> Deferred[T]:
        """Do some work that reads, on a connection of its own: nothing else waits for it."""
        return self._run(self._for_reading, work, self.settings.timeout)

    async def revive(self, cursor: Any) -> None:
        """Create tables again that were dropped, in the transaction of a cursor."""
        await revive(cursor, SCHEMA)

    def _for_reading(self) -> PostgresLink | None:
        """Return the connection for queries; another one while it is lost."""
        reader = self._reader
        return self._least_busy() if reader is None or reader.problem else reader

    def _least_busy(self) -> PostgresLink | None:
        """Return the connection with the least work, of the connected ones if there are any."""
        return min(
            self._others, key=lambda link: (bool(link.problem), link.waiting), default=self._writer
        )

    def _run(
        self, choose: Callable[[], PostgresLink | None], work: DatabaseWork[T], limit: float
    ) -> Deferred[T]:
        link = choose()
        if self._closed or link is None:
            return fail(DatabaseClosed(f"{self._where} is not open"))
        if link.waiting >= self.settings.waiting:
            return fail(DatabaseUnavailable(f"{self._where}: too many requests wait for it"))
        return _unbound(Deferred.fromCoroutine(self._transact(link, work, limit)))

    async def _transact(self, link: PostgresLink, work: DatabaseWork[T], limit: float) -> T:
        from kupool.storage.postgres.trouble import TROUBLE, ConnectionDead, explain

        for left in reversed(range(TRIES)):
            try:
                return await link.transact(work, limit)
            except ConnectionDead:
                raise DatabaseUnavailable(f"{self._where}: {link.problem}") from None
            except TROUBLE as error:
                if left and getattr(error, "pgcode", None) in _AGAIN:
                    # Let the other transaction go first: an immediate retry may conflict with it
                    # again.
                    await deferLater(self.reactor, AGAIN_AFTER)
                    continue
                raise DatabaseUnavailable(f"{self._where}: {explain(error)}") from error
        raise AssertionError("unreachable")


def _now(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that never waits; raises what it raises."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return cast(T, results[0])


def _ignore(reason: str) -> None:
    """Do nothing: the connection for counting reports for all."""


def _unbound(work: Deferred[T]) -> Deferred[T]:
    """Return a Deferred for the same result that can be cancelled without stopping the work."""
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
