"""Call handlers and hooks of applications safely, everywhere in the product.

A handler returns a value, or a Deferred or coroutine of one, and may raise anything. An
exception affects only that handler. This includes ``SystemExit``, ``KeyboardInterrupt`` and
the ``CancelledError`` of asyncio, of Twisted and of ``concurrent.futures``.

A coroutine that awaits a handler should leave its exceptions to callbacks, or must not
catch ``GeneratorExit``, which closes the coroutine itself. A ``finally`` block may await
when the coroutine is cancelled, but not when it is closed, as happens when nothing
references it any longer: see :func:`kupool.timing.waiting.and_then`.
"""

from __future__ import annotations

from asyncio import isfuture
from collections.abc import Awaitable, Callable
from inspect import iscoroutine
from typing import Any, TypeGuard

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

#: Types of most results, none of which is awaitable. Checking them first is faster:
#: looking up a missing attribute is slow.
_AT_ONCE = frozenset((bytes, bool, int, float, str, dict, list, tuple, type(None)))


class NotAwaitable(TypeError):
    """A handler returned an awaitable that only asyncio can await."""


def awaited(value: object) -> TypeGuard[Any]:
    """Return whether a result is awaitable: a Deferred, a coroutine or another awaitable."""
    kind = type(value)  # hasattr() on the value might run its own code
    return kind not in _AT_ONCE and hasattr(kind, "__await__")


def deferred_of(value: Any) -> Deferred[Any]:
    """Return the Deferred of something for which :func:`awaited` is true; never raises.

    A coroutine starts to run. An awaitable that awaits Deferreds runs like a coroutine. A
    future of asyncio fails with :class:`NotAwaitable`, because its loop does not run here.
    """
    if isinstance(value, Deferred):
        return value
    if isfuture(value):
        name = type(value).__name__
        return fail(
            NotAwaitable(f"a {name} of asyncio was returned: return a coroutine or a Deferred")
        )
    return Deferred.fromCoroutine(value if iscoroutine(value) else _waiting(value))


async def _waiting(value: Awaitable[object]) -> object:
    return await value


def attempt(function: Callable[..., object], *arguments: object) -> Any:
    """Call a handler; returns its result, a Deferred of it, or the Failure. Never raises.

    A synchronous result needs no Deferred. See :func:`called` if that does not matter.
    """
    try:
        result = function(*arguments)
    except BaseException:
        return Failure()
    if type(result) in _AT_ONCE:
        return result
    return deferred_of(result) if awaited(result) else result


def called(function: Callable[..., object], *arguments: object) -> Deferred[Any]:
    """Call a handler; returns a Deferred of its result. Never raises."""
    outcome = attempt(function, *arguments)
    if isinstance(outcome, Deferred):
        return outcome
    return fail(outcome) if isinstance(outcome, Failure) else succeed(outcome)


__all__ = ["NotAwaitable", "attempt", "awaited", "called", "deferred_of"]
