"""Handlers that do whatever a handler may do wrong, for both kinds of router."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from kupool.errors import FORBIDDEN, IDLE_TIMEOUT, RequestError
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.router import LATER, Router, Unknown
from kupool.net.workers.pool import WorkerPool
from kupool.session.connection import Connection
from kupool.wire.framing import Tlv
from kupool.wire.packets import MessageTooLarge
from tools.fuzz_codecs_cases import Deliberate

#: The routes whose handlers fail: what the log says of others is a finding.
FAILING = frozenset(
    ("raise", "late raise", "coroutine", "wrong", "wrong later", "before", "huge", "pooled raise")
)

#: The route of each id of an :class:`IdRouter`.
IDS: dict[Any, str] = dict(
    enumerate(
        (
            "nothing",
            "echo",
            "raise",
            "late raise",
            "coroutine",
            "wrong",
            "wrong later",
            "before",
            "huge",
            "hang",
            "later",
            "error",
            "close",
            "abort",
            "hold",
            "raise the limit",
            "pooled",
            "pooled raise",
            "pooled hang",
            "reply later",
        )
    )
)


def failed_on_purpose(event: dict[str, Any]) -> bool:
    """Say whether the log tells, in the framework's words, of a failure that was asked for."""
    said, failure = str(event.get("log_format")), event.get("log_failure")
    if failure is None:
        return False
    if said.startswith(("A reply of", "An interceptor")):
        return bool(failure.check(ValueError, Deliberate))
    if not said.startswith(("Message {route}", "Message {label}")):
        return False
    route = event.get("route", event.get("label"))
    # An answer may be over the limit of a peer that had its own raised.
    return IDS.get(route, route) in FAILING or bool(failure.check(Deliberate, MessageTooLarge))


class Handlers:
    """What the routes do. ``answer`` makes a result of a value: bytes, where ids are."""

    def __init__(self, reactor: Any, pool: WorkerPool, huge: int) -> None:
        self._reactor = reactor
        self._pool = pool
        self._huge = huge
        #: Deferreds that are never fired; kept, as a handler that hangs keeps its own.
        self.hanging: list[Deferred[Any]] = []

    def by_name(self, text: bool) -> dict[str, Callable[[Connection, Any], object]]:
        """Return the handlers by their routes; they get the connection and a value."""
        return {
            "nothing": lambda connection, value: None,
            "echo": lambda connection, value: value,
            "raise": self._raise,
            "late raise": lambda connection, value: self._in(0.01, self._raise, None, None),
            "coroutine": self._coroutine,
            "wrong": lambda connection, value: object(),
            "wrong later": lambda connection, value: self._in(0.01, object),
            "before": lambda connection, value: value,
            "huge": lambda connection, value: "x" * self._huge if text else bytes(self._huge),
            "hang": self._hang,
            "later": lambda connection, value: self._in(0.02, lambda: value),
            "error": self._error,
            "close": lambda connection, value: connection.close(IDLE_TIMEOUT),
            "abort": lambda connection, value: connection.abort(),
            "hold": self._hold,
            "raise the limit": self._raise_the_limit,
            "pooled": lambda connection, value: value,
            "pooled raise": self._raise,
            "pooled hang": self._hang,
            "reply later": lambda connection, value: LATER,
        }

    def _in(self, seconds: float, call: Callable[..., object], *arguments: object) -> Deferred[Any]:
        return deferLater(self._reactor, seconds, call, *arguments)

    def _raise(self, connection: object, value: object) -> object:
        raise Deliberate

    async def _coroutine(self, connection: Connection, value: object) -> object:
        await self._in(0.0, lambda: None)
        raise Deliberate

    def _hang(self, connection: Connection, value: object) -> object:
        deferred: Deferred[Any] = Deferred()
        self.hanging.append(deferred)
        return deferred

    def _error(self, connection: Connection, value: object) -> object:
        raise RequestError(FORBIDDEN)

    def _hold(self, connection: Connection, value: object) -> object:
        connection.hold()
        self._reactor.callLater(0.02, connection.release)
        return value

    def _raise_the_limit(self, connection: Connection, value: object) -> object:
        connection.max_frame += 100
        return value

    def router(self, unknown: Unknown) -> Router:
        """Return a router by method with all of them."""
        router = Router(unknown)
        for name, handler in self.by_name(True).items():
            router.add(
                name,
                lambda connection, request, handler=handler: handler(connection, request.params),
                object,
                before=[self._raise] if name == "before" else (),
                use=[self._pool] if name.startswith("pooled") else (),
            )
        return router

    def id_router(self, unknown: Unknown) -> IdRouter:
        """Return a router by id with all of them."""
        router = IdRouter(unknown)
        handlers = self.by_name(False)
        for number, name in IDS.items():
            handler = handlers[name]

            def handle(
                connection: Any, message_id: int, data: bytes, handler: Any = handler
            ) -> Any:
                answer = handler(connection, data)
                return Tlv(message_id ^ 1, data) if answer is data and len(data) == 3 else answer

            router.add(
                number,
                handle,
                before=[lambda connection, message_id, data: self._raise(connection, data)]
                if name == "before"
                else (),
                use=[self._pool] if name.startswith("pooled") else (),
            )
        return router


__all__ = ["FAILING", "IDS", "Handlers", "failed_on_purpose"]
