"""A client for your own servers: same codecs and routers, and it reconnects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import random as _random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.callbacks import called
from kupool.errors import ErrorText, RequestError
from kupool.net.dialling.answers import Key
from kupool.net.dialling.dialler import ClientState, Dialler, Ended, Place, User
from kupool.net.dialling.failures import (
    ClientClosed,
    ConnectionEnded,
    HookFailed,
    NotConnected,
    NotWanted,
    SlowServer,
    Unreachable,
    UnreadableAnswer,
)
from kupool.net.dialling.settings import ClientSettings, DialSettings, framing_for
from kupool.net.dialling.tls import client_endpoint
from kupool.net.routing.correlation import SIZE
from kupool.net.routing.interfaces import IRouter
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.timing.waiting import Waiters
from kupool.wire.codecs import Codec
from kupool.wire.framing import Item, Tlv
from kupool.wire.incoming import ServerMessage
from kupool.wire.messages import encode_request


class Client:
    """Connects, reconnects after a loss, and matches answers to requests.

    ``address`` is a Twisted endpoint, or a client endpoint string such as
    ``tcp:localhost:8000`` or ``tls:a.example:8000``, or several of them, which are tried in
    turn. ``codec`` is the server's codec, by name or as an object. Messages that are not
    answers go to ``router``, as on a server; a ``ping`` is answered here. ``keepalive`` is the
    message sent as a keepalive; JSON codecs have a default.

    Hooks may return a Deferred or a coroutine:

    - ``on_connected`` gets each connection. The client counts as connected when the hook is
      done; if the hook fails, so does the attempt. After a
      :class:`~kupool.net.dialling.failures.NotWanted` there is no other attempt. A
      :class:`~kupool.net.dialling.failures.ConnectionEnded` counts as a lost connection.
    - ``on_disconnected`` gets the reason why a connection ended.
    - ``on_gone`` gets the :class:`~kupool.net.dialling.failures.NotWanted` after which the
      client does not reconnect by itself.

    Raises :class:`ValueError` for an invalid codec or address.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        address: str | IStreamClientEndpoint | Sequence[str | IStreamClientEndpoint],
        router: IRouter | None = None,
        settings: ClientSettings | None = None,
        *,
        codec: str | Codec = "line",
        keepalive: bytes | Tlv | None = None,
        random: Callable[[], float] = _random,
        on_connected: Callable[[Connection], object] | None = None,
        on_disconnected: Callable[[str], object] | None = None,
        on_gone: Callable[[NotWanted], object] | None = None,
    ) -> None:
        self.settings = settings or ClientSettings()
        #: ``connected``, ``lost``, ``failed``, ``timeouts``, ``unknown answers``.
        self.counters: Counter[str] = Counter()
        self.on_connected = on_connected
        self.on_disconnected = on_disconnected
        self.on_gone = on_gone
        #: Why this client does not reconnect by itself; None while it does.
        self.refusal: NotWanted | None = None
        self._router = router
        self._keepalive = keepalive
        one = isinstance(address, str) or not isinstance(address, Sequence)
        addresses: Any = [address] if one else address
        self._dialler = Dialler(
            reactor,
            [_place(reactor, each) for each in addresses],
            framing_for(codec),
            User(self._greet, self._up, self._received, self._down, self._again, self._gone),
            settings=_dial_settings(self.settings),
            counters=self.counters,
            random=random,
            ping=None if keepalive is None else self._sign,
        )
        self._waiting = Waiters[Connection]()
        self._failed = 0
        self._stood = self._closing = False

    @property
    def connection(self) -> Connection | None:
        """The connection, if there is one."""
        return self._dialler.connection

    @property
    def state(self) -> ClientState:
        """The state of the client; for the reason of ``ClientState.GONE`` see :attr:`refusal`."""
        return self._dialler.state

    @property
    def server(self) -> str:
        """The address that is being tried, or that the connection is with."""
        return self._dialler.place.name

    @property
    def pending(self) -> int:
        """Number of requests without an answer."""
        return len(self._dialler.answers)

    # -- connecting

    def connect(self) -> Deferred[Connection]:
        """Start connecting; returns a Deferred of the first connection.

        Fails with :class:`Unreachable` after the number of attempts in the settings, with
        :class:`NotWanted`, and with :class:`ClientClosed`. It may be called again while no
        connection is open: a client that does not reconnect by itself then tries again.
        """
        if self._closing:
            return fail(ClientClosed())
        if self.connection is not None and self.state is ClientState.CONNECTED:
            return succeed(self.connection)
        found = self._waiting.wait()
        if self.state in (ClientState.IDLE, ClientState.GONE):
            self.refusal = None
            self._failed, self._stood = 0, False
            self._dialler.start()
        return found

    async def close(self) -> None:
        """Close the connection, and do not reconnect; pending requests fail."""
        self._closing = True
        await self._dialler.stop()
        self._tell(ClientClosed())

    def _tell(self, outcome: Connection | Exception) -> None:
        self._waiting.tell(Failure(outcome) if isinstance(outcome, Exception) else outcome)

    # -- called by the dialler

    def _greet(self, connection: Connection) -> object:
        """Run the hook of a new connection."""
        self.counters["connected"] += 1
        if self.on_connected is None:
            return None
        started = called(self.on_connected, connection)
        return started.addErrback(self._not_greeted)

    def _not_greeted(self, failure: Failure) -> Failure:
        if failure.check(NotWanted, ConnectionEnded):
            return failure  # no fault of the hook
        if self._dialler.connection is not None:
            self._log.failure("The hook on_connected failed", failure)
            error = failure.value
            self._tell(error if isinstance(error, Exception) else HookFailed(repr(error)))
        return failure

    def _up(self, connection: Connection, place: Place) -> None:
        """Handle a new session."""
        self._stood, self._failed = True, 0
        self._tell(connection)

    def _received(
        self, connection: Connection, item: Item, message: ServerMessage | None
    ) -> bytes | None:
        """Pass a message of the server that is not an answer to the router."""
        if message is not None and message.method is None:
            self.counters["unknown answers"] += 1
            return None
        return None if self._router is None else self._router.dispatch(connection, item)

    def _down(self, why: str, stood: bool) -> None:
        """Handle the end of a connection."""
        self.counters["lost"] += 1
        self._run(self.on_disconnected, why)

    def _again(self, ended: Ended, wait: float | None) -> Exception | None:
        """Give up if the hook said so, or after the number of attempts in the settings."""
        if isinstance(ended.error, NotWanted):
            return ended.error
        if not ended.connected:
            self._failed += 1
            self.counters["failed"] += 1
        most = self.settings.attempts
        if wait is not None and not self._stood and most and self._failed == most:
            return Unreachable(self._failed, ended.why)
        return None

    def _gone(self, why: Exception) -> None:
        """Handle the end of the client: there will be no other attempt."""
        if isinstance(why, NotWanted):
            self.refusal = why
            self._run(self.on_gone, why)
        self._tell(why)

    def _run(self, hook: Callable[..., object] | None, *arguments: object) -> None:
        if hook is not None:
            called(hook, *arguments).addErrback(
                lambda failure: self._log.failure("A hook of the client failed", failure)
            )

    # -- requests

    def request(
        self,
        method: str,
        params: object = None,
        timeout: float | None = None,
        *,
        form: Any = Any,
    ) -> Deferred[Any]:
        """Send a JSON request; fires with the ``result``, which is decoded to the type ``form``.

        Fails with :class:`RequestError` if the server answers an error, with
        :class:`UnreadableAnswer` if the result does not fit the type, with
        :class:`RequestTimeout`, :class:`ConnectionEnded`, :class:`NotConnected`,
        :class:`NotWanted`, :class:`SlowServer`, or :class:`TooManyRequests`.
        """
        number = self._dialler.answers.next_id()
        message = encode_request(number, method, params)
        return self._ask(number, message, timeout, form=form)

    def call(
        self,
        message_id: int,
        data: bytes,
        timeout: float | None = None,
        *,
        answer_id: int | None = None,
    ) -> Deferred[Any]:
        """Send a request with a message number; fires with the answer's data.

        On the wire, the data of both begins with a correlation id: see
        :func:`kupool.net.routing.correlation.correlated`. ``answer_id`` is the number of
        the answer, by default that of the request. Fails as :meth:`request` does.
        """
        number = self._dialler.answers.next_id()
        message = Tlv(message_id, number.to_bytes(SIZE, "little") + data)
        key = (message_id if answer_id is None else answer_id, number)
        return self._ask(key, message, timeout)

    def notify(self, method: str, params: object = None) -> None:
        """Send a JSON notification; raises as :meth:`send` does."""
        self.send(encode_request(None, method, params))

    def send(self, message: bytes | Tlv) -> None:
        """Send one message.

        Raises :class:`NotConnected` (:class:`NotWanted` if the client does not reconnect by
        itself), :class:`SlowServer`, and what packing the message raises.
        """
        connection = self.connection
        if connection is None or connection.state is not OPEN:
            raise self.refusal or NotConnected()
        if connection.outbound > self.settings.most_outbound:
            raise SlowServer(connection.outbound)
        connection.send_encoded(connection.pack(message))

    def _ask(
        self, key: Key, message: bytes | Tlv, timeout: float | None, *, form: Any = Any
    ) -> Deferred[Any]:
        answers = self._dialler.answers
        try:
            answers.check()
            self.send(message)
        except BaseException:  # the codec may be the application's
            return fail()
        answer: Deferred[Any] = Deferred(lambda _: answers.forget(key))

        def told(outcome: ServerMessage | bytes | Exception) -> None:
            if isinstance(outcome, bytes):
                answer.callback(outcome)
            elif isinstance(outcome, Exception):
                answer.errback(outcome)
            elif outcome.error is not None:
                answer.errback(RequestError(ErrorText(outcome.code or 0, outcome.error)))
            else:
                _decode_into(answer, outcome.result, form)

        answers.expect(key, told, self.settings.timeout if timeout is None else timeout)
        return answer

    def _sign(self, connection: Connection) -> None:
        if self._keepalive is not None:
            connection.send_encoded(connection.pack(self._keepalive))


def _place(reactor: Any, address: str | IStreamClientEndpoint) -> Place:
    if isinstance(address, str):
        return Place(address, client_endpoint(reactor, address))
    return Place("the server", address)


def _decode_into(answer: Deferred[Any], result: msgspec.Raw, form: Any) -> None:
    try:
        decoded = msgspec.json.decode(result, type=form)
    except (ValueError, RecursionError) as error:
        answer.errback(UnreadableAnswer(str(error)))
    else:
        answer.callback(decoded)


def _dial_settings(settings: ClientSettings) -> DialSettings:
    return DialSettings(
        backoff_first=settings.backoff_first,
        backoff_most=settings.backoff_most,
        steady_after=settings.backoff_most,
        connect_timeout=settings.connect_timeout,
        keepalive=settings.keepalive,
        silence=settings.silence,
        close_timeout=settings.close_timeout,
        write_timeout=settings.close_timeout,
        max_frame=settings.max_frame,
        most_pending=settings.most_pending,
    )


__all__ = ["Client", "ClientSettings"]
