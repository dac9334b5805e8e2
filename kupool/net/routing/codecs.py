"""What a router has to know of messages: how they name their routes, and how answers look."""

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

#: Sends what a handler said later than it returned.
ReplyMaker = Callable[[Request, object], object]


#: One message: the key of its route; whom an answer is for, which means something to the
#: codec alone; and the arguments of its handler. A plain tuple, since one is made for every
#: message.
Read = tuple[Key, Any, tuple[Any, ...]]


class Unfit(Exception):
    """A message that no handler gets.

    ``to`` is None where not even that could be read. ``route`` is there where only the params
    do not fit, which are ``given``. ``failure`` is there where it is no fault of the message:
    a type of the application's raised it.
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
    """One way in which messages name their routes and are answered.

    Made for one router. ``read``, ``result`` and ``error`` see what a stranger sends.
    """

    def check(self, key: Key, params: type | None) -> None:
        """Raise :class:`ValueError` for what cannot be registered."""

    def taken(self, key: Key) -> str:
        """Return the words for a key that has a handler already."""

    def place(self, first: Any, last: Any) -> tuple[str, Callable[[Any], Key]]:
        """Return the name of a group, and what makes the keys in it or raises ValueError."""

    def learn(self, routes: Iterable[Route]) -> None:
        """Take note of all routes, after each one that is added."""

    def bound(self, function: Callable[[Request], object], reply: ReplyMaker) -> RouteStep:
        """Return a handler that calls a function of a request."""

    def read(self, connection: Connection, item: Item, reply: ReplyMaker) -> Read | None:
        """Take a message apart; None for one that is passed over. Raises :class:`Unfit`."""

    def result(self, connection: Connection, to: Any, result: object) -> bytes | None:
        """Return the payload that answers with a result, or send it and return None.

        Raises what encoding raises: the handler's failure.
        """

    def error(self, to: Any, error: ErrorText) -> bytes | None:
        """Return the payload that answers with an error; None where there is no answer."""


__all__ = ["Read", "ReplyCodec", "ReplyMaker", "Unfit"]
