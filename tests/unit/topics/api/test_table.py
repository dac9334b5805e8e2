"""The table of operations, and how they are called."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail

from kupool.errors import RequestError
from kupool.permissions.offered import (
    OFFERED,
    TOPIC_CHANGES,
    TOPIC_READS,
    operation_path,
)
from kupool.topics.api.params import FetchParams
from kupool.topics.api.table import OPERATIONS
from tests.fakes.topic_api import TopicApiCase


class OperationsTests(TopicApiCase):
    """Q-63: one table, from which both faces are made."""

    def test_the_permissions_know_every_operation(self) -> None:
        reads = {operation.name for operation in OPERATIONS if operation.reads}
        self.assertEqual(reads, set(TOPIC_READS))
        changes = {operation.name for operation in OPERATIONS if not operation.reads}
        self.assertEqual(changes, set(TOPIC_CHANGES))
        for operation in OPERATIONS:
            self.assertEqual(operation.path, operation_path(operation.name))
            self.assertIn(("call", operation.name), OFFERED)
            self.assertIn(("POST", operation.path), OFFERED)
            self.assertEqual(("GET", operation.path) in OFFERED, operation.reads)

    def test_which_need_params(self) -> None:
        without = {operation.name for operation in OPERATIONS if not operation.needs_params}
        self.assertEqual(without, {"topic.list", "log.capabilities", "log.begin", "group.list"})


class CallTests(TopicApiCase):
    """Q-04, Q-60: calls end as their caller wants, or when the server stops."""

    def waiting(self) -> Deferred[object]:
        return self.start("log.fetch", topic="shop", partition=0, offset=0, wait_ms=60_000)

    def setUp(self) -> None:
        super().setUp()
        self.ask("topic.create", topic="shop")

    def test_a_fetch_that_is_cancelled_leaves_nothing(self) -> None:
        fetches = [self.waiting() for _ in range(3)]
        self.assertEqual(len(self.clock.getDelayedCalls()), 3)
        fetches[1].cancel()
        error = self.failureResultOf(fetches[1], RequestError).value
        self.assertEqual(error.error.code, 27)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        self.ask("log.produce", topic="shop", value="a")
        for fetch in (fetches[0], fetches[2]):
            self.assertEqual(len(self.successResultOf(fetch)["records"]), 1)  # type: ignore[index]
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_end_of_the_server(self) -> None:
        """Fetches that wait are answered, and nothing else is called."""
        fetch = self.waiting()
        self.api.close()
        self.failureResultOf(fetch, RequestError)
        self.assertEqual(self.ask("topic.list"), (27, "Temporarily unavailable"))

    def test_an_unexpected_error(self) -> None:
        """It is not hidden: who called reports it."""
        self.patch(self.world.topics.engine, "extents", lambda name: fail(ZeroDivisionError()))
        self.assertRaises(ZeroDivisionError, self.ask, "topic.describe", topic="shop")

    def test_a_topic_that_is_deleted_meanwhile(self) -> None:
        """Q-26: who waits for its records is told."""
        fetch = self.waiting()
        self.ask("topic.delete", topic="shop")
        error = self.failureResultOf(fetch, RequestError).value
        self.assertEqual(error.error.code, 35)

    def test_the_params_of_a_fetch(self) -> None:
        given = FetchParams("t", 0)
        self.assertEqual((given.max_bytes, given.wait_ms), (1024 * 1024, 0))
