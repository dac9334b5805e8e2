"""What routers by method and by id share: groups, middleware, counts, unknown messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Generic, TypeVar

from kupool.net.routing.base import BaseRouter
from kupool.net.routing.request import Request
from kupool.net.routing.steps import Middleware, Step, Steps, awaited

Key = TypeVar("Key", bound=int | str)


class Unknown(Enum):
    """What a router does with a message that has no handler; it is counted in any case.

    ``REPLY`` answers with an error, and closes a connection that has had too many;
    ``IGNORE`` says nothing; ``CLOSE`` answers with the error and closes.
    """

    REPLY = "reply"
    IGNORE = "ignore"
    CLOSE = "close"


class _Scope(ABC, Generic[Key]):
    """Where routes are registered: a router, or a group of its routes."""

    @abstractmethod
    def add(self, key: Key, handler: Any, /, *args: Any, **options: Any) -> None:
        """Register a handler."""

    @abstractmethod
    def use(self, *middleware: Middleware) -> None:
        """Put middleware around all routes, those registered already included."""

    def on(self, key: Key, *args: Any, **options: Any) -> Callable[[Step], Step]:
        """Register the decorated function, which gets a :class:`Request`.

        Takes what ``add`` takes after the handler, and raises what it raises.
        """

        def register(function: Step) -> Step:
            self.add(key, Plain(function), *args, **options)
            return function

        return register


def described(route: str, handler: Any, group: Group[Any] | None) -> dict[str, str]:
    """Return what ``describe`` of a router says of one route."""
    shown = handler.function if isinstance(handler, Plain) else handler
    if isinstance(handler, BaseRouter) and not isinstance(handler, Plain):
        shown = type(handler)
    text = (getattr(shown, "__doc__", None) or "").strip()
    return {
        "route": route,
        "handler": getattr(shown, "__qualname__", type(shown).__qualname__),
        "summary": text.partition("\n")[0],
        "group": "" if group is None else group.name,
    }


class Plain(BaseRouter):
    """A function of a :class:`Request`, as what routers register."""

    def __init__(self, function: Callable[[Request], object]) -> None:
        self.function = function

    def handle(self, request: Request) -> object:
        """Call the function."""
        return self.function(request)


class Group(_Scope[Key]):
    """Routes of one router that share guards, middleware and steps.

    Made with ``group`` of a router, or of a group, which then is around it.
    """

    def __init__(
        self,
        router: RouteTable[Key],
        name: str,
        place: Callable[[Key], Key],
        steps: Steps,
        outer: Group[Key] | None = None,
    ) -> None:
        self.name = name
        self._router = router
        self._place = place
        self._steps = steps
        self._outer = outer

    @property
    def steps(self) -> Steps:
        """The steps of the group, with those of the groups around it."""
        return self._steps if self._outer is None else self._steps.inside(self._outer.steps)

    def add(self, key: Key, handler: Any, /, *args: Any, **options: Any) -> None:
        """Register a handler in the group; takes what the router's ``add`` takes.

        Raises :class:`ValueError` for a key that has a handler, or lies outside the group.
        """
        self._router.add(self.place(key), handler, *args, group=self, **options)

    def place(self, key: Key) -> Key:
        """Return the key as the router has it; raises :class:`ValueError`."""
        key = self._place(key)
        return key if self._outer is None else self._outer.place(key)

    def use(self, *middleware: Middleware) -> None:
        """Put middleware around all routes of the group, the first outermost."""
        self._steps = self._steps._replace(middleware=self._steps.middleware + middleware)
        self._router.rebuild()


class RouteTable(_Scope[Key]):
    """The part that routers by method and by id share."""

    def __init__(self) -> None:
        #: Exceptions in handlers and steps, by route.
        self.failures: Counter[Key] = Counter()
        #: Messages that a guard answered, by route.
        self.refusals: Counter[Key] = Counter()
        #: Messages that had no handler.
        self.unknown = 0
        self._middleware: list[tuple[Middleware, Callable[[Key], bool]]] = []

    @abstractmethod
    def rebuild(self) -> None:
        """Put every handler together again from what is registered around it."""

    def use(self, *middleware: Middleware, only: Callable[[Key], bool] | None = None) -> None:
        """Put middleware around all routes, the first outermost, whenever they were added.

        With ``only``, around those whose method or id it says yes to.
        """
        self._middleware += [(each, only or _every) for each in middleware]
        self.rebuild()

    def _built(self, key: Key, handler: Step, steps: Steps, group: Group[Key] | None) -> Step:
        if group is not None:
            steps = steps.inside(group.steps)
        everywhere = tuple(m for m, only in self._middleware if only(key))
        steps = steps.inside(Steps(middleware=everywhere))
        guards = tuple(self._counted(key, guard) for guard in steps.guards)
        return steps._replace(guards=guards).around(handler)

    def _counted(self, key: Key, guard: Step) -> Step:
        from_here = self.refusals

        def counted(*message: Any) -> object:
            refusal = guard(*message)
            if awaited(refusal):
                return later(refusal)
            if refusal is not None:
                from_here[key] += 1
            return refusal

        async def later(waiting: Any) -> object:
            refusal = await waiting
            if refusal is not None:
                from_here[key] += 1
            return refusal

        return counted


def steps_of(
    guards: Iterable[Step],
    use: Iterable[Middleware],
    before: Iterable[Step],
    after: Iterable[Step],
) -> Steps:
    """Return what ``add`` and ``group`` were given as one object."""
    return Steps(tuple(guards), tuple(use), tuple(before), tuple(after))


def _every(key: object) -> bool:
    return True
