"""The bus for connections of :mod:`kupool.net`, in any framing that carries JSON."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.bus import Kind, Message, Outcome
from kupool.bus.broker import BUS_CLOSED, Broker
from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.publishing import (
    MAX_TIMEOUT,
    MIN_TIMEOUT,
    check_text,
    checked_keys,
    make_message,
)
from kupool.bus.remote.messages import (
    PublishParams,
    StatusPage,
    StatusParams,
    Subscribed,
    SubscribeParams,
    TraceParams,
    UnsubscribeParams,
    call_params,
    decode_data,
    published,
    read_response,
    status_page,
)
from kupool.bus.topics import pattern_name
from kupool.errors import BAD_PARAMS, TOO_MANY_REQUESTS, CloseReason, ErrorText
from kupool.net.interfaces import IClosingObserver
from kupool.net.observer import Observer
from kupool.net.routing.interfaces import IRouter
from kupool.net.routing.router import Before, Router
from kupool.session.connection import Connection
from kupool.timing.waiting import Waiters
from kupool.wire.framing import Item
from kupool.wire.incoming import ServerMessage, decode_incoming
from kupool.wire.messages import encode_request


@dataclass(frozen=True)
class PeerLimits:
    """What one connection may have of a bus at a time.

    ``publishing`` publishes without an outcome, ``subscribers``, and ``topics`` and keys
    over all of these.
    """

    publishing: int = 10_000
    subscribers: int = 1000
    topics: int = 100_000


class _Peer:
    """What the bus knows of a connection."""

    def __init__(self) -> None:
        #: The number of each subscriber, by its name.
        self.names: dict[str, int] = {}
        #: The topics of each subscriber, and its keys.
        self.topics: dict[str, set[str]] = {}
        self.keys: dict[str, set[str]] = {}
        self.publishing = 0
        self.settled: Deferred[None] | None = None

    def held(self) -> int:
        """Return how many topics and keys it has."""
        return sum(map(len, self.topics.values())) + sum(map(len, self.keys.values()))


@implementer(IRouter)
class BusRouter:
    """Gives replies to the bus, and everything else to a router of methods.

    ``peers`` are the ids of the connections that may have something to reply to.
    """

    def __init__(
        self,
        router: IRouter,
        peers: Container[int],
        replied: Callable[[Connection, ServerMessage], None],
    ) -> None:
        self._router = router
        self._peers = peers
        self._replied = replied

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one message; return the payload to answer with, if any."""
        if connection.id in self._peers and type(item) is bytes:
            try:
                message = decode_incoming(item)
            except (ValueError, RecursionError):
                pass  # the router knows what to answer
            else:
                if message.method is None and isinstance(message.id, str):
                    self._replied(connection, message)
                    return None
        return self._router.dispatch(connection, item)


@implementer(IClosingObserver)
class BusService(Observer):
    """The observer of a server that carries a bus: that of a broker.

    ``router`` may have methods of its own already. ``before`` are steps in front of every
    method of the bus, such as one that asks whether a peer may. ``limits`` may be
    replaced at any time. ``taken`` is waited for before a subscription is acknowledged,
    where the broker is one of several nodes.
    """

    def __init__(
        self,
        broker: Broker,
        router: Router | None = None,
        before: Iterable[Before] = (),
        *,
        limits: PeerLimits | None = None,
        taken: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        methods = router or Router()
        self._peers: dict[int, _Peer] = {}
        super().__init__(BusRouter(methods, self._peers, self.replied))
        self.limits = limits or PeerLimits()
        self._broker = broker
        self._taken = taken
        self._encoded: tuple[Message | None, dict[tuple[str, str], bytes]] = (None, {})
        self._publishing = 0
        self._finished: Waiters[None] | None = None
        steps = tuple(before)
        if "ping" not in {route.key for route in methods.routes}:
            methods.add("ping", lambda connection, request: True)
        methods.add("bus.publish", self._publish, PublishParams, before=steps)
        methods.add("bus.subscribe", self._subscribe, SubscribeParams, before=steps)
        methods.add("bus.unsubscribe", self._unsubscribe, UnsubscribeParams, before=steps)
        methods.add("bus.status", self._status, StatusParams, before=steps)
        methods.add("bus.trace", self._trace, TraceParams, before=steps)

    # -- connections

    def closing(self, connection: Connection, reason: CloseReason | None) -> None:
        """Let others have the calls of a connection that hears nothing more."""
        self._leave(connection)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Remove the subscribers of a connection, and no others."""
        self._leave(connection)
        self._peers.pop(connection.id, None)

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """Wait for the outcomes of what the peer has published; it can answer nothing now."""
        self._leave(connection)
        peer = self._peers.get(connection.id)
        if peer is None or not peer.publishing:
            return None
        peer.settled = Deferred()
        return peer.settled

    def finish(self) -> Deferred[None]:
        """Refuse what is published from now on; fires when all before has its outcome."""
        if self._finished is None:
            self._finished = Waiters()
        done = self._finished.wait()
        self._tell_finished()
        return done

    def _tell_finished(self) -> None:
        if self._finished is not None and not self._publishing:
            self._finished.tell(None)

    def _leave(self, connection: Connection) -> None:
        peer = self._peers.get(connection.id)
        if peer is not None:
            names, peer.names = peer.names, {}
            peer.topics.clear()
            peer.keys.clear()
            for index in names.values():
                self._broker.remove(_subscriber_id(connection, index))

    def replied(self, connection: Connection, reply: ServerMessage) -> None:
        """Take a peer's answer to a ``call``; one to nothing is harmless."""
        number, _, index = str(reply.id).partition(".")
        if number.isdecimal() and index.isdecimal() and len(number) + len(index) < 40:
            subscriber_id = _subscriber_id(connection, int(index))
            self._broker.answer(subscriber_id, int(number), read_response(reply))

    def _peer(self, connection: Connection) -> _Peer:
        return self._peers.setdefault(connection.id, _Peer())

    # -- methods

    def _publish(self, connection: Connection, request: Any) -> object:
        params: PublishParams = request.params
        peer = self._peer(connection)
        if peer.publishing >= self.limits.publishing:
            return TOO_MANY_REQUESTS
        broker = self._broker
        timeout = None if params.timeout_ms is None else params.timeout_ms / 1000
        if timeout is not None and not MIN_TIMEOUT <= timeout <= MAX_TIMEOUT:
            bounds = f"from {MIN_TIMEOUT * 1000:g} to {MAX_TIMEOUT * 1000:.0f}"
            return BAD_PARAMS.about(f"timeout_ms: {params.timeout_ms:g} is not {bounds}")
        try:
            message = make_message(
                broker.settings,
                params.message or broker.message_id(),
                params.model,
                params.topic,
                data=decode_data(params),
                timeout=timeout,
                key=params.key,
                headers=params.headers,
            )
        except ValueError as error:
            return BAD_PARAMS.about(str(error))
        if self._finished is not None:
            return published(Outcome(Kind.REFUSED, reason=BUS_CLOSED))
        answer: Deferred[object] = Deferred()
        peer.publishing += 1
        self._publishing += 1

        def done(outcome: Outcome) -> None:
            answer.callback(published(outcome))  # which sends it
            peer.publishing -= 1
            self._publishing -= 1
            self._tell_finished()
            settled = peer.settled
            if settled is not None and not peer.publishing:
                peer.settled = None
                settled.callback(None)

        broker.publish(message._replace(redelivered=params.redelivered), done)
        return answer

    def _subscribe(
        self, connection: Connection, request: Any
    ) -> Subscribed | ErrorText | Deferred[Subscribed]:
        params: SubscribeParams = request.params
        peer, name = self._peer(connection), params.subscriber
        if name not in peer.names and len(peer.names) >= self.limits.subscribers:
            return TOO_MANY_REQUESTS
        try:
            check_text("subscriber", name)
            patterns = {pattern_name(topic) for topic in params.topics}
            keys = set(checked_keys(params.keys))
            more = len(patterns - peer.topics.get(name, set()))
            more += len(keys - peer.keys.get(name, set()))
            if peer.held() + more > self.limits.topics:
                return TOO_MANY_REQUESTS
            index = peer.names.get(name, len(peer.names))
            subscriber_id = _subscriber_id(connection, index)
            topics = self._broker.subscribe(
                subscriber_id, params.topics, self._deliver(connection, index, name), keys
            )
        except ValueError as error:
            return BAD_PARAMS.about(str(error))
        peer.names[name] = index
        peer.topics.setdefault(name, set()).update(patterns)
        peer.keys.setdefault(name, set()).update(keys)
        subscribed = Subscribed(subscriber_id, list(topics))
        return (
            subscribed if self._taken is None else self._taken().addCallback(lambda _: subscribed)
        )

    def _unsubscribe(self, connection: Connection, request: Any) -> bool | ErrorText:
        params: UnsubscribeParams = request.params
        peer, name = self._peer(connection), params.subscriber
        index = peer.names.get(name)
        if index is not None:
            try:
                left = self._broker.unsubscribe(_subscriber_id(connection, index), params.topics)
            except ValueError as error:
                return BAD_PARAMS.about(str(error))
            peer.topics[name] = set(left)
            if not left:
                peer.keys[name] = set()  # as the broker has it
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
            if not connection.sends:
                return Taken.GONE
            try:
                if number is None:
                    data = self._encode_once(connection, message, name)
                else:
                    params = call_params(message, name)
                    data = connection.framing.encode(
                        encode_request(f"{number}.{index}", "call", params)
                    )
            except ValueError as error:  # over the limit of the subscriber's codec
                if number is None:
                    return Taken.GONE
                failed = Response(CallVerdict.FAILED, text=str(error))
                self._broker.answer(_subscriber_id(connection, index), number, failed)
                return Taken.YES
            if connection.send_event(data):
                return Taken.YES
            return Taken.FULL if connection.sends else Taken.GONE

        return deliver

    def _encode_once(self, connection: Connection, message: Message, name: str) -> bytes:
        """Encode an unreliable message once for all that it goes to."""
        framing = connection.framing
        if self._encoded[0] is not message:
            self._encoded = message, {}
        made = self._encoded[1]
        data = made.get((framing.name, name))
        if data is None:
            payload = encode_request(None, "call", call_params(message, name))
            data = made[framing.name, name] = framing.encode(payload)
        return data


def _subscriber_id(connection: Connection, index: int) -> str:
    return f"{connection.id}/{index}"


__all__ = ["BusRouter", "BusService", "PeerLimits"]
