"""Register routes: in a router, or in a group of its routes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from kupool.net.routing.base import BaseRouter, Plain
from kupool.net.routing.request import Request
from kupool.net.routing.steps import Middleware, RouteStep, Steps
from kupool.session.connection import Connection

#: The key of a route: the name of a method, or the number of a message.
Key = int | str

#: A handler gets the connection and the :class:`Request`, or, for numbered messages, the
#: connection, the number and the data.
Handler = Callable[[Connection, Request], object] | Callable[[Connection, int, bytes], object]


class Unknown(Enum):
    """What a router does with a message that has no handler. Each one is counted.

    - ``REPLY`` answers with an error, and closes the connection after too many of them;
    - ``IGNORE`` sends nothing;
    - ``CLOSE`` answers with an error and closes the connection.
    """

    REPLY = "reply"
    IGNORE = "ignore"
    CLOSE = "close"


class Scope(ABC):
    """A router, or a group of its routes."""

    @abstractmethod
    def add(self, key: Any, handler: Any, /, *args: Any, **options: Any) -> None:
        """Register a handler."""

    @abstractmethod
    def use(self, *middleware: Middleware) -> None:
        """Put middleware around all routes, including those already registered."""

    def on(self, key: Key, *args: Any, **options: Any) -> Callable[[RouteStep], RouteStep]:
        """Return a decorator that registers a function of a :class:`Request`.

        Takes what ``add`` takes after the handler, and raises what ``add`` raises.
        """

        def register(function: RouteStep) -> RouteStep:
            self.add(key, Plain(function), *args, **options)
            return function

        return register


class Registered(Scope):
    """The part of a router that its groups use."""

    @abstractmethod
    def rebuild(self) -> None:
        """Build every handler again from the registered steps."""


class Group(Scope):
    """Routes of one router that share guards, middleware and steps.

    ``router.group`` makes it. A group ``inside`` another also has the steps of that one.
    """

    def __init__(
        self,
        router: Registered,
        name: str,
        place: Callable[[Any], Key],
        steps: Steps,
        *,
        outer: Group | None = None,
    ) -> None:
        self.name = name
        self._router = router
        self._place = place
        self._steps = steps
        self._outer = outer

    @property
    def steps(self) -> Steps:
        """The steps of the group, inside those of its outer groups."""
        return self._steps if self._outer is None else self._steps.inside(self._outer.steps)

    def add(self, key: Any, handler: Any, /, *args: Any, **options: Any) -> None:
        """Register a handler in the group; takes what the router's ``add`` takes.

        Raises :class:`ValueError` for a key that already has a handler, or is outside the
        group.
        """
        self._router.add(self.place(key), handler, *args, group=self, **options)

    def place(self, key: Key) -> Key:
        """Return the full key in the router; raises :class:`ValueError`."""
        key = self._place(key)
        return key if self._outer is None else self._outer.place(key)

    def use(self, *middleware: Middleware) -> None:
        """Put middleware around all routes of the group; the first is the outermost."""
        self._steps = self._steps._replace(middleware=self._steps.middleware + middleware)
        self._router.rebuild()


class Route(NamedTuple):
    """A registered route; only methods have ``params`` and ``invalid``."""

    key: Key
    handler: Handler | BaseRouter
    params: type | None = None
    invalid: Callable[[Connection, Any, object], object] | None = None
    steps: Steps = Steps()
    group: Group | None = None

    def described(self) -> dict[str, str]:
        """Return this route as ``Router.describe`` shows it."""
        shown: Any = self.handler
        if isinstance(shown, Plain):
            shown = shown.function
        elif isinstance(shown, BaseRouter):
            shown = type(shown)
        text = (getattr(shown, "__doc__", None) or "").strip()
        params = self.params
        return {
            "route": str(self.key),
            "handler": getattr(shown, "__qualname__", type(shown).__qualname__),
            "summary": text.partition("\n")[0],
            "group": "" if self.group is None else self.group.name,
            "params": "" if params is None else getattr(params, "__name__", str(params)),
        }


__all__ = ["Group", "Handler", "Key", "Registered", "Route", "Scope", "Unknown"]
