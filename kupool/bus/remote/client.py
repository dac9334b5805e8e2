"""The client of a bus on a server: the same interface over one connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from random import random as _random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from kupool.bus.broker import BUS_CLOSED
from kupool.bus.interfaces import IBus, Subscription
from kupool.bus.members import MembersTold
from kupool.bus.messages import BusError, Handler, Model, Outcome, Topic
from kupool.bus.models import Models
from kupool.bus.remote.client_watches import RemoteWatches
from kupool.bus.remote.listening import RemoteListening, Replied
from kupool.bus.remote.messages import StatusPage, StatusParams, TraceParams
from kupool.bus.remote.outstanding import NOT_CONNECTED, Outstanding
from kupool.bus.settings import BusSettings
from kupool.bus.status import BusStatus, Step
from kupool.callbacks import called
from kupool.errors import UNKNOWN_METHOD
from kupool.net.dialling.dialler import ClientState, Dialler, Ended, Place, User
from kupool.net.dialling.failures import ConnectionEnded
from kupool.net.dialling.settings import DialSettings
from kupool.session.connection import Connection
from kupool.wire.framing import FRAME, Framing, Item
from kupool.wire.incoming import ServerMessage
from kupool.wire.messages import AuthorizeParams, encode_error, encode_request

#: The time limit of an attempt to connect, and of the answer to ``authorize``, in seconds.
CONNECT_TIMEOUT = 10.0

#: Seconds between two keepalives, and without one until the connection is closed.
PING_INTERVAL = 20.0
SILENCE = 45.0


@implementer(IBus)
class RemoteBus(Models):
    """A bus on a server.

    It connects when :meth:`connect` is called, and reconnects without end, unless the server
    refuses it. Subscriptions outlive connections. A reliable message waits for a connection until
    its deadline. If its outcome was lost with a connection, it is sent again over the next one,
    marked as redelivered. An unreliable message is refused while there is no connection.
    ``settings`` should be those of the server; ``timeout``, ``max_data`` and the limits of calls
    and handlers have an effect here. A message from the server may have ``max_frame`` bytes, or
    twice ``settings.max_message`` if that is more. With a ``username`` each connection starts with
    ``authorize``, as a pool requires. ``on_gone`` gets the error after which the bus does not
    reconnect; it may return a Deferred or a coroutine.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        settings: BusSettings | None = None,
        *,
        framing: Framing = FRAME,
        max_frame: int = 131072,
        username: str = "",
        password: str | None = None,
        random: Callable[[], float] = _random,
        on_gone: Callable[[Exception], object] | None = None,
    ) -> None:
        settings = settings or BusSettings()
        self.on_gone = on_gone
        #: Why the bus does not reconnect; None while it does.
        self.refusal: Exception | None = None
        self._credentials = AuthorizeParams(username, password) if username else None
        self._dialler = Dialler(
            clock,
            [Place("the bus", endpoint)],
            framing,
            User(self._greet, self._up, self._received, self._down, self._again, self._gone),
            settings=_dial_settings(settings, max(max_frame, 2 * settings.max_message)),
            counters=Counter(),
            random=random,
            json=True,
        )
        self._started: Deferred[None] | None = None
        self._link: Connection | None = None
        self._outstanding = Outstanding(
            clock,
            settings,
            self._connection,
            answers=self._dialler.answers,
            reading=self._dialler.reading,
            refusal=self._refused,
        )
        self._watches = RemoteWatches(clock, self._connection, ask=self._ask, refusal=self._refused)
        self._listening = RemoteListening(
            clock, settings, self._connection, ask=self._ask, refusal=self._refused
        )

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connection() is not None

    @property
    def state(self) -> ClientState:
        """The state of the connection; for ``ClientState.GONE`` see :attr:`refusal`."""
        return self._dialler.state

    def connect(self) -> Deferred[None]:
        """Connect; if the first attempt fails, the Deferred fails and there is no other attempt.

        It fails with :class:`BusError` if the server refuses the user. Call it once, and again only
        after the bus has stopped reconnecting.
        """
        self.refusal = None
        started: Deferred[None] = Deferred(lambda _: self._cancelled())
        self._started = started
        self._dialler.start()
        return started

    def _cancelled(self) -> None:
        self._started = None
        self._dialler.stop()

    def _connection(self) -> Connection | None:
        return self._link if self._link is self._dialler.connection else None

    def _refused(self) -> str:
        return "" if self.refusal is None else str(self.refusal)

    # -- publishing

    def publish(
        self,
        model: Model,
        data: bytes,
        topic: Topic,
        *,
        timeout: float | None = None,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Publish by a model with that model's arguments, as the method of the model's name
        does.
        """
        return self._outstanding.publish(
            model, data, topic, timeout=timeout, key=key, headers=headers
        )

    # -- subscriptions

    def subscribe(
        self, topics: Iterable[Topic], handler: Handler, *, keys: Iterable[str] = ()
    ) -> Deferred[Subscription]:
        """Subscribe a handler to topics.

        Without a connection it fires after the next one. It fails with
        :class:`~kupool.bus.BusError` if the server refuses.
        """
        return self._listening.subscribe(topics, handler, keys)

    def unsubscribe(
        self, handler: Handler, topics: Iterable[Topic] | None = None
    ) -> Deferred[None]:
        """End the subscription of a handler to some topics, by default to all."""
        return self._listening.unsubscribe(handler, topics)

    def watch(self, topic: Topic, told: MembersTold) -> Deferred[None]:
        """Report the subscribers of a topic to ``told``, now and at every change.

        Without a connection it fires after the next one. It fails with
        :class:`~kupool.bus.BusError` if the server refuses.
        """
        return self._watches.watch(topic, told)

    def unwatch(self, told: MembersTold) -> Deferred[None]:
        """End all watches of ``told``."""
        return self._watches.unwatch(told)

    # -- status of the server

    def status(self) -> Deferred[BusStatus]:
        """Return topics, subscribers and counts; fails with :class:`BusError`."""
        return Deferred.fromCoroutine(self._read_status())

    async def _read_status(self) -> BusStatus:
        topics, subscribers = [], []
        start: int | None = 0
        while start is not None:
            page: StatusPage = await self._question("bus.status", StatusParams(start), StatusPage)
            topics += page.topics
            subscribers += page.subscribers
            start = page.next
        return BusStatus(
            page.calls, page.calls_bytes, page.counts, tuple(topics), tuple(subscribers)
        )

    def trace(self, message_id: str) -> Deferred[tuple[Step, ...]]:
        """Return the trace of a recent message; fails with :class:`BusError`."""
        return self._question("bus.trace", TraceParams(message_id), tuple[Step, ...])

    def _question(self, method: str, params: object, form: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()

        def replied(reply: ServerMessage | None) -> None:
            if answer.called:
                return
            try:
                if reply is None or reply.error is not None:
                    why_not = self._refused() or NOT_CONNECTED
                    raise BusError(why_not if reply is None else reply.error)
                answer.callback(msgspec.json.decode(reply.result, type=form))
            except (ValueError, BusError) as error:
                answer.errback(BusError(str(error)))

        link = self._connection()
        if link is None:
            replied(None)
        else:
            self._ask(link, method, params, replied)
        return answer

    def _ask(
        self,
        link: Connection,
        method: str,
        params: object,
        replied: Replied,
        *,
        timeout: float | None = None,
    ) -> None:
        answers = self._dialler.answers
        number = answers.next_id()

        def told(reply: ServerMessage | bytes | Exception) -> None:
            replied(reply if isinstance(reply, ServerMessage) else None)

        answers.expect(number, told, timeout)
        link.send(encode_request(number, method, params))

    # -- the connection

    def _greet(self, connection: Connection) -> Deferred[None] | None:
        """Authorize; fires when the server has accepted it."""
        if self._credentials is None:
            return None
        welcome: Deferred[None] = Deferred()

        def replied(reply: ServerMessage | None) -> None:
            if welcome.called:
                return
            if reply is None:
                welcome.errback(ConnectionEnded("no answer to authorize"))
            elif reply.error is not None:
                welcome.errback(BusError(reply.error))
            else:
                welcome.callback(None)

        self._ask(connection, "authorize", self._credentials, replied, timeout=CONNECT_TIMEOUT)
        return welcome

    def _up(self, connection: Connection, place: Place) -> None:
        self._link = connection
        self._listening.up(connection)
        self._watches.up()
        self._outstanding.up(connection)
        started, self._started = self._started, None
        if started is not None:
            started.callback(None)

    def _down(self, why: str, stood: bool) -> None:
        self._link = None
        self._watches.down()

    def _again(self, ended: Ended, wait: float | None) -> Exception | None:
        if self._started is None:
            if wait is not None:
                self._log.warn("No connection to the bus: {why}", why=ended.why)
            return None
        if ended.error is None or isinstance(ended.error, ConnectionEnded):
            return BusError(ended.why)
        return ended.error

    def _gone(self, why: Exception) -> None:
        self.refusal = why
        self._outstanding.gone()
        self._listening.gone()
        self._watches.gone()
        started, self._started = self._started, None
        if started is not None:
            started.errback(why)
        if self.on_gone is not None:
            called(self.on_gone, why).addErrback(
                lambda failure: self._log.failure("A hook of the bus failed", failure)
            )

    def _received(
        self, connection: Connection, item: Item, message: ServerMessage | None
    ) -> bytes | None:
        if message is None:
            self._dialler.abort("the server sent what is no message")
        elif message.method == "call":
            self._listening.called(connection, message)
        elif message.method == "members" and message.id is None:
            try:
                self._watches.members(message)
            except ValueError:
                self._dialler.abort("the server sent what is no message")
        elif message.method is not None and message.id is not None:
            return encode_error(message.id, UNKNOWN_METHOD)
        return None

    def close(self) -> Deferred[None]:
        """Refuse every open call and close the connection; fires when it is closed."""
        self._outstanding.close()
        self._listening.close()
        self._watches.close()
        ended = self._dialler.stop()
        started, self._started = self._started, None
        if started is not None:
            started.errback(BusError(BUS_CLOSED))
        return ended


def _dial_settings(settings: BusSettings, max_frame: int) -> DialSettings:
    return DialSettings(
        backoff_first=0.25,
        backoff_most=15.0,
        steady_after=10.0,
        connect_timeout=CONNECT_TIMEOUT,
        keepalive=PING_INTERVAL,
        silence=SILENCE,
        close_timeout=1.0,
        write_timeout=SILENCE,
        max_frame=max_frame,
        most_pending=settings.max_calls,
    )


__all__ = ["CONNECT_TIMEOUT", "PING_INTERVAL", "SILENCE", "RemoteBus"]
