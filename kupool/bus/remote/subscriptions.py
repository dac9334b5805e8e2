"""A client's subscriptions, and its handled calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial

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

#: As an attribute of its class, a member of an enumeration takes fifteen times as long.
_TAKEN = Taken.YES

#: Topics for which a subscription caches whether it covers them.
MAX_KNOWN_TOPICS = 1000

#: The identity of a call: the subscription, the server's id of the message, and a hash of its topic
#: and data.
CallKey = tuple[str, str, int]


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
    __slots__ = ("expires", "response")

    def __init__(self, expires: float, respond: Respond) -> None:
        self.expires = expires
        #: The response, or those who wait for it.
        self.response: Response | list[Respond] = [respond]


class HandledCalls:
    """Makes sure that a call which is sent again is handled once and answered each time.

    A call is sent again over another connection, or because its publisher had to repeat it. The
    server marks it as sent again, and gives the messages of different publishers different ids. A
    call with another topic or other data is another call.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._now = clock.seconds
        self._calls: OrderedDict[CallKey, _HandledCall] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def take(self, subscription: ClientSubscription, message: Message, respond: Respond) -> None:
        """Have a call handled unless it was handled already; ``respond`` gets the answer."""
        calls, now = self._calls, self._now()
        while calls and (len(calls) > MAX_HANDLED or next(iter(calls.values())).expires < now):
            calls.popitem(last=False)
        key = subscription.name, message.id, hash((message.topic, message.data))
        handled = calls.get(key) if message.redelivered else None
        if handled is not None:
            response = handled.response
            if not isinstance(response, list):
                respond(response)
            elif len(response) < 10:
                response.append(respond)
            return
        handled = calls[key] = _HandledCall(now + message.timeout, respond)
        if subscription.inbox.put(message, partial(self._note, key, handled)) is not _TAKEN:
            del calls[key]
            respond(Response(CallVerdict.FAILED, text="the subscriber has enough to do"))

    def _note(self, key: CallKey, handled: _HandledCall, response: Response) -> None:
        """Remember the response to a call, and give it to those who wait for it."""
        waiting = handled.response
        if len(response.data) <= MAX_REMEMBERED_ANSWER:
            handled.response = response
        elif self._calls.get(key) is handled:
            del self._calls[key]
        if isinstance(waiting, list):
            for respond in waiting:
                respond(response)


__all__ = ["ClientSubscription", "HandledCalls"]
