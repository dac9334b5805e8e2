"""Round-robin scheduling: many share the reactor, with a bounded amount of work per turn."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.timing.chunks import CHUNK, Chunks

#: Most units of work that one may do before the next one gets its turn.
QUANTUM = 50


class Runnable(Protocol):
    """An object with work to do; handling or sending one message is one unit of work."""

    #: Whether it waits for its turn; set by :class:`RoundRobin`.
    queued: bool

    @property
    def ready(self) -> bool:
        """Whether it has work that it can do now."""

    def run(self, budget: int) -> int:
        """Do up to ``budget`` units of work; returns how many it did. Never raises."""


class RoundRobin:
    """Gives each object with work its turn, one after the other.

    Together they do :data:`~kupool.timing.chunks.CHUNK` units in one reactor turn.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._waiting: deque[Runnable] = deque()
        self._chunks = Chunks(clock, self._turn)

    def wake(self, runnable: Runnable) -> None:
        """Queue an object for its turn, unless it is already queued."""
        if runnable.queued:
            return
        runnable.queued = True
        self._waiting.append(runnable)
        self._chunks.wake()

    def _turn(self) -> bool:
        waiting, budget = self._waiting, CHUNK
        while waiting and budget > 0:
            runnable = waiting.popleft()
            try:
                budget -= max(1, runnable.run(min(QUANTUM, budget)))
                again = runnable.ready
            except BaseException:  # the others must still get their turns
                Logger(__name__).failure("A turn failed")
                again = False
            if again:
                waiting.append(runnable)
            else:
                runnable.queued = False
        return bool(waiting)


__all__ = ["QUANTUM", "RoundRobin", "Runnable"]
