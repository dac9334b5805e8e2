"""What a client of topics sees of a server: one of tests, and the daemon.

A server is added by a subclass of :class:`RemoteTopicsContract` that serves at port 8000.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon import service
from kupool.daemon import topics as daemon_topics
from kupool.daemon.service import Daemon
from kupool.net.testing import MemoryNetwork
from kupool.settings import load
from kupool.tap import make_checkers
from kupool.topics import memory
from kupool.topics.consumer import GroupConsumer, MemberSettings
from kupool.topics.errors import (
    GroupInUse,
    IllegalGeneration,
    OffsetOutOfRange,
    TopicExists,
    UnknownGroup,
    UnknownMember,
    UnknownTopic,
)
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.membership import GroupSubscription, MemberBeat
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Stamp
from kupool.topics.remote.admin import TopicAdmin
from kupool.topics.remote.failures import NotProduced, RefusedByServer, WriteState
from kupool.topics.remote.groups import RemoteGroupClient
from kupool.topics.remote.link import Login, RemoteSettings
from kupool.topics.remote.operations import REMOTE_OPERATIONS
from kupool.topics.remote.producer import Producer, ProducerSettings
from kupool.topics.remote.reader import TopicReader
from kupool.topics.remote.topics import RemoteTopics
from kupool.topics.remote.transactions import begin_transaction
from kupool.topics.service import Written
from kupool.topics.settings import TopicSettings
from tests.fakes.topic_server import TopicServer

P0, P1 = Partition("t", 0), Partition("t", 1)
PASSWORD = "secret"


class RemoteTopicsContract:
    """Q-38, Q-63: the suite; mixed into a TestCase by each server."""

    def serve(self) -> None:
        """Serve at port 8000; topics are those of before."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the server."""
        raise NotImplementedError

    def setUp(self: Any) -> None:
        self.network = MemoryNetwork()
        self.serve()
        self.topics = self.connect()
        self.admin = TopicAdmin(self.topics)
        self.result(self.admin.create("t", TopicSettings(partitions=2)))

    def connect(self: Any, username: str = "root", **settings: Any) -> RemoteTopics:
        topics = RemoteTopics(
            self.network,
            ["tcp:127.0.0.1:8000"],
            Login(username, PASSWORD),
            RemoteSettings(**settings),
            random=lambda: 1.0,
        )
        self.addCleanup(lambda: self.network.run(topics.close(), patience=20))
        return topics

    def result(self: Any, work: Deferred[Any], patience: float = 30.0) -> Any:
        return self.network.run(work, patience)

    def values(self: Any, partition: Partition) -> list[bytes]:
        return [each.value for each in self.result(self.topics.fetch(partition, 0)).records]

    def test_every_operation_has_a_handler(self: Any) -> None:
        """Q-63: whatever is wrong with a request, its method is known."""
        for method in REMOTE_OPERATIONS:
            # A connection of its own: each may have a few errors.
            asked = self.connect().nodes.ask(method, {"group": 7, "topic": 7, "transaction": 7})
            try:
                self.result(Deferred.fromCoroutine(asked))
            except RefusedByServer as error:
                self.assertEqual(error.code, 32, method)

    def test_topics(self: Any) -> None:
        """Q-26, Q-59."""
        with self.assertRaises(TopicExists):
            self.result(self.admin.create("t", TopicSettings()))
        names = self.result(self.admin.names())
        own = {name: names[name] for name in set(names) - {"submissions", "events"}}
        self.assertEqual(own, {"t": 2})
        changed = self.result(self.admin.change("t", {"retention_time": 60.0}))
        self.assertEqual((changed.partitions, changed.retention_time), (2, 60.0))
        described = self.result(self.admin.describe("t"))
        self.assertEqual((described.settings, len(described.partitions)), (changed, 2))
        self.result(self.admin.delete("t"))
        with self.assertRaises(UnknownTopic):
            self.result(self.admin.describe("t"))
        for key in ("dense", "atomic", "persistent"):
            self.assertIn(key, self.result(self.topics.capabilities()))

    def test_records(self: Any) -> None:
        """Q-02, Q-03, Q-04, Q-24."""
        records = [NewRecord(b"\xff", b"k", {"a": "b"}, 7), NewRecord("é".encode())]
        for _ in range(2):
            written = self.result(
                self.topics.produce("t", records, partition=1, stamp=Stamp("p", 1))
            )
            self.assertEqual(written, [Written(1, 0), Written(1, 1)])
        fetched = self.result(self.topics.fetch(P1, 0))
        self.assertEqual(fetched.next_offset, 2)
        first, second = fetched.records
        self.assertEqual((first.value, first.key, first.headers), (b"\xff", b"k", {"a": "b"}))
        self.assertEqual((first.timestamp, second.value, second.key), (7, "é".encode(), None))
        self.assertEqual(self.result(self.topics.offsets("t")), [0, 2])
        waiting = self.topics.fetch(P0, 0, wait=20.0)
        self.network.advance(1.0)
        self.assertNoResult(waiting)
        self.result(self.topics.produce("t", [NewRecord(b"new")], partition=0))
        self.assertEqual(self.result(waiting).records[0].value, b"new")

    def test_a_large_answer(self: Any) -> None:
        """Q-03, Q-62: much more than one message of a client may have."""
        producer = Producer(self.topics, ProducerSettings(linger=0.0))
        for number in range(40):
            value = b"%d" % number * 15_000
            self.result(producer.produce("t", [NewRecord(value)], partition=0))
        fetched = self.result(self.topics.fetch(P0, 0, max_bytes=1 << 20))
        self.assertGreater(len(fetched.records), 10)
        offsets = [record.offset for record in fetched.records]
        self.assertEqual(offsets, list(range(len(offsets))))

    def test_a_producer(self: Any) -> None:
        """Q-56, Q-57: over a restart of the server, everything once and in order."""
        producer = Producer(self.topics, ProducerSettings(linger=0.0, batch_records=7))
        told: list[Any] = []
        for number in range(60):
            self.result(
                producer.send("t", NewRecord(b"%d" % number), partition=0, told=told.append)
            )
            if number == 20:
                self.stop()
            if number == 40:
                self.serve()
        self.result(producer.close(), 40.0)
        self.assertEqual(self.values(P0), [b"%d" % number for number in range(60)])
        self.assertEqual([each.offset for each in told], list(range(60)))

    def test_a_producer_is_refused(self: Any) -> None:
        """Q-56: and it says that nothing was written."""
        producer = Producer(self.topics)
        for topic in ("submissions", "none"):
            with self.assertRaises(NotProduced) as caught:
                self.result(producer.produce(topic, [NewRecord(b"x")]))
            self.assertIs(caught.exception.state, WriteState.NOT_WRITTEN)

    def test_a_reader(self: Any) -> None:
        """Q-39, Q-40, Q-58."""
        reader = TopicReader(self.topics, "t")
        found: list[bytes] = []
        done = reader.deliver(lambda delivery: found.append(delivery.record.value))
        self.result(self.topics.produce("t", [NewRecord(b"a")], partition=0))
        self.network.advance(1.0)
        self.stop()
        self.network.advance(3.0)
        self.serve()
        self.network.advance(20.0)
        self.result(self.topics.produce("t", [NewRecord(b"b")], partition=1))
        self.network.advance(20.0)
        self.assertEqual(found, [b"a", b"b"])
        self.result(reader.stop())
        self.result(done)

    def test_a_group(self: Any) -> None:
        """Q-41, Q-42, Q-45, Q-46."""
        self.result(self.topics.produce("t", [NewRecord(b"a")], partition=0))
        client = RemoteGroupClient(self.topics)
        wanted = GroupSubscription(frozenset(["t"]), 10.0)
        with self.assertRaises(UnknownGroup):
            self.result(self.admin.describe_group("g"))
        place = self.result(client.join("g", "m", wanted))
        self.assertEqual(place.assigned, {P0, P1})
        self.result(client.heartbeat("g", "m", MemberBeat(place.generation, place.assigned)))
        with self.assertRaises(IllegalGeneration) as caught:
            self.result(client.commit("g", "m", place.generation - 1, {P0: 1}))
        self.assertEqual(caught.exception.current, place.generation)
        with self.assertRaises(UnknownMember):
            self.result(client.heartbeat("g", "n", MemberBeat(place.generation)))
        self.result(client.commit("g", "m", place.generation, {P0: 1}))
        self.assertEqual(self.result(client.committed("g")), {P0: 1})
        self.assertEqual(self.result(self.admin.groups()), ["g"])
        self.assertEqual(self.result(self.admin.describe_group("g")).members[0].member, "m")
        with self.assertRaises(GroupInUse):
            self.result(self.admin.reset("g", "t"))
        self.result(client.leave("g", "m"))
        self.assertEqual(self.result(self.admin.reset("g", "t")), {P0: 0, P1: 0})
        self.result(self.admin.delete_group("g"))

    def test_members(self: Any) -> None:
        """Q-39, Q-51, Q-58: through a restart, with what cannot be processed kept apart."""
        seen: list[bytes] = []

        def handle(delivery: DeliveredRecord) -> None:
            if delivery.record.value == b"bad":
                raise ValueError("no")
            seen.append(delivery.record.value)

        members = []
        for name in ("a", "b"):
            client = RemoteGroupClient(self.connect())
            member = GroupConsumer(
                client,
                self.network,
                ("g", name),
                topics=frozenset(["t"]),
                handler=handle,
                give_away=client.burial("g", name),
                settings=MemberSettings(attempts=2, retry_delay=0.1, wait=1.0),
            )
            self.result(member.start())
            self.addCleanup(lambda member=member: self.network.run(member.stop(), patience=60))
            members.append(member)
        self.network.advance(6.0)
        self.assertEqual([len(member.assigned) for member in members], [1, 1])
        for number in range(10):
            record = NewRecord(b"bad" if number == 5 else b"%d" % number)
            self.result(self.topics.produce("t", [record], partition=number % 2))
        self.network.advance(5.0)
        self.stop()
        self.network.advance(2.0)
        self.serve()
        self.result(self.topics.connect())
        self.result(self.topics.produce("t", [NewRecord(b"after")], partition=0))
        self.network.advance(40.0)
        self.assertEqual(set(seen), {b"%d" % n for n in range(10) if n != 5} | {b"after"})
        self.assertEqual(sum(len(member.assigned) for member in members), 2)
        (letter,) = self.result(self.admin.dead("t"))
        self.assertEqual((letter.source, letter.source_offset, letter.attempts), (P1, 2, 2))
        self.assertEqual((letter.group, letter.reason), ("g", "ValueError: no"))
        positions = self.result(self.admin.describe_group("g")).positions
        self.assertEqual([(each.committed, each.lag) for each in positions], [(6, 0), (5, 0)])
        self.assertEqual(self.result(self.admin.redrive("t")), 1)

    def test_what_is_gone(self: Any) -> None:
        """Q-04: with the valid range."""
        letters = [NewRecord(b"x")]
        self.result(self.topics.produce("t", letters, partition=0))
        with self.assertRaises(OffsetOutOfRange) as caught:
            self.drop(P0, 1)
            self.result(self.topics.fetch(P0, 0))
        self.assertEqual((caught.exception.low, caught.exception.high), (1, 1))

    def test_delays_and_transactions(self: Any) -> None:
        """Q-52, Q-53."""
        (late,) = self.result(self.admin.delay("t", [NewRecord(b"x")], after=60.0, partition=0))
        self.assertEqual([each.id for each in self.result(self.admin.delayed("t"))], [late])
        self.assertIs(self.result(self.admin.cancel("t", late)), True)
        transaction = self.result(begin_transaction(self.topics))
        for partition in (0, 1):
            self.result(transaction.add("t", [NewRecord(b"y")], partition=partition))
        written = self.result(transaction.commit())
        self.assertEqual(written, [[Written(0, 0)], [Written(1, 0)]])


class FakeServerTests(RemoteTopicsContract, SynchronousTestCase):
    """The server that clients are tested with elsewhere."""

    server: TopicServer | None = None

    def serve(self) -> None:
        if self.server is None:
            self.server = TopicServer(self.network)
            self.server.password = PASSWORD
            self.addCleanup(self.server.close)
        self.network.run(self.server.listen())

    def stop(self) -> None:
        assert self.server is not None
        self.network.run(self.server.stop(), patience=5)
        self.server.restart_groups()

    def drop(self, partition: Partition, offset: int) -> None:
        assert self.server is not None
        self.network.run(self.server.topics.engine.drop_below(partition, offset))

    def test_a_producer_is_refused(self) -> None:
        """What it permits is not what is tested: everything."""


class DaemonTests(RemoteTopicsContract, SynchronousTestCase):
    """Q-38, Q-63: the daemon on its own port, with the topics of one engine over its restarts."""

    daemon: Daemon | None = None
    engine: Any = None

    def serve(self) -> None:
        if self.engine is None:
            self.engine = memory.MemoryTopics(self.wall)
            self.patch(memory, "MemoryTopics", lambda *_: self.engine)
        passwords = self.mktemp()
        with open(passwords, "w") as file:
            file.write(f"root:{PASSWORD}\n")
        flags = {
            "store": "memory", "mq": "memory", "addr": ["127.0.0.1:8000"], "http": "",
            "interval": "1000h", "auth": [f"file:{passwords}"], "topics": "memory",
            "permissions": [
                f"root {action} >"
                for action in ("log.publish", "log.subscribe", "log.manage", "log.group")
            ],
        }  # fmt: skip
        loaded = load(flags, {})
        # A test's process goes on after this daemon, and its network has no threads.
        self.patch(service, "collect_rarely", lambda: None)
        self.network.getThreadPool = lambda: None  # type: ignore[attr-defined]
        self.patch(daemon_topics, "deferToThreadPool", lambda _, __, call: maybeDeferred(call))
        self.daemon = Daemon(
            self.network,
            loaded,
            checkers=make_checkers(loaded, self.network),
            failed=self.fail,
            wall=self.wall,
        )
        self.daemon.start()
        self.network.settle()

    def stop(self) -> None:
        assert self.daemon is not None
        stopped = self.daemon.stop()
        self.network.run(stopped, patience=60)
        self.daemon = None

    def wall(self) -> float:
        return 1_800_000_000.0 + self.network.seconds()

    def drop(self, partition: Partition, offset: int) -> None:
        self.network.run(self.engine.drop_below(partition, offset))

    def tearDown(self) -> None:
        if self.daemon is not None:
            self.stop()
