"""Correlation ids in messages of bytes, which say which request an answer is for.

JSON requests carry an id; messages with a number do not. By this convention, their data
begins with a correlation id (u32 little-endian), and the data of the answer begins with the
same id. An error is JSON under the message id 0, whose ``id`` is ``"#"`` and that number.
"""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.callbacks import awaited, deferred_of
from kupool.errors import BAD_PARAMS, ErrorText, RequestError
from kupool.net.routing.request import LATER
from kupool.net.routing.router import Router, report
from kupool.net.routing.steps import Middleware, RouteStep
from kupool.session.connection import Connection
from kupool.wire.framing import Tlv
from kupool.wire.messages import encode_error

#: Size of a correlation id in bytes.
SIZE = 4


def correlated(router: Router) -> Middleware:
    """Return middleware for a router all of whose messages begin with a correlation id.

    Use it as ``router.use(correlated(router))``. Handlers get the data without the id and
    answer without it. A message without an id is answered ``bad params``.
    """
    log = Logger()

    def middleware(handler: RouteStep) -> RouteStep:
        def wrapped(connection: Connection, message_id: int, data: bytes) -> object:
            if len(data) < SIZE:
                return BAD_PARAMS.about("the data is shorter than a correlation id")
            tag, rest = data[:SIZE], data[SIZE:]
            try:
                answer = handler(connection, message_id, rest)
            except BaseException:  # SystemExit and KeyboardInterrupt too
                return failed(Failure(), connection, message_id, tag)
            if awaited(answer):
                return deferred_of(answer).addCallbacks(
                    lambda value: tagged(value, message_id, tag),
                    lambda failure: failed(failure, connection, message_id, tag),
                )
            return tagged(answer, message_id, tag)

        wrapped.__doc__ = handler.__doc__
        return wrapped

    def failed(failure: Failure, connection: Connection, message_id: int, tag: bytes) -> object:
        if isinstance(failure.value, RequestError):
            return tagged(failure.value.error, message_id, tag)
        router.failures[message_id] += 1
        return tagged(report(log, connection, message_id, failure), message_id, tag)

    return middleware


def tagged(answer: object, message_id: int, tag: bytes) -> object:
    """Return a handler's answer with the correlation id in front of its data."""
    if isinstance(answer, ErrorText):
        return Tlv(0, encode_error(f"#{int.from_bytes(tag, 'little')}", answer))
    if isinstance(answer, Tlv):
        return Tlv(answer.message_id, tag + answer.payload)
    if isinstance(answer, bytes | bytearray | memoryview):
        return Tlv(message_id, tag + bytes(answer))
    return LATER if answer is None else answer


__all__ = ["SIZE", "correlated", "tagged"]
