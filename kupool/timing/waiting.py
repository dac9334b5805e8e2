"""Those that wait for something that happens for all of them at once; and for an end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Waiters(Generic[T]):
    """Each has a Deferred of its own, all of which get the same result.

    Whoever begins to wait while the others are told waits for the next time. One that is
    cancelled, as by a timeout, waits no more, and is nobody else's matter.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Deferred[T]] = []

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def wait(self) -> Deferred[T]:
        """Return what fires when they are told the next time."""
        waiter: Deferred[T] = Deferred(self._cancelled)
        self._waiting.append(waiter)
        return waiter

    def tell(self, result: T | Failure) -> None:
        """Let all that wait go on with a result, or fail with a :class:`Failure`."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:  # one that was told before may have cancelled it
                waiter.callback(result)

    def join(self, others: Waiters[T]) -> None:
        """Let those that wait with others wait with these."""
        self._waiting += others._waiting
        others._waiting = []

    def _cancelled(self, waiter: Deferred[T]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)


class UnderWay:
    """Counts what is under way, and says when all of it has ended."""

    __slots__ = ("_count", "_waiters", "finishing")

    def __init__(self) -> None:
        self._count = 0
        self._waiters: Waiters[None] = Waiters()
        #: Whether somebody waits, or has waited, for the end: nothing more should begin.
        self.finishing = False

    def begin(self) -> None:
        """One more is under way."""
        self._count += 1

    def end(self, count: int = 1) -> None:
        """So many have ended."""
        self._count -= count
        if self.finishing:
            self._tell()

    def finish(self) -> Deferred[None]:
        """Return what fires when nothing is under way."""
        self.finishing = True
        done = self._waiters.wait()
        self._tell()
        return done

    def _tell(self) -> None:
        if not self._count:
            self._waiters.tell(None)


def after(work: Deferred[Any]) -> Deferred[None]:
    """Return what fires when something has ended, well or not.

    It may be waited for by many, each of whom may cancel without harm to the work and to the
    others. A failure of the work counts as handled.
    """
    waiter: Deferred[None] = Deferred()
    work.addBoth(lambda _: waiter.callback(None))
    return waiter


async def and_then(work: Awaitable[T], end: Callable[[], Awaitable[object]]) -> T:
    """Wait for work, and then for its end, whatever comes of the work; returns its result.

    It stands for a ``finally`` that waits. Where the coroutine is closed, as when the process
    ends before the work, it may not wait any more: then there is no end either.
    """
    try:
        result = await work
    except GeneratorExit:
        raise
    except BaseException:
        await end()
        raise
    await end()
    return result


__all__ = ["UnderWay", "Waiters", "after", "and_then"]
