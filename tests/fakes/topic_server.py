"""The operations of topics on a server, on topics in memory, and what a test has it answer instead.

Clients of topics are tested against it without a daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred

from kupool.errors import UNAUTHORIZED
from kupool.net.manager import ServerSettings
from kupool.net.routing.request import Request
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.session.connection import Connection
from kupool.topics.api.access import Caller
from kupool.topics.api.table import OPERATIONS, TopicApi
from kupool.topics.api.world import TopicWorld
from kupool.topics.dead_letters import DeadLetters
from kupool.topics.delays import DelayedRecords
from kupool.topics.groups import ConsumerGroups, GroupLimits
from kupool.topics.service import Topics
from kupool.topics.sessions import SessionFetchLimits, TopicSessions
from kupool.topics.transactions import TopicTransactions, TransactionLimits
from tests.fakes.topics import topics_in_memory

Params = Mapping[str, Any]
_TABLE = {operation.name: operation for operation in OPERATIONS}


class TopicServer:
    """Topics and groups behind a server on a reactor, which may be the network in memory.

    ``answers`` may have other answers by method: a function of the params, whose result is sent.
    ``asked`` has every request, with those params that are not their defaults. ``password`` is that
    of every user, who may do everything.
    """

    def __init__(self, reactor: Any, topics: Topics | None = None) -> None:
        self.reactor = reactor
        self.topics = topics or topics_in_memory(reactor, run_in_thread=maybeDeferred)
        self.letters = DeadLetters(self.topics)
        self.answers: dict[str, Callable[[Params], Any]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.password: str | None = None
        self.limits = SessionFetchLimits()
        self.server: Server | None = None
        self._caller = Caller("alice", "127.0.0.1", lambda *_: True, lambda _: True)
        self._delays = DelayedRecords(self.topics, reactor, reactor.seconds)
        self._transactions = TopicTransactions(self.topics, reactor, TransactionLimits())
        self.restart_groups()

    def restart_groups(self) -> None:
        """Forget all members, as a daemon that was restarted; for the next :meth:`listen`."""
        self.groups = ConsumerGroups(
            self.topics.engine, self.reactor, self.reactor.seconds, GroupLimits()
        )
        world = TopicWorld(
            self.topics,
            self.groups,
            self.letters,
            self._delays,
            self._transactions,
            wall=self.reactor.seconds,
            seconds=self.reactor.seconds,
        )
        self._api = TopicApi(world, lambda *_: None)
        self.router = Router()
        self.router.add("authorize", self._authorize, dict[str, Any])
        self.sessions = TopicSessions(
            self._api,
            self.router,
            lambda connection: self._caller,
            limits=self.limits,
            note=lambda *_: None,
        )
        for method in _TABLE:
            self.router.use(self._noting(method), only=lambda key, method=method: key == method)

    async def listen(self, address: str = "127.0.0.1:8000", **settings: Any) -> int:
        """Serve at an address; returns the port."""
        self.server = Server(self.reactor, self.sessions, ServerSettings(**settings))
        await self.server.listen([address])
        port: int = self.server.addresses[0].port
        return port

    async def stop(self, timeout: float = 1.0) -> None:
        """End the server; topics and groups stay."""
        if self.server is not None:
            await self.server.stop(timeout=timeout)

    def close(self) -> None:
        """Leave no timer."""
        self.groups.close()
        self._delays.stop()
        self._transactions.close()

    def times(self, method: str) -> int:
        """Return how often a method was called."""
        return sum(name == method for name, _ in self.asked)

    def call(self, method: str, params: Params) -> Deferred[Any]:
        """Do what a method does."""
        operation = _TABLE[method]
        given = msgspec.convert(dict(params), operation.params)
        return self._api.call(operation, self._caller, given)

    def produce(self, params: Params) -> Deferred[Any]:
        """Do what ``log.produce`` does."""
        return self.call("log.produce", params)

    def _authorize(self, connection: Connection, request: Request) -> object:
        self.asked.append(("authorize", request.params))
        if self.password is not None and request.params.get("password") != self.password:
            return UNAUTHORIZED
        return True

    def _noting(self, method: str) -> Any:
        def middleware(proceed: Any) -> Any:
            def handle(connection: Connection, request: Request) -> object:
                params = _given(request.params)
                self.asked.append((method, params))
                if method in self.answers:
                    return self.answers[method](params)
                return proceed(connection, request)

            return handle

        return middleware


def _given(params: Any) -> dict[str, Any]:
    """Return the params that are not their defaults."""
    if params is None:
        return {}
    fields = msgspec.structs.fields(params)
    given = {field.name: getattr(params, field.name) for field in fields}
    defaults = {field.name: field.default for field in fields if not field.required}
    return {
        name: _plain(value)
        for name, value in given.items()
        if name not in defaults or (value != defaults[name] and value != {})
    }


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return _given(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value
