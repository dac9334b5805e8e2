"""The router: dispatches messages to handlers and turns their results into answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool import incidents
from kupool.callbacks import awaited, deferred_of
from kupool.errors import (
    MALFORMED,
    TOO_MANY_ERRORS,
    UNKNOWN_METHOD,
    ErrorText,
    RequestError,
)
from kupool.net.routing.base import BaseRouter, as_function
from kupool.net.routing.by_method import ByMethod
from kupool.net.routing.codecs import ReplyCodec, Unfit
from kupool.net.routing.interfaces import IRouter
from kupool.net.routing.request import LATER, Request
from kupool.net.routing.steps import Middleware, RouteStep, Steps, steps_of
from kupool.net.routing.table import Group, Handler, Key, Registered, Route, Unknown
from kupool.session.connection import Connection
from kupool.wire.framing import OP_CLOSE, OP_PING, OP_PONG, Control, Item, encode_frame

#: The key in ``failures`` for the handler of unknown messages.
UNKNOWN = "unknown"

#: Types of results that are never awaitable.
_AT_ONCE = frozenset((bytes, bool, int, float, str, dict, list, type(None)))

#: Runs before a handler. A result other than None is the answer instead. It may
#: also return a Deferred or a coroutine of one.
Before = Callable[[Connection, Any], object]

#: Runs after a handler with its outcome, unless the handler raised.
After = Callable[[Connection, Any, object], object]


@implementer(IRouter)
class Router(Registered):
    """Dispatches JSON requests by method, or the messages of another ``codec`` by its keys.

    A handler gets the connection and a :class:`Request`. It returns a result, an
    :class:`ErrorText`, a Deferred, coroutine or other awaitable of either, or
    :data:`LATER`. It may also raise :class:`RequestError`.

    Any other exception is counted in ``failures`` and logged under a reference. The peer
    gets only the reference, and no other peer is affected. ``unknown`` sets the answer to
    unknown methods; it may also be a handler.
    """

    _log = Logger()

    def __init__(
        self, unknown: Handler | Unknown = Unknown.REPLY, *, codec: ReplyCodec | None = None
    ) -> None:
        #: Number of exceptions in handlers and steps, by route.
        self.failures: Counter[Key] = Counter()
        #: Number of messages that a guard answered, by route.
        self.refusals: Counter[Key] = Counter()
        #: Number of messages without a handler.
        self.unknown = 0
        self._when_unknown = unknown
        self._codec: ReplyCodec = ByMethod() if codec is None else codec
        self._read = self._codec.read
        self._result = self._codec.result
        self._reply = self._replied
        self._routes: dict[Key, Route] = {}
        self._handlers: dict[Key, RouteStep] = {}
        self._middleware: list[tuple[Middleware, Callable[[Any], bool]]] = []

    # -- registration

    @property
    def routes(self) -> tuple[Route, ...]:
        """The registered routes, in the order of registration."""
        return tuple(self._routes.values())

    def add(
        self,
        key: Key,
        handler: Handler | BaseRouter,
        /,
        params: type | None = None,
        *,
        before: Iterable[RouteStep] = (),
        after: Iterable[RouteStep] = (),
        guards: Iterable[RouteStep] = (),
        use: Iterable[Middleware] = (),
        invalid: Callable[[Connection, Any, object], object] | None = None,
        group: Group | None = None,
    ) -> None:
        """Register the handler of a method whose params have the given type.

        ``params`` is a msgspec struct or any type that msgspec decodes. With None, the
        params of the message are ignored, and the request's ``params`` is None. ``guards``,
        ``use``, ``before`` and ``after`` run around the handler: see
        :class:`~kupool.net.routing.steps.Steps`.

        ``invalid`` is called with the connection, the id and the raw params when these do
        not fit the type. If it is not given, or returns None, the answer is ``bad params``.

        Raises :class:`ValueError` if the method already has a handler.
        """
        self._codec.check(key, params)
        if key in self._routes:
            raise ValueError(self._codec.taken(key))
        steps = steps_of(guards, use, before, after)
        route = Route(key, handler, params, invalid, steps, group)
        made = self._put_together(route)
        self._codec.learn((*self._routes.values(), route))
        self._routes[key] = route
        self._handlers[key] = made

    def group(
        self,
        first: Key,
        last: Key | None = None,
        *,
        guards: Iterable[RouteStep] = (),
        use: Iterable[Middleware] = (),
        before: Iterable[RouteStep] = (),
        after: Iterable[RouteStep] = (),
        inside: Group | None = None,
    ) -> Group:
        """Return a group of routes: a prefix such as ``room.``, or a range of numbers.

        The steps given here run around each of its handlers, and inside the steps of the
        group named by ``inside``.
        """
        name, place = self._codec.place(first, last)
        return Group(self, name, place, steps_of(guards, use, before, after), outer=inside)

    def use(self, *middleware: Middleware, only: Callable[[Any], bool] | None = None) -> None:
        """Put middleware around all routes, past and future ones; the first is the outermost.

        With ``only``, it is put around the routes whose key ``only`` returns true for.
        """
        self._middleware += [(each, only or _every) for each in middleware]
        self.rebuild()

    def describe(self) -> list[dict[str, str]]:
        """Return route, handler, summary, group and params of every route, as texts."""
        return [route.described() for route in self._routes.values()]

    def rebuild(self) -> None:
        """Build every handler again from the registered steps."""
        for key, route in self._routes.items():
            self._handlers[key] = self._put_together(route)

    def _put_together(self, route: Route) -> RouteStep:
        handler: RouteStep
        if isinstance(route.handler, BaseRouter):
            handler = self._codec.bound(as_function(route.handler), self._reply)
        else:
            handler = route.handler
        steps = route.steps if route.group is None else route.steps.inside(route.group.steps)
        everywhere = tuple(m for m, only in self._middleware if only(route.key))
        steps = steps.inside(Steps(middleware=everywhere))
        guards = tuple(self._counted(route.key, guard) for guard in steps.guards)
        return steps._replace(guards=guards).around(handler)

    def _counted(self, key: Key, guard: RouteStep) -> RouteStep:
        refusals = self.refusals

        def counted(*message: Any) -> object:
            refusal = guard(*message)
            if awaited(refusal):
                return later(refusal)
            if refusal is not None:
                refusals[key] += 1
            return refusal

        async def later(waiting: Any) -> object:
            refusal = await deferred_of(waiting)
            if refusal is not None:
                refusals[key] += 1
            return refusal

        return counted

    # -- messages

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one message; returns the payload of the answer, if any."""
        try:
            read = self._read(connection, item, self._reply)
        except Unfit as unfit:
            return self._unfit(connection, unfit)
        if read is None:
            return self.control(connection, item) if type(item) is Control else None
        key, to, arguments = read
        handler = self._handlers.get(key)
        if handler is None:
            return self._no_handler(connection, key, to, arguments)
        try:
            result = handler(*arguments)
            if result is LATER:
                return None
            if type(result) in _AT_ONCE:  # the fast path of most results
                return self._result(connection, to, result)
        except BaseException:  # SystemExit and KeyboardInterrupt too
            return self._failed(connection, key, to, Failure())
        return self._answer(connection, key, to, result)

    def control(self, connection: Connection, item: Control) -> bytes | None:
        """Handle an opcode of ``frame`` that carries no message."""
        if item.opcode == OP_PING:
            connection.send_encoded(encode_frame(item.payload, OP_PONG))
        elif item.opcode == OP_CLOSE:
            connection.finished()
        elif item.opcode != OP_PONG:
            return self._unfit(connection, Unfit(MALFORMED))
        return None

    def _no_handler(
        self, connection: Connection, key: Key, to: Any, arguments: tuple[Any, ...]
    ) -> bytes | None:
        if key == "ping":
            # The heartbeat of framings without a ping opcode: protocol.md, section 1.
            return self._answer(connection, key, to, True)
        self.unknown += 1
        wanted = self._when_unknown
        if not isinstance(wanted, Unknown):
            try:
                return self._answer(connection, UNKNOWN, to, wanted(*arguments))
            except BaseException:
                return self._failed(connection, UNKNOWN, to, Failure())
        if wanted is not Unknown.IGNORE:
            self._complain(connection, to, UNKNOWN_METHOD)
        if wanted is Unknown.CLOSE:
            connection.close(TOO_MANY_ERRORS)
        return None

    def _unfit(self, connection: Connection, unfit: Unfit) -> bytes | None:
        """Answer a message that no handler can take: no message is ignored silently."""
        route, to = unfit.route, unfit.to
        if route is not None and unfit.failure is not None:
            return self._failed(connection, route.key, to, unfit.failure)
        if route is not None and to is not None and route.invalid is not None:
            try:
                result = route.invalid(connection, to.id, unfit.given)
            except BaseException:
                return self._failed(connection, route.key, to, Failure())
            if result is not None:
                return self._answer(connection, route.key, to, result)
        self._complain(connection, to, unfit.error)
        return None

    def _complain(self, connection: Connection, to: Any, error: ErrorText) -> None:
        connection.complain(self._codec.error(to, error) or b"")

    # -- answers

    def _answer(self, connection: Connection, key: Key, to: Any, result: object) -> bytes | None:
        """Return the payload of a handler's result, or arrange for it to be sent later."""
        if result is LATER:
            return None
        if awaited(result):
            waiting: Deferred[Any] = deferred_of(result)
            waiting.addCallbacks(
                lambda value: self._answer(connection, key, to, value),
                lambda failure: self._failed(connection, key, to, failure),
            )
            waiting.addCallback(self._send_late, connection)
            return None
        try:
            if isinstance(result, Failure):
                return self._failed(connection, key, to, result)
            if isinstance(result, ErrorText):
                return self._codec.error(to, result)
            return self._result(connection, to, result)
        except BaseException:
            return self._failed(connection, key, to, Failure())

    def _replied(self, request: Request, result: object) -> None:
        """Send the result that a handler passed to :meth:`Request.reply`."""
        connection = request.connection
        self._send_late(self._answer(connection, request.msg_id, request, result), connection)

    def _send_late(self, payload: bytes | None, connection: Connection) -> None:
        if payload is not None:
            connection.answer(payload)

    def _failed(self, connection: Connection, key: Key, to: Any, failure: Failure) -> bytes | None:
        """Answer a handler's exception; its details are only logged."""
        if isinstance(failure.value, RequestError):
            error = failure.value.error
        else:
            self.failures[key] += 1
            error = report(self._log, connection, key, failure)
        return self._codec.error(to, error)


def report(log: Logger, connection: Connection, route: Key, failure: Failure) -> ErrorText:
    """Log a handler's exception under a reference; returns the error for the peer."""
    return incidents.report(
        log,
        "Message {route} of connection {connection} from {peer} failed",
        failure,
        route=route,
        connection=connection.id,
        peer=connection.peer,
    )


def _every(key: object) -> bool:
    return True


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
