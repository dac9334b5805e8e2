"""What a client listens to: its subscriptions over all connections, and its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.bus import BusError, BusSettings, Handler, Subscription, Topic
from kupool.bus.broker import BUS_CLOSED
from kupool.bus.calls import Response
from kupool.bus.inbox import Inbox
from kupool.bus.local import topics_of
from kupool.bus.publishing import checked_keys
from kupool.bus.remote.messages import (
    CallParams,
    Subscribed,
    SubscribeParams,
    UnsubscribeParams,
    called_message,
    response_result,
)
from kupool.bus.remote.wanted import Heard, Wanted
from kupool.bus.topics import pattern_name
from kupool.errors import BAD_PARAMS, INTERNAL_ERROR, NOT_FOUND, ErrorText
from kupool.session.connection import Connection
from kupool.timing.waiting import Waiters
from kupool.wire.incoming import ServerMessage
from kupool.wire.messages import RequestId, encode_error, encode_result

#: Topics and keys that one request to subscribe has at most.
CHUNK = 50

#: Is given the reply to a request, or None where there will be none.
Replied = Callable[[ServerMessage | None], object]


class RemoteListening:
    """Tells each connection what is wanted, and has handlers answer what is called.

    ``link`` returns the connection, if there is one; ``ask`` sends a request over it.
    ``refusal`` says why there will be none, if so.
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
        self._wanted: dict[Handler, Wanted] = {}
        self._names: dict[str, Wanted] = {}
        self._heard = Heard(clock)
        self._closed = False

    def subscribe(
        self, topics: Iterable[Topic], handler: Handler, keys: Iterable[str]
    ) -> Deferred[Subscription]:
        """Let a handler have the messages of some topics, now or with the next connection."""
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
        link = self._link()
        if link is None:
            refusal = self._refusal()
            return fail(BusError(refusal)) if refusal else wanted.waiting.wait()
        waiting = Waiters[Subscription]()
        done = waiting.wait()
        self._listen(link, wanted, patterns, list(new_keys), waiting=waiting)
        return done

    def unsubscribe(self, handler: Handler, topics: Iterable[Topic] | None) -> Deferred[None]:
        """Let a handler have no more of some topics, or with None of all."""
        patterns = None if topics is None else [pattern_name(t) for t in topics_of(topics)]
        wanted = self._wanted.get(handler)
        done: Deferred[None] = Deferred()
        if wanted is None:
            return succeed(None)
        for pattern in list(wanted.topics) if patterns is None else patterns:
            wanted.topics.pop(pattern, None)
        if not wanted.topics:
            del self._wanted[handler], self._names[wanted.name]
            wanted.waiting.tell(Subscription("", ()))
        link = self._link()
        if link is None:
            return succeed(None)
        params = UnsubscribeParams(None if patterns is None else list(patterns), wanted.name)
        self._ask(link, "bus.unsubscribe", params, lambda _: done.callback(None))
        return done

    def _listen(
        self,
        link: Connection,
        wanted: Wanted,
        topics: list[str],
        keys: list[str],
        *,
        waiting: Waiters[Subscription],
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
                partial(self._replied, wanted, waiting if last else Waiters()),
            )

    def _replied(
        self, wanted: Wanted, waiting: Waiters[Subscription], reply: ServerMessage | None
    ) -> None:
        if reply is None and wanted.handler in self._wanted:
            wanted.waiting.join(waiting)  # the next connection begins anew
            return
        try:
            if reply is None:
                raise BusError("no longer wanted")
            if reply.error is not None:
                raise BusError(reply.error)
            found = msgspec.json.decode(reply.result, type=Subscribed)
        except (ValueError, BusError) as error:
            self._log.warn("The bus does not let us subscribe: {why}", why=str(error))
            waiting.tell(Failure(BusError(str(error))))
            return
        waiting.tell(Subscription(found.subscriber, tuple(found.topics)))

    def up(self, link: Connection) -> None:
        """Ask for all that is wanted over a new connection."""
        for wanted in list(self._wanted.values()):
            waiting, wanted.waiting = wanted.waiting, Waiters()
            self._listen(link, wanted, list(wanted.topics), list(wanted.keys), waiting=waiting)

    def called(self, link: Connection, request: ServerMessage) -> None:
        """Have a call handled, and answered where it wants to be."""
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

    def _answer(self, link: Connection, request_id: RequestId, response: Response) -> None:
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

    def gone(self) -> None:
        """There will be no connection: tell who waits for one."""
        for wanted in list(self._wanted.values()):
            wanted.waiting.tell(Failure(BusError(self._refusal())))

    def close(self) -> None:
        """Listen to nothing any more."""
        self._closed = True
        for wanted in self._wanted.values():
            wanted.inbox.close()
            wanted.waiting.tell(Failure(BusError(BUS_CLOSED)))
        self._wanted.clear()
        self._names.clear()


__all__ = ["CHUNK", "RemoteListening", "Replied"]
