"""Route messages by their numeric id, as the framing ``tlv`` carries it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.python.failure import Failure

from kupool.callbacks import awaited, deferred_of
from kupool.errors import ErrorText
from kupool.net.routing.codecs import Read, ReplyMaker
from kupool.net.routing.request import LATER, Request
from kupool.net.routing.router import Router
from kupool.net.routing.steps import RouteStep
from kupool.net.routing.table import Handler, Key, Route, Unknown
from kupool.net.transport.protocols import TLV
from kupool.session.connection import Connection
from kupool.wire.framing import Item, Tlv, encode_tlv
from kupool.wire.messages import encode_error
from kupool.wire.packets import check_id


class ById:
    """The :class:`~kupool.net.routing.codecs.ReplyCodec` of messages with numeric ids.

    ``to`` is the number of the message, or the Request that a handler answers later. An
    error is sent as JSON under the id 0; its ``id`` is the number of the message that
    failed.
    """

    def check(self, key: Key, params: type | None) -> None:
        """Check that a key fits into 32 bits and that no params type is given."""
        if not isinstance(key, int):
            raise ValueError(f"msgID {key!r} is no number")
        check_id(key)
        if params is not None:
            raise ValueError(f"msgID {key}: messages with a number are bytes, and have no params")

    def taken(self, key: Key) -> str:
        """Return the error text for a number that already has a handler."""
        return f"repeat api, msgID: {key}"

    def place(self, first: Any, last: Any) -> tuple[str, Callable[[Any], Key]]:
        """Return a group of the numbers from ``first`` to ``last``."""
        if not isinstance(first, int) or not isinstance(last, int):
            raise ValueError("a group of numbers has a first and a last one")

        def place(message_id: int) -> Key:
            if not first <= message_id <= last:
                raise ValueError(f"msgID {message_id} is not from {first} to {last}")
            return message_id

        return f"{first}-{last}", place

    def learn(self, routes: Iterable[Route]) -> None:
        """Do nothing: messages are routed by their numbers alone."""

    def bound(self, function: Callable[[Request], object], reply: ReplyMaker) -> RouteStep:
        """Return a handler that makes a request and answers once: by ``reply`` or by its result."""

        def handle(connection: Connection, message_id: int, data: bytes) -> object:
            request = Request(connection, message_id, data, None, reply)
            try:
                outcome = function(request)
            except BaseException:
                if not request.answered:
                    request.answered = True
                    raise  # to the middleware around it, and then to the router
                reply(request, Failure())
                return LATER
            if outcome is None or outcome is LATER:
                return outcome
            if type(outcome) is not bytes and awaited(outcome):
                return deferred_of(outcome).addBoth(later, request)
            return once(outcome, request)

        def once(outcome: object, request: Request) -> object:
            return outcome if request.first_answer() else LATER

        def later(outcome: object, request: Request) -> object:
            if outcome is None or outcome is LATER:
                return outcome
            if isinstance(outcome, Failure) and request.answered:
                reply(request, outcome)
                return LATER
            return once(outcome, request)

        return handle

    def read(self, connection: Connection, item: Item, reply: ReplyMaker) -> Read | None:
        """Return the message, or None for one without a number, which is ignored."""
        if type(item) is not Tlv:
            return None
        message_id = item.message_id
        return message_id, message_id, (connection, message_id, item.payload)

    def result(self, connection: Connection, to: Any, result: object) -> None:
        """Send bytes under the message's number or a :class:`Tlv`; None sends nothing."""
        if type(to) is Request:
            if result is not None and (not to.answered or to.first_answer()):
                self.result(connection, to.msg_id, result)
                to.answered = True
            return
        if type(result) is bytes:
            if connection.framing is TLV and len(result) <= connection.limits.max_frame:
                connection.send_encoded(encode_tlv(result, to))
            else:
                connection.send_encoded(connection.pack(Tlv(to, result)))
        elif isinstance(result, Tlv):
            connection.send_encoded(connection.pack(result))
        elif isinstance(result, bytes | bytearray | memoryview):
            connection.send_encoded(connection.pack(Tlv(to, bytes(result))))
        elif result is not None:
            raise TypeError(f"a handler of ids returned {type(result).__name__}, not bytes")

    def error(self, to: Any, error: ErrorText) -> bytes | None:
        """Return the JSON of an error; it is sent under the id 0."""
        if type(to) is Request:
            if not to.first_answer():
                return None
            to = to.msg_id
        return encode_error(to, error)


class IdRouter(Router):
    """Routes messages to handlers by their number.

    A handler gets the connection, the number and the data. It returns one of:

    - bytes, which are sent under the same number;
    - a :class:`Tlv`, which is sent under its own number;
    - a row of the error table;
    - None, which sends nothing;
    - a Deferred or coroutine of one of these.

    It may also raise :class:`RequestError`. Errors are sent as JSON under the id 0, with
    the number of the failed message: ``{"id":7,"result":false,"error":"text","code":N}``.
    """

    def __init__(self, unknown: Handler | Unknown = Unknown.REPLY) -> None:
        super().__init__(unknown, codec=ById())


__all__ = ["ById", "IdRouter"]
