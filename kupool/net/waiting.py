"""Messages that wait until a peer that reads slowly has room for them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

if TYPE_CHECKING:
    from kupool.net.connection import Connection

#: Messages that wait on one connection; one more is dropped.
MAX_WAITING = 1000


class _Waiting(NamedTuple):
    """A message, the mark it waits for, and who is told what became of it."""

    encoded: bytes
    low: int
    told: Deferred[bool]
    timer: IDelayedCall


class WaitingRoom:
    """The messages that wait for room on one connection, in order."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: deque[_Waiting] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, encoded: bytes, low: int, timeout: float) -> Deferred[bool]:
        """Let a message wait until at most ``low`` bytes wait for the peer.

        Fires with True when it was sent, with False when that did not happen within
        ``timeout`` seconds, or the connection ended.
        """
        manager = self._connection.manager
        if len(self._queue) >= MAX_WAITING:
            manager.dropped += 1
            return succeed(False)
        told: Deferred[bool] = Deferred(self._cancelled)
        timer = manager.clock.callLater(timeout, self._give_up, told)
        self._queue.append(_Waiting(encoded, low, told, timer))
        return told

    def changed(self) -> None:
        """Send what there is room for now; called by the connection."""
        connection, queue = self._connection, self._queue
        while queue and connection.sends:
            if connection.outbound > queue[0].low:
                return
            waiting = queue.popleft()
            waiting.timer.cancel()
            connection.send_encoded(waiting.encoded)
            waiting.told.callback(True)
        if not connection.sends:
            connection.manager.dropped += len(queue)
            while queue:
                waiting = queue.popleft()
                waiting.timer.cancel()
                waiting.told.callback(False)
        connection.waiting = None

    def _give_up(self, told: Deferred[bool]) -> None:
        self._connection.manager.dropped += 1
        self._remove(told)
        told.callback(False)

    def _cancelled(self, told: Deferred[bool]) -> None:
        self._remove(told).timer.cancel()

    def _remove(self, told: Deferred[bool]) -> _Waiting:
        found = next(waiting for waiting in self._queue if waiting.told is told)
        self._queue.remove(found)
        if not self._queue:
            self._connection.waiting = None
        return found


__all__ = ["MAX_WAITING", "WaitingRoom"]
