"""One connection that reconnects when it is lost, and is closed when nothing answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg2
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from txpostgres.reconnection import DeadConnectionDetector
from txpostgres.retrying import simpleBackoffIterator
from txpostgres.txpostgres import Connection, Cursor, UnexpectedPollResult, _PollingMixin

from kupool.storage.postgres.address import PostgresAddress, look_up
from kupool.storage.postgres.trouble import TROUBLE, ConnectFailed, NoAnswer, explain, is_refusal

T = TypeVar("T")

#: The first statements of a session, whatever role and database have set.
SESSION = "SET TIME ZONE 'UTC'; SET default_transaction_isolation TO 'read committed'"

#: Seconds between two attempts to connect: at first, and at most.
FIRST_DELAY, LONGEST_DELAY = 0.1, 1.0

#: Error codes, or their beginnings, after which another connection may work: faults of the
#: connection itself, of a server that stops or starts, and of one that is read-only.
_FATAL = ("08", "57P", "25006")


class WatchedCursor(Cursor):  # type: ignore[misc]
    """A cursor that closes its connection if a statement takes too long."""

    def execute(self, query: str, params: Any = None) -> Deferred[Any]:
        """Execute a statement; fails with :class:`NoAnswer` after the link's limit."""
        link = self._connection
        # libpq may find the connection broken, and close a socket that the reactor watches.
        self.reactor.removeReader(link)
        answer = super().execute(query, params)
        link.rest()
        watched: Deferred[Any] = link.watch(answer)
        return watched


class Detector(DeadConnectionDetector):  # type: ignore[misc]
    """Leaves reconnecting to the link, in a later turn of the reactor.

    txpostgres would do it at once, within the call that closes the connection.
    """

    def startReconnecting(self, f: Failure) -> None:
        """Start to reconnect."""
        self.reconnectable.come_back(f)


class PostgresLink(Connection):  # type: ignore[misc]
    """A connection to a database.

    ``limit`` is how many seconds a statement may take. ``changed`` is called when the connection is
    lost, with the reason, and when it is back, with an empty text. ``begin`` is called at the start
    of each session; it gets a cursor, and the server process according to the connection.
    """

    cursorFactory = WatchedCursor
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        address: PostgresAddress,
        limit: float,
        changed: Callable[[str], None],
        *,
        begin: Callable[[Any, int], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(reactor, None, Detector(self._is_dead, reactor=reactor))
        self.detector.setReconnectable(self)
        self._address = address
        self._limit = limit
        self._limit_now = limit
        self._changed = changed
        self._begin = begin
        self._running: set[Any] = set()
        self._overdue = self._connecting = self._ended = False
        self._returning: Deferred[None] | None = None
        self._pause: Deferred[Any] | None = None
        #: The number of pieces of work that run or wait.
        self.waiting = 0
        #: Why there is no connection; empty when there is one.
        self.problem = "not connected"

    # -- connecting

    def connect(self) -> Deferred[None]:
        """Connect to the first server that accepts; fails with :class:`ConnectFailed`."""
        self._connecting = True

        def done(result: Any) -> Any:
            self._connecting = False
            if not isinstance(result, Failure):
                self.problem = ""
                self.rest()
            return result

        return Deferred.fromCoroutine(self._connect()).addBoth(done)

    async def _connect(self) -> None:
        problem, refused = "no server", False
        for server in self._address.servers:
            try:
                found = [""]
                if server.has_name:
                    timeout = self._address.timeout
                    found = await self._interruptible(look_up(self.reactor, server.host, timeout))
            except (OSError, TimedOut) as error:
                why = getattr(error, "strerror", None) or "the name server does not answer"
                problem = f"host {server.host}: {why}"
                continue
            for address in found:
                if self._ended:
                    raise ConnectFailed("closed")
                try:
                    await self._connect_to(self._address.arguments(server, address))
                except TROUBLE as error:
                    problem, refused = explain(error), is_refusal(error)
                    self.close()
                else:
                    return
        raise ConnectFailed(problem, refused)

    async def _connect_to(self, arguments: dict[str, str]) -> None:
        self._limit_now = self._address.timeout
        connecting = super().connect(**arguments)
        self.detector.setReconnectable(self)  # or it would keep these arguments
        await self.watch(connecting)
        await self.cursor().execute(SESSION)
        if self._begin is not None:
            await self._begin(self.cursor(), self.pollable().get_backend_pid())

    def lost(self, failure: Failure) -> None:
        """Note that the connection is lost, and start to reconnect."""
        self.detector.checkForDeadConnection(failure)

    def come_back(self, failure: Failure) -> None:
        """Try to connect until that succeeds."""
        self.problem = explain(failure.value or ConnectFailed("lost"))
        self._changed(self.problem)
        self._returning = Deferred.fromCoroutine(self._come_back())
        self._returning.addErrback(
            lambda failure: self._log.failure(
                "The connection to PostgreSQL could not be made again", failure
            )
        )

    async def _come_back(self) -> None:
        for delay in simpleBackoffIterator(FIRST_DELAY, LONGEST_DELAY, maxRetries=0):
            # The first delay is 0: but never within the call that closed the connection.
            with suppress(CancelledError):
                await self._interruptible(deferLater(self.reactor, delay))
            if self._ended:
                return
            try:
                await self.detector.reconnect()
                break
            except Exception as error:
                reason = explain(error)
                if reason != self.problem and getattr(error, "refused", False):
                    self._changed(reason)
                self.problem = reason
                if not isinstance(error, TROUBLE):  # a fault of ours must not end the trying
                    self._log.failure("The connection to PostgreSQL could not be made again")
        await self.detector.connectionRecovered()
        self._changed("")

    async def _interruptible(self, waiting: Deferred[T]) -> T:
        """Wait for a Deferred that is cancelled when the link ends."""
        self._pause = waiting
        try:
            return await waiting
        finally:
            self._pause = None

    # -- work

    def transact(
        self, work: Callable[[Any], Awaitable[T]], limit: float | None = None
    ) -> Deferred[T]:
        """Do some work in a transaction, after all earlier work.

        ``work`` gets a cursor; ``limit`` is how many seconds each of its statements may take. If it
        raises, or the database fails (:data:`TROUBLE`), everything is rolled back.
        """
        self.waiting += 1

        def begin() -> Deferred[T]:
            self._limit_now = limit or self._limit
            return Deferred.fromCoroutine(self._transact(work))

        def done(result: Any) -> Any:
            self.waiting -= 1
            return result

        transaction: Deferred[T] = self.lock.run(self.detector.callChecking, begin)
        return transaction.addBoth(done)

    async def _transact(self, work: Callable[[Any], Awaitable[T]]) -> T:
        connection = self.pollable()
        cursor = self.cursor()
        await cursor.execute("BEGIN")
        try:
            result = await work(cursor)
            await cursor.execute("COMMIT")
            if cursor.statusmessage != "COMMIT":  # after an error that was not passed on
                raise psycopg2.InternalError("the transaction was rolled back")
        except GeneratorExit:
            raise  # the coroutine is closed: it may not wait again
        except BaseException:
            await self._roll_back(cursor, connection)
            raise
        return result

    async def _roll_back(self, cursor: Any, connection: Any) -> None:
        if connection.closed:
            return
        try:
            await cursor.execute("ROLLBACK")
        except TROUBLE:
            if connection is self.pollable():
                self.close()

    # -- the watchdog

    def watch(self, answer: Deferred[Any]) -> Deferred[Any]:
        """Close the connection unless an answer arrives within the limit."""
        limit = self._limit_now
        timer = self.reactor.callLater(limit, self._give_up)

        def done(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            overdue, self._overdue = self._overdue, False
            if overdue and isinstance(result, Failure):
                return Failure(NoAnswer(f"no answer within {limit:g} s"))
            return result

        return answer.addBoth(done)

    def _give_up(self) -> None:
        self._overdue = True
        self.close()

    # -- what txpostgres calls

    def cursorRunning(self, cursor: Any) -> None:
        """Remember which cursor the reactor watches."""
        self._running.add(cursor)
        super().cursorRunning(cursor)

    def cursorFinished(self, cursor: Any) -> None:
        """Forget the cursor that the reactor watched, and watch the connection instead."""
        self._running.discard(cursor)
        self._cursors.discard(cursor)
        self.rest()

    def rest(self) -> None:
        """Watch the connection while no statement runs, or find that it is lost."""
        if self._running or self.problem:
            return  # a statement is under way, or a connection being made
        if self._usable:
            self.reactor.addReader(self)
        else:
            self.lost(Failure(ConnectFailed("the connection was closed")))

    def doRead(self) -> None:
        """Read while no statement runs: usually the end of the connection."""
        try:
            # Do not use the method of Connection: it would watch a socket that is closed.
            _PollingMixin.doRead(self)
        except (psycopg2.Error, UnexpectedPollResult):
            if not self.problem:
                self.lost(Failure())
        else:
            self.rest()

    @property
    def _usable(self) -> bool:
        """Whether there is a connection, as far as we know."""
        connection = self.pollable()
        return connection is not None and not connection.closed and connection.fileno() >= 0

    def close(self) -> None:
        """Close the connection; unanswered statements fail."""
        connection = self.pollable()
        if connection is None:
            return
        super().close()
        with suppress(psycopg2.Error):
            connection.close()

    def _is_dead(self, failure: Failure) -> bool:
        """Say whether the connection has to be made again after this failure."""
        if self._connecting or self._ended:
            return False  # what has not become a connection cannot be lost
        if not self._usable:
            return True
        error = failure.value
        code = getattr(error, "pgcode", None)
        if code is not None:
            return str(code).startswith(_FATAL)
        return isinstance(error, psycopg2.OperationalError | NoAnswer | UnexpectedPollResult)

    async def end(self, patience: float) -> None:
        """Close for good, once the running work has ended or ``patience`` seconds have passed."""
        turn = self.lock.acquire()
        with suppress(TimedOut):
            await turn.addTimeout(patience, self.reactor)
        self._ended = True
        self.problem = "closed"
        self.close()
        if self._pause is not None:
            self._pause.cancel()
        if self._returning is not None:
            await self._returning
