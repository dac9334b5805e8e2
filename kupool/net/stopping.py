"""Avoid a deadlock between a stop and a handler that waits for that stop.

A stop waits for running handlers. A handler may have started that stop, or wait for it;
then each would wait for the other. So the code that runs handlers records which one is
running, and the code that is stopped marks its caller as waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

_T = TypeVar("_T")


class Work:
    """A handler's work on one message, including its coroutine.

    ``waits`` is called with it when it starts to wait for a stop.
    """

    __slots__ = ("_stops", "_waits")

    def __init__(self, waits: Callable[[Any], object]) -> None:
        self._stops = 0
        self._waits = waits

    @property
    def waits_for_a_stop(self) -> bool:
        """Whether it is waiting for a stop now."""
        return self._stops > 0

    def run(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call a function as a part of this work; coroutines that it starts are parts, too."""
        before = _WORK.set(self)
        try:
            return function(*arguments)
        finally:
            _WORK.reset(before)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark this work as waiting for a stop inside the context."""
        self._stops += 1
        if self._stops == 1:
            self._waits(self)
        try:
            yield
        finally:
            self._stops -= 1


#: The running work. A context variable, because Twisted keeps a context for each coroutine, and
#: because a stop is called without naming its caller.
_WORK: ContextVar[Work | None] = ContextVar("kupool_work", default=None)


@contextmanager
def caller_waits() -> Iterator[None]:
    """Stop something inside the context; a handler that does it is marked as waiting."""
    work = _WORK.get()
    if work is None:
        yield
    else:
        with work.waiting():
            yield


__all__ = ["Work", "caller_waits"]
