"""How a handler or hook of somebody else's is called, everywhere in the product.

A handler returns a value, or a Deferred or coroutine of one, and may raise anything. What it
raises is its own failure and nobody else's: also ``SystemExit``, ``KeyboardInterrupt`` and
the ``CancelledError`` of asyncio, of Twisted or of ``concurrent.futures``.

A coroutine that waits for a handler leaves what it raises to callbacks, or takes care not to
catch ``GeneratorExit``: that is the coroutine's own end. What it does at its end with
``finally`` may wait where it is cancelled, but not where it is closed, as a coroutine is that
nobody keeps any more: see :func:`kupool.timing.waiting.and_then`.
"""

from __future__ import annotations

from asyncio import isfuture
from collections.abc import Awaitable, Callable
from inspect import iscoroutine
from typing import Any, TypeGuard

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

#: Types of most results, which have nothing to wait for: where an attribute is missing,
#: looking for it takes long.
_AT_ONCE = frozenset((bytes, bool, int, float, str, dict, list, tuple, type(None)))


class NotAwaitable(TypeError):
    """A handler returned something to wait for that only asyncio can wait for."""


def awaited(value: object) -> TypeGuard[Any]:
    """Say whether a result is still to come: a Deferred, a coroutine, any awaitable."""
    kind = type(value)  # asking the value might run code of its own
    return kind not in _AT_ONCE and hasattr(kind, "__await__")


def deferred_of(value: Any) -> Deferred[Any]:
    """Return the Deferred of something that :func:`awaited` says yes to; never raises.

    A coroutine begins to run. An awaitable that waits for Deferreds runs as a coroutine
    does. A future of asyncio fails with :class:`NotAwaitable`: its loop does not run here.
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
    """Call a handler and return its result, the Deferred of one, or the Failure; never raises.

    What needs no time costs no Deferred. See :func:`called` where that does not matter.
    """
    try:
        result = function(*arguments)
    except BaseException:
        return Failure()
    return deferred_of(result) if awaited(result) else result


def called(function: Callable[..., object], *arguments: object) -> Deferred[Any]:
    """Call a handler and return the Deferred of whatever comes of it; never raises."""
    outcome = attempt(function, *arguments)
    if isinstance(outcome, Deferred):
        return outcome
    return fail(outcome) if isinstance(outcome, Failure) else succeed(outcome)


__all__ = ["NotAwaitable", "attempt", "awaited", "called", "deferred_of"]
