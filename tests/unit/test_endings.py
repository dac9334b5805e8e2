"""What ``SystemExit``, ``KeyboardInterrupt`` and ``CancelledError`` cost where others' code runs.

Issue 12, point 5: raised by code of an application or by a store, each is a failure of that
and of nothing else. Hooks and handlers proper are in ``test_hooks_of_applications``.
"""
# ruff: noqa: B023  (what is defined in a loop is called in it)

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kupool.amqp.channel import BrokerMessage
from kupool.bus import BusSettings, Message, Model, Outcome
from kupool.bus.broker import Broker
from kupool.bus.calls import Response, Taken
from kupool.bus.inbox import Inbox
from kupool.daemon.service import Daemon
from kupool.daemon.tenants import Tenants
from kupool.errors import UNAVAILABLE
from kupool.log.groups import RetrySettings
from kupool.log.rabbit.consumer import RabbitSubscription
from kupool.log.rabbit.gauge import Gauge
from kupool.net.transport.ports import PortEndpoint, RestingPort, RestingUnixPort
from kupool.pool.coordinator import RotationFailed
from kupool.ranges import number
from kupool.rooms.settings import RoomSettings
from kupool.rooms.spread.entries import Handed
from kupool.rooms.spread.handover import Handover
from kupool.rooms.spread.settings import SpreadSettings
from kupool.storage.database import Database
from kupool.storage.postgres.link import PostgresLink
from kupool.web.statistics import Shared
from tests.fakes.acceptance import AcceptanceCase
from tests.fakes.pool_fixture import PoolBench, SteeredJobStore
from tests.fakes.raising import ENDINGS, raising
from tests.fakes.spool_world import World as SpoolWorld
from tests.unit.bus.rabbit.test_mesh import _Suite as MeshCase
from tests.unit.rooms.spread.test_lobby import BadBus, Host, World


def message(model: Model = Model.RELIABLE_RANDOM) -> Message:
    return Message("1", "t", b"", model, {}, "", 3.0, False)


class BusTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def test_an_answer_that_cannot_be_given(self) -> None:
        """The next message is handled all the same."""
        for error in ENDINGS:
            heard: list[Message] = []
            inbox = Inbox(self.clock, BusSettings(), heard.append)

            def respond(response: Response) -> None:
                raise error

            inbox.put(message(), respond)
            inbox.put(message(), None)
            self.clock.advance(0)
            self.assertEqual(len(heard), 2)
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)

    def test_a_subscriber_that_fails_when_it_is_offered_a_call(self) -> None:
        """Other calls go on, in the same turn and later ones."""
        for error in ENDINGS:
            broker = Broker(self.clock, wall=self.clock.seconds)
            offered: list[int | None] = []

            def deliver(message: Message, call: int | None) -> Taken:
                offered.append(call)
                if len(offered) == 1:
                    raise error
                return Taken.YES

            broker.subscribe("s", ["t"], deliver)
            outcomes: list[Outcome] = []
            for _ in range(2):
                broker.publish(message(), outcomes.append)
                self.clock.advance(0)
            self.assertEqual(len(offered), 2)
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)


class MeshTests(MeshCase):
    def test_a_fault_of_ours(self) -> None:
        """Costs one message of another node, is logged, and counted."""
        for count, error in enumerate(ENDINGS, 1):
            one, two = self.nodes(2)

            def broken(message: Message, number: int | None) -> Taken:
                raise error

            two.bus.broker.subscribe("3/0", [f"broken.{count}"], broken)
            self.listen(two, None, f"t.{count}")
            one.bus.publish_unreliable_all(b"", f"broken.{count}")
            self.settle()
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)
            self.assertEqual(self.successResultOf(two.bus.status()).counts["unreadable"], 1)
            waiting = one.bus.publish_reliable_random(b"", f"t.{count}")
            self.assertEqual(self.outcome(waiting).data, b"answer")


class FailingBus(BadBus):
    """A bus that raises instead of taking anything while it is told to."""

    error: type[BaseException] | None = None

    def publish_reliable_random(
        self, data: bytes, topic: Any, timeout: float | None = None, **options: Any
    ) -> Any:
        if self.error is not None:
            raise self.error
        return super().publish_reliable_random(data, topic, timeout, **options)


class SpreadTests(SynchronousTestCase):
    def test_a_bus_that_fails(self) -> None:
        """Channels go on when it takes messages again."""
        for error in ENDINGS:
            world = World()
            bus = FailingBus(world.bus, world.clock)
            one, two = Host(world, "a", RoomSettings(), bus), Host(world, "b", RoomSettings())
            world.advance(2)
            one.lobby.exchange.send("b", Handed("room", b"state"))
            bus.error = error
            world.advance(1.1)
            self.assertGreater(len(self.flushLoggedErrors(error)), 1)
            bus.error = None
            world.advance(5)
            self.assertIn("b", one.lobby.hosts.ring.hosts)
            self.assertIn("a", two.lobby.hosts.ring.hosts)
            self.assertEqual(two.lobby.handover.taken, 1)

    def test_a_room_that_cannot_be_taken_over(self) -> None:
        for error in ENDINGS:
            (create,) = raising(error)[:1]
            lobby: Any = SimpleNamespace(
                host="b",
                spread=SpreadSettings(),
                owner=lambda code, leaving=(): "b",
                serves=lambda host: True,
                find=lambda code: None,
                create_for_members=create,
            )
            handover = Handover(Clock(), lobby, SimpleNamespace())  # type: ignore[arg-type]
            handover.take("a", Handed("room", b"state"))
            self.assertEqual(handover.taken, 0)
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)


class LogTests(SynchronousTestCase):
    def test_a_log_behind_the_spool(self) -> None:
        """The entry is in the spool, and the next ones are taken."""
        for error in ENDINGS:
            world = SpoolWorld()
            append = world.remote.append
            world.remote.append = raising(error)[0]  # type: ignore[assignment]
            world.append()
            world.remote.append = append  # type: ignore[method-assign]
            world.append()
            world.wait(5)
            self.assertEqual(world.acknowledged, ["e0", "e1"])

    def test_a_consumer(self) -> None:
        """It may be handed what comes next."""
        for error in ENDINGS:
            clock, handed = Clock(), list[int]()

            def received(entries: list[Any]) -> None:
                handed.append(len(entries))
                raise error

            subscription = RabbitSubscription(
                clock,
                "queue",
                Gauge(),
                SimpleNamespace(received=received),
                prefetch=10,
                retry=RetrySettings(),
                bury=lambda delivery, reason: succeed(None),
            )
            broker = MessageBroker()
            self.successResultOf(Deferred.fromCoroutine(subscription.up(broker)))  # type: ignore[arg-type]
            for tag in (1, 2):
                broker.bring(tag)
                clock.advance(0)
            self.assertEqual(handed, [1, 1])
            self.assertEqual(len(self.flushLoggedErrors(error)), 2)


class MessageBroker:
    """A connection to RabbitMQ, its channel, and what a queue brings."""

    def __init__(self) -> None:
        self._waiting: Deferred[BrokerMessage] = Deferred()

    async def channel(self) -> MessageBroker:
        return self

    async def prefetch(self, count: int) -> None: ...

    async def consume(self, queue: str) -> MessageBroker:
        return self

    def next(self) -> Deferred[BrokerMessage]:
        return self._waiting

    def bring(self, tag: int) -> None:
        waiting, self._waiting = self._waiting, Deferred()
        waiting.callback(BrokerMessage(tag, f"e{tag}", {}, b"", False))


class StoreTests(TestCase):
    """What a store's own work raises in the thread of its file, or in a transaction."""

    def the_reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor

    async def test_work_in_the_thread_of_a_file(self) -> None:
        """The others of its transaction are done, and the thread works on."""
        database = Database(self.the_reactor(), Path(self.mktemp()), "log")
        await database.open()
        self.addCleanup(database.close)

        def put(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO consumer_groups VALUES ('a', 1)")

        def names(connection: sqlite3.Connection) -> int:
            return len(connection.execute("SELECT name FROM consumer_groups").fetchall())

        for count, error in enumerate(ENDINGS):

            def fails(connection: sqlite3.Connection) -> None:
                put(connection)
                raise error

            with self.assertRaises(error):
                await within(self, database.run(fails))
            self.assertEqual(await within(self, database.run(names)), 0, count)

    async def test_an_opening_in_the_thread_of_a_file(self) -> None:
        for error in ENDINGS:
            database = Database(self.the_reactor(), Path(self.mktemp()), "log")
            database._watch = raising(error)[0]  # type: ignore[assignment]
            with self.assertRaises(error):
                await within(self, database.open())

    def test_a_transaction(self) -> None:
        """It is rolled back, so that the next does not begin within it."""
        for error in ENDINGS:
            said: list[str] = []
            link = ScriptedLink(said)
            failed = link.transact(raising(error)[2])
            self.failureResultOf(failed, error)
            self.assertEqual(said, ["BEGIN", "ROLLBACK"])


async def within(case: TestCase, work: Deferred[Any]) -> Any:
    """Wait for what would never come without the mend."""
    from twisted.internet import reactor

    return await work.addTimeout(5, reactor)  # type: ignore[arg-type]


class ScriptedLink(PostgresLink):
    """A link whose cursor notes what it is to execute."""

    _usable = True

    def __init__(self, said: list[str]) -> None:
        super().__init__(Clock(), None, 1.0, said.append)  # type: ignore[arg-type]
        self._said = said

    def pollable(self) -> Any:
        return SimpleNamespace(closed=False)

    def cursor(self) -> Any:
        return self

    async def execute(self, statement: str) -> None:
        self._said.append(statement)


class SourceOfJobs:
    """A random source, and a store of jobs, that raise while they are told to."""

    error: type[BaseException] | None = None

    def random(self, size: int) -> str:
        if self.error is not None:
            raise self.error
        return "ab" * size


class FailingJobStore(SteeredJobStore):
    error: type[BaseException] | None = None

    def save(self, job: Any, reserved_until: int) -> Deferred[None]:
        if self.error is not None:
            raise self.error
        return super().save(job, reserved_until)

    def reserve(self, job_id: int) -> Deferred[None]:
        return fail(self.error()) if self.error is not None else super().reserve(job_id)


class PoolTests(SynchronousTestCase):
    def test_a_random_source(self) -> None:
        """The old job stays, and rotation goes on when the source is back."""
        source = SourceOfJobs()
        bench = PoolBench(random_hex=source.random).start()
        for count, error in enumerate(ENDINGS, 1):
            source.error = error
            rotated = Deferred.fromCoroutine(bench.coordinator.rotate())
            self.failureResultOf(rotated, RotationFailed)
            source.error = None
            self.successResultOf(Deferred.fromCoroutine(bench.coordinator.rotate()))
            self.assertEqual(len(bench.published), count + 1)

    def test_a_store_of_jobs(self) -> None:
        """What it raises is told as a problem; jobs are saved when it is back."""
        store = FailingJobStore()
        bench = PoolBench(store=store).start()
        for error in ENDINGS:
            store.error = error
            for _ in range(200):  # until no id is left that may be used without it
                rotated = Deferred.fromCoroutine(bench.coordinator.rotate())
                if isinstance(result := self.resultOf(rotated), Failure):
                    break
            self.assertIs(result.type, RotationFailed)
            self.assertIn("jobs cannot be saved", bench.coordinator.problem)
            self.successResultOf(Deferred.fromCoroutine(bench.coordinator.stop()))
            store.error = None
            self.successResultOf(Deferred.fromCoroutine(bench.coordinator.rotate()))
            self.assertEqual(bench.coordinator.problem, "")

    def resultOf(self, deferred: Deferred[Any]) -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        return results[0]


class BatchTests(AcceptanceCase):
    def test_a_log(self) -> None:
        """The submissions of that batch are answered, and may be made again."""
        append = self.log.append
        for count, error in enumerate(ENDINGS):
            self.log.append = raising(error)[0]  # type: ignore[assignment]
            self.add(count, "aa")
            self.clock.advance(1)
            self.assertEqual(self.peer.sent[-1]["code"], UNAVAILABLE.code)
        self.log.append = append  # type: ignore[method-assign]
        self.assertTrue(self.add(9, "aa"))


class DaemonTests(SynchronousTestCase):
    def test_a_step_of_the_stop(self) -> None:
        """It holds up no other."""
        for error in ENDINGS:
            for failing in raising(error)[1:3]:
                daemon: Any = SimpleNamespace(
                    status=SimpleNamespace(enter=lambda text: None),
                    _reactor=Clock(),
                    _log=Daemon._log,
                )
                with capturedLogs() as logs:
                    step = Daemon._step(daemon, "it", failing(), 5.0)  # type: ignore[arg-type]
                    self.successResultOf(Deferred.fromCoroutine(step))
                self.assertEqual([event["log_level"] for event in logs], [LogLevel.error], error)

    def test_tenants(self) -> None:
        """Each hears of an end, whatever the others do."""
        for error in ENDINGS:
            notes: list[str] = []
            fails = SimpleNamespace(closing=raising(error)[0], closed=raising(error)[0])
            last = SimpleNamespace(
                closing=lambda *_: notes.append("closing"),
                closed=lambda *_: notes.append("closed"),
            )
            tenants = Tenants(last, fails, last)  # type: ignore[arg-type]
            tenants.closing(None, None)  # type: ignore[arg-type]
            tenants.closed(None, Failure(OSError()))  # type: ignore[arg-type]
            self.assertEqual(notes, ["closing", "closed", "closed"])
            self.assertEqual(len(self.flushLoggedErrors(error)), 2)

    def test_a_shared_result(self) -> None:
        """Who waits for it is told, and the next to ask computes it anew."""
        for error in ENDINGS:
            for failing in raising(error):
                computing: list[Callable[[], Any]] = [lambda: waiting, failing, lambda: succeed(5)]
                waiting: Deferred[int] = Deferred()
                shared = Shared(Clock(), 10.0, lambda: computing.pop(0)())
                first, second = (Deferred.fromCoroutine(shared.get()) for _ in range(2))
                waiting.errback(error())
                self.failureResultOf(first, error)
                self.failureResultOf(second, error)
                self.failureResultOf(Deferred.fromCoroutine(shared.get()), error)
                self.assertEqual(self.successResultOf(Deferred.fromCoroutine(shared.get())), 5)


class HostileFactory(Factory):
    """A factory of an application's, whose start raises."""

    noisy = False

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def startFactory(self) -> None:
        raise self._error


class TransportTests(SynchronousTestCase):
    def test_a_factory_that_cannot_begin(self) -> None:
        """The start of its port fails, and lets go of the address."""
        from twisted.internet import reactor

        for error in ENDINGS:
            endpoint = PortEndpoint(RestingPort, reactor, 0, "127.0.0.1")
            self.failureResultOf(endpoint.listen(HostileFactory(error)), error)
            path = self.mktemp()
            port = RestingUnixPort(path, HostileFactory(error), 50, 0o600, True, reactor)
            with self.assertRaises(error):
                port.startListening()
            self.assertFalse(port.lockFile.locked)
            self.flushLoggedErrors(error)

    def test_a_value_that_cannot_be_shown(self) -> None:
        for error in ENDINGS:

            class Hostile:
                def __repr__(self) -> str:
                    raise error

            with self.assertRaises(ValueError) as caught:
                number()(Hostile())
            self.assertIn("not such a Hostile", str(caught.exception))
