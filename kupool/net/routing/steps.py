"""What runs around a handler: guards, middleware, and the steps before and after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from kupool.callbacks import awaited, deferred_of
from kupool.net.routing.request import Request

#: A handler or a step: gets the connection and the message, as the router gives them.
RouteStep = Callable[..., object]

#: Gets a handler and returns one that is called in its place, usually calling it.
Middleware = Callable[[RouteStep], RouteStep]


class Steps(NamedTuple):
    """What is registered around a handler.

    ``guards`` run first, before a message joins the queue of any worker; the first that
    returns something other than None has answered. Then ``middleware``, the outermost
    first, then the steps ``before``, which answer as guards do, the handler, and
    ``after``, which get the outcome too.
    """

    guards: tuple[RouteStep, ...] = ()
    middleware: tuple[Middleware, ...] = ()
    before: tuple[RouteStep, ...] = ()
    after: tuple[RouteStep, ...] = ()

    def inside(self, outer: Steps) -> Steps:
        """Return these with those of a group around them."""
        return Steps(
            outer.guards + self.guards,
            outer.middleware + self.middleware,
            outer.before + self.before,
            self.after + outer.after,
        )

    def around(self, handler: RouteStep) -> RouteStep:
        """Return the handler with the steps; without any, the handler itself."""
        handler = compose(handler, self.before, self.after)
        for middleware in reversed(self.middleware):
            handler = middleware(handler)
        return compose(handler, self.guards, ())


def label_of(message: Sequence[Any]) -> str:
    """Return the method or the id of a message, as handlers get it."""
    first = message[0] if message else ""
    return str(first.msg_id if isinstance(first, Request) else first)


def steps_of(
    guards: Iterable[RouteStep],
    use: Iterable[Middleware],
    before: Iterable[RouteStep],
    after: Iterable[RouteStep],
) -> Steps:
    """Return what ``add`` and ``group`` were given as one object."""
    return Steps(tuple(guards), tuple(use), tuple(before), tuple(after))


def compose(
    handler: RouteStep, before: Sequence[RouteStep], after: Sequence[RouteStep]
) -> RouteStep:
    """Put steps around a handler; without any, the handler itself is returned.

    While nothing has to be waited for, everything runs in the call itself; from the
    first awaitable on, the rest is a coroutine, which is returned.
    """
    if not before and not after:
        return handler

    def composed(*message: Any) -> object:
        for number, step in enumerate(before, 1):
            refusal = step(*message)
            if awaited(refusal):
                return _from_before(refusal, before[number:], handler, after, message=message)
            if refusal is not None:
                return refusal
        outcome = handler(*message)
        if awaited(outcome):
            return _from_handler(outcome, after, message)
        for number, step in enumerate(after, 1):
            done = step(*message, outcome)
            if awaited(done):
                return _from_after(done, after[number:], message, outcome)
        return outcome

    composed.__doc__ = handler.__doc__
    return composed


async def _value(value: object) -> object:
    return await deferred_of(value) if awaited(value) else value


async def _from_before(
    waiting: Any,
    before: Sequence[RouteStep],
    handler: RouteStep,
    after: Sequence[RouteStep],
    *,
    message: Any,
) -> object:
    refusal = await deferred_of(waiting)
    for step in before:
        if refusal is not None:
            break
        refusal = await _value(step(*message))
    if refusal is not None:
        return refusal
    return await _from_handler(handler(*message), after, message)


async def _from_handler(waiting: object, after: Sequence[RouteStep], message: Any) -> object:
    outcome = await _value(waiting)
    for step in after:
        await _value(step(*message, outcome))
    return outcome


async def _from_after(
    waiting: Any, after: Sequence[RouteStep], message: Any, outcome: object
) -> object:
    await deferred_of(waiting)
    for step in after:
        await _value(step(*message, outcome))
    return outcome


__all__ = ["Middleware", "RouteStep", "Steps", "compose", "label_of", "steps_of"]
