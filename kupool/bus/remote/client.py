"""The bus as a client of a server has it: the same interface, over one connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import random as _random
from secrets import token_hex
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from kupool.bus import (
    BusError,
    BusSettings,
    BusStatus,
    Handler,
    IBus,
    Kind,
    Model,
    Outcome,
    Step,
    Subscription,
    Topic,
)
from kupool.bus.broker import BUS_CLOSED, BUS_FULL
from kupool.bus.calls import Response
from kupool.bus.inbox import Inbox
from kupool.bus.local import topics_of
from kupool.bus.models import Models
from kupool.bus.publishing import MIN_TIMEOUT, checked_keys, make_message
from kupool.bus.remote.dialling import Dialler
from kupool.bus.remote.link import Link
from kupool.bus.remote.messages import (
    CallParams,
    Incoming,
    PublishParams,
    StatusPage,
    StatusParams,
    Subscribed,
    SubscribeParams,
    TraceParams,
    UnsubscribeParams,
    called_message,
    encode_data,
    read_outcome,
    response_result,
)
from kupool.bus.remote.wanted import Heard, Publishing, Wanted
from kupool.bus.topics import pattern_name
from kupool.errors import BAD_PARAMS, INTERNAL_ERROR, NOT_FOUND, UNKNOWN_METHOD, ErrorText
from kupool.wire.framing import FRAME, Framing
from kupool.wire.messages import (
    AuthorizeParams,
    RequestId,
    encode_error,
    encode_request,
    encode_result,
)

#: Seconds after its deadline at which a call is given up here: the server's word on it
#: may still be on its way.
GRACE = 0.05

#: Topics and keys that one request to subscribe has at most.
CHUNK = 50

NOT_CONNECTED = "not connected"

#: The method that a connection begins with, and the id of that request.
AUTHORIZE = "authorize"

#: Is given the reply to a request, or None where there will be none.
Replied = Callable[[Incoming | None], object]


@implementer(IBus)
class RemoteBus(Models):
    """A bus that a server carries.

    It connects when :meth:`connect` is called, and comes back for ever. Subscriptions
    outlive connections. A reliable message waits for a connection until its deadline,
    and is sent again, as redelivered, over the next one where its outcome was not heard;
    an unreliable one is refused while there is none. ``settings`` should be those of the
    server; ``timeout``, ``max_data`` and the limits of calls and handlers count here.
    With a ``username`` each connection begins with ``authorize``, as a pool wants it.
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
    ) -> None:
        self._clock = clock
        self._settings = settings or BusSettings()
        self._credentials = AuthorizeParams(username, password)
        self._welcomes: dict[Link, Deferred[Link]] = {}
        self._dialler = Dialler(
            clock,
            endpoint,
            lambda: Link(clock, framing, max_frame, self._received, self._down),
            self._up,
            random,
            self._greet if username else None,
        )
        self._link: Link | None = None
        self._links: set[Link] = set()
        self._ends: list[Deferred[None]] = []
        self._token = token_hex(8)
        self._number = 0
        self._replies: dict[RequestId, Replied] = {}
        self._publishing: dict[int, Publishing] = {}
        self._size = 0
        self._wanted: dict[Handler, Wanted] = {}
        self._names: dict[str, Wanted] = {}
        self._heard = Heard(clock)
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._link is not None

    def connect(self) -> Deferred[None]:
        """Connect; the Deferred fails, and nothing is tried again, if that fails at first.

        It fails with :class:`BusError` where the server does not let the user in. Call it
        once.
        """
        return self._dialler.start()

    # -- publishing

    def _publish(
        self,
        model: Model,
        data: bytes,
        topic: Topic,
        timeout: float | None = None,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        self._number += 1
        number, settings = self._number, self._settings
        message_id = f"{self._token}-{number}"
        message = make_message(settings, message_id, model, topic, data, timeout, key, headers)
        reason = self._why_not(model, len(data))
        if reason:
            return succeed(Outcome(Kind.REFUSED, reason=reason))
        limit = message.timeout or settings.timeout
        outcome: Deferred[Outcome] = Deferred(lambda _: self._cancelled(number))
        publishing = Publishing(message, self._clock.seconds() + limit, outcome)
        publishing.timer = self._clock.callLater(limit + GRACE, self._overdue, number)
        self._publishing[number] = publishing
        self._size += len(data)
        if self._link is not None:
            self._send(self._link, number, publishing)
        return outcome

    def _why_not(self, model: Model, size: int) -> str:
        if self._closed:
            return BUS_CLOSED
        settings = self._settings
        if (
            len(self._publishing) >= settings.max_calls
            or self._size + size > settings.max_calls_bytes
        ):
            return BUS_FULL
        if not model.reliable:
            if self._link is None:
                return NOT_CONNECTED
            if not self._link.writable:
                return "the connection is slow"
        return ""

    def _send(self, link: Link, number: int, publishing: Publishing) -> None:
        message = publishing.message
        left = publishing.deadline - self._clock.seconds()
        if left < MIN_TIMEOUT:
            return  # its time is as good as over
        text, base64 = encode_data(message.data)
        params = PublishParams(
            topic=message.topic,
            model=message.model,
            data=text,
            base64=base64,
            timeout_ms=left * 1000 if message.model.reliable else None,
            key=message.key,
            headers=dict(message.headers),
            message=message.id,
            redelivered=publishing.sent,
        )
        publishing.sent = True
        try:
            link.send(encode_request(number, "bus.publish", params))
        except ValueError as error:  # over the limit of the connection's codec
            self._end(number, Outcome(Kind.REFUSED, reason=str(error)))

    def _forget(self, number: int) -> Publishing | None:
        publishing = self._publishing.pop(number, None)
        if publishing is not None:
            self._size -= len(publishing.message.data)
            if publishing.timer is not None and publishing.timer.active():
                publishing.timer.cancel()
        return publishing

    def _cancelled(self, number: int) -> None:
        self._forget(number)

    def _end(self, number: int, outcome: Outcome) -> None:
        publishing = self._forget(number)
        if publishing is not None:
            publishing.outcome.callback(outcome)

    def _overdue(self, number: int) -> None:
        publishing = self._publishing[number]
        if publishing.message.model.reliable:
            self._end(number, Outcome(Kind.TIMEOUT, reason="" if self._link else NOT_CONNECTED))
        else:
            self._end(number, Outcome(Kind.REFUSED, reason="the server said nothing"))

    # -- subscriptions

    def subscribe(
        self, topics: Iterable[Topic], handler: Handler, *, keys: Iterable[str] = ()
    ) -> Deferred[Subscription]:
        """Let a handler have the messages of some topics.

        Without a connection it fires after the next one. It fails with
        :class:`~kupool.bus.BusError` where the server refuses.
        """
        patterns = [pattern_name(topic) for topic in topics_of(topics)]
        new_keys = checked_keys(keys)
        if not patterns:
            raise ValueError("no topic to subscribe to")
        if self._closed:
            raise ValueError(BUS_CLOSED)
        wanted = self._wanted.get(handler)
        if wanted is None:
            name = next(n for n in map(str, range(len(self._names) + 1)) if n not in self._names)
            wanted = Wanted(name, handler, Inbox(self._clock, self._settings, handler))
            self._wanted[handler] = self._names[name] = wanted
        wanted.topics.update(dict.fromkeys(patterns))
        wanted.keys.update(dict.fromkeys(new_keys))
        done: Deferred[Subscription] = Deferred()
        if self._link is None:
            wanted.waiting.append(done)
        else:
            self._listen(self._link, wanted, patterns, list(new_keys), [done])
        return done

    def _listen(
        self,
        link: Link,
        wanted: Wanted,
        topics: list[str],
        keys: list[str],
        waiting: list[Deferred[Subscription]],
    ) -> None:
        """Subscribe in requests that fit a message; the reply to the last one counts."""
        parts = max(-(-len(topics) // CHUNK), -(-len(keys) // CHUNK))
        for part in range(parts):
            some = slice(part * CHUNK, (part + 1) * CHUNK)
            params = SubscribeParams(list(topics[some] or topics[:1]), wanted.name, keys[some])
            last = part == parts - 1
            self._ask(
                link,
                "bus.subscribe",
                params,
                partial(self._listening, wanted, waiting if last else []),
            )

    def _listening(
        self, wanted: Wanted, waiting: list[Deferred[Subscription]], reply: Incoming | None
    ) -> None:
        if reply is None and wanted.handler in self._wanted:
            wanted.waiting += waiting  # the next connection begins anew
            return
        try:
            if reply is None:
                raise BusError("no longer wanted")
            if reply.error is not None:
                raise BusError(reply.error)
            found = msgspec.json.decode(reply.result, type=Subscribed)
        except (ValueError, BusError) as error:
            self._log.warn("The bus does not let us subscribe: {why}", why=str(error))
            for done in waiting:
                done.errback(BusError(str(error)))
            return
        for done in waiting:
            done.callback(Subscription(found.subscriber, tuple(found.topics)))

    def unsubscribe(
        self, handler: Handler, topics: Iterable[Topic] | None = None
    ) -> Deferred[None]:
        """Let a handler have no more of some topics, by default of all."""
        patterns = None if topics is None else [pattern_name(t) for t in topics_of(topics)]
        wanted = self._wanted.get(handler)
        done: Deferred[None] = Deferred()
        if wanted is None:
            return succeed(None)
        for pattern in list(wanted.topics) if patterns is None else patterns:
            wanted.topics.pop(pattern, None)
        if not wanted.topics:
            del self._wanted[handler], self._names[wanted.name]
            for waiting in wanted.waiting:
                waiting.callback(Subscription("", ()))
        if self._link is None:
            return succeed(None)
        params = UnsubscribeParams(None if patterns is None else list(patterns), wanted.name)
        self._ask(self._link, "bus.unsubscribe", params, lambda _: done.callback(None))
        return done

    # -- what the server knows

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
        """Return the way of a recent message; fails with :class:`BusError`."""
        return self._question("bus.trace", TraceParams(message_id), tuple[Step, ...])

    def _question(self, method: str, params: object, form: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()

        def replied(reply: Incoming | None) -> None:
            if answer.called:
                return
            try:
                if reply is None or reply.error is not None:
                    raise BusError(NOT_CONNECTED if reply is None else reply.error)
                answer.callback(msgspec.json.decode(reply.result, type=form))
            except (ValueError, BusError) as error:
                answer.errback(BusError(str(error)))

        if self._link is None:
            replied(None)
        else:
            self._ask(self._link, method, params, replied)
        return answer

    def _ask(self, link: Link, method: str, params: object, replied: Replied) -> None:
        self._number += 1
        self._replies[self._number] = replied
        link.send(encode_request(self._number, method, params))

    # -- the connection

    def _greet(self, link: Link) -> Deferred[Link]:
        """Say who we are; fires with the link once the server has let us in."""

        def give_up(_: object) -> None:
            del self._welcomes[link]
            link.abort()

        welcome = self._welcomes[link] = Deferred(give_up)
        self._links.add(link)
        link.send(encode_request(AUTHORIZE, AUTHORIZE, self._credentials))
        return welcome

    def _greeted(self, link: Link, why_not: str | None) -> None:
        welcome = self._welcomes.pop(link)
        if why_not is None:
            welcome.callback(link)
        else:
            link.lose()
            welcome.errback(BusError(why_not))

    def _up(self, link: Link) -> None:
        self._link = link
        self._links.add(link)
        for wanted in list(self._wanted.values()):
            waiting, wanted.waiting = wanted.waiting, []
            self._listen(link, wanted, list(wanted.topics), list(wanted.keys), waiting)
        for number, publishing in list(self._publishing.items()):
            self._send(link, number, publishing)

    def _down(self, link: Link) -> None:
        self._links.discard(link)
        if link in self._welcomes:
            self._greeted(link, "the connection was lost")
        if self._link is link:
            self._link = None
            replies, self._replies = self._replies, {}
            for number, publishing in list(self._publishing.items()):
                if not publishing.message.model.reliable:
                    self._end(number, Outcome(Kind.REFUSED, reason="the connection was lost"))
            for replied in replies.values():
                replied(None)
            self._dialler.again()
        if not self._links:
            ends, self._ends = self._ends, []
            for ended in ends:
                ended.callback(None)

    def _received(self, link: Link, message: Incoming) -> None:
        if link in self._welcomes and message.method is None and message.id == AUTHORIZE:
            self._greeted(link, message.error)
        if link is not self._link:
            return
        self._dialler.steady()
        if message.method is None:
            replied = self._replies.pop(message.id, None)
            if replied is not None:
                replied(message)
            elif isinstance(message.id, int) and message.id in self._publishing:
                self._end(message.id, read_outcome(message))
        elif message.method == "call":
            self._called(link, message)
        elif message.id is not None:
            link.send(encode_error(message.id, UNKNOWN_METHOD))

    def _called(self, link: Link, request: Incoming) -> None:
        try:
            params = msgspec.json.decode(request.params, type=CallParams)
            message = called_message(params)
        except ValueError as error:
            if request.id is not None:
                link.send(encode_error(request.id, BAD_PARAMS.about(str(error))))
            return
        wanted = self._names.get(params.subscriber)
        if request.id is None:
            if wanted is not None:
                wanted.inbox.put(message, None)
        elif wanted is None:
            link.send(encode_error(request.id, NOT_FOUND.about("not mine")))
        else:
            self._heard.take(wanted, message, partial(self._answer, link, request.id))

    def _answer(self, link: Link, request_id: RequestId, response: Response) -> None:
        size, most = len(response.data), self._settings.max_data
        if size > most:
            result: Any = ErrorText(INTERNAL_ERROR.code, f"answer of {size} bytes: too large")
        else:
            result = response_result(response)
        if isinstance(result, ErrorText):
            link.send(encode_error(request_id, result))
        else:
            try:
                link.send(encode_result(request_id, result))
            except ValueError as error:  # over the limit of the connection's codec
                failed = ErrorText(INTERNAL_ERROR.code, f"answer of {size} bytes: {error}")
                link.send(encode_error(request_id, failed))

    def close(self) -> Deferred[None]:
        """End every call as refused, and the connection; fires when that has ended."""
        self._closed = True
        self._dialler.stop()
        for number in list(self._publishing):
            self._end(number, Outcome(Kind.REFUSED, reason=BUS_CLOSED))
        for wanted in self._wanted.values():
            wanted.inbox.close()
            for waiting in wanted.waiting:
                waiting.errback(BusError(BUS_CLOSED))
        self._wanted.clear()
        self._names.clear()
        for link in list(self._links):
            link.lose()
        if not self._links:
            return succeed(None)
        ended: Deferred[None] = Deferred()
        self._ends.append(ended)
        return ended


__all__ = ["GRACE", "NOT_CONNECTED", "RemoteBus"]
