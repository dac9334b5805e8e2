"""Do large work in chunks, one per reactor turn, so that other work is not delayed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

T = TypeVar("T")

#: Most items that :func:`in_chunks` processes in one turn, and the seconds that it has for them.
#: It looks at the time after every :data:`STEP` items.
CHUNK = 500
SHARE = 0.002
STEP = 20


class Chunks:
    """Does a part of its work in each reactor turn, as long as there is more.

    ``work`` does one part, and returns whether there is more. An exception ends the work
    until :meth:`wake` or :meth:`begin` is called again.
    """

    __slots__ = ("_call", "_clock", "_work")

    def __init__(self, clock: IReactorTime, work: Callable[[], bool]) -> None:
        self._clock = clock
        self._work = work
        self._call: IDelayedCall | None = None

    def wake(self) -> None:
        """Start the work in the next turn, unless it is running."""
        if self._call is None:
            self._call = self._clock.callLater(0, self._turn)

    def begin(self) -> None:
        """Do a part of the work at once, and the rest in later turns."""
        if self._work():
            self.wake()

    def _turn(self) -> None:
        self._call = None
        self.begin()


class Piece(Generic[T]):
    """One piece of work: process each of many items.

    ``work`` is called with some of the next ``things``, and never raises. ``done`` is
    called when all of them have been processed.
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
        """Number of items that have not been processed."""
        return len(self._things) - self._at

    def advance(self, budget: int) -> int:
        """Process up to ``budget`` more items; returns how many."""
        things, at = self._things, self._at
        part = things if len(things) <= budget and not at else things[at : at + budget]
        self._at = at + len(part)
        if part:
            self._work(part)
        return len(part)

    def cut(self) -> Sequence[T]:
        """Remove and return the items that have not been processed."""
        rest, self._things = self._things[self._at :], self._things[: self._at]
        return rest

    def finish(self) -> None:
        """Call ``done``, and release the items."""
        done = self._done
        self._things, self._at = (), 0
        self._work = self._done = _nothing
        done()


def _nothing(*_: object) -> None:
    """Do nothing."""


class ChunkQueue(Generic[T]):
    """Pieces of work in order: each is finished before the next one starts.

    It has no timer. The owner calls :meth:`run` while it is ``pending``, with a budget: the
    most items to process. A piece that is added while another one is processed waits behind
    it.
    """

    __slots__ = ("_pieces", "_running")

    def __init__(self) -> None:
        # Most queues are idle, and an empty deque keeps a block of memory.
        self._pieces: deque[Piece[T]] | None = None
        self._running = False

    def __len__(self) -> int:
        """Return the number of pieces that have not ended."""
        return 0 if self._pieces is None else len(self._pieces)

    @property
    def pending(self) -> bool:
        """Whether something waits for :meth:`run`."""
        return self._pieces is not None

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or being processed now."""
        return self._pieces is None and not self._running

    def begin(self) -> bool:
        """Start work of the caller's own if nothing else is queued; returns whether it may start.

        Pieces added before :meth:`end` wait for it. This saves making a piece for small
        work.
        """
        if self._pieces is not None or self._running:
            return False
        self._running = True
        return True

    def end(self) -> None:
        """End the work that :meth:`begin` started."""
        self._running = False

    def add(self, piece: Piece[T], budget: int = 0) -> int:
        """Add a piece of work, and start it at once if nothing else is queued.

        Returns the number of processed items, at most ``budget``.
        """
        if self._pieces is not None:
            self._pieces.append(piece)
            return 0
        self._pieces = deque((piece,))
        return self.run(budget)

    def run(self, budget: int) -> int:
        """Process up to ``budget`` items; returns how many.

        Does nothing if it is called by the work of a piece.
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
        """Finish all pending pieces, however long that takes."""
        while self._pieces is not None and not self._running:
            self.run(CHUNK)

    def withdraw(self, piece: Piece[T]) -> None:
        """Remove an unfinished piece, without calling its ``done``."""
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
    """Call a function with each of many items, some now and some in each later reactor turn.

    At most ``size`` are processed in a turn, and fewer if they take long. It uses a snapshot of the
    items. If a call raises, ``failed`` is called with the item while the exception is handled; the
    default logs it. The other items are not affected.
    Fires when all items have been processed.
    """
    done: Deferred[None] = Deferred()
    tell = _log if failed is None else failed

    def each(part: Sequence[T]) -> None:
        for thing in part:
            try:
                call(thing)
            except BaseException:  # SystemExit and KeyboardInterrupt too
                tell(thing)

    queue: ChunkQueue[T] = ChunkQueue()
    queue.add(Piece(list(things), each, lambda: done.callback(None)))

    def work() -> bool:
        until = clock.seconds() + SHARE
        for at in range(0, size, STEP):
            queue.run(min(STEP, size - at))
            if not queue.pending or clock.seconds() >= until:
                break
        return queue.pending

    Chunks(clock, work).begin()
    return done


class Breaks:
    """Lets other work go on between the steps of a coroutine that has many of them."""

    __slots__ = ("_clock", "_until")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._until = clock.seconds() + SHARE

    async def take(self) -> None:
        """Go on in the next reactor turn if the time for this one is used up."""
        if self._clock.seconds() >= self._until:
            await deferLater(self._clock, 0)
            self._until = self._clock.seconds() + SHARE


def _log(thing: object) -> None:
    Logger(__name__).failure("One of many calls failed")


__all__ = ["CHUNK", "SHARE", "STEP", "Breaks", "ChunkQueue", "Chunks", "Piece", "in_chunks"]
