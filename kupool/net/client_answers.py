"""Which answer belongs to which request of a client, and how long it is waited for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kupool.errors import CloseReason, ErrorText, RequestError
from kupool.net.client_failures import ConnectionEnded, RequestTimeout, TooManyRequests
from kupool.net.correlation import SIZE
from kupool.wire.framing import Tlv

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


class Answers:
    """The requests that wait for their answers, at most ``most``; times are in seconds.

    What a late or a wrong answer does is counted, no more.
    """

    def __init__(
        self, clock: IReactorTime, timeout: float, most: int, counters: Counter[str]
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._most = most
        self._counters = counters
        self._pending: dict[Key, Deferred[Any]] = {}
        #: The keys of calls with a number by their correlation ids, for their errors.
        self._keys: dict[int, Key] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._pending)

    def next_id(self) -> int:
        """Return an id that no waiting request has."""
        self._last_id = self._last_id % 0xFFFFFFFF + 1
        return self._last_id

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

        answer: Deferred[Any] = Deferred(forget)
        self._pending[key] = answer
        if isinstance(key, tuple):
            self._keys[key[1]] = key
        return answer.addTimeout(self._timeout if timeout is None else timeout, self._clock, late)

    def fail(self, why: str) -> None:
        """Fail all that wait: the connection has ended."""
        self._keys.clear()
        pending, self._pending = self._pending, {}
        for deferred in pending.values():
            deferred.errback(ConnectionEnded(why))

    def numbered(self, item: Tlv) -> bool | CloseReason:
        """Take a message with a number, if it is an answer, an error of one, or a close."""
        if item.message_id == 0 and (taken := self.take(item.payload)):
            return taken
        if len(item.payload) < SIZE:
            return False
        answer = self._pop((item.message_id, int.from_bytes(item.payload[:SIZE], "little")))
        if answer is not None:
            answer.callback(item.payload[SIZE:])
        return answer is not None

    def take(self, payload: bytes) -> bool | CloseReason:
        """Take a JSON message, if it is an answer or a close; that is what is returned."""
        try:
            message = msgspec.json.decode(payload, type=_Incoming)
            if message.method == "close" and message.id is None:
                close = msgspec.json.decode(message.params, type=_Close)
                return CloseReason(close.code, close.reason, close.reconnect)
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
        if isinstance(number, str) and number[:1] == "#" and number[1:].isdecimal():
            key = self._keys.get(int(number[1:]))
            return None if key is None else self._pop(key)
        return None

    def _pop(self, key: Key) -> Deferred[Any] | None:
        if isinstance(key, tuple) and key in self._pending:
            self._keys.pop(key[1], None)
        return self._pending.pop(key, None)


__all__ = ["Answers", "Key"]
