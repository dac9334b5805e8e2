"""Work that is done a part at a time, so that others have their turn of the reactor between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

T = TypeVar("T")

#: Things that :func:`in_chunks` does in one turn.
CHUNK = 500


class Chunks:
    """Does work a part in each turn of the reactor, as long as some is left.

    ``work`` does one part, and returns whether there is more that it could do. What it raises
    ends the work until there is some again.
    """

    __slots__ = ("_call", "_clock", "_work")

    def __init__(self, clock: IReactorTime, work: Callable[[], bool]) -> None:
        self._clock = clock
        self._work = work
        self._call: IDelayedCall | None = None

    def wake(self) -> None:
        """There is work: it begins in the next turn, or goes on."""
        if self._call is None:
            self._call = self._clock.callLater(0, self._turn)

    def begin(self) -> None:
        """There is work: a part of it is done at once, and what is left in later turns."""
        if self._work():
            self.wake()

    def _turn(self) -> None:
        self._call = None
        self.begin()


def in_chunks(
    clock: IReactorTime,
    things: Iterable[T],
    call: Callable[[T], object],
    *,
    size: int = CHUNK,
    failed: Callable[[T], object] | None = None,
) -> Deferred[None]:
    """Call something with each of many things: with the first ``size`` now, and with as many in
    each turn of the reactor after this.

    It is about the things of this moment. An exception stops nothing: ``failed`` is called for
    the thing while it is handled, which by default logs it. Fires when all were called.
    """
    rest = iter(list(things))
    done: Deferred[None] = Deferred()
    tell = _log if failed is None else failed

    def work() -> bool:
        chunk = list(islice(rest, size))
        for thing in chunk:
            try:
                call(thing)
            except BaseException:  # one that wants the process to exit is no other
                tell(thing)
        if len(chunk) < size:
            done.callback(None)
            return False
        return True

    Chunks(clock, work).begin()
    return done


def _log(thing: object) -> None:
    Logger(__name__).failure("One of many calls failed")


__all__ = ["CHUNK", "Chunks", "in_chunks"]
