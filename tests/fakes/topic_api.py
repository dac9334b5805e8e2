"""The operations of topics on an engine in memory, and those who call them."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import RequestError
from kupool.permissions.grants import parse_grant
from kupool.permissions.table import PermissionTable
from kupool.topics.api.access import Caller
from kupool.topics.api.table import OPERATIONS, TopicApi
from kupool.topics.api.world import TopicWorld
from kupool.topics.dead_letters import DeadLetters
from kupool.topics.delays import DelayedRecords
from kupool.topics.groups import ConsumerGroups, GroupLimits
from kupool.topics.transactions import TopicTransactions, TransactionLimits
from tests.fakes.topics import topics_in_memory

#: Seconds since the epoch when the clock of a test is at 0.
NOW = 1.8e9

BY_NAME = {operation.name: operation for operation in OPERATIONS}


def topic_world(clock: Clock, **limits: int) -> TopicWorld:
    """Return topics with everything that belongs to them."""

    def wall() -> float:
        return NOW + clock.seconds()

    topics = topics_in_memory(clock, wall, run_in_thread=maybeDeferred, **limits)
    return TopicWorld(
        topics,
        ConsumerGroups(topics.engine, clock, wall, GroupLimits(groups=3, members=3)),
        DeadLetters(topics),
        DelayedRecords(topics, clock, wall),
        TopicTransactions(topics, clock, TransactionLimits(transactions=3, of_owner=2)),
        wall=wall,
        seconds=clock.seconds,
    )


def caller_of(table: PermissionTable, user: str, role: str) -> Caller:
    """Return a user who may do what a table of permissions says."""
    return Caller(
        user, "192.0.2.1", partial(table.may, user, role), partial(table.may_some, user, role)
    )


class TopicApiCase(SynchronousTestCase):
    """The operations, called with params as a message has them."""

    rules: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.clock = Clock()
        self.world = topic_world(self.clock)
        self.noted: list[tuple[str, str, str]] = []
        self.api = TopicApi(self.world, lambda *refusal: self.noted.append(refusal))
        self.table = PermissionTable(map(parse_grant, self.rules))
        self.addCleanup(self.end)

    def end(self) -> None:
        self.api.close()
        self.world.delays.stop()
        self.world.groups.close()
        self.world.transactions.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def start(
        self, name: str, user: str = "ann", role: str = "admin", **given: Any
    ) -> Deferred[Any]:
        """Begin an operation; an invalid param is an error of the test."""
        operation = BY_NAME[name]
        caller = caller_of(self.table, user, role)
        return self.api.call(operation, caller, msgspec.convert(given, operation.params))

    def ask(self, name: str, user: str = "ann", role: str = "admin", **given: Any) -> Any:
        """Call an operation; returns the result, as JSON has it, or code and text of the error."""
        called = self.start(name, user, role, **given)
        outcome: list[Any] = []
        called.addBoth(outcome.append)
        assert outcome, f"{name} waits"
        error = getattr(outcome[0], "value", None)
        if isinstance(error, RequestError):
            return error.error.code, error.error.text
        if error is not None:
            outcome[0].raiseException()
        return msgspec.json.decode(msgspec.json.encode(outcome[0]))


__all__ = ["BY_NAME", "NOW", "TopicApiCase", "caller_of", "topic_world"]
