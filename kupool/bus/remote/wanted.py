"""What a client remembers: what it listens to, and what it has heard."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from kupool.bus import Handler, Message, Subscription
from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.inbox import Inbox, Respond
from kupool.timing.waiting import Waiters

#: Calls that are remembered in case they come again, and the size of the answer to one.
MAX_HEARD = 1000
MAX_HEARD_ANSWER = 4096


class Wanted:
    """What one handler listens to, over all connections."""

    def __init__(self, name: str, handler: Handler, inbox: Inbox) -> None:
        self.name = name
        self.handler = handler
        self.inbox = inbox
        self.topics: dict[str, None] = {}
        self.keys: dict[str, None] = {}
        self.waiting = Waiters[Subscription]()


class _Heard:
    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.response: Response | None = None
        self.waiting: list[Respond] = []


class Heard:
    """Sees to it that a call which comes again, over another connection or because its
    publisher had to send it again, is handled once and answered each time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: OrderedDict[tuple[str, str], _Heard] = OrderedDict()

    def take(self, wanted: Wanted, message: Message, respond: Respond) -> None:
        """Have a call handled, unless it has been; ``respond`` gets the answer."""
        calls, now = self._calls, self._clock.seconds()
        while calls and (len(calls) > MAX_HEARD or next(iter(calls.values())).expires < now):
            calls.popitem(last=False)
        key = wanted.name, message.id
        heard = calls.get(key)
        if heard is not None:
            if heard.response is not None:
                respond(heard.response)
            elif len(heard.waiting) < 10:
                heard.waiting.append(respond)
            return
        heard = calls[key] = _Heard(now + message.timeout)
        heard.waiting.append(respond)
        if wanted.inbox.put(message, self._noting(key, heard)) is not Taken.YES:
            del calls[key]
            respond(Response(CallVerdict.FAILED, text="the subscriber has enough to do"))

    def _noting(self, key: tuple[str, str], heard: _Heard) -> Callable[[Response], None]:
        def note(response: Response) -> None:
            if len(response.data) <= MAX_HEARD_ANSWER:
                heard.response = response
            elif self._calls.get(key) is heard:
                del self._calls[key]
            waiting, heard.waiting = heard.waiting, []
            for respond in waiting:
                respond(response)

        return note


__all__ = ["Heard", "Wanted"]
