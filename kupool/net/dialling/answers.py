"""Which answer belongs to which request of a client, and how long it is waited for."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kupool.errors import CloseReason, ErrorText, RequestError
from kupool.net.dialling.failures import ConnectionEnded, RequestTimeout, TooManyRequests
from kupool.net.routing.correlation import SIZE
from kupool.wire.framing import Tlv

#: The id of an error of a call with a number.
_ERROR_OF = re.compile("#[0-9]{1,10}")

#: The id of a JSON request, or the number of an answer and the correlation id in it.
Key = int | tuple[int, int]


class _Incoming(msgspec.Struct):
    id: int | str | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw()
    result: Any = None
    error: str | None = None
    code: int | None = None


class _Close(msgspec.Struct):
    reason: str = ""
    code: int = 0
    reconnect: bool = True
    retry_after: float | None = None


class Announced(NamedTuple):
    """A close that the server has announced; ``retry_after`` is in seconds."""

    reason: CloseReason
    retry_after: float | None = None


class Answers:
    """The requests that wait for their answers, at most ``most``; times are in seconds.

    What a late or a wrong answer does is counted, no more. Ids go up to ``most_id``, and
    then begin again.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        most: int,
        counters: Counter[str],
        most_id: int = 0xFFFFFFFF,
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._most = most
        self._counters = counters
        self._pending: dict[Key, Deferred[Any]] = {}
        #: The keys of calls with a number by their correlation ids, for their errors.
        self._keys: dict[int, Key] = {}
        #: Keys of calls with a number whose answers are awaited no more: when one comes,
        #: it is no message for the router.
        self._late: dict[Key, None] = {}
        self._last_id = 0
        self._most_id = most_id

    def __len__(self) -> int:
        return len(self._pending)

    def next_id(self) -> int:
        """Return an id that no waiting request has."""
        while True:
            self._last_id = number = self._last_id % self._most_id + 1
            if number not in self._pending and number not in self._keys:
                return number

    def check(self) -> None:
        """Raise :class:`TooManyRequests` where no further request may wait."""
        if len(self._pending) >= self._most:
            raise TooManyRequests(self._most)

    def expect(self, key: Key, timeout: float | None) -> Deferred[Any]:
        """Return a Deferred of the answer, which fails when none comes in time."""

        def late(result: object, after: float) -> object:
            self._counters["timeouts"] += 1
            raise RequestTimeout(after)

        def forget(deferred: object) -> None:
            self._pop(key)
            if isinstance(key, tuple):
                self._late[key] = None
                if len(self._late) > self._most:
                    del self._late[next(iter(self._late))]

        answer: Deferred[Any] = Deferred(forget)
        self._pending[key] = answer
        if isinstance(key, tuple):
            self._keys[key[1]] = key
        return answer.addTimeout(self._timeout if timeout is None else timeout, self._clock, late)

    def fail(self, why: str) -> None:
        """Fail all that wait: the connection has ended."""
        self._keys.clear()
        self._late.clear()
        pending, self._pending = self._pending, {}
        for deferred in pending.values():
            deferred.errback(ConnectionEnded(why))

    def numbered(self, item: Tlv) -> bool | Announced:
        """Take a message with a number, if it is an answer, an error of one, or a close."""
        if item.message_id == 0 and (taken := self.take(item.payload)):
            return taken
        if len(item.payload) < SIZE:
            return False
        key = (item.message_id, int.from_bytes(item.payload[:SIZE], "little"))
        answer = self._pop(key)
        if answer is not None:
            answer.callback(item.payload[SIZE:])
            return True
        if key in self._late:
            del self._late[key]
            self._counters["unknown answers"] += 1
            return True
        return False

    def take(self, payload: bytes) -> bool | Announced:
        """Take a JSON message, if it is an answer or a close; that is what is returned."""
        try:
            message = msgspec.json.decode(payload, type=_Incoming)
            if message.method == "close" and message.id is None:
                close = msgspec.json.decode(message.params, type=_Close)
                reason = CloseReason(close.code, close.reason, close.reconnect)
                return Announced(reason, close.retry_after)
        except (ValueError, RecursionError):
            return False
        if message.method is not None:
            return False
        answer = self._answered(message.id)
        if answer is None:
            self._counters["unknown answers"] += 1
        elif message.error is None:
            answer.callback(message.result)
        else:
            answer.errback(RequestError(ErrorText(message.code or 0, message.error)))
        return True

    def _answered(self, number: int | str | None) -> Deferred[Any] | None:
        if isinstance(number, int):
            return self._pop(number)
        if isinstance(number, str) and _ERROR_OF.fullmatch(number):
            key = self._keys.get(int(number[1:]))
            return None if key is None else self._pop(key)
        return None

    def _pop(self, key: Key) -> Deferred[Any] | None:
        if isinstance(key, tuple) and key in self._pending:
            self._keys.pop(key[1], None)
        return self._pending.pop(key, None)


__all__ = ["Announced", "Answers", "Key"]
