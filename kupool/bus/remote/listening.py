"""A client's subscriptions over all connections, and the calls that arrive for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count, zip_longest

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.bus.broker import BUS_CLOSED
from kupool.bus.calls import Response
from kupool.bus.inbox import Inbox
from kupool.bus.interfaces import Subscription
from kupool.bus.local import topics_of
from kupool.bus.messages import BusError, Handler, Topic
from kupool.bus.publishing import checked_keys
from kupool.bus.remote.messages import (
    Subscribed,
    SubscribeParams,
    UnsubscribeParams,
    read_call,
    response_result,
)
from kupool.bus.remote.subscriptions import ClientSubscription, HandledCalls
from kupool.bus.settings import BusSettings
from kupool.bus.topics import pattern_name
from kupool.errors import BAD_PARAMS, INTERNAL_ERROR, NOT_FOUND, ErrorText
from kupool.session.connection import Connection
from kupool.timing.waiting import Waiters
from kupool.wire.incoming import ServerMessage
from kupool.wire.messages import RequestId, encode_error, encode_result

#: The limits for one request: the bytes of its topics as JSON, those of its keys, and the number of
#: each.
CHUNK_BYTES = 12_000
CHUNK = 50

#: Gets the reply to a request, or None if there will be none.
Replied = Callable[[ServerMessage | None], object]


class RemoteListening:
    """Subscribes over each new connection, and has handlers answer incoming calls.

    ``link`` returns the connection, if there is one. ``ask`` sends a request over it. ``refusal``
    returns why there will be no connection, if that is so.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        settings: BusSettings,
        link: Callable[[], Connection | None],
        *,
        ask: Callable[[Connection, str, object, Replied], None],
        refusal: Callable[[], str],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._link = link
        self._ask = ask
        self._refusal = refusal
        self._by_handler: dict[Handler, ClientSubscription] = {}
        self._by_name: dict[str, ClientSubscription] = {}
        #: Never used again: a late call for one handler must not reach another.
        self._names = map(str, count())
        self._handled = HandledCalls(clock)
        self._closed = False

    def subscribe(
        self, topics: Iterable[Topic], handler: Handler, keys: Iterable[str]
    ) -> Deferred[Subscription]:
        """Subscribe a handler to topics, now or over the next connection."""
        patterns = [pattern_name(topic) for topic in topics_of(topics)]
        new_keys = checked_keys(keys)
        if not patterns:
            raise ValueError("no topic to subscribe to")
        if self._closed:
            raise ValueError(BUS_CLOSED)
        subscription = self._by_handler.get(handler)
        if subscription is None:
            inbox = Inbox(self._clock, self._settings, handler)
            subscription = ClientSubscription(next(self._names), handler, inbox)
            self._by_handler[handler] = self._by_name[subscription.name] = subscription
        subscription.add(patterns, new_keys)
        link = self._link()
        if link is None:
            refusal = self._refusal()
            return fail(BusError(refusal)) if refusal else subscription.waiting.wait()
        waiting = Waiters[Subscription]()
        done = waiting.wait()
        self._listen(link, subscription, patterns, list(new_keys), waiting=waiting)
        return done

    def unsubscribe(self, handler: Handler, topics: Iterable[Topic] | None) -> Deferred[None]:
        """End the subscription of a handler to some topics, or with None to all."""
        patterns = None if topics is None else [pattern_name(t) for t in topics_of(topics)]
        subscription = self._by_handler.get(handler)
        if subscription is None:
            return succeed(None)
        subscription.remove(list(subscription.topics) if patterns is None else patterns)
        if not subscription.topics:
            del self._by_handler[handler], self._by_name[subscription.name]
            subscription.waiting.tell(Subscription("", ()))
            patterns = None
        link = self._link()
        if link is None or patterns == []:
            return succeed(None)
        parts: list[list[str] | None] = [None]
        if patterns is not None:
            parts = list(_parts(patterns))
        told = Waiters[None]()
        done = told.wait()
        for part in parts:
            params = UnsubscribeParams(None if part is None else list(part), subscription.name)
            replied = partial(_tell, told) if part is parts[-1] else _nobody
            self._ask(link, "bus.unsubscribe", params, replied)
        return done

    def _listen(
        self,
        link: Connection,
        subscription: ClientSubscription,
        topics: list[str],
        keys: list[str],
        *,
        waiting: Waiters[Subscription],
    ) -> None:
        """Subscribe in requests that each fit a message; the reply to the last one counts."""
        parts = list(zip_longest(_parts(topics), _parts(keys)))
        for n, (some_topics, some_keys) in enumerate(parts):
            params = SubscribeParams(
                list(some_topics or topics[:1]), subscription.name, list(some_keys or ())
            )
            last = n == len(parts) - 1
            self._ask(
                link,
                "bus.subscribe",
                params,
                partial(self._replied, subscription, waiting if last else Waiters()),
            )

    def _replied(
        self,
        subscription: ClientSubscription,
        waiting: Waiters[Subscription],
        reply: ServerMessage | None,
    ) -> None:
        if reply is None and subscription.name in self._by_name:
            subscription.waiting.join(waiting)  # the next connection subscribes anew
            return
        try:
            if reply is None:
                raise BusError("unsubscribed meanwhile")
            if reply.error is not None:
                raise BusError(reply.error)
            found = msgspec.json.decode(reply.result, type=Subscribed)
        except (ValueError, BusError) as error:
            self._log.warn("The bus refused a subscription: {why}", why=str(error))
            waiting.tell(Failure(BusError(str(error))))
            return
        waiting.tell(Subscription(found.subscriber, tuple(found.topics)))

    def up(self, link: Connection) -> None:
        """Subscribe to everything over a new connection."""
        for one in list(self._by_handler.values()):
            waiting, one.waiting = one.waiting, Waiters()
            self._listen(link, one, list(one.topics), list(one.keys), waiting=waiting)

    def called(self, link: Connection, request: ServerMessage) -> None:
        """Have a call handled, and answered if an answer is expected."""
        try:
            name, message = read_call(request.params)
        except ValueError as error:
            if request.id is not None:
                link.send(encode_error(request.id, BAD_PARAMS.about(str(error))))
            return
        subscription = self._by_name.get(name)
        if subscription is not None and not subscription.covers(message.topic):
            subscription = None  # it was sent before the handler unsubscribed
        if request.id is None:
            if subscription is not None:
                subscription.inbox.put(message, None)
        elif subscription is None:
            link.send(encode_error(request.id, NOT_FOUND.about("not mine")))
        else:
            self._handled.take(subscription, message, partial(self._answer, link, request.id))

    def _answer(self, link: Connection, request_id: RequestId, response: Response) -> None:
        result = response_result(response)
        if isinstance(result, ErrorText):
            link.send(encode_error(request_id, result))
        else:
            try:
                link.send(encode_result(request_id, result))
            except ValueError as error:  # over the limit of the connection's codec
                text = f"answer of {len(response.data)} bytes: {error}"
                link.send(encode_error(request_id, ErrorText(INTERNAL_ERROR.code, text)))

    def gone(self) -> None:
        """There will be no connection again: fail the callers that wait for one."""
        for subscription in list(self._by_handler.values()):
            subscription.waiting.tell(Failure(BusError(self._refusal())))

    def close(self) -> None:
        """End all subscriptions."""
        self._closed = True
        for subscription in self._by_handler.values():
            subscription.inbox.close()
            subscription.waiting.tell(Failure(BusError(BUS_CLOSED)))
        self._by_handler.clear()
        self._by_name.clear()


def _tell(waiting: Waiters[None], reply: ServerMessage | None) -> None:
    waiting.tell(None)


def _nobody(reply: ServerMessage | None) -> None:
    """Ignore this reply: only the reply to the last part counts."""


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield texts in lists that each fit a request."""
    part: list[str] = []
    size = 0
    for text in texts:
        length = len(msgspec.json.encode(text)) + 1
        if part and (len(part) >= CHUNK or size + length > CHUNK_BYTES):
            yield part
            part, size = [], 0
        part.append(text)
        size += length
    if part:
        yield part


__all__ = ["CHUNK", "RemoteListening", "Replied"]
