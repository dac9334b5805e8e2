"""The table of operations: the one place where each is declared, and how they are called.

An operation ``noun.verb`` is a method of a session, and the route ``/api/noun/verb`` over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import FORBIDDEN, TOO_MANY_REQUESTS, UNAVAILABLE, ErrorText, RequestError
from kupool.topics.api import (
    dead_operations,
    group_operations,
    params,
    record_operations,
    topic_operations,
)
from kupool.topics.api.access import Caller
from kupool.topics.api.refusals import refusal_of
from kupool.topics.api.world import TopicWorld
from kupool.topics.errors import TopicError, TopicsUnavailable

#: Does the work of an operation; returns a value of JSON. May raise :class:`TopicError` and
#: :class:`RequestError`.
RunOperation = Callable[[TopicWorld, Caller, Any], Coroutine[Any, Any, object]]

#: Notes a refusal for the log: what was refused, the address, and the user.
NoteRefusal = Callable[[str, str, str], object]


class Operation(NamedTuple):
    """An operation; one that only ``reads`` changes nothing."""

    name: str
    params: type[msgspec.Struct]
    run: RunOperation
    reads: bool = False

    @property
    def path(self) -> str:
        """The route of the HTTP API."""
        return "/api/" + self.name.replace(".", "/")

    @property
    def needs_params(self) -> bool:
        """Whether there are params without a default."""
        return any(field.required for field in msgspec.structs.fields(self.params))


OPERATIONS = (
    Operation("topic.list", params.TopicListParams, topic_operations.list_topics, reads=True),
    Operation("topic.create", params.TopicCreateParams, topic_operations.create_topic),
    Operation("topic.change", params.TopicChangeParams, topic_operations.change_topic),
    Operation("topic.delete", params.TopicParams, topic_operations.delete_topic),
    Operation("topic.describe", params.TopicParams, topic_operations.describe_topic, reads=True),
    Operation("log.capabilities", params.NoParams, record_operations.capabilities, reads=True),
    Operation("log.produce", params.ProduceParams, record_operations.produce),
    Operation("log.fetch", params.FetchParams, record_operations.fetch, reads=True),
    Operation("log.offsets", params.OffsetsParams, record_operations.offsets, reads=True),
    Operation("log.delay", params.DelayParams, record_operations.delay),
    Operation("log.delayed", params.DelayedParams, record_operations.delayed, reads=True),
    Operation("log.cancel", params.CancelParams, record_operations.cancel),
    Operation("log.begin", params.NoParams, record_operations.begin),
    Operation("log.commit", params.TransactionParams, record_operations.commit),
    Operation("log.abort", params.TransactionParams, record_operations.abort),
    Operation("log.dead", params.DeadParams, dead_operations.dead, reads=True),
    Operation("log.bury", params.BuryParams, dead_operations.bury),
    Operation("log.redrive", params.DeadPlaceParams, dead_operations.redrive),
    Operation("log.purge", params.DeadPlaceParams, dead_operations.purge),
    Operation("group.list", params.NoParams, group_operations.list_groups, reads=True),
    Operation("group.join", params.JoinParams, group_operations.join),
    Operation("group.heartbeat", params.HeartbeatParams, group_operations.heartbeat),
    Operation("group.leave", params.LeaveParams, group_operations.leave),
    Operation("group.commit", params.CommitParams, group_operations.commit_offsets),
    Operation("group.describe", params.GroupParams, group_operations.describe_group, reads=True),
    Operation("group.reset", params.ResetParams, group_operations.reset),
    Operation("group.delete", params.GroupParams, group_operations.delete_group),
)

#: What the log calls the refusals of these rows.
_NOTED = {FORBIDDEN.code: "topics, not permitted", TOO_MANY_REQUESTS.code: "topics, too many"}


class TopicApi:
    """Calls operations; ``note`` gets the refusals that are for the log."""

    _log = Logger()

    def __init__(self, world: TopicWorld, note: NoteRefusal) -> None:
        self._world = world
        self._note = note
        #: Fetches that may wait for records.
        self._fetches: set[Deferred[object]] = set()
        self._closed = False

    def call(self, operation: Operation, caller: Caller, given: Any) -> Deferred[object]:
        """Call an operation with its params; fires with a value of JSON.

        Fails with :class:`RequestError`. To end a fetch that waits, cancel it.
        """
        if self._closed:
            return fail(RequestError(UNAVAILABLE))
        called = Deferred.fromCoroutine(operation.run(self._world, caller, given))
        if isinstance(given, params.FetchParams) and given.wait_ms and not called.called:
            self._fetches.add(called)
            called.addBoth(self._ended, called)
        return called.addErrback(self._refused, caller)

    def _ended(self, result: Any, fetch: Deferred[object]) -> Any:
        self._fetches.discard(fetch)
        return result

    def _refused(self, failure: Failure, caller: Caller) -> Failure:
        error = failure.value
        row: ErrorText | None = None
        if isinstance(error, RequestError):
            row = error.error
        elif isinstance(error, TopicError):
            row = refusal_of(error)
            if isinstance(error, TopicsUnavailable):
                self._log.debug("Topics are unavailable: {reason}", reason=str(error))
        elif isinstance(error, CancelledError):
            row = UNAVAILABLE
        if row is None:
            return failure
        if row.code in _NOTED:
            self._note(_NOTED[row.code], caller.host, caller.user)
        raise RequestError(row) from None

    def close(self) -> None:
        """Call nothing any more, and end the fetches that wait."""
        self._closed = True
        for fetch in list(self._fetches):
            fetch.cancel()


__all__ = ["OPERATIONS", "NoteRefusal", "Operation", "TopicApi"]
