"""Calls from other nodes to subscribers of this node."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from kupool.bus.calling import FIRST_FOREIGN
from kupool.bus.calls import CallVerdict, Deliver, Response, Taken
from kupool.bus.rabbit.items import NodeCall
from kupool.bus.settings import BusSettings
from kupool.bus.unguessable import Unguessable

#: The size limit of a remembered answer.
MAX_ANSWER = 4096

#: The key of a call: the calling node, its number of the call, and the subscriber.
CallerKey = tuple[str, int, str]

#: Sends a response: (the key, the address of the caller, the subscriber's response).
SendBack = Callable[[CallerKey, str, Response], object]

_ENOUGH = Response(CallVerdict.FAILED, text="the subscriber has enough to do")
_LOST = Response(CallVerdict.LOST)


class _ForeignCall:
    __slots__ = ("address", "expires", "key", "response", "size")

    def __init__(self, key: CallerKey, address: str, size: int, expires: float) -> None:
        self.key = key
        self.address = address
        self.size = size
        self.expires = expires
        self.response: Response | None = None


class ForeignCalls:
    """Makes sure that a call is handled once here, however often it arrives.

    A call is sent again if its publisher lost the connection, or took this node for gone. The
    answer goes to the publisher's current address.
    """

    def __init__(
        self, clock: IReactorTime, settings: BusSettings, remembered: int, send_back: SendBack
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._remembered = remembered
        self._send_back = send_back
        self._numbers = Unguessable()
        self._open: dict[int, _ForeignCall] = {}
        self._by_key: dict[CallerKey, _ForeignCall] = {}
        self._answered: OrderedDict[CallerKey, None] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._open)

    def take(self, node: str, address: str, call: NodeCall, deliver: Deliver | None) -> None:
        """Handle a call unless it was handled already; ``deliver`` is None without a subscriber."""
        key = node, call.number, call.subscriber
        held = self._by_key.get(key)
        if held is not None:
            held.address = address
            if held.response is not None:
                self._say(held, held.response)
            return
        message, settings = call.message, self._settings
        size = len(message.data)
        held = _ForeignCall(key, address, size, self._clock.seconds() + message.timeout)
        if deliver is None:
            self._say(held, _LOST)
            return
        if len(self._open) >= settings.max_calls or self._size + size > settings.max_calls_bytes:
            self._say(held, _ENOUGH)
            return
        while (local := FIRST_FOREIGN | self._numbers.number()) in self._open:
            pass
        self._open[local] = self._by_key[key] = held
        self._size += size
        taken = deliver(message, local)
        if taken is not Taken.YES and local in self._open:
            self._let_go(local)
            del self._by_key[key]
            self._say(held, _ENOUGH if taken is Taken.FULL else _LOST)

    def answered(self, subscriber_id: str, local: int, response: Response) -> None:
        """Send the response of a subscriber to the caller; a late or unexpected one is ignored."""
        held = self._open.get(local)
        if held is None or held.key[2] != subscriber_id:
            return
        self._let_go(local)
        size = len(response.data)
        if size > self._settings.max_data:
            response = Response(CallVerdict.FAILED, text=f"answer of {size} bytes: too large")
        if len(response.data) <= MAX_ANSWER:
            held.response = response
            self._answered[held.key] = None
            if len(self._answered) > self._remembered:
                oldest, _ = self._answered.popitem(last=False)
                self._by_key.pop(oldest, None)
        else:
            del self._by_key[held.key]
        self._say(held, response)

    def _say(self, held: _ForeignCall, response: Response) -> None:
        self._send_back(held.key, held.address, response)

    def lost(self, subscriber_id: str) -> None:
        """A subscriber is gone, and answers no more."""
        for local, held in list(self._open.items()):
            if held.key[2] == subscriber_id:
                self._let_go(local)
                del self._by_key[held.key]

    def sweep(self) -> None:
        """Forget calls that nobody waits for any more."""
        now = self._clock.seconds()
        for local in [local for local, held in self._open.items() if held.expires < now]:
            del self._by_key[self._let_go(local).key]

    def _let_go(self, local: int) -> _ForeignCall:
        held = self._open.pop(local)
        self._size -= held.size
        return held


__all__ = ["CallerKey", "ForeignCalls"]
