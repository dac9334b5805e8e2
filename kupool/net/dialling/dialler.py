"""The dialling driver: keeps a session with one of several servers, and reconnects.

Every client of the product uses it. It alone implements attempts, backoff and the close
policy, announced closes, pings in both directions, answers and their deadlines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from random import random as _random
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.callbacks import attempt
from kupool.errors import UNKNOWN_METHOD, Announced, CloseReason
from kupool.net.admission import ServerSettings
from kupool.net.dialling.answers import Answers
from kupool.net.dialling.backoff import Backoff
from kupool.net.dialling.deadlines import Reading
from kupool.net.dialling.explaining import ENDS, explained, stranger
from kupool.net.dialling.failures import ConnectionEnded, NotWanted
from kupool.net.dialling.keepalive import KeepAlive
from kupool.net.dialling.redial import Redial
from kupool.net.dialling.settings import DialSettings
from kupool.net.interfaces import IClosingObserver
from kupool.net.manager import ConnectionManager, ends_by_halves
from kupool.net.routing.router import IRouter
from kupool.net.transport.protocols import FramedProtocol
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.timing.waiting import Waiters
from kupool.wire.framing import (
    FRAME,
    OP_CLOSE,
    OP_PING,
    OP_PONG,
    Control,
    Framing,
    Item,
    encode_frame,
)
from kupool.wire.incoming import ServerMessage, decode_incoming, read_close
from kupool.wire.messages import encode_request, encode_success

#: Seconds between ending a connection and aborting it if the server does not end its side.
CUT_AFTER = 0.3

#: Unsent bytes at which reading from the server would be paused. Infinite, because two
#: sides that pause reading until the other one reads would wait for each other.
NO_LIMIT = 1 << 62

#: The framings in which a ping is the method ``ping``.
_BY_METHOD = frozenset(("line", "int32", "json"))


class ClientState(Enum):
    """The state of a client; in ``GONE`` it does not reconnect by itself."""

    IDLE = "idle"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    GONE = "gone"
    CLOSED = "closed"


class Place(NamedTuple):
    """A server: its name in messages, and the endpoint that connects to it."""

    name: str
    endpoint: IStreamClientEndpoint


class Ended(NamedTuple):
    """The end of an attempt, or of a session that lasted ``stood`` seconds.

    ``close`` is the announced close, ``error`` why an attempt failed; ``connected`` is
    whether there was a connection.
    """

    place: Place
    why: str
    connected: bool = False
    close: Announced | None = None
    error: Exception | None = None
    stood: float = 0.0


@dataclass(frozen=True)
class User:
    """The callbacks of a dialler's user; none of them may raise, except ``greet``.

    - ``greet``: does what comes first on a new connection, and returns a value, a Deferred or a
      coroutine. The session is established when that is done. If it fails, so does the attempt.
    - ``up``: a session is established.
    - ``received``: handles a message that is not an answer, a ping or a close, and returns the
      payload of its answer. The message is None if it is not JSON; then only the item is set. A
      reply without a pending request also comes here.
    - ``down``: a connection has ended; gets the reason, and whether its session was
      established. Pending requests have failed by then.
    - ``again``: another attempt follows in so many seconds, or none if that is None. Returning
      an exception also gives up, and ``gone`` gets it.
    - ``gone``: there will be no other attempt, for this reason.
    """

    greet: Callable[[Connection], object]
    up: Callable[[Connection, Place], None]
    received: Callable[[Connection, Item, ServerMessage | None], bytes | None]
    down: Callable[[str, bool], None]
    again: Callable[[Ended, float | None], Exception | None]
    gone: Callable[[Exception], None]


@implementer(IClosingObserver, IRouter)
class Dialler:
    """Keeps a session with one of several servers, from :meth:`start` on.

    ``random`` returns a number from 0 to 1. ``counters`` gets the counts of
    :class:`Answers`. With ``json`` all messages are JSON, whatever the framing. ``ping``
    sends a keepalive if the framing has none.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        places: Sequence[Place],
        framing: Framing,
        user: User,
        *,
        settings: DialSettings,
        counters: Counter[str],
        random: Callable[[], float] = _random,
        json: bool = False,
        ping: Callable[[Connection], object] | None = None,
    ) -> None:
        self.settings = settings
        self.state = ClientState.IDLE
        #: The connection, greeted or not.
        self.connection: Connection | None = None
        self._clock = clock
        self._places = places
        self._user = user
        self._ping = self._sign if ping is None else ping
        self._backoff = Backoff(
            settings.backoff_first,
            settings.backoff_most,
            steady=settings.steady_after,
            places=len(places),
            random=random,
        )
        limits = ServerSettings(
            max_frame=settings.max_frame,
            max_connections=0,
            idle_timeout=0.0,
            write_timeout=max(settings.close_timeout, CUT_AFTER),
            max_errors=0,  # a server may send what this client has no handler for
            outbox_limit=NO_LIMIT,
        )
        self._manager = ConnectionManager(clock, self, limits)
        self._factory = Factory.forProtocol(self._protocol)
        self._factory.noisy = False
        self._framing = framing
        self._by_method = json or framing.name in _BY_METHOD
        self._reading = Reading(clock, self._progress)
        self.answers = Answers(clock, self._reading, counters, most=settings.most_pending)
        self._redial = Redial(clock, self._attempt, self._wait)
        self._keepalive: KeepAlive | None = None
        self._greeting: Deferred[Any] | None = None
        self._over = Waiters[Ended]()
        self._announced: Announced | None = None
        self._why = ""
        self._reached = False
        self._since: float | None = None
        self._ending: tuple[IDelayedCall, ...] = ()
        self._stopping = self._finishing = False
        self._pings = True

    @property
    def place(self) -> Place:
        """The server that is being tried, or that the session is with."""
        return self._places[self._backoff.place]

    @property
    def failures(self) -> int:
        """Consecutive failed attempts, including sessions that were not steady."""
        return self._backoff.failures

    @property
    def reading(self) -> Reading:
        """Delays checks until all received data has been read."""
        return self._reading

    # -- for the user of the dialler

    def start(self) -> None:
        """Start connecting, and reconnect from then on; does nothing if already started."""
        self._stopping = False
        if not self._redial.running:
            self.state = ClientState.CONNECTING
            self._redial.start()

    def stop(self, timeout: float = 0.0) -> Deferred[None]:
        """Stop reconnecting, and end the connection in order; fires when it has ended.

        The server gets ``timeout`` seconds for its last answers.
        """
        self._stopping = True
        if self.state is not ClientState.GONE:
            self.state = ClientState.CLOSED
        empty = self._manager.when_empty().addCallback(lambda _: self._manager.stop())
        if self.connection is None:
            return self._redial.stop().addCallback(lambda _: empty)
        self._finish(self.connection, timeout)
        return empty

    def leave(self, why: str) -> None:
        """End the connection, and reconnect as after a loss."""
        if self.connection is not None:
            self._why = self._why or why
            self.connection.close(None)

    def abort(self, why: str) -> None:
        """Abort the connection, and reconnect as after a loss."""
        if self.connection is not None:
            self._why = self._why or why
            self.connection.abort()

    def _finish(self, connection: Connection, timeout: float) -> None:
        self._why = self._why or "closed"
        if self._finishing:
            return
        self._finishing = True
        if connection.state is OPEN and timeout and not connection.outbound:
            # Only this side ends, so that the server can send its last answers.
            if connection.framing.name == FRAME.name:
                connection.send_encoded(encode_frame(b"", OP_CLOSE))
                self._end_within(timeout)
                return
            if ends_by_halves(connection.transport):
                transport: Any = connection.transport
                transport.unregisterProducer()
                transport.loseWriteConnection()
                self._end_within(timeout)
                return
        connection.close(None)
        self._end_within(0.0)

    def _end_within(self, seconds: float) -> None:
        """End the connection after some seconds, and abort it soon after that."""
        self._stop_ending()
        connection = self.connection
        if connection is not None:
            self._ending = (
                self._clock.callLater(seconds, connection.close, None),
                self._clock.callLater(seconds + CUT_AFTER, connection.abort),
            )

    def _stop_ending(self) -> None:
        ending, self._ending = self._ending, ()
        for call in ending:
            if call.active():
                call.cancel()

    # -- attempts

    def _protocol(self) -> FramedProtocol:
        protocol = _DialledProtocol(self._manager, self.abort)
        protocol.framing = self._framing
        return protocol

    async def _attempt(self) -> Dialler:
        self.state = ClientState.CONNECTING
        self._announced, self._why, self._since = None, "", None
        self._reached = False
        place = self.place
        try:
            endpoint: Any = place.endpoint
            dialled: Deferred[Any] = endpoint.connect(self._factory)
            await dialled.addTimeout(self.settings.connect_timeout, self._clock)
            connection = self.connection
            if connection is None:
                raise ConnectionEnded(self._why or "the connection ended at once")
            await self._greet(connection)
        except GeneratorExit:
            raise  # a closed coroutine may not wait again
        except BaseException:
            await self._given_up()
            raise
        if self.connection is not connection:
            raise ConnectionEnded(self._why or "the connection ended at once")
        self._since = self._clock.seconds()
        self.state = ClientState.CLOSED if self._stopping else ClientState.CONNECTED
        self._user.up(connection, place)
        return self

    async def _greet(self, connection: Connection) -> None:
        self._greeting = greeting = maybeDeferred(self._user.greet, connection)
        try:
            await greeting
        except GeneratorExit:
            raise
        except BaseException as error:
            if self.connection is not connection:
                # The connection was lost while the greeting waited.
                raise ConnectionEnded(self._why) from None
            if isinstance(error, ConnectionEnded):
                self._why = self._why or error.reason
            raise
        finally:
            self._greeting = None

    async def _given_up(self) -> None:
        """The attempt has failed: end its connection, if any."""
        if self.connection is not None:
            ended = self.ended()
            self.connection.close(None)
            self._end_within(0.0)
            await ended

    def ended(self) -> Deferred[Ended]:
        """Return a Deferred that fires when the connection has ended; at once if there is none."""
        return succeed(self._end()) if self.connection is None else self._over.wait()

    def _end(self, error: Exception | None = None) -> Ended:
        stood = 0.0 if self._since is None else self._clock.seconds() - self._since
        why = self._why
        if error is not None and not (why and isinstance(error, ConnectionEnded)):
            why = explained(error)
        return Ended(self.place, why, self._reached, self._announced, error, stood)

    def _wait(self, outcome: Any) -> float | None:
        """Return the wait after the end of an attempt or a session."""
        if self._stopping:
            return None
        ended = outcome
        if isinstance(outcome, Failure):
            value = outcome.value
            error = value if isinstance(value, Exception) else RuntimeError(repr(value))
            ended = self._end(error)
        wait = self._backoff.after(ended.close, ended.stood)
        self.state = ClientState.WAITING
        problem = self._user.again(ended, wait)
        if problem is None:
            if wait is not None:
                return wait
            code = None if ended.close is None else ended.close.code
            problem = NotWanted(ended.place.name, ended.why, code)
        self.state = ClientState.GONE
        self._user.gone(problem)
        return None

    # -- IClosingObserver

    def opened(self, connection: Connection) -> None:
        """Handle a new connection; called by the framework."""
        transport: Any = connection.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpKeepAlive(True)
        connection.router = self
        self.connection, self._reached = connection, True
        self._pings, self._finishing = True, False
        if self._stopping:
            connection.abort()  # it came after the attempt had ended
        self._keepalive = KeepAlive(
            self._clock,
            connection,
            self.settings,
            reading=self._reading,
            ask=self.sign,
            leave=self.abort,
        )

    def closing(
        self, connection: Connection, reason: CloseReason | None
    ) -> Deferred[object] | None:
        """Keep why this side ends a connection; called by the framework."""
        if reason is not None:
            self._why = self._why or f"what the server sent: {reason.reason}"
        if not self._ending:
            self._end_within(self.settings.close_timeout)
        return None

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Handle the end of a connection; called by the framework."""
        self._why = self._why or self._lost(connection, reason)
        self._stop_ending()
        if self._keepalive is not None:
            self._keepalive.stop()
            self._keepalive = None
        stood = self._since is not None
        self.connection = None
        ended = self._end()
        if not self._stopping:
            self.state = ClientState.WAITING
        self.answers.fail(ConnectionEnded(self._why))
        self._user.down(self._why, stood)
        if self._greeting is not None:
            self._greeting.cancel()
        self._over.tell(ended)
        if self._stopping:
            self._redial.stop()

    def _lost(self, connection: Connection, reason: Failure) -> str:
        error = reason.value or ConnectionEnded("no reason is known")
        why = explained(error)
        if self._since is None and not connection.bytes_in and reason.check(*ENDS):
            return f"{why} before it said anything; does this port speak TLS, or another protocol?"
        return why

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """The server has finished sending, and so has the client; called by the framework."""
        return None

    # -- incoming messages

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one message of the server; called by the framework."""
        if isinstance(item, bytes):  # as most are
            payload = item
        elif isinstance(item, Control):
            return self._controlled(connection, item)
        else:
            if self.answers.numbered(item):
                return None
            if item.message_id:
                return self._user.received(connection, item, None)
            payload = item.payload
        try:
            message = decode_incoming(payload)
        except (ValueError, RecursionError):
            return self._user.received(connection, item, None)
        if message.method is None:
            if self.answers.take(message):
                return None
        elif message.method == "ping":
            return self._pinged(connection, item, message)
        elif message.method == "close" and (close := read_close(message)) is not None:
            self._closes(connection, close)
            return None
        return self._user.received(connection, item, message)

    def _controlled(self, connection: Connection, item: Control) -> bytes | None:
        close = read_close(item)
        if close is not None:
            self._closes(connection, close)
        elif item.opcode == OP_PING:
            if not connection.outbound:  # do not pile up pongs for a server that does not read
                connection.send_encoded(encode_frame(item.payload, OP_PONG))
        elif item.opcode != OP_PONG:
            return self._user.received(connection, item, None)
        return None

    def _pinged(self, connection: Connection, item: Item, message: ServerMessage) -> bytes | None:
        if connection.outbound:
            return None
        if message.id is not None:
            return encode_success(message.id) if isinstance(item, bytes) else None
        self.sign()  # a notification gets no reply, but a ping in return
        return None

    def _closes(self, connection: Connection, close: Announced) -> None:
        self._announced, self._why = close, str(close)
        connection.close(None)
        self._end_within(0.0)

    def _progress(self) -> int:
        connection = self.connection
        return -1 if connection is None else connection.bytes_in + connection.messages_in

    # -- keepalive

    def sign(self) -> None:
        """Send a ping, if the framing has one."""
        connection = self.connection
        if connection is not None and connection.state is OPEN and not connection.outbound:
            outcome = attempt(self._ping, connection)
            if isinstance(outcome, Failure):
                self._log.failure("A ping could not be sent to the server", outcome)

    def _sign(self, connection: Connection) -> None:
        if connection.framing.name == FRAME.name:
            # A port that detects the framing cannot do so by the first byte of a ping;
            # an empty message has no meaning.
            first = b"" if connection.bytes_out else encode_frame(b"")
            connection.send_encoded(first + encode_frame(b"", OP_PING))
        elif self._by_method and self._pings:
            number = self.answers.next_id()
            self.answers.expect(number, self._ponged)
            connection.send(encode_request(number, "ping", {}))

    def _ponged(self, reply: object) -> None:
        if isinstance(reply, ServerMessage) and reply.code == UNKNOWN_METHOD.code:
            self._pings = False  # the server has no method ping: send no more


class _DialledProtocol(FramedProtocol):
    """Checks the first bytes of a server, which may speak another protocol.

    ``abort`` is called with the protocol that it speaks instead.
    """

    def __init__(self, manager: ConnectionManager, abort: Callable[[str], object]) -> None:
        super().__init__(manager)
        self._abort = abort

    def dataReceived(self, data: bytes) -> None:
        """Check the data once, then feed the connection directly."""
        connection = self.connection
        if connection is None:
            return
        instead = stranger(self.framing.name, data)
        if instead:
            self._abort(instead)
        else:
            self.dataReceived = connection.feed  # type: ignore[method-assign]
            connection.feed(data)


__all__ = ["CUT_AFTER", "ClientState", "Dialler", "Ended", "Place", "User"]
