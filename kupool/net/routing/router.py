"""From a message to its handler, and from what the handler returns to an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import iscoroutine
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from kupool import incidents
from kupool.errors import (
    BAD_PARAMS,
    MALFORMED,
    TOO_MANY_ERRORS,
    UNKNOWN_METHOD,
    ErrorText,
    RequestError,
)
from kupool.net.routing.base import BaseRouter, as_function
from kupool.net.routing.request import Request as BoundRequest
from kupool.net.routing.steps import Middleware, Step, Steps
from kupool.net.routing.table import Group, RouteTable, Unknown, described, steps_of
from kupool.session.connection import Connection
from kupool.wire.framing import (
    OP_CLOSE,
    OP_PING,
    OP_PONG,
    Control,
    Item,
    encode_frame,
)
from kupool.wire.messages import (
    MAX_ID_BYTES,
    Loose,
    Request,
    RequestId,
    decode_loosely,
    describe,
    encode_error,
    encode_result,
    encode_success,
    request_decoder,
    request_type,
)


class _Later:
    """The type of :data:`LATER`."""

    def __repr__(self) -> str:
        return "LATER"


#: What a handler returns that answers by itself, with ``connection.reply`` or ``send``.
LATER = _Later()

#: A handler gets the connection and the decoded request, whose ``params`` have the
#: registered type. It returns a result, an :class:`ErrorText`, a Deferred or coroutine
#: of either, or :data:`LATER`; it may also raise :class:`RequestError`.
Handler = Callable[[Connection, Any], object]

#: Runs before a handler; what it returns, unless None, is the answer instead. It may
#: return a Deferred or a coroutine of either.
Before = Callable[[Connection, Any], object]

#: Runs after a handler with its outcome, once that is there; not after one that raised.
After = Callable[[Connection, Any, object], object]


class IRouter(Interface):
    """Answers the messages of a connection."""

    def dispatch(connection: Connection, item: Item) -> bytes | None:
        """Handle one message; return the payload to answer with, if any. Never raises."""


class Route(NamedTuple):
    """A registered method."""

    method: str
    params: type | None
    handler: Handler | BaseRouter
    invalid: Callable[[Connection, RequestId, object], object] | None
    steps: Steps = Steps()
    group: Group[str] | None = None


@implementer(IRouter)
class Router(RouteTable[str]):
    """Dispatches JSON requests by method.

    An exception in a handler is counted in ``failures`` and logged under a reference,
    which is all the peer gets to see of it, and costs nobody else anything. ``unknown``
    says what a request of an unknown method gets.
    """

    _log = Logger()

    def __init__(self, unknown: Unknown = Unknown.REPLY) -> None:
        super().__init__()
        self._when_unknown = unknown
        self._routes: dict[str, Route] = {}
        self._types: dict[str, type[Request]] = {}
        self._handlers: dict[type[Request], Handler] = {}
        self._decode: Callable[[bytes], Any] = _no_method

    @property
    def routes(self) -> tuple[Route, ...]:
        """What is registered, in the order of registration."""
        return tuple(self._routes.values())

    def add(
        self,
        method: str,
        handler: Handler | BaseRouter,
        params: type | None = None,
        *,
        before: Iterable[Before] = (),
        after: Iterable[After] = (),
        guards: Iterable[Before] = (),
        use: Iterable[Middleware] = (),
        invalid: Callable[[Connection, RequestId, object], object] | None = None,
        group: Group[str] | None = None,
    ) -> None:
        """Register the handler of a method whose params have the given type.

        ``params`` is a msgspec struct or any type msgspec decodes; with None, what is
        sent is ignored, and the request's ``params`` is None. ``guards``, ``use``,
        ``before`` and ``after`` are run around the handler, as
        :class:`~kupool.net.routing.steps.Steps` says. ``invalid`` is called with the
        connection, the id and the raw params when these do not fit the type; where it is
        not given, or returns None, the answer is ``bad params``.

        Raises :class:`ValueError` when the method has a handler already.
        """
        if method in self._routes:
            raise ValueError(f"method {method!r} has a handler already")
        steps = steps_of(guards, use, before, after)
        route = Route(method, params, handler, invalid, steps, group)
        made = request_type(method, params)
        self._handlers[made] = self._put_together(route)
        self._routes[method] = route
        self._types[method] = made
        self._decode = request_decoder(self._types).decode

    def group(
        self,
        prefix: str,
        *,
        guards: Iterable[Before] = (),
        use: Iterable[Middleware] = (),
        before: Iterable[Before] = (),
        after: Iterable[After] = (),
        inside: Group[str] | None = None,
    ) -> Group[str]:
        """Return a group whose methods all begin with ``prefix``, as ``room.`` may be.

        What it is given runs around each of its handlers, within what the group that it
        is ``inside`` of has.
        """
        steps = steps_of(guards, use, before, after)
        return Group(self, prefix, prefix.__add__, steps, inside)

    def describe(self) -> list[dict[str, str]]:
        """Return route, handler, summary, group and params of every method, as texts."""
        return [
            {
                **described(r.method, r.handler, r.group),
                "params": "" if r.params is None else getattr(r.params, "__name__", str(r.params)),
            }
            for r in self._routes.values()
        ]

    def rebuild(self) -> None:
        """Put every handler together again from what is registered around it."""
        for method, route in self._routes.items():
            self._handlers[self._types[method]] = self._put_together(route)

    def _put_together(self, route: Route) -> Handler:
        handler: Step = (
            self._bound(route.handler, route.method)
            if isinstance(route.handler, BaseRouter)
            else route.handler
        )
        return self._built(route.method, handler, route.steps, route.group)

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one message; return the payload to answer with, if any."""
        if type(item) is not bytes:
            return self.control(connection, item)
        decode = self._decode
        try:
            message = decode(item)
        except (ValueError, RecursionError) as error:
            return self._misfit(connection, item, error)
        if type(message.id) is str and len(message.id.encode()) > MAX_ID_BYTES:
            return self._malformed(connection)
        try:
            result = self._handlers[type(message)](connection, message)
        except BaseException:  # one that wants the process to exit is an error as any other
            return self._failed(connection, message, Failure())
        if result is LATER:
            return None
        return self._answer(connection, message, result)

    def _bound(self, router: BaseRouter, method: str) -> Step:
        """Return the handler that gives a :class:`BaseRouter` its requests."""
        function = as_function(router)

        def handle(connection: Connection, message: Any) -> object:
            def reply(result: object) -> None:
                self._send_late(self._answer(connection, message, result), connection)

            return function(BoundRequest(connection, method, message.params, message.id, reply))

        return handle

    def control(self, connection: Connection, item: Item) -> bytes | None:
        """Handle an opcode of ``frame`` that carries no message."""
        if isinstance(item, Control):
            if item.opcode == OP_PING:
                connection.send_encoded(encode_frame(item.payload, OP_PONG))
                return None
            if item.opcode == OP_PONG:
                return None
            if item.opcode == OP_CLOSE:
                connection.finished()
                return None
        return self._malformed(connection)

    def _answer(self, connection: Connection, message: Any, result: object) -> bytes | None:
        message_id = message.id
        if isinstance(result, ErrorText):
            return None if message_id is None else encode_error(message_id, result)
        if iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            result.addCallbacks(
                lambda value: self._answer(connection, message, value),
                lambda failure: self._failed(connection, message, failure),
            )
            result.addCallback(self._send_late, connection)
            return None
        if message_id is None or result is LATER:
            return None
        try:
            return encode_result(message_id, result)
        except Exception:
            return self._failed(connection, message, Failure())

    def _send_late(self, payload: bytes | None, connection: Connection) -> None:
        if payload is not None and connection.sends:
            try:
                connection.send(payload)
            except Exception:
                connection.unsendable(payload)

    def _failed(self, connection: Connection, message: Any, failure: Failure) -> bytes | None:
        """Answer a handler's exception; what it was stays in the log."""
        if isinstance(failure.value, RequestError):
            error = failure.value.error
        else:
            method = _method_of(message)
            self.failures[method] += 1
            error = report(self._log, connection, method, failure)
        return None if message.id is None else encode_error(message.id, error)

    def _misfit(self, connection: Connection, payload: bytes, error: Exception) -> bytes | None:
        """Answer a message that fits no registered request."""
        loose = decode_loosely(payload)
        if loose is None or not loose.known_id or not isinstance(loose.method, str):
            return self._malformed(connection, None if loose is None else loose.id)
        route = self._routes.get(loose.method)
        if route is None and loose.method == "ping":
            # The heartbeat of framings that have no opcode for it: protocol.md, section 1.
            return None if loose.id is None else encode_success(loose.id)
        if route is None:
            self.unknown += 1
            if self._when_unknown is Unknown.IGNORE:
                return None
            self._complain(connection, loose.id, UNKNOWN_METHOD)
            if self._when_unknown is Unknown.CLOSE:
                connection.close(TOO_MANY_ERRORS)
            return None
        return self._invalid(connection, route, loose, error)

    def _invalid(
        self, connection: Connection, route: Route, loose: Loose, error: Exception
    ) -> bytes | None:
        if route.invalid is not None:
            try:
                result = route.invalid(connection, loose.id, loose.params)
            except Exception:
                return self._failed(connection, loose, Failure())
            if result is LATER:
                return None
            if result is not None:
                return self._answer(connection, loose, result)
        detail = describe(error) if isinstance(error, msgspec.ValidationError) else str(error)
        return self._complain(connection, loose.id, BAD_PARAMS.about(detail))

    def _malformed(self, connection: Connection, message_id: RequestId = None) -> bytes | None:
        # Without a readable id the answer carries null: nothing is silently ignored.
        connection.complain(encode_error(message_id, MALFORMED))
        return None

    def _complain(
        self, connection: Connection, message_id: RequestId, error: ErrorText
    ) -> bytes | None:
        connection.complain(b"" if message_id is None else encode_error(message_id, error))
        return None


def _no_method(payload: bytes) -> Any:
    raise ValueError("no method is registered")


def report(log: Logger, connection: Connection, route: int | str, failure: Failure) -> ErrorText:
    """Log what a handler raised, under a reference; returns what the peer may know."""
    return incidents.report(
        log,
        "Message {route} of connection {connection} from {peer} failed",
        failure,
        route=route,
        connection=connection.id,
        peer=connection.peer,
    )


def _method_of(message: Any) -> str:
    return str(message.method if isinstance(message, Loose) else message.__struct_config__.tag)


__all__ = [
    "LATER",
    "After",
    "Before",
    "Handler",
    "IRouter",
    "Route",
    "Router",
    "Unknown",
    "report",
]
