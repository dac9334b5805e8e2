"""Whose turn it is: many share the reactor, a bounded amount of work in each turn."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.timing.chunks import CHUNK, Chunks

#: Units of work that one may do before the next one gets its turn.
QUANTUM = 50


class Runnable(Protocol):
    """Something with work to do; a message handled, or sent once, is a unit of it."""

    #: Kept by :class:`RoundRobin`: whether it waits for its turn.
    queued: bool

    @property
    def ready(self) -> bool:
        """Whether there is something it could do now."""

    def run(self, budget: int) -> int:
        """Do up to ``budget`` units of work, and return how many it was. Never raises."""


class RoundRobin:
    """Lets those that have work do it, one after the other.

    All together do :data:`~kupool.timing.chunks.CHUNK` units in a turn of the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._waiting: deque[Runnable] = deque()
        self._chunks = Chunks(clock, self._turn)

    def wake(self, runnable: Runnable) -> None:
        """Give something its turn, unless it waits for one already."""
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
            except BaseException:  # it must not take the others' turns with it
                Logger(__name__).failure("A turn failed")
                again = False
            if again:
                waiting.append(runnable)
            else:
                runnable.queued = False
        return bool(waiting)


__all__ = ["QUANTUM", "RoundRobin", "Runnable"]
