"""The interface between a router and a message format: keys, handlers and replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.python.failure import Failure

from kupool.errors import ErrorText
from kupool.net.routing.request import Request
from kupool.net.routing.steps import RouteStep
from kupool.net.routing.table import Key, Route
from kupool.session.connection import Connection
from kupool.wire.framing import Item

#: Sends the answer of a handler that answers after it returned.
ReplyMaker = Callable[[Request, object], object]


#: One decoded message: the key of its route, the address of its answer, which only the
#: codec interprets, and the arguments of its handler. It is a plain tuple because one is made
#: for every message.
Read = tuple[Key, Any, tuple[Any, ...]]


class Unfit(Exception):
    """A message that no handler can take.

    ``to`` is None if not even the address of an answer could be read. ``route`` is set if
    only the params do not fit; these are ``given``. ``failure`` is set if the message is
    not at fault, because an application's type raised an exception.
    """

    def __init__(
        self,
        error: ErrorText,
        to: Request | None = None,
        route: Route | None = None,
        given: object = None,
        *,
        failure: Failure | None = None,
    ) -> None:
        super().__init__(error.text)
        self.error = error
        self.to = to
        self.route = route
        self.given = given
        self.failure = failure


class ReplyCodec(Protocol):
    """A message format as a router uses it: how messages name routes and how they are answered.

    Each router has its own. ``read``, ``result`` and ``error`` get untrusted input.
    """

    def check(self, key: Key, params: type | None) -> None:
        """Check a route before registration; raises :class:`ValueError` if it is invalid."""

    def taken(self, key: Key) -> str:
        """Return the error text for a key that already has a handler."""

    def place(self, first: Any, last: Any) -> tuple[str, Callable[[Any], Key]]:
        """Return a group's name and a function that makes its keys or raises ValueError."""

    def learn(self, routes: Iterable[Route]) -> None:
        """Update the decoder; called with all routes whenever one is added."""

    def bound(self, function: Callable[[Request], object], reply: ReplyMaker) -> RouteStep:
        """Return a handler that calls a function of a request."""

    def read(self, connection: Connection, item: Item, reply: ReplyMaker) -> Read | None:
        """Decode a message; returns None for one that is ignored. Raises :class:`Unfit`."""

    def result(self, connection: Connection, to: Any, result: object) -> bytes | None:
        """Return the payload of a result, or send it and return None.

        Raises what encoding raises; that counts as a failure of the handler.
        """

    def error(self, to: Any, error: ErrorText) -> bytes | None:
        """Return the payload of an error, or None if no answer is sent."""


__all__ = ["Read", "ReplyCodec", "ReplyMaker", "Unfit"]
