"""Route JSON requests by their ``method`` and answer them by their ``id``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from twisted.python.failure import Failure

from kupool.errors import BAD_PARAMS, INTERNAL_ERROR, MALFORMED, ErrorText
from kupool.net.routing.codecs import Read, ReplyMaker, Unfit
from kupool.net.routing.request import Request
from kupool.net.routing.steps import RouteStep
from kupool.net.routing.table import Key, Route
from kupool.session.connection import Connection
from kupool.wire.framing import Control, Item
from kupool.wire.messages import (
    MAX_ID_BYTES,
    TypedRequest,
    decode_loosely,
    describe,
    encode_error,
    encode_result,
    request_decoder,
    request_type,
)


class ByMethod:
    """The :class:`~kupool.net.routing.codecs.ReplyCodec` of JSON requests.

    ``to`` is the Request that is answered.
    """

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._types: dict[str, type[TypedRequest]] = {}
        self._methods: dict[type[TypedRequest], str] = {}
        self._decode: Callable[[bytes], Any] = _no_method

    def check(self, key: Key, params: type | None) -> None:
        """Check that a method is a text."""
        if not isinstance(key, str):
            raise ValueError(f"method {key!r} is not a text")

    def taken(self, key: Key) -> str:
        """Return the error text for a method that already has a handler."""
        return f"method {key!r} already has a handler"

    def place(self, first: Any, last: Any) -> tuple[str, Callable[[Any], Key]]:
        """Return a group of the methods with one prefix."""
        if not isinstance(first, str) or last is not None:
            raise ValueError("a group of methods needs exactly one prefix")
        return first, first.__add__

    def learn(self, routes: Iterable[Route]) -> None:
        """Build the decoder of the registered methods."""
        self._routes = {str(route.key): route for route in routes}
        for method, route in self._routes.items():
            if method not in self._types:
                made = self._types[method] = request_type(method, route.params)
                self._methods[made] = method
        self._decode = request_decoder(self._types).decode

    def bound(self, function: Callable[[Request], object], reply: ReplyMaker) -> RouteStep:
        """Return the function itself: handlers of methods always get a request."""
        return lambda connection, request: function(request)

    def read(self, connection: Connection, item: Item, reply: ReplyMaker) -> Read | None:
        """Decode a message once, into the type of its method."""
        if type(item) is not bytes:
            if type(item) is Control:
                return None
            raise Unfit(MALFORMED)
        decode = self._decode
        try:
            message = decode(item)
        except BaseException as error:  # an application's type may raise anything
            return self._misfit(connection, item, reply, error)
        message_id = message.id
        if type(message_id) is str and len(message_id.encode()) > MAX_ID_BYTES:
            raise Unfit(MALFORMED)
        method = self._methods[type(message)]
        request = Request(connection, method, message.params, message_id, reply)
        return method, request, (connection, request)

    def _misfit(
        self, connection: Connection, payload: bytes, reply: ReplyMaker, error: BaseException
    ) -> Read:
        """Decode a message leniently that fits no registered request, to answer it."""
        loose = decode_loosely(payload)
        if loose is None:
            raise Unfit(MALFORMED) from None
        method = loose.method if isinstance(loose.method, str) else ""
        to = Request(connection, method, loose.params, loose.id, reply)
        if not loose.known_id or not isinstance(loose.method, str):
            raise Unfit(MALFORMED, None if loose.id is None else to) from None
        route = self._routes.get(method)
        if route is None:
            return method, to, (connection, to)
        if not isinstance(error, ValueError | RecursionError):
            raise Unfit(INTERNAL_ERROR, to, route, failure=Failure(error)) from None
        detail = describe(error) if isinstance(error, msgspec.ValidationError) else str(error)
        raise Unfit(BAD_PARAMS.about(detail), to, route, loose.params) from None

    def result(self, connection: Connection, to: Request, result: object) -> bytes | None:
        """Return the reply; None for a notification."""
        if to.id is None or (to.answered and not to.first_answer()):
            return None
        reply = encode_result(to.id, result)
        to.answered = True
        return reply

    def error(self, to: Request | None, error: ErrorText) -> bytes | None:
        """Return the reply; its id is null if the request's id could not be read."""
        if to is None:
            return encode_error(None, error)
        if to.id is None or not to.first_answer():
            return None
        return encode_error(to.id, error)


def _no_method(payload: bytes) -> Any:
    raise ValueError("no method is registered")


__all__ = ["ByMethod"]
