"""The operations of topics as methods of sessions, in any framing with JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.errors import TOO_MANY_REQUESTS, CloseReason
from kupool.net.interfaces import IClosingObserver
from kupool.net.observer import Observer
from kupool.net.routing.router import LATER, Before, Router
from kupool.session.connection import Connection
from kupool.session.surroundings import ScheduledCall
from kupool.timing.waiting import UnderWay
from kupool.topics.api.access import Caller
from kupool.topics.api.params import FetchParams
from kupool.topics.api.table import OPERATIONS, NoteRefusal, Operation, TopicApi

#: What the log calls fetches over the limits of a session.
TOO_MANY_FETCHES = "topics, too many fetches of one session"

#: Seconds that the fetches of a peer which has finished sending have.
LAST_FETCHES = 1.0


@dataclass(frozen=True)
class SessionFetchLimits:
    """The most fetches of one session that are not answered yet, and the bytes that these and the
    answers which it has not read yet have together.
    """

    fetches: int = 1000
    size: int = 64 * 1024 * 1024


class _SessionWork:
    """What a session has under way."""

    def __init__(self) -> None:
        self.calls = UnderWay()
        self.fetches: dict[Deferred[object], int] = {}

    def refuses(self, limits: SessionFetchLimits, size: int, unread: int) -> str:
        """Return which limit one more fetch would exceed; empty if none."""
        if len(self.fetches) >= limits.fetches:
            return "fetches of one session"
        if self.fetches and sum(self.fetches.values()) + size + unread > limits.size:
            return "data in fetches of one session"
        return ""


@implementer(IClosingObserver)
class TopicSessions(Observer):
    """The observer of a server whose sessions call the operations.

    ``caller_of`` returns who a connection belongs to. ``before`` are steps before every method,
    such as a limit of requests. A fetch that waits ends with its connection; a member of a group
    stays until its session times out. ``limits`` may be replaced at any time.
    """

    def __init__(
        self,
        api: TopicApi,
        methods: Router,
        caller_of: Callable[[Connection], Caller],
        before: Iterable[Before] = (),
        *,
        limits: SessionFetchLimits,
        note: NoteRefusal,
    ) -> None:
        super().__init__(methods)
        self.limits = limits
        self._api = api
        self._caller_of = caller_of
        self._note = note
        self._work: dict[int, _SessionWork] = {}
        steps = tuple(before)
        for operation in OPERATIONS:
            kind: Any = operation.params
            methods.add(
                operation.name,
                partial(self._call, operation),
                kind if operation.needs_params else kind | None,
                before=steps,
            )

    def _call(self, operation: Operation, connection: Connection, request: Any) -> object:
        params = operation.params() if request.params is None else request.params
        caller = self._caller_of(connection)
        work = self._work.get(connection.id)
        size = 0
        if isinstance(params, FetchParams):
            size = params.max_bytes
            unread = connection.outbound
            if work is not None and (reason := work.refuses(self.limits, size, unread)):
                self._note(TOO_MANY_FETCHES, caller.host, caller.user)
                return TOO_MANY_REQUESTS.about(reason)
        called = self._api.call(operation, caller, params)
        if called.called:
            return called
        if work is None:
            work = self._work[connection.id] = _SessionWork()
        work.calls.begin()
        if size:
            work.fetches[called] = size
        called.addBoth(self._ended, request, work, called)
        return LATER

    def _ended(
        self, result: object, request: Any, work: _SessionWork, called: Deferred[object]
    ) -> None:
        """Answer, and only then count it as ended: the connection may be waiting for that."""
        request.reply(result)
        work.fetches.pop(called, None)
        work.calls.end()
        if not work.calls.busy and self._work.get(request.connection.id) is work:
            del self._work[request.connection.id]

    # -- connections

    def closing(self, connection: Connection, reason: CloseReason | None) -> None:
        """End the fetches of a connection that receives nothing more."""
        self._end_fetches(connection)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """End the fetches of a connection."""
        self._end_fetches(connection)

    def _end_fetches(self, connection: Connection) -> None:
        work = self._work.get(connection.id)
        if work is not None:
            for fetch in list(work.fetches):
                fetch.cancel()

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """Wait for what a peer that has finished sending has asked for; its fetches have a moment,
        since the peer may be gone: there is no way to know.
        """
        work = self._work.get(connection.id)
        if work is None:
            return None
        timers: list[ScheduledCall] = []

        def late() -> None:
            timers.clear()
            self._end_fetches(connection)

        def settled(result: None) -> None:
            for timer in timers:
                timer.cancel()

        timers.append(connection.around.call_later(LAST_FETCHES, late))
        return work.calls.finish().addCallback(settled)


__all__ = ["TOO_MANY_FETCHES", "SessionFetchLimits", "TopicSessions"]
