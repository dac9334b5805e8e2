"""Match the answers of a server to a client's requests, with timeouts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from kupool.net.dialling.deadlines import Deadlines, Reading
from kupool.net.dialling.failures import RequestTimeout, TooManyRequests
from kupool.net.routing.correlation import SIZE
from kupool.wire.framing import Tlv
from kupool.wire.incoming import ServerMessage

#: The message id of errors of numbered calls.
_ERROR_OF = re.compile("#[0-9]{1,10}")

#: The id of a JSON request, or the message id and correlation id of a numbered answer.
Key = int | tuple[int, int]

#: Called once with the outcome of a request: its reply, the data of a numbered answer,
#: or the exception if there will be none.
Told = Callable[[ServerMessage | bytes | Exception], object]


class Answers:
    """The pending requests, at most ``most``; times are in seconds.

    ``counters`` counts ``timeouts``, and ``unknown answers`` to numbered calls. Ids go up
    to ``most_id`` and then start again; an id in use is skipped.
    """

    def __init__(
        self,
        clock: IReactorTime,
        reading: Reading,
        counters: Counter[str],
        *,
        most: int,
        most_id: int = 0xFFFFFFFF,
    ) -> None:
        self._most = most
        self._counters = counters
        self._pending: dict[Key, Told] = {}
        self._deadlines: Deadlines[Key] = Deadlines(clock, reading, self._overdue)
        #: The keys of numbered calls by correlation id, to match errors.
        self._keys: dict[int, Key] = {}
        #: Keys of numbered calls that nobody waits for any longer: their late answers
        #: must not go to the router.
        self._late: dict[Key, None] = {}
        self._last_id = 0
        self._most_id = most_id

    def __len__(self) -> int:
        return len(self._pending)

    def next_id(self) -> int:
        """Return an id that no pending request has."""
        while True:
            self._last_id = number = self._last_id % self._most_id + 1
            if number not in self._pending and number not in self._keys:
                return number

    def check(self) -> None:
        """Raise :class:`TooManyRequests` if no further request may be pending."""
        if len(self._pending) >= self._most:
            raise TooManyRequests(self._most)

    def expect(self, key: Key, told: Told, timeout: float | None = None) -> None:
        """Register a request: ``told`` is called with its answer, or with a timeout.

        Without a ``timeout`` it waits as long as the connection is open.
        """
        self._pending[key] = told
        if isinstance(key, tuple):
            self._keys[key[1]] = key
        if timeout is not None:
            self._deadlines.add(key, timeout)

    def forget(self, key: Key) -> None:
        """Stop waiting for an answer; does nothing if it has arrived."""
        if self._pop(key) is not None and isinstance(key, tuple):
            self._late[key] = None
            if len(self._late) > self._most:
                del self._late[next(iter(self._late))]

    def fail(self, why: Exception) -> None:
        """Fail all pending requests, oldest first: the connection has ended."""
        self._keys.clear()
        self._late.clear()
        self._deadlines.clear()
        pending, self._pending = self._pending, {}
        for told in pending.values():
            told(why)

    def take(self, reply: ServerMessage) -> bool:
        """Pass a reply to its request; returns whether there was one."""
        number = reply.id
        told = self._pop(number) if type(number) is int else self._answered(number)
        if told is None:
            return False
        told(reply)
        return True

    def numbered(self, item: Tlv) -> bool:
        """Handle a numbered message if it is an answer; returns whether it is."""
        if len(item.payload) < SIZE:
            return False
        key = (item.message_id, int.from_bytes(item.payload[:SIZE], "little"))
        told = self._pop(key)
        if told is not None:
            told(item.payload[SIZE:])
            return True
        if key in self._late:
            del self._late[key]
            self._counters["unknown answers"] += 1
            return True
        return False

    def _overdue(self, key: Key, seconds: float) -> None:
        told = self._pending.get(key)
        if told is not None:
            self.forget(key)
            self._counters["timeouts"] += 1
            told(RequestTimeout(seconds))

    def _answered(self, number: int | str | None) -> Told | None:
        if isinstance(number, str) and _ERROR_OF.fullmatch(number):
            key = self._keys.get(int(number[1:]))
            return None if key is None else self._pop(key)
        return None

    def _pop(self, key: Key) -> Told | None:
        told = self._pending.pop(key, None)
        if told is not None:
            self._deadlines.remove(key)
            if isinstance(key, tuple):
                self._keys.pop(key[1], None)
        return told


__all__ = ["Answers", "Key", "Told"]
