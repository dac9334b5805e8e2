"""A session on a pool that outlives its connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from random import random as _random
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.client.answers import Answer, Closing, Incoming, error_code
from kupool.client.connection import ClientConnection, ConnectionFactory
from kupool.client.failures import (
    AlreadyConnected,
    ClientClosed,
    ClientError,
    ConnectionEnded,
    NotAuthorized,
    NotConnected,
    SessionRefused,
    Unreachable,
)
from kupool.client.keepalive import KeepAlive
from kupool.client.route import Route
from kupool.client.servers import Server, parse_server
from kupool.client.settings import ClientSettings
from kupool.client.submissions import Submissions
from kupool.errors import INTERNAL_ERROR, TIMEOUT, TOO_MANY_REQUESTS, UNAVAILABLE
from kupool.wire.framing import FRAMINGS
from kupool.wire.messages import JobParams, encode_request

#: Refusals of ``authorize`` that may pass by themselves.
_PASSING = frozenset(e.code for e in (INTERNAL_ERROR, TOO_MANY_REQUESTS, UNAVAILABLE, TIMEOUT))


class PoolClient:
    """Connects, authorizes, submits, and comes back when the connection is lost.

    ``servers`` are tried in turn: texts as :func:`~kupool.client.servers.parse_server`
    takes them, or :class:`~kupool.client.servers.Server`. ``framing`` is ``frame``,
    ``int32`` or ``line``; ``random`` returns a number from 0 to 1. Hooks may be set at
    any time: ``on_job`` gets each job, ``on_connected`` the name of the server that
    authorized, ``on_disconnected`` why that ended. Raises :class:`ValueError` for a
    server or a framing that there is not.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[str | Server],
        username: str,
        password: str | None = None,
        framing: str = "frame",
        settings: ClientSettings | None = None,
        *,
        random: Callable[[], float] = _random,
        on_job: Callable[[JobParams], object] | None = None,
        on_connected: Callable[[str], object] | None = None,
        on_disconnected: Callable[[str], object] | None = None,
    ) -> None:
        if not servers:
            raise ValueError("a client needs at least one server")
        if framing not in FRAMINGS:
            raise ValueError(f"{framing!r} is no framing; there are {', '.join(FRAMINGS)}")
        self.settings = settings or ClientSettings()
        self.username = username
        self.on_job = on_job
        self.on_connected = on_connected
        self.on_disconnected = on_disconnected
        #: The newest job of the session; None between two connections.
        self.job: JobParams | None = None
        #: Whether a session stands.
        self.connected = False
        #: Why the last attempt or session ended; empty while one stands.
        self.problem = ""
        self._clock = reactor
        self._random = random
        self._password = password
        self._framing = FRAMINGS[framing]
        self._servers = [
            parse_server(reactor, s, self.settings.connect_timeout) if isinstance(s, str) else s
            for s in servers
        ]
        self._next_id = count(1).__next__
        self._submissions = Submissions(reactor, self._next_id, self.settings, random)
        self._connection: ClientConnection | None = None
        self._active = False
        self._running: Deferred[None] | None = None
        self._connecting: Deferred[None] | None = None
        self._closing = False
        self._authorize_id = self._ping_id = 0
        self._authorized: Deferred[Incoming] | None = None
        self._ended: Deferred[str] | None = None
        self._stopped: list[Deferred[None]] = []

    @property
    def counters(self) -> Counter[str]:
        """Submissions by outcome, and ``resubmitted``, ``retried``, ``reconnects``,
        ``unknown replies``.
        """
        return self._submissions.counters

    @property
    def unanswered(self) -> int:
        """Submissions that have no final answer yet."""
        return len(self._submissions)

    # -- for the user

    def connect(self) -> Deferred[None]:
        """Begin, and go on until :meth:`close`; fires when a server said ``true``.

        Fails with :class:`AlreadyConnected` on a client that has begun, with
        :class:`NotAuthorized` or :class:`SessionRefused` when a server wants nobody
        back, and with :class:`Unreachable` after ``max_attempts``. Cancelling it closes
        the client.
        """
        if self._active:
            return fail(AlreadyConnected())
        self._active = True
        self._closing = False
        connecting: Deferred[None] = Deferred(self._given_up)
        self._connecting = connecting
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addBoth(self._finish)
        return connecting

    def submit(self, job_id: int, client_nonce: str, result: str) -> Deferred[Answer]:
        """Submit; fires with the final answer, on whichever connection it comes.

        Fails with :class:`NotConnected` before :meth:`connect`, with
        :class:`TooManyUnanswered` beyond the bound, and when the client ends.
        """
        if not self._active or self._closing:
            return fail(NotConnected())
        return self._submissions.add(job_id, client_nonce, result)

    def when_stopped(self) -> Deferred[None]:
        """Return what fires when the client has ended, or fails with what ended it."""
        if not self._active:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        return stopped

    def close(self) -> Deferred[None]:
        """Say goodbye and end; fires when the socket is closed.

        Answers that come until then are taken; what is still unanswered then fails
        with :class:`ClientClosed`.
        """
        stopped = self.when_stopped()
        if not self._closing:
            self._closing = True
            if self._connection is not None:
                self._connection.finish(self.settings.close_timeout)
            elif self._running is not None:
                # None while _run() has not been left for the first time: it looks.
                self._running.cancel()
        return stopped.addErrback(lambda _: None)

    # -- the life of a client

    async def _run(self) -> None:
        route = Route(len(self._servers), self.settings, self._random)
        while not self._closing:
            server = self._servers[route.index]
            closing, why, stood = await self._visit(server)
            self.problem = f"{server.name}: {why}"
            if self._closing:
                return
            if closing is not None and not closing.reconnect and closing.retry_after is None:
                raise SessionRefused(server.name, closing.reason, closing.code)
            wait = route.after(closing, stood, self._clock.seconds())
            most = self.settings.max_attempts
            if most and route.failures >= most:
                raise Unreachable(route.failures, why)
            self._log.warn(
                "{problem}; next attempt in {wait:.1f} s", problem=self.problem, wait=wait
            )
            if wait:
                await self._sleep(wait)

    async def _visit(self, server: Server) -> tuple[Closing | None, str, float]:
        """Have one connection; returns what the server announced, why it ended, and
        how many seconds the session stood.
        """
        ended: Deferred[str] = Deferred()
        self._ended = ended
        try:
            connection = await self._dial(server)
        except CancelledError:
            raise
        except Exception as error:  # whatever an endpoint fails with, it may pass
            return None, str(error).rstrip(".") or type(error).__name__, 0.0
        try:
            await self._authorize(connection, server)
        except ConnectionEnded as error:
            return connection.closing, str(error), 0.0
        except NotAuthorized:
            connection.lose("not authorized")
            await ended
            raise
        since = self._clock.seconds()
        keepalive = KeepAlive(
            self._clock, connection, self.settings, lambda: self._submissions.oldest, self._ping
        )
        self._begin(connection, server)
        why = await ended
        keepalive.stop()
        self.connected = False
        self.job = None
        self._submissions.disconnected()
        self._call(self.on_disconnected, why)
        return connection.closing, why, self._clock.seconds() - since

    async def _dial(self, server: Server) -> ClientConnection:
        settings = self.settings
        factory = ConnectionFactory(
            lambda: ClientConnection(self._clock, self._framing, self, settings.max_frame)
        )
        endpoint: Any = server.endpoint
        dialled = endpoint.connect(factory)
        connection: ClientConnection = await dialled.addTimeout(
            settings.connect_timeout, self._clock
        )
        return connection

    async def _authorize(self, connection: ClientConnection, server: Server) -> None:
        """Authorize; raises :class:`NotAuthorized`, or :class:`ConnectionEnded`."""
        if self._connection is not connection:
            raise ConnectionEnded("the connection ended at once")
        if self._closing and self._ended is not None:
            raise ConnectionEnded(await self._ended)
        self._authorize_id = self._next_id()
        params: dict[str, str] = {"username": self.username}
        if self._password is not None:
            params["password"] = self._password
        answered: Deferred[Incoming] = Deferred()
        self._authorized = answered
        limit = self._clock.callLater(
            self.settings.authorize_timeout, connection.abort, "no answer to authorize"
        )
        connection.send(encode_request(self._authorize_id, "authorize", params))
        try:
            reply = await answered
        finally:
            self._authorized = None
            if limit.active():
                limit.cancel()
        if reply.error is None and reply.result is True:
            return
        reason = reply.error or "authorize was not answered with true"
        if error_code(reply) not in _PASSING:
            raise NotAuthorized(self.username, server.name, reason)
        connection.lose(reason)
        if self._ended is not None:
            await self._ended
        raise ConnectionEnded(reason)

    def _begin(self, connection: ClientConnection, server: Server) -> None:
        self.connected = True
        self.problem = ""
        self._log.info(
            "Authorized on {server} as {username}", server=server.name, username=self.username
        )
        connecting, self._connecting = self._connecting, None
        if connecting is None:
            self.counters["reconnects"] += 1
        self._submissions.connected(connection.send)
        self._call(self.on_connected, server.name)
        if connecting is not None:
            connecting.callback(None)

    async def _sleep(self, seconds: float) -> None:
        slept: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._clock.callLater(seconds, slept.callback, None)
        await slept

    def _finish(self, result: Failure | None) -> None:
        """The client has ended, for the reason that ``result`` holds."""
        error: Exception = ClientClosed()
        if isinstance(result, Failure) and not result.check(CancelledError):
            error = result.value if isinstance(result.value, Exception) else error
            if not isinstance(error, ClientError):
                self._log.failure("The client ended", result)
        if self._connection is not None:
            self._connection.abort("the client ended")
        self._active = False
        self._running = self._connection = self._ended = None
        self._submissions.fail(error)
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.errback(error)
        waiting, self._stopped = self._stopped, []
        for stopped in waiting:
            if isinstance(error, ClientClosed):
                stopped.callback(None)
            else:
                stopped.errback(error)

    def _given_up(self, _: Deferred[None]) -> None:
        self._connecting = None
        self.close()

    # -- Receiver

    def opened(self, connection: ClientConnection) -> None:
        """The transport stands; :meth:`_visit` goes on with it."""
        self._connection = connection

    def replied(self, connection: ClientConnection, reply: Incoming) -> None:
        """Give a reply to whoever waits for it."""
        if self._submissions.answered(reply):
            return
        if reply.id == self._authorize_id and self._authorized is not None:
            self._authorized.callback(reply)
        elif reply.id is None:
            self._log.warn("The server complains: {text}", text=reply.error)
        elif reply.id != self._ping_id:
            self.counters["unknown replies"] += 1
            self._log.debug("A reply to nothing: {id}", id=reply.id)

    def notified(self, connection: ClientConnection, message: Incoming) -> None:
        """Take a job; other notifications are not for this client."""
        if message.method != "job" or not self.connected:
            return
        try:
            job = msgspec.json.decode(message.params, type=JobParams)
        except ValueError as error:
            self._log.warn("A job that is none: {error}", error=str(error))
            return
        self.job = job
        self._call(self.on_job, job)

    def ended(self, connection: ClientConnection, reason: str) -> None:
        """The transport is gone."""
        if self._connection is connection:
            self._connection = None
        if self._authorized is not None:
            self._authorized.errback(ConnectionEnded(reason))
        if self._ended is not None and not self._ended.called:
            self._ended.callback(reason)

    def _ping(self) -> bytes:
        self._ping_id = self._next_id()
        return encode_request(self._ping_id, "ping", {})

    def _call(self, hook: Callable[..., object] | None, *arguments: object) -> None:
        if hook is not None:
            try:
                hook(*arguments)
            except Exception:
                self._log.failure("A hook of the client failed")
