"""The connection manager of a server: limits, lookup, timeouts and broadcast."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer, IReactorTime, ISSLTransport, ITCPTransport
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from kupool.callbacks import attempt, called
from kupool.errors import GOING_DOWN, CloseReason, ErrorText
from kupool.incidents import report
from kupool.net.admission import Admission, ServerSettings
from kupool.net.failures import ConnectionNotFound
from kupool.net.fan_out import FanOut
from kupool.net.interfaces import IClosingObserver, IConnectionObserver
from kupool.net.places import Places
from kupool.net.refusals import Refusals
from kupool.net.turns import Behind, Queue, ReactorTurns, Turns
from kupool.session.connection import Connection
from kupool.session.properties import PropertyIndex
from kupool.session.publication import Packed, Publication
from kupool.session.running import RunningTime
from kupool.session.surroundings import Counters, Surroundings
from kupool.timing.chunks import CHUNK, Chunks, in_chunks
from kupool.timing.waiting import Waiters
from kupool.wire.framing import Framing, Tlv
from kupool.wire.messages import close_message

#: Seconds between two checks of the timeouts.
SWEEP = 1.0

#: Returns whether a connection gets a message.
Where = Callable[[Connection], bool]


class ConnectionManager:
    """Admits connections, keeps track of them, and checks their timeouts once a second."""

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, observer: IConnectionObserver, settings: ServerSettings
    ) -> None:
        self.settings = settings
        self.observer = observer
        self.clock = clock
        #: Encodes the close message of a framing.
        self.close_message: Callable[[Framing, CloseReason, float | None], bytes] = close_message
        #: Schedules calls at the end of a reactor turn; transports may provide their own.
        self.turns: Turns = ReactorTurns(clock)
        self.counters = Counters()
        #: Finds connections by their properties.
        self.index = PropertyIndex()
        self.accepted = self.refused = 0
        self._closing = observer.closing if IClosingObserver.providedBy(observer) else None
        self._admission = Admission(clock)
        self._behind = Queue(clock, lambda: self.turns)
        self._running = RunningTime(clock.seconds, SWEEP)
        self._around = Surroundings(
            now=clock.seconds,
            after_turn=lambda call: self.turns.after_turn(call),
            call_later=clock.callLater,
            limits=lambda: self.settings,
            last_word=self.last_word,
            owner=self,
            index=self.index,
            counters=self.counters,
        )
        self._connections: dict[int, Connection] = {}
        self._places = Places()
        self._next_id = 0
        self._fan_out: FanOut[Connection] = FanOut(failed=self._call_failed)
        self._sending = Chunks(clock, self._go_on_sending)
        self._sweeper = LoopingCall(self.sweep)
        self._sweeper.clock = clock
        self._emptied = Waiters[None]()

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over a snapshot of the connections; connections may come and go meanwhile."""
        return iter(list(self._connections.values()))

    @property
    def behind(self) -> int:
        """Number of connections that have sent more than they get handled in this turn."""
        return len(self._behind)

    def get(self, connection_id: int) -> Connection:
        """Return a live connection by its id; raises :class:`ConnectionNotFound`."""
        try:
            return self._connections[connection_id]
        except KeyError:
            raise ConnectionNotFound(connection_id) from None

    def find(self, name: str, value: Hashable) -> list[Connection]:
        """Return the live connections whose property has that value, oldest first.

        Raises :class:`ValueError` if ``index.declare(name)`` was not called before.
        """
        return self.index.find(name, value)

    def clear(self, connection_id: int, reason: CloseReason = GOING_DOWN) -> None:
        """Close one connection; raises :class:`ConnectionNotFound`."""
        self.get(connection_id).close(reason)

    def now(self) -> float:
        """Return the time of the monotonic clock in seconds."""
        return self.clock.seconds()

    # -- opening connections

    def refusal(self, host: str) -> tuple[CloseReason, float | None] | None:
        """Return why a connection from ``host`` is refused, and for how many seconds, or None."""
        return self._admission.refusal(self.settings, self._places, host)

    def pause(self) -> float:
        """Return the seconds for which the ports accept no connection, by ``accept_pace``."""
        return self._admission.pause(self.settings)

    def taken(self) -> None:
        """Count a connection that a port has accepted."""
        self._admission.accepted(self.settings)

    def unwanted(self, host: str) -> bool:
        """Return whether a connection from ``host`` is to be closed without a word: its address
        has had ``refusals_per_ip`` refusals.
        """
        return self._admission.unwanted(self.settings, self._places, host)

    def turned_away(self, host: str) -> None:
        """Count that a peer was refused after its connection was admitted, as for a login."""
        self._admission.turned_away(self.settings, host)

    @property
    def refusals(self) -> Refusals:
        """The refused connections and other refusals of peers, counted and logged."""
        return self._admission.refusals

    def welcome(self, connection: Connection) -> None:
        """Count a connection as authorized from now on."""
        self._places.welcome(connection.id)

    def grant_grace(self, transport: Any, seconds: float, most: int) -> bool:
        """Give a refused peer some seconds to show its framing and to read the reason.

        Returns False if ``most`` other peers are already in that state.
        """
        most = min(most, self.settings.max_refused)
        return self._admission.grant_grace(transport, seconds, most)

    def end_grace(self, transport: Any) -> None:
        """Forget a refused peer that has disconnected; does nothing for other peers."""
        self._admission.end_grace(transport)

    def admit(self, transport: Any, host: str, framing: Framing) -> Connection | None:
        """Make the connection of a transport that :meth:`refusal` accepted.

        If the framing, which may be the application's, raises, the transport is aborted,
        and None is returned.
        """
        self._next_id += 1
        try:
            connection = Connection(
                self._next_id,
                self._around,
                transport,
                framing,
                host=host,
                half_close=ends_by_halves(transport),
            )
        except BaseException:
            self._log.failure("A connection in {name} could not be made", name=framing.name)
            transport.abortConnection()
            return None
        self._connections[connection.id] = connection
        self._places.enter(connection.id, host)
        self.accepted += 1
        self._admission.count(self.settings)
        transport.registerProducer(connection, True)
        opened = attempt(self.observer.opened, connection)
        if isinstance(opened, Deferred):
            connection.hold()
            opened.addCallbacks(
                lambda _: connection.release(), lambda why: self._not_opened(why, connection)
            )
        elif isinstance(opened, Failure):
            self._not_opened(opened, connection)
        return connection

    def _not_opened(self, failure: Failure, connection: Connection) -> None:
        self._log.failure("A connection could not be opened", failure)
        connection.abort()

    # -- the owner of its connections

    def ended(self, connection: Connection, reason: Failure) -> None:
        """Forget a connection that has ended."""
        del self._connections[connection.id]
        self._places.leave(connection.id, connection.host)
        called(self.observer.closed, connection, reason).addErrback(
            lambda why: self._log.failure("The end of a connection could not be handled", why)
        )
        connection.forget()
        if not self._connections:
            self._emptied.tell(None)

    def parting(
        self, connection: Connection, reason: CloseReason | None, done: Callable[[], None]
    ) -> bool:
        """Let the observer send a last message, for at most the write timeout."""
        if self._closing is None:
            return False
        told = attempt(self._closing, connection, reason)
        if isinstance(told, Failure):
            self._log.failure("The last message to a connection could not be made", told)
        if not isinstance(told, Deferred):
            return False
        told.addTimeout(self.settings.write_timeout, self.clock)
        told.addErrback(
            lambda failure: self._log.failure(
                "The last message to a connection could not be made", failure
            )
        )
        told.addBoth(lambda result: done())
        return True

    def settling(self, connection: Connection, done: Callable[[], None]) -> bool:
        """Ask the observer whether answers are pending for a peer that has finished sending."""
        settled = attempt(self.observer.settle, connection)
        if isinstance(settled, Failure):
            self._log.failure("Waiting for the last answers of a connection failed", settled)
        if not isinstance(settled, Deferred):
            return False
        settled.addErrback(
            lambda failure: self._log.failure("Waiting for the last answers failed", failure)
        )
        settled.addBoth(lambda result: done())
        return True

    def unsendable(self, connection: Connection, reply: bytes) -> ErrorText:
        """Log why a reply could not be sent; returns the error for the peer."""
        return report(
            self._log,
            "A reply of {size} bytes to {peer} could not be sent",
            size=len(reply),
            peer=connection.peer,
            connection=connection.id,
        )

    def failed(self, connection: Connection | None) -> None:
        """Log that handling a message failed."""
        self._log.failure("Unhandled error in a connection")

    def go_on_later(self, peer: Behind) -> None:
        """Schedule the rest of a peer's messages in a later turn."""
        self._behind.add(peer)

    def note_refusal(self, reason: str, host: str, user: str) -> None:
        """Count and log that something of a peer was refused; ``reason`` is one of a few texts."""
        self.refusals.note(reason, host, user)

    # -- bans

    def ban(self, host: str, seconds: float, why: str = "by hand") -> None:
        """Refuse connections from an address for some seconds; ``why`` is for the log."""
        self._admission.ban(host, seconds, why)

    @property
    def bans(self) -> dict[str, float]:
        """The banned addresses, with the remaining seconds."""
        return self._admission.bans()

    def unban(self, host: str, by: str = "hand") -> bool:
        """Remove the ban of an address; returns whether it was banned. ``by`` is for the log."""
        return self._admission.unban(host, by)

    @property
    def banned(self) -> int:
        """Number of bans so far."""
        return self._admission.banned

    @property
    def lifted(self) -> int:
        """Number of bans that were lifted."""
        return self._admission.lifted

    def count_close(self, reason: CloseReason) -> None:
        """Count a close by its reason."""
        self.counters.closes[reason.reason] += 1

    def when_empty(self) -> Deferred[None]:
        """Return a Deferred that fires when no connection is left."""
        return self._emptied.wait() if self._connections else succeed(None)

    def last_word(
        self, framing: Framing, reason: CloseReason, retry_after: float | None = None
    ) -> bytes:
        """Return what ``close_message`` encodes; empty if the framing cannot encode it."""
        try:
            return self.close_message(framing, reason, retry_after)
        except BaseException as error:  # the framing may be the application's
            self._log.debug(
                "The framing {name} cannot express why a connection is closed: {error!r}",
                name=framing.name,
                error=error,
            )
            return b""

    # -- all connections

    def start(self) -> None:
        """Start the checks of the timeouts."""
        if not self._sweeper.running:
            self._running.start()
            self._sweeper.start(SWEEP, now=False).addErrback(
                lambda failure: self._log.failure(
                    "The check of the timeouts stopped because of an error", failure
                )
            )

    def stop(self) -> None:
        """Stop the checks, and abort the connections of refused peers."""
        if self._sweeper.running:
            self._sweeper.stop()
        self._admission.stop()

    def sweep(self) -> Deferred[None] | None:
        """Apply the timeouts to every connection, a chunk in each reactor turn.

        After a pause of this process, the data that has arrived is read before the timeouts
        apply.
        """
        paused = self._running.beat()
        if paused:
            self._log.warn("This process did not run for {paused:.1f} s", paused=paused)
            return None
        self._admission.sweep()
        now, elapsed = self.now(), self._running.elapsed
        return self.each(lambda connection: connection.sweep(now, elapsed))

    def each(
        self,
        call: Callable[[Connection], object],
        connections: Iterable[Connection] | None = None,
    ) -> Deferred[None]:
        """Call a function with every connection, a chunk in each reactor turn.

        It is called for the connections that exist now, except those that have ended by
        their turn. An exception is logged and does not affect other connections.
        """
        every = self._connections.values() if connections is None else connections
        return in_chunks(self.clock, every, call, failed=self._call_failed)

    def _call_failed(self, connection: Connection) -> None:
        self._log.failure("A call for connection {id} failed", id=connection.id)

    def broadcast(
        self,
        payload: bytes,
        *,
        key: str,
        connections: Iterable[Connection] | None = None,
        where: Where | None = None,
    ) -> Deferred[None]:
        """Send the latest message of ``key``, encoded once for each framing.

        A slow reader gets only the newest message when it reads again, and delays no other
        connection. ``where`` is asked in each connection's turn whether it gets the
        message. Fires when the message is in every outbox.

        Messages of this method and of :meth:`send_many` are sent in order, a chunk in each
        reactor turn.
        """
        return self._publish(Publication(payload, key), connections, where)

    def send_many(
        self,
        message: bytes | Tlv,
        connections: Iterable[Connection] | None = None,
        *,
        where: Where | None = None,
    ) -> Deferred[None]:
        """Send one message of the class *reply* to many, encoded once for each framing.

        ``where`` is asked in each connection's turn whether it gets the message. Ended
        connections are skipped; a message that a framing cannot encode is logged.
        """
        return self._publish(Publication(Packed(message), policy=None), connections, where)

    def _publish(
        self,
        publication: Publication,
        connections: Iterable[Connection] | None,
        where: Where | None,
    ) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        dropped = self._fan_out.dropped
        self._fan_out.send(
            publication,
            list(self._connections.values() if connections is None else connections),
            where=None if where is None else lambda c: c.sends and where(c),
            done=lambda: done.callback(None),
        )
        self.counters.dropped += self._fan_out.dropped - dropped  # connections to send to
        if self._fan_out.pending:
            self._sending.wake()
        return done

    def _go_on_sending(self) -> bool:
        self._fan_out.run(CHUNK)
        return self._fan_out.pending

    def close_all(self, reason: CloseReason) -> Deferred[None]:
        """Close every connection, a chunk in each turn; fires when all closes are sent."""
        return self.each(lambda connection: connection.close(reason))

    def clear_all(self) -> Deferred[None]:
        """Close every connection as at a stop of the server, which goes on running."""
        return self.close_all(GOING_DOWN)


# The connection is the producer that the transport pauses and resumes.
classImplements(Connection, IPushProducer)


def ends_by_halves(transport: Any) -> bool:
    """Return whether a transport can close its sending side alone."""
    return ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport)


__all__ = ["ConnectionManager", "ServerSettings", "Where", "ends_by_halves"]
