"""Messages that wait until a slow reader has space for them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from kupool.session.surroundings import ScheduledCall

#: Most messages that wait on one connection; further ones are dropped.
MAX_WAITING = 1000

#: Called with whether a message was sent.
Told = Callable[[bool], object]


class SpaceWaiter(Protocol):
    """One who has messages for a connection, and waits until its peer has space for them."""

    def changed(self) -> None:
        """There is more space, or the connection has ended."""


class WaitingSend:
    """A message that waits until at most ``low`` bytes wait for its peer."""

    __slots__ = ("encoded", "low", "timer", "told")

    def __init__(self, encoded: bytes, low: int, told: Told) -> None:
        self.encoded = encoded
        self.low = low
        self.told = told
        self.timer: ScheduledCall | None = None


class WaitingRoom:
    """The messages that wait for space on one connection, in order."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._counters = connection.around.counters
        self._queue: deque[WaitingSend] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, encoded: bytes, low: int, timeout: float, told: Told) -> WaitingSend | None:
        """Let a message wait until at most ``low`` bytes wait for the peer.

        Calls ``told`` with True when the message was sent. Calls it with False if that
        takes longer than ``timeout`` seconds, or the connection ends. Returns an object for
        :meth:`forget`, or None if too many messages wait; then ``told`` is not called.
        """
        if len(self._queue) >= MAX_WAITING:
            self._counters.dropped += 1
            return None
        waiting = WaitingSend(encoded, low, told)
        waiting.timer = self._connection.around.call_later(timeout, lambda: self._late(waiting))
        if not self._queue:
            self._connection.wait_for_space(self)
        self._queue.append(waiting)
        return waiting

    def forget(self, waiting: WaitingSend) -> None:
        """Cancel a waiting message."""
        if waiting in self._queue:
            if waiting.timer is not None:
                waiting.timer.cancel()
            self._remove(waiting)

    def changed(self) -> None:
        """Send the messages that there is space for; called by the connection."""
        connection, queue = self._connection, self._queue
        while queue and connection.sends:
            if connection.outbound > queue[0].low:
                return
            waiting = self._first()
            connection.send_encoded(waiting.encoded)
            waiting.told(True)
        if not connection.sends:
            self._counters.dropped += len(queue)
            while queue:
                self._first().told(False)
        if not queue:
            self._close()

    def _first(self) -> WaitingSend:
        waiting = self._queue.popleft()
        if waiting.timer is not None:
            waiting.timer.cancel()
        return waiting

    def _late(self, waiting: WaitingSend) -> None:
        self._counters.dropped += 1
        self._remove(waiting)
        waiting.told(False)

    def _remove(self, waiting: WaitingSend) -> None:
        self._queue.remove(waiting)
        if not self._queue:
            self._close()

    def _close(self) -> None:
        self._connection.stop_waiting(self)
        if self._connection.waiting is self:
            self._connection.waiting = None


__all__ = ["MAX_WAITING", "SpaceWaiter", "Told", "WaitingRoom", "WaitingSend"]
