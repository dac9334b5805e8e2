"""A client's subscriptions, and its handled calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IReactorTime

from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.inbox import Inbox, Respond
from kupool.bus.interfaces import Subscription
from kupool.bus.messages import Handler, Message
from kupool.bus.topics import matches
from kupool.timing.waiting import Waiters

#: The handled calls that are remembered in case they are sent again, and the size limit of a
#: remembered answer.
MAX_HANDLED = 1000
MAX_REMEMBERED_ANSWER = 4096

#: Topics for which a subscription caches whether it covers them.
MAX_KNOWN_TOPICS = 1000

#: The identity of a call: the subscription, the server's id of the message, its topic and a hash of
#: its data.
CallKey = tuple[str, str, str, int]


class ClientSubscription:
    """The topics of one handler over all connections, under a name of its own."""

    def __init__(self, name: str, handler: Handler, inbox: Inbox) -> None:
        self.name = name
        self.handler = handler
        self.inbox = inbox
        self.topics: dict[str, None] = {}
        self.keys: dict[str, None] = {}
        self.waiting = Waiters[Subscription]()
        self._known: dict[str, bool] = {}

    def add(self, patterns: Iterable[str], keys: Iterable[str]) -> None:
        """Add topics and keys."""
        self.topics.update(dict.fromkeys(patterns))
        self.keys.update(dict.fromkeys(keys))
        self._known.clear()

    def remove(self, patterns: Iterable[str]) -> None:
        """Remove topics."""
        for pattern in patterns:
            self.topics.pop(pattern, None)
        self._known.clear()

    def covers(self, topic: str) -> bool:
        """Return whether the handler is subscribed to a topic."""
        found = self._known.get(topic)
        if found is None:
            if len(self._known) >= MAX_KNOWN_TOPICS:
                self._known.clear()
            found = self._known[topic] = any(matches(p, topic) for p in self.topics)
        return found


class _HandledCall:
    # There is one for each recent call.
    __slots__ = ("expires", "response", "waiting")

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.response: Response | None = None
        self.waiting: list[Respond] = []


class HandledCalls:
    """Makes sure that a call which is sent again is handled once and answered each time.

    A call is sent again over another connection, or because its publisher had to repeat it. The
    server marks it as sent again, and gives the messages of different publishers different ids. A
    call with another topic or other data is another call.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: OrderedDict[CallKey, _HandledCall] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def take(self, subscription: ClientSubscription, message: Message, respond: Respond) -> None:
        """Have a call handled unless it was handled already; ``respond`` gets the answer."""
        calls, now = self._calls, self._clock.seconds()
        while calls and (len(calls) > MAX_HANDLED or next(iter(calls.values())).expires < now):
            calls.popitem(last=False)
        key = subscription.name, message.id, message.topic, hash(message.data)
        handled = calls.get(key) if message.redelivered else None
        if handled is not None:
            if handled.response is not None:
                respond(handled.response)
            elif len(handled.waiting) < 10:
                handled.waiting.append(respond)
            return
        handled = calls[key] = _HandledCall(now + message.timeout)
        handled.waiting.append(respond)
        if subscription.inbox.put(message, self._noting(key, handled)) is not Taken.YES:
            del calls[key]
            respond(Response(CallVerdict.FAILED, text="the subscriber has enough to do"))

    def _noting(self, key: CallKey, handled: _HandledCall) -> Callable[[Response], None]:
        def note(response: Response) -> None:
            if len(response.data) <= MAX_REMEMBERED_ANSWER:
                handled.response = response
            elif self._calls.get(key) is handled:
                del self._calls[key]
            waiting, handled.waiting = handled.waiting, []
            for respond in waiting:
                respond(response)

        return note


__all__ = ["ClientSubscription", "HandledCalls"]
