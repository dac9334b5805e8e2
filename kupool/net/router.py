"""From a message to its handler, and from what the handler returns to an answer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from inspect import iscoroutine
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from kupool.errors import (
    BAD_PARAMS,
    INTERNAL_ERROR,
    MALFORMED,
    UNKNOWN_METHOD,
    ErrorText,
    RequestError,
)
from kupool.net.connection import OPEN, Connection
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

#: Runs before a handler; what it returns, unless None, is the answer instead.
Before = Callable[[Connection, Any], object]

#: Runs after a handler with its outcome; not after one that raised.
After = Callable[[Connection, Any, object], None]


class IRouter(Interface):
    """Answers the messages of a connection."""

    def dispatch(connection: Connection, item: Item) -> bytes | None:
        """Handle one message; return the payload to answer with, if any. Never raises."""


class Route(NamedTuple):
    """A registered method."""

    method: str
    params: type | None
    handler: Handler
    invalid: Callable[[Connection, RequestId, object], object] | None


@implementer(IRouter)
class Router:
    """Dispatches JSON requests by method.

    An exception in a handler is logged under a reference, which is all the peer gets
    to see of it, and costs nobody else anything.
    """

    _log = Logger()

    def __init__(self) -> None:
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
        handler: Handler,
        params: type | None = None,
        *,
        before: Iterable[Before] = (),
        after: Iterable[After] = (),
        invalid: Callable[[Connection, RequestId, object], object] | None = None,
    ) -> None:
        """Register the handler of a method whose params have the given type.

        ``params`` is a msgspec struct or any type msgspec decodes; with None, params
        are ignored. ``invalid`` is called with the connection, the id and the raw
        params when these do not fit the type; where it is not given, or returns None,
        the answer is ``bad params``.

        Raises :class:`ValueError` when the method has a handler already.
        """
        if method in self._routes:
            raise ValueError(f"method {method!r} has a handler already")
        self._routes[method] = Route(method, params, handler, invalid)
        made = self._types[method] = request_type(method, params)
        self._handlers[made] = _wrap(handler, tuple(before), tuple(after))
        self._decode = request_decoder(self._types).decode

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
        except Exception:
            return self._failed(message.id, Failure())
        if result is LATER:
            return None
        return self._answer(connection, message.id, result)

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

    def _answer(
        self, connection: Connection, message_id: RequestId, result: object
    ) -> bytes | None:
        if isinstance(result, ErrorText):
            return None if message_id is None else encode_error(message_id, result)
        if iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            result.addCallbacks(
                lambda value: self._answer(connection, message_id, value),
                lambda failure: self._failed(message_id, failure),
            )
            result.addCallback(self._send_late, connection)
            return None
        if message_id is None or result is LATER:
            return None
        try:
            return encode_result(message_id, result)
        except Exception:
            return self._failed(message_id, Failure())

    def _send_late(self, payload: bytes | None, connection: Connection) -> None:
        if payload is not None and connection.state is OPEN:
            connection.send(payload)

    def _failed(self, message_id: RequestId, failure: Failure) -> bytes | None:
        """Answer a handler's exception; what it was stays in the log."""
        if isinstance(failure.value, RequestError):
            error = failure.value.error
        else:
            reference = secrets.token_hex(8)
            self._log.failure("Request failed, reference {reference}", failure, reference=reference)
            error = ErrorText(INTERNAL_ERROR.code, f"{INTERNAL_ERROR.text} {reference}")
        return None if message_id is None else encode_error(message_id, error)

    def _misfit(self, connection: Connection, payload: bytes, error: Exception) -> bytes | None:
        """Answer a message that fits no registered request."""
        loose = decode_loosely(payload)
        if loose is None or not loose.known_id or not isinstance(loose.method, str):
            return self._malformed(connection, None if loose is None else loose.id)
        route = self._routes.get(loose.method)
        if route is None:
            return self._complain(connection, loose.id, UNKNOWN_METHOD)
        return self._invalid(connection, route, loose, error)

    def _invalid(
        self, connection: Connection, route: Route, loose: Loose, error: Exception
    ) -> bytes | None:
        if route.invalid is not None:
            try:
                result = route.invalid(connection, loose.id, loose.params)
            except Exception:
                return self._failed(loose.id, Failure())
            if result is LATER:
                return None
            if result is not None:
                return self._answer(connection, loose.id, result)
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


def _wrap(handler: Handler, before: tuple[Before, ...], after: tuple[After, ...]) -> Handler:
    """Put the steps around a handler; without any, the handler itself is called."""
    if not before and not after:
        return handler

    def finish(outcome: object, connection: Connection, message: Any) -> object:
        for step in after:
            step(connection, message, outcome)
        return outcome

    def wrapped(connection: Connection, message: Any) -> object:
        for step in before:
            refusal = step(connection, message)
            if refusal is not None:
                return refusal
        outcome = handler(connection, message)
        if iscoroutine(outcome):
            outcome = Deferred.fromCoroutine(outcome)
        if isinstance(outcome, Deferred):
            return outcome.addCallback(finish, connection, message)
        return finish(outcome, connection, message)

    return wrapped


__all__ = ["LATER", "After", "Before", "Handler", "IRouter", "Route", "Router"]
