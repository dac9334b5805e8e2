"""What handlers of somebody else's may raise, and what it must not do to anybody else."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed

#: Exceptions that programs take for something else than a failure.
ENDINGS: tuple[type[BaseException], ...] = (
    SystemExit,
    KeyboardInterrupt,
    asyncio.CancelledError,
    CancelledError,
    concurrent.futures.CancelledError,
)


class Waits:
    """An awaitable that is neither a coroutine nor a Deferred."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self._deferred = deferred

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._deferred.__await__()


def raising(error: type[BaseException]) -> list[Callable[..., object]]:
    """Functions of any arguments that raise: at once, in a Deferred, a coroutine, an awaitable."""

    def at_once(*_: object) -> object:
        raise error

    async def later(*_: object) -> object:
        await succeed(None)
        raise error

    return [at_once, lambda *_: fail(error()), later, lambda *_: Waits(fail(error()))]


def returning(value: object) -> list[Callable[..., object]]:
    """Functions of any arguments that return a value in each way there is."""

    async def later(*_: object) -> object:
        return await succeed(value)

    return [
        lambda *_: value,
        lambda *_: succeed(value),
        later,
        lambda *_: Waits(succeed(value)),
    ]


__all__ = ["ENDINGS", "Waits", "raising", "returning"]
