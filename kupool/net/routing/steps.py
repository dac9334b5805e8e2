"""The steps around a handler: guards, middleware, before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from kupool.callbacks import awaited, deferred_of
from kupool.net.routing.request import Request

#: A handler or a step. It gets the connection and the message.
RouteStep = Callable[..., object]

#: Gets a handler and returns one that wraps it.
Middleware = Callable[[RouteStep], RouteStep]


class Steps(NamedTuple):
    """The steps that are registered around a handler.

    They run in this order:

    - ``guards``, before the message is queued for a worker. The first one that returns
      something other than None has answered.
    - ``middleware``, the outermost first.
    - ``before``, which may answer like a guard.
    - the handler.
    - ``after``, which also gets the outcome.
    """

    guards: tuple[RouteStep, ...] = ()
    middleware: tuple[Middleware, ...] = ()
    before: tuple[RouteStep, ...] = ()
    after: tuple[RouteStep, ...] = ()

    def inside(self, outer: Steps) -> Steps:
        """Return these steps inside those of a group."""
        return Steps(
            outer.guards + self.guards,
            outer.middleware + self.middleware,
            outer.before + self.before,
            self.after + outer.after,
        )

    def around(self, handler: RouteStep) -> RouteStep:
        """Return the handler wrapped in the steps; without steps, the handler itself."""
        handler = compose(handler, self.before, self.after)
        for middleware in reversed(self.middleware):
            handler = middleware(handler)
        return compose(handler, self.guards, ())


def label_of(message: Sequence[Any]) -> str:
    """Return the method or id of a message, given the arguments of its handler."""
    first = message[0] if message else ""
    return str(first.msg_id if isinstance(first, Request) else first)


def steps_of(
    guards: Iterable[RouteStep],
    use: Iterable[Middleware],
    before: Iterable[RouteStep],
    after: Iterable[RouteStep],
) -> Steps:
    """Return the steps given to ``add`` or ``group`` as one object."""
    return Steps(tuple(guards), tuple(use), tuple(before), tuple(after))


def compose(
    handler: RouteStep, before: Sequence[RouteStep], after: Sequence[RouteStep]
) -> RouteStep:
    """Put steps around a handler; without steps, return the handler itself.

    Everything runs synchronously up to the first awaitable. From there on the rest runs in
    a coroutine, which is returned.
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
