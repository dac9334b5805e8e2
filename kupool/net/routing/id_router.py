"""From a message with a number, as ``tlv`` has them, to the handler of that number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import iscoroutine
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.errors import TOO_MANY_ERRORS, UNKNOWN_METHOD, ErrorText, RequestError
from kupool.net.routing.base import BaseRouter, as_function
from kupool.net.routing.request import Request
from kupool.net.routing.router import LATER, IRouter, report
from kupool.net.routing.steps import Middleware, Step, Steps
from kupool.net.routing.table import Group, RouteTable, Unknown, described, steps_of
from kupool.net.transport.protocols import TLV
from kupool.session.connection import Connection
from kupool.wire.framing import Item, Tlv, encode_tlv
from kupool.wire.messages import encode_error

#: Gets the connection, the id and the data of a message, and returns what to answer.
IdHandler = Callable[[Connection, int, bytes], object]


class IdRoute(NamedTuple):
    """A registered id."""

    message_id: int
    handler: IdHandler | BaseRouter
    steps: Steps
    group: Group[int] | None


@implementer(IRouter)
class IdRouter(RouteTable[int]):
    """Dispatches messages by id.

    A handler gets the connection, the id and the data. It returns the data to answer
    with under the same id, a :class:`Tlv` to answer under another, a row of the error
    table, None for no answer, or a Deferred or coroutine of one of these; it may also
    raise :class:`RequestError`. Errors go out as JSON under the id 0, with the id of the
    message that had it: ``{"id":7,"result":false,"error":"text","code":N}``.

    An exception is counted in ``failures`` and logged under a reference, which is all
    that the peer gets to see of it. ``unknown`` says what an id without a handler gets;
    it may also be a handler like the others.
    """

    _log = Logger()

    def __init__(self, unknown: IdHandler | Unknown = Unknown.REPLY) -> None:
        super().__init__()
        self._routes: dict[int, IdRoute] = {}
        self._handlers: dict[int, Step] = {}
        self._when_unknown = unknown

    @property
    def routes(self) -> tuple[IdRoute, ...]:
        """What is registered, in the order of registration."""
        return tuple(self._routes.values())

    def add(
        self,
        message_id: int,
        handler: IdHandler | BaseRouter,
        *,
        before: Iterable[Step] = (),
        after: Iterable[Step] = (),
        guards: Iterable[Step] = (),
        use: Iterable[Middleware] = (),
        group: Group[int] | None = None,
    ) -> None:
        """Register the handler of an id; raises :class:`ValueError` on a second one.

        ``guards``, ``use``, ``before`` and ``after`` are run around the handler, as
        :class:`~kupool.net.routing.steps.Steps` says, with the handler's arguments.
        """
        if message_id in self._routes:
            raise ValueError(f"repeat api, msgID: {message_id}")
        route = IdRoute(message_id, handler, steps_of(guards, use, before, after), group)
        self._handlers[message_id] = self._put_together(route)
        self._routes[message_id] = route

    def group(
        self,
        first: int,
        last: int,
        *,
        guards: Iterable[Step] = (),
        use: Iterable[Middleware] = (),
        before: Iterable[Step] = (),
        after: Iterable[Step] = (),
        inside: Group[int] | None = None,
    ) -> Group[int]:
        """Return a group of the ids from ``first`` to ``last``; others it refuses.

        What it is given runs around each of its handlers, within what the group that it
        is ``inside`` of has.
        """

        def place(message_id: int) -> int:
            if not first <= message_id <= last:
                raise ValueError(f"msgID {message_id} is not from {first} to {last}")
            return message_id

        steps = steps_of(guards, use, before, after)
        return Group(self, f"{first}-{last}", place, steps, inside)

    def describe(self) -> list[dict[str, str]]:
        """Return route, handler, summary and group of every id, as texts."""
        return [described(str(r.message_id), r.handler, r.group) for r in self._routes.values()]

    def rebuild(self) -> None:
        """Put every handler together again from what is registered around it."""
        for message_id, route in self._routes.items():
            self._handlers[message_id] = self._put_together(route)

    def _put_together(self, route: IdRoute) -> Step:
        handler: Step = (
            self._bound(route.handler) if isinstance(route.handler, BaseRouter) else route.handler
        )
        return self._built(route.message_id, handler, route.steps, route.group)

    def _bound(self, router: BaseRouter) -> Step:
        function = as_function(router)

        def handle(connection: Connection, message_id: int, data: bytes) -> object:
            def reply(result: object) -> None:
                try:
                    self._answer(connection, message_id, result)
                except Exception:
                    self._failed(Failure(), connection, message_id)

            return function(Request(connection, message_id, data, None, reply))

        return handle

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one message; the answer is sent under an id, so None is returned."""
        if isinstance(item, Tlv):
            message_id = item.message_id
            handler = self._handlers.get(message_id)
            if handler is None:
                handler = self._unknown
            try:
                answer = handler(connection, message_id, item.payload)
                if type(answer) is bytes:
                    limit = connection.limits.max_frame
                    if connection.framing is TLV and len(answer) <= limit:
                        connection.send_encoded(encode_tlv(answer, message_id))
                    else:
                        _send(connection, message_id, answer)
                elif answer is not None:
                    self._answer(connection, message_id, answer)
            except BaseException:  # also of one that wants the process to exit
                self._failed(Failure(), connection, message_id)
        return None

    def _unknown(self, connection: Connection, message_id: int, data: bytes) -> object:
        self.unknown += 1
        wanted = self._when_unknown
        if not isinstance(wanted, Unknown):
            return wanted(connection, message_id, data)
        if wanted is not Unknown.IGNORE:
            connection.complain(encode_error(message_id, UNKNOWN_METHOD))
        if wanted is Unknown.CLOSE:
            connection.close(TOO_MANY_ERRORS)
        return None

    def _answer(self, connection: Connection, message_id: int, answer: object) -> None:
        if iscoroutine(answer):
            answer = Deferred.fromCoroutine(answer)
        if isinstance(answer, Deferred):
            answer.addCallback(lambda value: self._answer(connection, message_id, value))
            answer.addErrback(self._failed, connection, message_id)
        elif isinstance(answer, Tlv):
            _send(connection, answer.message_id, answer.payload)
        elif isinstance(answer, ErrorText):
            self._complain(connection, message_id, answer)
        elif isinstance(answer, bytes | bytearray | memoryview):
            _send(connection, message_id, bytes(answer))
        elif answer is not None and answer is not LATER:
            raise TypeError(f"a handler of ids returned {type(answer).__name__}, not bytes")

    def _failed(self, failure: Failure, connection: Connection, message_id: int) -> None:
        if isinstance(failure.value, RequestError):
            self._complain(connection, message_id, failure.value.error)
            return
        self.failures[message_id] += 1
        self._complain(connection, message_id, report(self._log, connection, message_id, failure))

    def _complain(self, connection: Connection, message_id: int, error: ErrorText) -> None:
        if connection.sends:
            connection.send_error(encode_error(message_id, error))


def _send(connection: Connection, message_id: int, data: bytes) -> None:
    connection.send_encoded(connection.pack(Tlv(message_id, data)))


__all__ = ["IdHandler", "IdRoute", "IdRouter", "Unknown"]
