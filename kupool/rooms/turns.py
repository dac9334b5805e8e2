"""Whose turn it is: many rooms share the reactor, a bounded amount of work in each turn."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.timing.chunks import Chunks

#: Units of work in one turn of the reactor; a message handled, or sent once, is one.
PER_TURN = 500

#: Units that one room may do before the next one gets its turn.
QUANTUM = 50


class Runnable(Protocol):
    """Something with work to do."""

    #: Kept by :class:`RoomTurns`: whether it waits for its turn.
    queued: bool

    @property
    def ready(self) -> bool:
        """Whether there is something it could do now."""

    def run(self, budget: int) -> int:
        """Do up to ``budget`` units of work, and return how many it was. Never raises."""


class RoomTurns:
    """Lets those that have work do it, one after the other."""

    def __init__(self, clock: IReactorTime) -> None:
        self._waiting: deque[Runnable] = deque()
        self._chunks = Chunks(clock, self._turn)

    def wake(self, room: Runnable) -> None:
        """Give a room its turn, unless it waits for one already."""
        if room.queued:
            return
        room.queued = True
        self._waiting.append(room)
        self._chunks.wake()

    def _turn(self) -> bool:
        waiting, budget = self._waiting, PER_TURN
        while waiting and budget > 0:
            room = waiting.popleft()
            try:
                budget -= max(1, room.run(min(QUANTUM, budget)))
                again = room.ready
            except BaseException:  # it must not take the others' turns with it
                Logger(__name__).failure("A turn failed")
                again = False
            if again:
                waiting.append(room)
            else:
                room.queued = False
        return bool(waiting)


__all__ = ["PER_TURN", "QUANTUM", "RoomTurns", "Runnable"]
