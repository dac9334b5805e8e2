"""The bus for connections of :mod:`kupool.net`, in any framing that carries JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.bus import Message, Outcome
from kupool.bus.broker import Broker
from kupool.bus.calls import Taken
from kupool.bus.publishing import check_text, checked_keys, make_message
from kupool.bus.remote.messages import (
    Incoming,
    PublishParams,
    StatusPage,
    StatusParams,
    Subscribed,
    SubscribeParams,
    TraceParams,
    UnsubscribeParams,
    call_params,
    decode_data,
    decode_incoming,
    published,
    read_response,
    status_page,
)
from kupool.errors import BAD_PARAMS, TOO_MANY_REQUESTS, ErrorText
from kupool.net.connection import OPEN, Connection
from kupool.net.observer import Observer
from kupool.net.router import Before, IRouter, Router
from kupool.wire.framing import Item
from kupool.wire.messages import encode_request

#: Publishes of one connection that may be without an outcome, and its subscribers.
MAX_PUBLISHING = 10_000
MAX_SUBSCRIBERS = 1000


class _Peer:
    """What the bus knows of a connection."""

    def __init__(self) -> None:
        #: The number of each subscriber, by its name.
        self.names: dict[str, int] = {}
        self.publishing = 0
        self.settled: Deferred[None] | None = None


@implementer(IRouter)
class BusRouter:
    """Gives replies to the bus, and everything else to a router of methods."""

    def __init__(self, router: IRouter, replied: Callable[[Connection, Incoming], None]) -> None:
        self._router = router
        self._replied = replied

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one message; return the payload to answer with, if any."""
        if type(item) is bytes:
            try:
                message = decode_incoming(item)
            except (ValueError, RecursionError):
                pass  # the router knows what to answer
            else:
                if message.method is None and isinstance(message.id, str):
                    self._replied(connection, message)
                    return None
        return self._router.dispatch(connection, item)


class BusService(Observer):
    """The observer of a server that carries a bus: that of a broker.

    ``router`` may have methods of its own already. ``before`` are steps in front of every
    method of the bus, such as one that asks whether a peer may.
    """

    def __init__(
        self, broker: Broker, router: Router | None = None, before: Iterable[Before] = ()
    ) -> None:
        methods = router or Router()
        super().__init__(BusRouter(methods, self.replied))
        self._broker = broker
        self._peers: dict[int, _Peer] = {}
        self._encoded: tuple[Message | None, dict[tuple[str, str], bytes]] = (None, {})
        steps = tuple(before)
        if "ping" not in {route.method for route in methods.routes}:
            methods.add("ping", lambda connection, request: True)
        methods.add("bus.publish", self._publish, PublishParams, before=steps)
        methods.add("bus.subscribe", self._subscribe, SubscribeParams, before=steps)
        methods.add("bus.unsubscribe", self._unsubscribe, UnsubscribeParams, before=steps)
        methods.add("bus.status", self._status, StatusParams, before=steps)
        methods.add("bus.trace", self._trace, TraceParams, before=steps)

    # -- connections

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Remove the subscribers of a connection, and no others."""
        peer = self._peers.pop(connection.id, None)
        if peer is not None:
            for index in peer.names.values():
                self._broker.remove(_subscriber_id(connection, index))

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """Wait for the outcomes of what the peer has published."""
        peer = self._peers.get(connection.id)
        if peer is None or not peer.publishing:
            return None
        peer.settled = Deferred()
        return peer.settled

    def replied(self, connection: Connection, reply: Incoming) -> None:
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
        if peer.publishing >= MAX_PUBLISHING:
            return TOO_MANY_REQUESTS
        broker = self._broker
        timeout = None if params.timeout_ms is None else params.timeout_ms / 1000
        try:
            message = make_message(
                broker.settings,
                params.message or broker.message_id(),
                params.model,
                params.topic,
                decode_data(params),
                timeout,
                params.key,
                params.headers,
            )
        except ValueError as error:
            return BAD_PARAMS.about(str(error))
        answer: Deferred[object] = Deferred()
        peer.publishing += 1

        def done(outcome: Outcome) -> None:
            answer.callback(published(outcome))  # which sends it
            peer.publishing -= 1
            settled = peer.settled
            if settled is not None and not peer.publishing:
                peer.settled = None
                settled.callback(None)

        broker.publish(message._replace(redelivered=params.redelivered), done)
        return answer

    def _subscribe(self, connection: Connection, request: Any) -> Subscribed | ErrorText:
        params: SubscribeParams = request.params
        peer, name = self._peer(connection), params.subscriber
        if name not in peer.names and len(peer.names) >= MAX_SUBSCRIBERS:
            return TOO_MANY_REQUESTS
        try:
            check_text("subscriber", name)
            index = peer.names.get(name, len(peer.names))
            subscriber_id = _subscriber_id(connection, index)
            topics = self._broker.subscribe(
                subscriber_id,
                params.topics,
                self._deliver(connection, index, name),
                checked_keys(params.keys),
            )
        except ValueError as error:
            return BAD_PARAMS.about(str(error))
        peer.names[name] = index
        return Subscribed(subscriber_id, list(topics))

    def _unsubscribe(self, connection: Connection, request: Any) -> bool | ErrorText:
        params: UnsubscribeParams = request.params
        peer = self._peer(connection)
        index = peer.names.get(params.subscriber)
        if index is not None:
            try:
                self._broker.unsubscribe(_subscriber_id(connection, index), params.topics)
            except ValueError as error:
                return BAD_PARAMS.about(str(error))
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
            if connection.state is not OPEN:
                return Taken.GONE
            if number is None:
                data = self._encode_once(connection, message, name)
            else:
                params = call_params(message, name)
                data = connection.framing.encode(
                    encode_request(f"{number}.{index}", "call", params)
                )
            if connection.send_event(data):
                return Taken.YES
            return Taken.FULL if connection.state is OPEN else Taken.GONE

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


__all__ = ["MAX_PUBLISHING", "MAX_SUBSCRIBERS", "BusRouter", "BusService"]
