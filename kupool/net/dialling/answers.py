"""Which answer belongs to which request of a client, and how long it is waited for."""

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

#: The id of an error of a call with a number.
_ERROR_OF = re.compile("#[0-9]{1,10}")

#: The id of a JSON request, or the number of an answer and the correlation id in it.
Key = int | tuple[int, int]

#: Is told what became of a request, once: its reply, the data of an answer with a number,
#: or why there will be none.
Told = Callable[[ServerMessage | bytes | Exception], object]


class Answers:
    """The requests that wait for their answers, at most ``most``; times are in seconds.

    ``counters`` gets ``timeouts``, and ``unknown answers`` with numbers. Ids go up to
    ``most_id``, and then begin again; none is given twice while the first waits.
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

    def expect(self, key: Key, told: Told, timeout: float | None = None) -> None:
        """Have ``told`` hear of the answer, or that there is none in time.

        Without a ``timeout`` it waits as long as the connection stands.
        """
        self._pending[key] = told
        if isinstance(key, tuple):
            self._keys[key[1]] = key
        if timeout is not None:
            self._deadlines.add(key, timeout)

    def forget(self, key: Key) -> None:
        """Nobody waits for an answer any more; harmless where it came."""
        if self._pop(key) is not None and isinstance(key, tuple):
            self._late[key] = None
            if len(self._late) > self._most:
                del self._late[next(iter(self._late))]

    def fail(self, why: Exception) -> None:
        """Tell all that wait, oldest first: the connection has ended."""
        self._keys.clear()
        self._late.clear()
        self._deadlines.clear()
        pending, self._pending = self._pending, {}
        for told in pending.values():
            told(why)

    def take(self, reply: ServerMessage) -> bool:
        """Give a reply to who waits for it; returns whether somebody did."""
        told = self._answered(reply.id)
        if told is None:
            return False
        told(reply)
        return True

    def numbered(self, item: Tlv) -> bool:
        """Take a message with a number, if it is an answer."""
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
        if isinstance(number, int):
            return self._pop(number)
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
