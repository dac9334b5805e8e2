"""The bus as a client of a server has it: the same interface, over one connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from random import random as _random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from zope.interface import implementer

from kupool.bus import (
    BusError,
    BusSettings,
    BusStatus,
    Handler,
    IBus,
    Model,
    Outcome,
    Step,
    Subscription,
    Topic,
)
from kupool.bus.models import Models
from kupool.bus.remote.dialling import Dialler
from kupool.bus.remote.link import Link
from kupool.bus.remote.listening import Listening, Replied
from kupool.bus.remote.messages import (
    Incoming,
    StatusPage,
    StatusParams,
    TraceParams,
)
from kupool.bus.remote.outstanding import NOT_CONNECTED, Outstanding
from kupool.errors import UNKNOWN_METHOD
from kupool.wire.framing import FRAME, Framing
from kupool.wire.messages import (
    AuthorizeParams,
    RequestId,
    encode_error,
    encode_request,
)

#: The method that a connection begins with, and the id of that request.
AUTHORIZE = "authorize"


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
        settings = settings or BusSettings()
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
        self._numbers = count(1)
        self._outstanding = Outstanding(clock, settings, self._connection, self._numbers)
        self._replies: dict[RequestId, Replied] = {}
        self._listening = Listening(clock, settings, self._connection, self._ask)

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

    def _connection(self) -> Link | None:
        return self._link

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
        return self._outstanding.publish(model, data, topic, timeout, key, headers)

    # -- subscriptions

    def subscribe(
        self, topics: Iterable[Topic], handler: Handler, *, keys: Iterable[str] = ()
    ) -> Deferred[Subscription]:
        """Let a handler have the messages of some topics.

        Without a connection it fires after the next one. It fails with
        :class:`~kupool.bus.BusError` where the server refuses.
        """
        return self._listening.subscribe(topics, handler, keys)

    def unsubscribe(
        self, handler: Handler, topics: Iterable[Topic] | None = None
    ) -> Deferred[None]:
        """Let a handler have no more of some topics, by default of all."""
        return self._listening.unsubscribe(handler, topics)

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
        number = next(self._numbers)
        self._replies[number] = replied
        link.send(encode_request(number, method, params))

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
        self._listening.up(link)
        self._outstanding.up(link)

    def _down(self, link: Link) -> None:
        self._links.discard(link)
        if link in self._welcomes:
            self._greeted(link, "the connection was lost")
        if self._link is link:
            self._link = None
            replies, self._replies = self._replies, {}
            self._outstanding.down()
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
            elif isinstance(message.id, int):
                self._outstanding.replied(message.id, message)
        elif message.method == "call":
            self._listening.called(link, message)
        elif message.id is not None:
            link.send(encode_error(message.id, UNKNOWN_METHOD))

    def close(self) -> Deferred[None]:
        """End every call as refused, and the connection; fires when that has ended."""
        self._dialler.stop()
        self._outstanding.close()
        self._listening.close()
        for link in list(self._links):
            link.lose()
        if not self._links:
            return succeed(None)
        ended: Deferred[None] = Deferred()
        self._ends.append(ended)
        return ended


__all__ = ["RemoteBus"]
