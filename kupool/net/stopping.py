"""Who may not be waited for: a handler that waits, itself, for the end of a stop.

A stop waits for the handlers that run. One of them may have begun that stop, or wait for it;
then each would wait for the other. So whoever runs handlers says which one runs, and whatever
is stopped says that its caller waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

_T = TypeVar("_T")


class Work:
    """A handler's work on one message, its coroutine included.

    ``waits`` is called with it when it begins to wait for a stop.
    """

    __slots__ = ("_stops", "_waits")

    def __init__(self, waits: Callable[[Any], object]) -> None:
        self._stops = 0
        self._waits = waits

    @property
    def waits_for_a_stop(self) -> bool:
        """Whether it waits for a stop just now."""
        return self._stops > 0

    def run(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call a function as a part of this work; coroutines that begin in it are parts, too."""
        before = _WORK.set(self)
        try:
            return function(*arguments)
        finally:
            _WORK.reset(before)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for a stop inside."""
        self._stops += 1
        if self._stops == 1:
            self._waits(self)
        try:
            yield
        finally:
            self._stops -= 1


#: The work that runs. Of a context, as Twisted keeps one for each coroutine, and not of any
#: object: a stop is called without a word about who calls.
_WORK: ContextVar[Work | None] = ContextVar("kupool_work", default=None)


@contextmanager
def caller_waits() -> Iterator[None]:
    """Stop something inside: the handler that does it waits, if it is one."""
    work = _WORK.get()
    if work is None:
        yield
    else:
        with work.waiting():
            yield


__all__ = ["Work", "caller_waits"]
