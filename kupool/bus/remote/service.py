"""The server side of a bus for connections of :mod:`kupool.net`, in any framing with JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.bus.broker import BUS_CLOSED, Broker
from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.members import SILENCE
from kupool.bus.messages import Kind, Message, Outcome
from kupool.bus.publishing import (
    MAX_TIMEOUT,
    MIN_TIMEOUT,
    check_text,
    checked_keys,
    make_message,
)
from kupool.bus.remote.messages import (
    Published,
    PublishParams,
    StatusPage,
    StatusParams,
    Subscribed,
    SubscribeParams,
    TraceParams,
    UnsubscribeParams,
    UnwatchParams,
    Watched,
    WatchParams,
    decode_data,
    encode_call,
    encode_outcome,
    read_reply,
    status_page,
)
from kupool.bus.remote.peers import BusPeer
from kupool.bus.remote.session_watches import SessionWatches
from kupool.bus.remote.shares import Shares
from kupool.bus.settings import PeerLimits
from kupool.bus.topics import pattern_name, topic_name
from kupool.errors import (
    BAD_PARAMS,
    IDLE_TIMEOUT,
    TOO_MANY_REQUESTS,
    CloseReason,
    ErrorText,
)
from kupool.net.interfaces import IClosingObserver
from kupool.net.observer import Observer
from kupool.net.routing.interfaces import IRouter
from kupool.net.routing.router import LATER, Before, Router
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.session.publication import Publication
from kupool.timing.waiting import UnderWay
from kupool.wire.framing import Item
from kupool.wire.messages import RequestId
from kupool.wire.packets import MessageTooLarge

#: As an attribute of its class, a member of an enumeration takes fifteen times as long.
_TAKEN = Taken.YES

#: Seconds that a peer which has finished sending waits for its outcomes. The peer may be gone:
#: there is no way to know.
LAST_OUTCOMES = 30.0


@implementer(IRouter)
class BusRouter:
    """Passes replies to the bus, and everything else to a router of methods.

    ``peers`` are those that may have to reply to something, by connection id.
    """

    def __init__(
        self,
        router: IRouter,
        peers: Mapping[int, BusPeer],
        replied: Callable[[Connection, str, Response], None],
    ) -> None:
        self._router = router
        self._peers = peers
        self._replied = replied

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one message; return the payload to answer with, if any."""
        peer = self._peers.get(connection.id)
        # A message that contains ``method`` is not a reply, unless the word is within its result. A
        # peer that was never subscribed has nothing to reply to, and mostly publishes: this check
        # saves a decode.
        if (
            peer is not None
            and type(item) is bytes
            and (peer.has_listened or b'"method"' not in item)
            and (reply := read_reply(item)) is not None
        ):
            call, response = reply
            self._replied(connection, call, response)
            return None
        return self._router.dispatch(connection, item)


class _Publish(msgspec.Struct, eq=False):
    """A publish of a peer that has no outcome yet."""

    # A function with a closure would be seven objects for the garbage collector to look at.
    connection: Connection
    request_id: RequestId
    peer: BusPeer
    number: int
    publishes: UnderWay

    def done(self, outcome: Outcome) -> None:
        """Tell the peer the outcome."""
        if self.request_id is not None:
            self.connection.answer(encode_outcome(self.request_id, outcome))
        if self.peer.finished(self.number):
            self.publishes.end()


@implementer(IClosingObserver)
class BusService(Observer):
    """The observer of a server, for a bus on a broker.

    ``router`` may have methods already. ``before`` are steps before every method of the bus, such
    as a check of permissions. ``limits``, by default those of the broker's settings, may be
    replaced at any time. ``user_of`` returns the user of a connection that has passed these steps,
    by default none. With several nodes, ``taken`` returns a Deferred that is waited for before a
    subscription is acknowledged.
    """

    def __init__(
        self,
        broker: Broker,
        router: Router | None = None,
        before: Iterable[Before] = (),
        *,
        limits: PeerLimits | None = None,
        user_of: Callable[[Connection], str] = lambda connection: "",
        taken: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        methods = router or Router()
        self._peers: dict[int, BusPeer] = {}
        self._connections: dict[int, Connection] = {}
        #: The watches of connections, by connection id.
        self._watches: dict[int, SessionWatches] = {}
        #: The usage of users and addresses; another service of the same broker may share it.
        self.shares = Shares()
        super().__init__(BusRouter(methods, self._peers, self.replied))
        self.limits = limits or broker.settings.peers
        self._broker = broker
        self._user_of = user_of
        self._taken = taken
        #: The last unreliable message that was sent, for subscribers of each name.
        self._publications: tuple[Message | None, dict[str, Publication]] = (None, {})
        self._publishes = UnderWay()
        steps = tuple(before)
        methods.add("bus.publish", self._publish, PublishParams, before=steps)
        methods.add("bus.subscribe", self._subscribe, SubscribeParams, before=steps)
        methods.add("bus.unsubscribe", self._unsubscribe, UnsubscribeParams, before=steps)
        methods.add("bus.watch", self._watch, WatchParams, before=steps)
        methods.add("bus.unwatch", self._unwatch, UnwatchParams, before=steps)
        methods.add("bus.status", self._status, StatusParams, before=steps)
        methods.add("bus.trace", self._trace, TraceParams, before=steps)
        # Members of a server before this one may have lost it just now, and still count.
        broker.watches.hold(SILENCE)

    # -- connections

    def closing(self, connection: Connection, reason: CloseReason | None) -> None:
        """Pass on the calls of a connection that receives nothing more, and end its own calls."""
        self._leave(connection)
        self._end_publishes(connection)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Remove the subscribers of a connection, and end its publishes and watches."""
        self._leave(connection)
        self._end_publishes(connection)
        peer = self._peers.pop(connection.id, None)
        if peer is not None:
            del self._connections[connection.id]
            self.shares.leave(peer.shares)

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """Wait for the outcomes of the peer's publishes for a limited time; it can answer no
        calls.
        """
        self._leave(connection)
        peer = self._peers.get(connection.id)
        if peer is None or not peer.publishing:
            return None
        settled = peer.settled = Deferred()
        late = self._broker.clock.callLater(LAST_OUTCOMES, self._end_publishes, connection)
        return settled.addCallback(lambda _: late.cancel() if late.active() else None)

    def finish(self) -> Deferred[None]:
        """Refuse publishes from now on; fires when all earlier ones have an outcome."""
        return self._publishes.finish()

    def end_subscriptions(self, may: Callable[[Connection, str], bool]) -> dict[str, int]:
        """End subscriptions that are no longer allowed according to ``may``.

        Returns how many were ended, by user. The peers are not told.
        """
        ended: dict[str, int] = {}
        for number, peer in self._peers.items():
            connection = self._connections[number]
            for name in list(peer.names):
                topics = [t for t in peer.topics_of(name) if not may(connection, t)]
                if topics:
                    ended[peer.publisher] = ended.get(peer.publisher, 0) + len(topics)
                    self._end_topics(connection, peer, name, topics)
        return ended

    def _end_topics(
        self, connection: Connection, peer: BusPeer, name: str, topics: Iterable[object] | None
    ) -> None:
        left = self._broker.unsubscribe(_subscriber_id(connection, peer.names[name]), topics)
        peer.unsubscribed(name, left, lambda n: self._broker.knows(_subscriber_id(connection, n)))

    def _leave(self, connection: Connection) -> None:
        peer = self._peers.get(connection.id)
        if peer is not None:
            watches = self._watches.pop(connection.id, None)
            linger = 0.0
            if watches:
                linger = watches.linger
                watches.end()
            for number in peer.leave():
                self._broker.remove(_subscriber_id(connection, number), linger)

    def _end_publishes(self, connection: Connection) -> None:
        peer = self._peers.get(connection.id)
        if peer is not None:
            self._publishes.end(peer.end_publishes())

    def replied(self, connection: Connection, reply_id: str, response: Response) -> None:
        """Take a peer's answer to a ``call``; an answer to a call that it was not offered is
        ignored.
        """
        call, _, index = reply_id.partition(".")
        if len(call) == 16 and index.isdecimal():
            try:
                number = int(call, 16)
            except ValueError:
                return
            self._broker.answer(f"{connection.id}/{index}", number, response)

    def _peer(self, connection: Connection) -> BusPeer:
        peer = self._peers.get(connection.id)
        if peer is None:
            user = self._user_of(connection)
            shares = self.shares.join(user, connection.host)
            peer = self._peers[connection.id] = BusPeer(user or connection.host, shares)
            self._connections[connection.id] = connection
        return peer

    def _turned_away(self, reason: str) -> ErrorText:
        self._broker.turned_away(reason)
        return TOO_MANY_REQUESTS.about(reason)

    # -- methods

    def _publish(self, connection: Connection, request: Any) -> object:
        params: PublishParams = request.params
        peer = self._peers.get(connection.id) or self._peer(connection)
        broker = self._broker
        timeout = None if params.timeout_ms is None else params.timeout_ms / 1000
        if timeout is not None and not MIN_TIMEOUT <= timeout <= MAX_TIMEOUT:
            bounds = f"from {MIN_TIMEOUT * 1000:g} to {MAX_TIMEOUT * 1000:.0f}"
            return BAD_PARAMS.about(f"timeout_ms: {params.timeout_ms:g} is not {bounds}")
        try:
            if params.message:
                check_text("message", params.message)
                message_id = peer.message_id(params.message)
            else:
                message_id = broker.message_id()
            message = make_message(
                broker.settings,
                message_id,
                params.model,
                params.topic,
                data=decode_data(params),
                timeout=timeout,
                key=params.key,
                headers=params.headers,
            )
        except ValueError as error:
            return BAD_PARAMS.about(str(error))
        if self._publishes.finishing:
            return Published(outcome=Kind.REFUSED, reason=BUS_CLOSED)
        size = len(message.data)
        if reason := peer.refuses_call(self.limits, size):
            return self._turned_away(reason)
        self._publishes.begin()
        number = peer.begin(size)
        publish = _Publish(connection, request.id, peer, number, self._publishes)
        if params.redelivered:
            message = message._replace(redelivered=True)
        peer.opened(number, broker.publish(message, publish.done, params.message, peer.owners))
        return LATER

    def _subscribe(
        self, connection: Connection, request: Any
    ) -> Subscribed | ErrorText | Deferred[Subscribed]:
        params: SubscribeParams = request.params
        peer, name = self._peer(connection), params.subscriber
        try:
            check_text("subscriber", name)
            patterns = {pattern_name(topic) for topic in params.topics}
            keys = set(checked_keys(params.keys))
            if reason := peer.refuses_subscriber(self.limits, name, patterns, keys):
                return self._turned_away(reason)
            number = peer.number_of(name)
            subscriber_id = _subscriber_id(connection, number)
            topics = self._broker.subscribe(
                subscriber_id, params.topics, self._deliver(connection, number, name), keys
            )
        except ValueError as error:
            return BAD_PARAMS.about(str(error))
        peer.subscribed(name, patterns, keys)
        subscribed = Subscribed(subscriber_id, list(topics))
        return (
            subscribed if self._taken is None else self._taken().addCallback(lambda _: subscribed)
        )

    def _unsubscribe(self, connection: Connection, request: Any) -> bool | ErrorText:
        params: UnsubscribeParams = request.params
        peer, name = self._peer(connection), params.subscriber
        if name in peer.names:
            try:
                self._end_topics(connection, peer, name, params.topics)
            except ValueError as error:
                return BAD_PARAMS.about(str(error))
        return True

    def _watch(self, connection: Connection, request: Any) -> Watched | ErrorText:
        try:
            topic = topic_name(request.params.topic)
        except ValueError as error:
            return BAD_PARAMS.about(str(error))
        self._peer(connection)
        watches = self._watches.get(connection.id)
        if watches is None:
            watches = self._watches[connection.id] = SessionWatches(
                self._broker.clock,
                self._broker.watches,
                connection,
                lambda: connection.close(IDLE_TIMEOUT),
            )
        if topic not in watches and len(watches) >= self.limits.subscribers:
            return self._turned_away("watched topics of one session")
        return watches.watch(topic)

    def _unwatch(self, connection: Connection, request: Any) -> bool | ErrorText:
        try:
            topic = topic_name(request.params.topic)
        except ValueError as error:
            return BAD_PARAMS.about(str(error))
        watches = self._watches.get(connection.id)
        if watches is not None:
            watches.unwatch(topic)
            if not watches:
                del self._watches[connection.id]
        return True

    def _status(self, connection: Connection, request: Any) -> StatusPage:
        return status_page(self._broker.status(), request.params.start)

    def _trace(self, connection: Connection, request: Any) -> object:
        return self._broker.trace(request.params.message)

    # -- messages to subscribers

    def _deliver(
        self, connection: Connection, index: int, name: str
    ) -> Callable[[Message, int | None], Taken]:
        def deliver(message: Message, number: int | None) -> Taken:
            if connection.state is not OPEN:  # it cannot answer, even if it still reads
                return Taken.GONE
            try:
                if number is None:
                    dropped = self._publication(message, name).send(connection)
                else:
                    # As f"{number:016x}", in a quarter of the time.
                    call = f"{number.to_bytes(8, 'big').hex()}.{index}"
                    payload = self._checked(encode_call(call, message, name))
                    dropped = not connection.send_event(connection.framing.encode(payload))
            except ValueError as error:  # or over the limit of the subscriber's codec
                if number is None:
                    return Taken.TOO_LARGE
                failed = Response(CallVerdict.FAILED, text=str(error))
                self._broker.answer(_subscriber_id(connection, index), number, failed)
                return Taken.YES
            if dropped:
                return Taken.FULL if connection.sends else Taken.GONE
            return _TAKEN

        return deliver

    def _publication(self, message: Message, name: str) -> Publication:
        """Return an unreliable message in the form for all subscribers of a name."""
        if self._publications[0] is not message:
            self._publications = message, {}
        made = self._publications[1]
        publication = made.get(name)
        if publication is None:
            payload = self._checked(encode_call(None, message, name))
            publication = made[name] = Publication(payload)
        return publication

    def _checked(self, payload: bytes) -> bytes:
        """Return a payload if it is not too large; raises :class:`MessageTooLarge`."""
        most = self._broker.settings.max_message
        if len(payload) > most:
            raise MessageTooLarge(len(payload), most)
        return payload


def _subscriber_id(connection: Connection, index: int) -> str:
    return f"{connection.id}/{index}"


__all__ = ["LAST_OUTCOMES", "BusRouter", "BusService", "PeerLimits"]
