"""Work that is done a part at a time, so that others have their turn of the reactor between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

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


class Piece(Generic[T]):
    """One piece of work: something to be done with each of many things.

    ``work`` is called with the next of ``things``, some at a time, and never raises. ``done``
    is called when it has had all of them.
    """

    __slots__ = ("_at", "_done", "_things", "_work")

    def __init__(
        self,
        things: Sequence[T],
        work: Callable[[Sequence[T]], object],
        done: Callable[[], object],
    ) -> None:
        self._things = things
        self._work = work
        self._done = done
        self._at = 0

    @property
    def left(self) -> int:
        """How many things it has not come to."""
        return len(self._things) - self._at

    def advance(self, budget: int) -> int:
        """Do it with up to ``budget`` more things; returns with how many it was."""
        things, at = self._things, self._at
        part = things if len(things) <= budget and not at else things[at : at + budget]
        self._at = at + len(part)
        if part:
            self._work(part)
        return len(part)

    def cut(self) -> Sequence[T]:
        """Take out the things that it has not come to, with which nothing is done any more."""
        rest, self._things = self._things[self._at :], self._things[: self._at]
        return rest

    def finish(self) -> None:
        """Tell that it has ended."""
        self._done()


class ChunkQueue(Generic[T]):
    """Pieces of work in order: one is finished before the next one begins.

    It has no timer. Whoever holds it calls :meth:`run` as long as it is ``pending``, with a
    budget: how many things may be worked on. What is added while a piece is worked on waits
    behind it.
    """

    __slots__ = ("_pieces", "_running")

    def __init__(self) -> None:
        # Most of many are idle, and an empty deque keeps a block of memory.
        self._pieces: deque[Piece[T]] | None = None
        self._running = False

    def __len__(self) -> int:
        """Return how many pieces have not ended."""
        return 0 if self._pieces is None else len(self._pieces)

    @property
    def pending(self) -> bool:
        """Whether something waits for :meth:`run`."""
        return self._pieces is not None

    def add(self, piece: Piece[T], budget: int = 0) -> int:
        """Take a piece of work, and begin at once if nothing else is on its way.

        Returns how many things were worked on, ``budget`` at the most.
        """
        if self._pieces is not None:
            self._pieces.append(piece)
            return 0
        self._pieces = deque((piece,))
        return self.run(budget)

    def run(self, budget: int) -> int:
        """Go on with up to ``budget`` things; returns how many it were.

        Within the work of a piece it does nothing.
        """
        pieces, left = self._pieces, budget
        if pieces is None or self._running:
            return 0
        self._running = True
        try:
            while pieces:
                piece = pieces[0]
                if piece.left and left <= 0:
                    break
                left -= piece.advance(left)
                if not piece.left and pieces and pieces[0] is piece:
                    pieces.popleft()
                    piece.finish()
        finally:
            self._running = False
            if not pieces:
                self._pieces = None
        return budget - left

    def run_all(self) -> None:
        """Finish all that is pending, however long that takes."""
        while self._pieces is not None and not self._running:
            self.run(CHUNK)

    def withdraw(self, piece: Piece[T]) -> None:
        """Take out a piece that has not ended; whoever does that tells that it has."""
        if self._pieces is not None and piece in self._pieces:
            self._pieces.remove(piece)
            if not self._pieces and not self._running:
                self._pieces = None


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
    done: Deferred[None] = Deferred()
    tell = _log if failed is None else failed

    def each(part: Sequence[T]) -> None:
        for thing in part:
            try:
                call(thing)
            except BaseException:  # one that wants the process to exit is no other
                tell(thing)

    queue: ChunkQueue[T] = ChunkQueue()
    queue.add(Piece(list(things), each, lambda: done.callback(None)))

    def work() -> bool:
        queue.run(size)
        return queue.pending

    Chunks(clock, work).begin()
    return done


def _log(thing: object) -> None:
    Logger(__name__).failure("One of many calls failed")


__all__ = ["CHUNK", "ChunkQueue", "Chunks", "Piece", "in_chunks"]
