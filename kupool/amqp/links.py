"""Links: broker connections that reconnect indefinitely, one for each purpose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import random as _random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kupool.amqp import BrokerError, BrokerRefused, BrokerUnreachable
from kupool.amqp.address import BrokerAddress
from kupool.amqp.connection import BrokerConnection, connect
from kupool.amqp.wire import ConnectionSettings, as_error
from kupool.net.dialling.backoff import Backoff
from kupool.timing.waiting import Waiters


@dataclass(frozen=True)
class LinkSettings:
    """The backoff of a link, in seconds.

    The wait between attempts is a random part of a time that doubles with each failed round
    of the brokers, from ``first_wait`` up to ``longest_wait``. A connection that lasted
    ``settled`` seconds resets it.
    """

    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    first_wait: float = 0.1
    longest_wait: float = 10.0
    settled: float = 5.0


# The backoff is that of kupool.net.dialling. Its loop, Redial, is not used: stopping Redial
# cancels an attempt at once, but a broker connection whose set-up has begun must be closed
# in order, and awaited.
class Link:
    """Keeps a connection to the first of some brokers that accepts it.

    ``set_up`` is called with each new connection. If it fails, the connection is dropped
    and another attempt follows. ``lost`` is called with the reason when a connection ends
    or an attempt fails. ``random`` returns a number from 0 to 1.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        brokers: Sequence[BrokerAddress],
        name: str,
        set_up: Callable[[BrokerConnection], Awaitable[None]],
        *,
        lost: Callable[[str], object] = lambda why: None,
        settings: LinkSettings | None = None,
        random: Callable[[], float] = _random,
    ) -> None:
        self._reactor = reactor
        self._brokers = brokers
        self._name = name
        self._set_up = set_up
        self._lost = lost
        self._settings = settings or LinkSettings()
        self._waiting = Waiters[None]()
        self._running: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._connecting: Deferred[BrokerConnection] | None = None
        self._stopped = False
        self._attempts = 0
        self._backoff = Backoff(
            self._settings.first_wait,
            self._settings.longest_wait,
            steady=self._settings.settled,
            places=len(brokers),
            random=random,
        )
        self._trying: BrokerConnection | None = None
        #: The connection, after its set-up; None without one.
        self.connection: BrokerConnection | None = None
        #: Why there is no connection; empty if there is one.
        self.problem = "not connected yet"
        #: Whether the last failure was permanent: a retry alone does not help.
        self.refused = False

    def start(self) -> None:
        """Start connecting."""
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(
            lambda failure: self._log.failure(
                "Unexpected error in a connection to RabbitMQ", failure
            )
        )

    async def first(self, patience: float | None = None) -> None:
        """Wait for the first connection, for at most ``patience`` seconds.

        Raises :class:`BrokerRefused` if a broker refuses the connection, and
        :class:`BrokerUnreachable` if each was tried once and none answers.
        """
        began = self._reactor.seconds()
        while self.connection is None:
            if self.refused:
                raise BrokerRefused(self.problem)
            if self._stopped:
                raise BrokerUnreachable("closed")
            left = None if patience is None else began + patience - self._reactor.seconds()
            if self._attempts >= len(self._brokers) or (left is not None and left <= 0):
                raise BrokerUnreachable(self.problem)
            await self._next_news(left)

    async def up(self, seconds: float) -> BrokerConnection:
        """Wait up to ``seconds`` for the connection; else raises :class:`BrokerUnreachable`."""
        deadline = self._reactor.seconds() + seconds
        while self.connection is None:
            left = deadline - self._reactor.seconds()
            if left <= 0 or self._stopped:
                raise BrokerUnreachable(self.problem)
            await self._next_news(left)
        return self.connection

    async def _next_news(self, seconds: float | None = None) -> None:
        news = self._waiting.wait()
        if seconds is not None:
            news.addTimeout(seconds, self._reactor, lambda *_: None)
        await news

    def _tell(self) -> None:
        self._waiting.tell(None)

    async def _run(self) -> None:
        while not self._stopped:
            broker, stood = self._brokers[self._backoff.place], 0.0
            try:
                connection = await self._connect(broker)
            except Exception as error:
                self._failed(as_error(error))
            else:
                since = self._reactor.seconds()
                why = await connection.ended()
                stood = self._reactor.seconds() - since
                self.connection = None
                self._failed(BrokerError(f"RabbitMQ at {broker}: {why}", why.code))
            if not self._stopped:
                await self._rest(self._backoff.after(None, stood) or 0.0)

    async def _connect(self, broker: BrokerAddress) -> BrokerConnection:
        settings = self._settings.connection
        self._connecting = Deferred.fromCoroutine(
            connect(self._reactor, broker, settings, self._name)
        )
        try:
            connection = await self._connecting
        finally:
            self._connecting = None
        if self._stopped:
            connection.close()
            await connection.ended()
            raise BrokerError("closed")
        self._trying = connection
        try:
            await self._set_up(connection)
            if not connection.is_open:
                raise await connection.ended()
        except Exception as error:
            connection.close()
            await connection.ended()
            found = as_error(error)
            if isinstance(found, BrokerRefused):
                raise found from None
            raise BrokerError(f"RabbitMQ at {broker}: {found}", found.code) from None
        finally:
            self._trying = None
        if self.problem and self._attempts:
            self._log.info("{name}: connected to RabbitMQ at {to}", name=self._name, to=broker)
        self.connection, self.problem, self.refused = connection, "", False
        self._tell()
        return connection

    def _failed(self, error: BrokerError) -> None:
        self._attempts += 1
        if self._stopped:
            self.problem = "closed"
        elif str(error) != self.problem:
            self.problem = str(error)
            self._log.error("{name}: {why}; reconnecting", name=self._name, why=self.problem)
        self.refused = isinstance(error, BrokerRefused)
        self._lost(self.problem)
        self._tell()

    async def _rest(self, seconds: float) -> None:
        self._pause = deferLater(self._reactor, seconds)
        try:
            await self._pause
        except CancelledError:
            pass
        self._pause = None

    async def stop(self) -> None:
        """Close the connection, in order if possible, and do not reconnect."""
        self._stopped = True
        for waiting in (self._pause, self._connecting):
            if waiting is not None:
                waiting.cancel()
        for connection in (self.connection, self._trying):
            if connection is not None:
                connection.close()
        self._tell()
        if self._running is not None:
            running, self._running = self._running, None
            await running


__all__ = ["Link", "LinkSettings"]
