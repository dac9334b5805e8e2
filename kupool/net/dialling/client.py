"""A client for servers of one's own: the same codecs and routers, and it comes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import random as _random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.errors import CLOSE_REASONS, CloseReason
from kupool.net.dialling.answers import Announced, Answers, Key
from kupool.net.dialling.failures import (
    ClientClosed,
    NotConnected,
    SlowServer,
    Unreachable,
)
from kupool.net.dialling.settings import Backoff, ClientSettings, client_factory
from kupool.net.failures import MESSAGE_TOO_LARGE
from kupool.net.interfaces import IConnectionObserver
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.routing.correlation import SIZE
from kupool.net.routing.interfaces import IRouter
from kupool.net.routing.router import Router
from kupool.net.routing.table import Unknown
from kupool.session.connection import Connection
from kupool.wire.codecs import Codec
from kupool.wire.framing import FRAME, OP_CLOSE, OP_PING, Control, Item, Tlv, encode_frame
from kupool.wire.messages import encode_request

_REASONS = {reason.reason: reason for reason in (*CLOSE_REASONS, MESSAGE_TOO_LARGE)}


@implementer(IRouter)
class _Nobody:
    """Takes what the server sends on its own where nobody wants it."""

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Do nothing."""
        return None


@implementer(IConnectionObserver, IRouter)
class Client:
    """Connects, comes back when the connection is lost, and matches answers to requests.

    ``address`` is an endpoint of Twisted's, or a client endpoint string such as
    ``tcp:localhost:8000`` or ``tls:a.example:8000``; ``codec`` is what the server
    speaks, by name or as an object. What the server sends on its own goes to ``router``,
    with the connection and the message as on a server. ``keepalive`` is the message that
    is sent as a sign of life; ``frame`` has one of its own. ``on_connected`` gets each
    connection, ``on_disconnected`` why it ended. Raises :class:`ValueError` for a codec
    or an address that there is not.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        address: str | IStreamClientEndpoint,
        router: IRouter | None = None,
        settings: ClientSettings | None = None,
        *,
        codec: str | Codec = "line",
        keepalive: bytes | Tlv | None = None,
        random: Callable[[], float] = _random,
        on_connected: Callable[[Connection], object] | None = None,
        on_disconnected: Callable[[str], object] | None = None,
    ) -> None:
        self.settings = settings or ClientSettings()
        #: ``connected``, ``lost``, ``failed``, ``timeouts``, ``unknown answers``.
        self.counters: Counter[str] = Counter()
        #: The connection that stands, if one does.
        self.connection: Connection | None = None
        self.on_connected = on_connected
        self.on_disconnected = on_disconnected
        self._clock: IReactorTime = reactor
        self._endpoint: Any = (
            clientFromString(reactor, address) if isinstance(address, str) else address
        )
        self._router: IRouter = router or _Nobody()
        self._control = Router(Unknown.IGNORE)
        self._keepalive = keepalive
        self._backoff = Backoff(self.settings, random)
        limits = ServerSettings(
            max_frame=self.settings.max_frame,
            max_connections=0,
            idle_timeout=self.settings.silence,
            write_timeout=self.settings.close_timeout,
            max_errors=0,  # a server may send what this client has no handler for
        )
        self._manager = ConnectionManager(reactor, self, limits)
        self._factory = client_factory(self._manager, codec)
        self._answers = Answers(
            reactor, self.settings.timeout, self.settings.most_pending, self.counters
        )
        self._waiting: list[Deferred[Connection]] = []
        self._running: Deferred[None] | None = None
        self._step: Deferred[Any] | None = None
        self._ended: Deferred[None] | None = None
        self._closing = False
        self._unwanted: CloseReason | None = None
        self._announced = ""
        self._alive: Any = None

    @property
    def pending(self) -> int:
        """Requests that have no answer yet."""
        return len(self._answers)

    # -- coming and going

    def connect(self) -> Deferred[Connection]:
        """Begin, and return a Deferred of the first connection.

        Fails with :class:`Unreachable` after as many attempts as the settings allow,
        and with :class:`ClientClosed`. May be called again while none stands.
        """
        found: Deferred[Connection] = Deferred()
        if self._closing:
            return fail(ClientClosed())
        if self.connection is not None:
            found.callback(self.connection)
            return found
        self._waiting.append(found)
        if self._running is None:
            self._unwanted = None
            self._manager.start()
            self._running = Deferred.fromCoroutine(self._keep())
            self._running.addErrback(lambda f: self._log.failure("The client ended", f))
        return found

    async def _keep(self) -> None:
        """Connect, and connect again."""
        failures, connected = 0, False
        while not self._closing and self._unwanted is None:
            try:
                await self._now(self._endpoint.connect(self._factory))
                connected, failures = True, 0
                began, stood = self._clock.seconds(), 0.0
                if self.connection is not None:
                    ended: Deferred[None] = Deferred()
                    self._ended = ended
                    await ended
                    stood = self._clock.seconds() - began
                wait = self._backoff.after(stood)
            except CancelledError:
                break
            except Exception as error:
                failures += 1
                self.counters["failed"] += 1
                if not connected and failures == self.settings.attempts:
                    self._tell(Unreachable(failures, str(error)))
                    break
                self._backoff.failed()
                wait = self._backoff.next()
            if self._closing or self._unwanted is not None:
                break
            try:
                await self._now(self._pause(wait))
            except CancelledError:
                break
        self._running = None
        self._manager.stop()
        reason = "" if self._unwanted is None else self._unwanted.reason
        self._tell(Unreachable(failures, reason) if reason else ClientClosed())

    def _now(self, step: Deferred[Any]) -> Deferred[Any]:
        self._step = step
        return step

    def _pause(self, seconds: float) -> Deferred[None]:
        pause: Deferred[None] = Deferred(lambda deferred: timer.cancel())
        timer = self._clock.callLater(seconds, pause.callback, None)
        return pause

    def _tell(self, outcome: Connection | Exception) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if isinstance(outcome, Exception):
                deferred.errback(outcome)
            else:
                deferred.callback(outcome)

    async def close(self) -> None:
        """End the connection, and come back no more; requests fail."""
        self._closing = True
        running = self._running
        if self.connection is not None:
            self.connection.close(None)
        elif self._step is not None:
            self._step.cancel()
        if running is not None:
            done: Deferred[None] = Deferred()
            running.addBoth(lambda result: done.callback(None))
            await done

    def opened(self, connection: Connection) -> None:
        """A connection stands; called by the framework."""
        connection.router = self
        self.connection = connection
        self.counters["connected"] += 1
        self._announced = ""
        self._schedule_keepalive()
        if self.on_connected is not None:
            try:
                self.on_connected(connection)
            except Exception as error:
                self._tell(error)
                raise
        self._tell(connection)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """A connection has ended; called by the framework."""
        self.connection = None
        self.counters["lost"] += 1
        if self._alive is not None:
            self._alive.cancel()
            self._alive = None
        why = self._announced or reason.getErrorMessage()
        self._answers.fail(why)
        if self.on_disconnected is not None:
            try:
                self.on_disconnected(why)
            except Exception:
                self._log.failure("What is to be done at the end of a connection failed")
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.callback(None)

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """The server has finished, and so has the client; called by the framework."""
        return None

    # -- asking

    def request(
        self, method: str, params: object = None, timeout: float | None = None
    ) -> Deferred[Any]:
        """Ask a server that speaks JSON; fires with the ``result``.

        Fails with :class:`RequestError` where the server answers an error, with
        :class:`RequestTimeout`, :class:`ConnectionEnded`, :class:`NotConnected`,
        :class:`SlowServer`, or :class:`TooManyRequests`.
        """
        number = self._answers.next_id()
        return self._ask(number, encode_request(number, method, params), timeout)

    def call(
        self,
        message_id: int,
        data: bytes,
        timeout: float | None = None,
        *,
        answer_id: int | None = None,
    ) -> Deferred[Any]:
        """Ask a server whose messages have numbers; fires with the answer's data.

        Both begin with a correlation id on the wire, as
        :func:`kupool.net.routing.correlation.correlated` has it. ``answer_id`` is the number of
        the answer where it is not that of the question. Fails as :meth:`request` does.
        """
        number = self._answers.next_id()
        message = Tlv(message_id, number.to_bytes(SIZE, "little") + data)
        key = (message_id if answer_id is None else answer_id, number)
        return self._ask(key, message, timeout)

    def notify(self, method: str, params: object = None) -> None:
        """Send a JSON notification; raises :class:`NotConnected`."""
        self.send(encode_request(None, method, params))

    def send(self, message: bytes | Tlv) -> None:
        """Send one message.

        Raises :class:`NotConnected`, :class:`SlowServer`, and what packing it raises.
        """
        connection = self.connection
        if connection is None or not connection.sends:
            raise NotConnected
        if connection.outbound > self.settings.most_outbound:
            raise SlowServer(connection.outbound)
        connection.send_encoded(connection.pack(message))

    def _ask(self, key: Key, message: bytes | Tlv, timeout: float | None) -> Deferred[Any]:
        try:
            self._answers.check()
            self.send(message)
        except Exception:
            return fail()
        return self._answers.expect(key, timeout)

    # -- what comes in

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Take one message of the server; called by the framework."""
        if isinstance(item, Control):
            if item.opcode == OP_CLOSE:
                text = item.payload.decode(errors="replace")
                reason = _REASONS.get(text) or CloseReason(0, text, True)
                self._close_announced(Announced(reason))
            return self._control.dispatch(connection, item)
        taken = self._answers.numbered(item) if isinstance(item, Tlv) else self._answers.take(item)
        if isinstance(taken, Announced):
            self._close_announced(taken)
        return None if taken else self._router.dispatch(connection, item)

    def _close_announced(self, close: Announced) -> None:
        self._announced = close.reason.reason
        self._backoff.wanted(close.retry_after)
        if not close.reason.reconnect and close.retry_after is None:
            self._unwanted = close.reason

    # -- signs of life

    def _schedule_keepalive(self) -> None:
        self._alive = None
        if self.settings.keepalive:
            self._alive = self._clock.callLater(self.settings.keepalive, self._sign)

    def _sign(self) -> None:
        connection = self.connection
        self._schedule_keepalive()
        if connection is None or not connection.sends:
            return
        if self._keepalive is not None:
            if not connection.outbound:  # what waits is a sign of life, too
                self.send(self._keepalive)
        elif connection.framing.name == FRAME.name:
            # A port that detects the framing does so by a first byte that is no ping's;
            # an empty message means nothing.
            first = b"" if connection.bytes_out else encode_frame(b"")
            connection.send_encoded(first + encode_frame(b"", OP_PING))


__all__ = ["Client", "ClientSettings"]
