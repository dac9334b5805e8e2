"""Whose turn it is: many rooms share the reactor, a bounded amount of work in each turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

T = TypeVar("T")

#: Units of work in one turn of the reactor; a message handled, or sent once, is one.
PER_TURN = 500

#: Units that one room may do before the next one gets its turn.
QUANTUM = 50

#: Things that :func:`in_chunks` does in one turn.
CHUNK = 500


class Runnable(Protocol):
    """Something with work to do."""

    #: Kept by :class:`Turns`: whether it waits for its turn.
    queued: bool

    @property
    def ready(self) -> bool:
        """Whether there is something it could do now."""

    def run(self, budget: int) -> int:
        """Do up to ``budget`` units of work, and return how many it was. Never raises."""


class Turns:
    """Lets those that have work do it, one after the other."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: deque[Runnable] = deque()
        self._called = False

    def wake(self, room: Runnable) -> None:
        """Give a room its turn, unless it waits for one already."""
        if room.queued:
            return
        room.queued = True
        self._waiting.append(room)
        if not self._called:
            self._called = True
            self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
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
        self._called = bool(waiting)
        if waiting:
            self._clock.callLater(0, self._turn)


def in_chunks(
    clock: IReactorTime, things: Iterable[T], call: Callable[[T], object]
) -> Deferred[None]:
    """Call something with each of many things, some in each turn of the reactor.

    An exception is logged and stops nothing. Fires when all were called.
    """
    rest = iter(list(things))
    done: Deferred[None] = Deferred()

    def turn() -> None:
        chunk = list(islice(rest, CHUNK))
        for thing in chunk:
            try:
                call(thing)
            except BaseException:
                Logger(__name__).failure("One of many calls failed")
        if len(chunk) < CHUNK:
            done.callback(None)
        else:
            clock.callLater(0, turn)

    turn()
    return done


__all__ = ["CHUNK", "PER_TURN", "QUANTUM", "Runnable", "Turns", "in_chunks"]
