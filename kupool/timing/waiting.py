"""Deferreds for many waiters of one event, and a counter of running work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Waiters(Generic[T]):
    """Waiters of one event: each has its own Deferred, and all get the same result.

    A waiter that is added while the others are notified waits for the next event.
    Cancelling one waiter, for example by a timeout, does not affect the others.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Deferred[T]] = []

    def __len__(self) -> int:
        """Return the number of waiters."""
        return len(self._waiting)

    def wait(self) -> Deferred[T]:
        """Return a Deferred that fires at the next :meth:`tell`."""
        waiter: Deferred[T] = Deferred(self._cancelled)
        self._waiting.append(waiter)
        return waiter

    def tell(self, result: T | Failure) -> None:
        """Fire the Deferreds of all waiters with a result or a :class:`Failure`."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:  # an earlier waiter may have cancelled it
                waiter.callback(result)

    def join(self, others: Waiters[T]) -> None:
        """Add the waiters of ``others`` to these."""
        self._waiting += others._waiting
        others._waiting = []

    def _cancelled(self, waiter: Deferred[T]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)


class UnderWay:
    """Counts running work, and notifies when all of it has ended."""

    __slots__ = ("_count", "_waiters", "finishing")

    def __init__(self) -> None:
        self._count = 0
        self._waiters: Waiters[None] = Waiters()
        #: Whether :meth:`finish` was called: no more work should start.
        self.finishing = False

    @property
    def busy(self) -> bool:
        """Whether anything is running."""
        return bool(self._count)

    def begin(self) -> None:
        """Count one more as running."""
        self._count += 1

    def end(self, count: int = 1) -> None:
        """Count some as ended."""
        self._count -= count
        if self.finishing:
            self._tell()

    def finish(self) -> Deferred[None]:
        """Return a Deferred that fires when nothing is running."""
        self.finishing = True
        done = self._waiters.wait()
        self._tell()
        return done

    def _tell(self) -> None:
        if not self._count:
            self._waiters.tell(None)


def after(work: Deferred[Any]) -> Deferred[None]:
    """Return a Deferred that fires when ``work`` has ended, successfully or not.

    Many may wait for it, and cancelling one does not affect ``work`` or the others. A
    failure of ``work`` counts as handled.
    """
    waiter: Deferred[None] = Deferred()
    work.addBoth(lambda _: waiter.callback(None))
    return waiter


def uncut(work: Deferred[T]) -> Deferred[T]:
    """Return a Deferred with the outcome of ``work``; cancelling it leaves ``work`` alone.

    For work that goes on whatever happens, and whose end has to be noticed.
    """
    outcome: Deferred[T] = Deferred()
    work.addBoth(outcome.callback)
    return outcome


async def and_then(work: Awaitable[T], end: Callable[[], Awaitable[object]]) -> T:
    """Await ``work``, then always await ``end``; returns the result of ``work``.

    It replaces a ``finally`` that awaits. A closed coroutine may not await: if the process
    ends before ``work``, ``end`` is not called.
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


__all__ = ["UnderWay", "Waiters", "after", "and_then", "uncut"]
