"""How the daemon says that it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.daemon.parts import Parts, build
from kupool.daemon.status import BEHIND, RUNNING, SLOW, Status
from kupool.log import LogStatus
from kupool.pool.coordinator import RotationFailed
from kupool.pool.judge import Rules
from kupool.settings import Settings, with_values
from kupool.web import IStatusSource, Overview


class StatusTests(SynchronousTestCase):
    """K-91: what /ready and /shutdown/status are told."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = 1.8e9
        settings = with_values(Settings(), {"store": "memory", "mq": "memory"})
        self.parts: Parts = build(settings, self.clock, lambda: self.wall)
        self.status = Status(lambda: self.wall, self.parts)

    def test_the_interface(self) -> None:
        self.assertTrue(verifyObject(IStatusSource, self.status))

    def test_ready_only_while_it_runs(self) -> None:
        """K-91: not before the listeners are open, and not from the first moment of a stop."""
        for phase, reasons in (
            ("made", ["made"]),
            ("opening", ["opening"]),
            ("listening", ["listening"]),
            (RUNNING, []),
            ("stopping: clients", ["stopping: clients"]),
        ):
            self.status.phase = phase
            self.assertEqual(self.status.ready(), reasons)

    def test_every_reason(self) -> None:
        """K-91: a log that takes nothing, jobs, counts: each is named."""
        self.status.enter(RUNNING)
        found: Any = LogStatus(10, BEHIND + 1, 0, "disk full")
        self.patch(self.parts.log, "status", lambda: found)
        self.parts.coordinator.problem = "jobs cannot be saved: disk full"
        self.parts.consumer.problem = "locked"
        self.assertEqual(self.status.ready(), ["log: disk full"])
        self.assertEqual(
            self.status.concerns(),
            [
                "jobs: jobs cannot be saved: disk full",
                "statistics: locked",
                f"statistics: {BEHIND + 1} batches wait to be counted",
            ],
        )
        found = LogStatus(10, BEHIND, 0, "")
        self.parts.coordinator.problem = self.parts.consumer.problem = ""
        self.assertEqual((self.status.ready(), self.status.concerns()), ([], []))

    def test_no_new_jobs(self) -> None:
        """K-35, K-91, issue 11, point 10: while none can be made, submissions for the last one
        are accepted, as long as there is one that has not expired.
        """
        self.status.enter(RUNNING)
        coordinator = self.parts.coordinator
        reason = ["jobs: no random source: no entropy"]

        def broken(size: int) -> str:
            raise OSError("no entropy")

        self.patch(coordinator, "_random_hex", broken)
        self.failureResultOf(self.status.rotate(), RotationFailed)
        self.assertEqual((self.status.ready(), self.status.concerns()), (reason, []))
        self.patch(coordinator, "_random_hex", lambda size: "0" * (2 * size))
        self.successResultOf(self.status.rotate())
        self.assertEqual((self.status.ready(), self.status.concerns()), ([], []))
        self.patch(coordinator, "_random_hex", broken)
        self.failureResultOf(self.status.rotate(), RotationFailed)
        self.assertEqual((self.status.ready(), self.status.concerns()), ([], reason))
        self.parts.handlers.rules = Rules(expire=60.0)
        self.clock.advance(60)
        self.assertEqual((self.status.ready(), self.status.concerns()), ([], reason))
        self.clock.advance(1)
        self.assertEqual((self.status.ready(), self.status.concerns()), (reason, []))

    def test_a_log_that_does_not_answer(self) -> None:
        """Issue 11, points 4 and 10: a reason at first, and 503 once submissions are refused."""
        self.status.enter(RUNNING)
        acceptance = self.parts.acceptance
        self.patch(acceptance, "_most", 1)
        self.patch(acceptance, "_in_flight", {1: SimpleNamespace(sent=0.0)})
        self.clock.advance(1.9)
        self.assertEqual((self.status.ready(), self.status.concerns()), ([], []))
        self.clock.advance(1.1)
        refused = "log: it has not answered for 3s, submissions are refused"
        self.assertEqual((self.status.ready(), self.status.concerns()), ([refused], []))
        self.patch(acceptance, "_most", 2)
        self.assertEqual(self.status.ready(), [])
        self.assertEqual(self.status.concerns(), ["log: it has not answered for 3s"])

    def test_files_that_were_moved(self) -> None:
        """Issue 11, points 4 and 10: the store's is a concern, as submissions are accepted; the
        log's is why they are not.
        """
        parts = build(with_values(Settings(), {"data": "d"}), self.clock, lambda: self.wall)
        status = Status(lambda: self.wall, parts)
        status.enter(RUNNING)
        log, store, topics = parts.databases
        store.problem = "d/store.sqlite was moved away or deleted"
        self.assertEqual(status.ready(), [])
        self.assertEqual(status.concerns(), [f"store: {store.problem}"])
        parts.consumer.problem = store.problem
        self.assertEqual(status.concerns(), [f"statistics: {store.problem}"])
        log.problem = "d was deleted"
        self.assertEqual(status.ready(), ["log: d was deleted"])
        topics.problem = "d/topics.sqlite: the disk is full"
        self.assertEqual(status.ready()[1:], [f"topics: {topics.problem}"])

    def test_topics(self) -> None:
        """Q-15: what topics in memory cannot take is a concern: submissions are accepted."""
        self.status.enter(RUNNING)
        self.assertEqual((self.status.ready(), self.status.concerns()), ([], []))
        topics = self.parts.topics
        assert topics is not None
        self.patch(topics.world.topics.engine, "problem", lambda: "the memory is full")
        self.assertEqual(self.status.ready(), [])
        self.assertEqual(self.status.concerns(), ["topics: the memory is full"])

    def test_topics_in_rabbitmq(self) -> None:
        """Q-35: while RabbitMQ is away submissions are accepted."""
        given = {"mq_url": "amqp://mq", "topics": "rabbit", "data": "d"}
        parts = build(with_values(Settings(), given), self.clock, lambda: self.wall)
        status = Status(lambda: self.wall, parts)
        status.enter(RUNNING)
        self.assertEqual(status.ready(), [])
        self.assertEqual(status.concerns(), ["topics: not connected yet"])

    def test_a_log_that_is_away(self) -> None:
        """K-91, K-95: which part is away, and what waits for it, and how long."""
        self.status.enter(RUNNING)
        found: Any = LogStatus(10, 0, 0, "", 12, 1.8e9 - 75, "RabbitMQ at mq:5672 is away")
        self.patch(self.parts.log, "status", lambda: found)
        self.assertEqual(self.status.ready(), [])
        self.assertEqual(
            self.status.concerns(),
            [
                "log: RabbitMQ at mq:5672 is away",
                "spool: 12 batches wait for the log, the oldest for 1m15s",
            ],
        )
        self.assertEqual(self.status.shutdown().spooled, 12)

    def test_a_commit_that_takes_long(self) -> None:
        """K-91: a store that hangs is told of before it is given up."""
        self.status.enter(RUNNING)
        consumer = self.parts.consumer
        self.patch(consumer, "_busy", True)
        self.clock.advance(SLOW)
        self.assertEqual(self.status.concerns(), [])
        self.clock.advance(3)
        self.assertEqual(
            self.status.concerns(), ["statistics: a commit has not been answered for 6s"]
        )

    def test_shutdown(self) -> None:
        """K-91: the phase, since when, and what is left."""
        self.status.enter("stopping: counting")
        self.wall += 5
        found: Any = LogStatus(10, 3, 2, "")
        self.patch(self.parts.log, "status", lambda: found)
        self.assertEqual(self.status.shutdown(), ("stopping: counting", 1.8e9, 0, 0, 3, 0, 2))

    def test_overview(self) -> None:
        self.assertEqual(self.status.overview(), Overview(0, 0, None))
        self.status.enter(RUNNING)
        job_id = self.successResultOf(self.status.rotate())
        self.parts.pool.sessions = 3
        self.parts.pool.users.update(["alice", "alice", "bob"])
        self.assertEqual(self.status.overview(), Overview(3, 2, job_id))

    def test_rotate(self) -> None:
        """K-33: a job at once; not while the daemon starts or stops."""
        for phase in ("opening", "stopping: jobs"):
            self.status.enter(phase)
            failure = self.failureResultOf(self.status.rotate(), RotationFailed)
            self.assertEqual(str(failure.value), f"the daemon is {phase}")
        self.status.enter(RUNNING)
        first = self.successResultOf(self.status.rotate())
        self.assertEqual(self.successResultOf(self.status.rotate()), first + 1)

    def test_the_interval(self) -> None:
        """K-32: within what the setting may be."""
        self.status.set_interval(0.01)
        self.assertEqual(self.parts.coordinator.interval, 0.01)
        error = self.assertRaises(ValueError, self.status.set_interval, 0.009)
        self.assertEqual(str(error), "must be at least 10ms")
        self.assertEqual(self.parts.coordinator.interval, 0.01)


class StartedTests(SynchronousTestCase):
    """K-32: a new interval counts from the next rotation on."""

    def test_the_next_tick(self) -> None:
        """K-32: on a fake clock, over the change."""
        clock = Clock()
        settings = with_values(Settings(), {"store": "memory", "mq": "memory", "interval": 30.0})
        parts = build(settings, clock, lambda: 1.8e9 + clock.seconds())
        made: list[float] = []
        parts.coordinator._publish = lambda job: made.append(clock.seconds())  # type: ignore[assignment]
        self.successResultOf(Deferred.fromCoroutine(parts.coordinator.start()))
        clock.pump([1.0] * 40)
        parts.coordinator.set_interval(5.0)
        clock.pump([1.0] * 40)
        self.assertEqual(made, [0.0, 30.0, 60.0, 65.0, 70.0, 75.0, 80.0])
        self.successResultOf(Deferred.fromCoroutine(parts.coordinator.stop()))
