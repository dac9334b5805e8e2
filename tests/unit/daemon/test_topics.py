"""Topics in the daemon: where they are kept, who may use them, and what the settings do."""

from __future__ import annotations

from socket import gethostname
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.addresses import advertised
from kupool.daemon.checks import check
from kupool.daemon.files import topics_file, topics_kind, uses_files
from kupool.daemon.parts import build
from kupool.daemon.rabbit_topics import stream_prefix
from kupool.daemon.topics import TOO_FAST, TopicCleanup
from kupool.settings import SettingError, Settings, load, with_values
from tests.fakes.daemon_case import DaemonCase, PasswordCase

#: Rules for two users.
RULES = (
    "alice log.manage shop.>",
    "alice log.publish shop.>",
    "bob log.subscribe shop.>",
    "bob log.group bob.*",
)


class KindTests(SynchronousTestCase):
    """Issue 16, build 4: where topics are kept."""

    def kind(self, **settings: str) -> str:
        return topics_kind(with_values(Settings(), settings))

    def test_by_itself(self) -> None:
        """In a file if the daemon has files anyway, and in memory otherwise."""
        memory = {"store": "memory", "mq": "memory"}
        self.assertEqual(self.kind(), "sqlite")
        self.assertEqual(self.kind(**memory), "memory")
        self.assertEqual(self.kind(store="pg", mq="memory"), "memory")
        self.assertEqual(self.kind(store="pg", mq="sqlite"), "sqlite")
        self.assertEqual(self.kind(**memory, topics="sqlite"), "sqlite")
        self.assertEqual(self.kind(topics="memory"), "memory")
        self.assertEqual(self.kind(topics="off"), "off")

    def test_the_data_folder(self) -> None:
        """Q-18, Q-19: a file of topics is a reason to have one, and it is locked."""
        memory = {"store": "memory", "mq": "memory"}
        for kind, used in (("auto", False), ("memory", False), ("off", False), ("sqlite", True)):
            settings = with_values(Settings(), {**memory, "topics": kind, "data": "d"})
            self.assertEqual(uses_files(settings), used)
            parts = build(settings, Clock(), lambda: 1.8e9)
            self.assertEqual(parts.folder is not None, used)
            names = [database.path.as_posix() for database in parts.databases]
            self.assertEqual(names, ["d/topics.sqlite"] if used else [])
            self.assertEqual(parts.topics is None, kind == "off")

    def test_rabbit(self) -> None:
        """X-07: with --mq rabbit, wherever there is a place for what is known of topics."""
        rabbit = {"mq": "rabbit", "mq_url": "amqp://mq", "data": "d"}
        shared = {**rabbit, "store": "pg", "pg_dsn": "dbname=a"}
        bare = {**rabbit, "store": "memory", "spool": "off"}
        self.assertEqual(self.kind(**rabbit), "rabbit")
        self.assertEqual(self.kind(**shared, spool="off"), "rabbit")
        self.assertEqual(self.kind(**bare), "memory")
        self.assertEqual(self.kind(**bare, topics_pg_dsn="dbname=a"), "rabbit")
        for given, file in (
            (rabbit, "topics_rabbit.sqlite"),
            ({**bare, "topics": "rabbit"}, "topics_rabbit.sqlite"),
            (shared, ""),
            ({**rabbit, "topics_pg_dsn": "dbname=a"}, ""),
        ):
            settings = with_values(Settings(), given)
            self.assertEqual(topics_file(settings), file)
            parts = build(settings, Clock(), lambda: 1.8e9)
            files = [database.path.name for database in parts.databases]
            self.assertEqual([name for name in files if "topics" in name], [file] if file else [])

    def test_names_of_streams(self) -> None:
        """Issue 16, build 5: pools with queues of their own have streams of their own."""
        for given, prefix in (
            ({}, "kupool.topic"),
            ({"mq_queue": "second"}, "second.topic"),
            ({"mq_queue": "second", "topics_prefix": "own"}, "own"),
        ):
            self.assertEqual(stream_prefix(with_values(Settings(), given)), prefix)

    def test_wrong_settings_of_rabbit(self) -> None:
        for given, text in (
            ({}, "mq_url: --topics rabbit needs the address of a broker"),
            ({"mq_url": "http://mq"}, "mq_url: "),
            ({"mq_url": "amqp://mq", "topics_advertise": "mq"}, "topics_advertise: 'mq' is not"),
            ({"mq_url": "amqp://mq", "topics_advertise": "mq:x"}, "topics_advertise: 'mq:x'"),
        ):
            error = self.assertRaises(SettingError, check, load({"topics": "rabbit", **given}, {}))
            self.assertIn(text, str(error))


class AddressTests(SynchronousTestCase):
    """Q-36: where a client is sent whose group this node leads."""

    def test_where(self) -> None:
        unix, every = UNIXAddress("/run/kupool"), IPv4Address("TCP", "0.0.0.0", 80)
        one = IPv4Address("TCP", "10.0.0.1", 8080)
        self.assertEqual(advertised("mq.example:1", [one]), "mq.example:1")
        self.assertEqual(advertised("", [unix, one]), "10.0.0.1:8080")
        self.assertEqual(advertised("", [IPv6Address("TCP", "fe80::1", 80)]), "[fe80::1]:80")
        self.assertEqual(advertised("", [every]), f"{gethostname()}:80")
        self.assertEqual(advertised("", [unix]), "unknown")


class OffTests(DaemonCase):
    settings = {"topics": "off"}

    def test_there_are_none(self) -> None:
        self.assertIsNone(self.daemon.parts.topics)
        self.assertEqual(self.session().ask("topic.list", {})["code"], 31)


class PermissionTests(PasswordCase):
    """Issue 16, build 2: by user and pattern, over sessions."""

    settings: dict[str, Any] = {"permissions": RULES}
    users = ("alice", "bob", "joe")

    def test_by_rule(self) -> None:
        alice, bob, joe = (self.user(name) for name in self.users)
        self.assertEqual(self.code(alice, "topic.create", topic="shop.a"), 0)
        self.assertEqual(self.code(alice, "topic.create", topic="other"), 33)
        self.assertEqual(self.code(alice, "log.produce", topic="shop.a", value="v"), 0)
        fetch = {"topic": "shop.a", "partition": 0, "offset": 0}
        for peer, code in ((alice, 33), (bob, 0), (joe, 33)):
            self.assertEqual(self.code(peer, "log.fetch", **fetch), code)
        self.assertEqual(self.code(bob, "group.join", group="bob.a", topics=["shop.a"]), 0)
        self.assertEqual(self.code(bob, "group.join", group="amy.a", topics=["shop.a"]), 33)
        refused = self.daemon.parts.topics.refusals.counts  # type: ignore[union-attr]
        self.assertEqual(refused["topics, not permitted"], 4)

    def test_a_reload(self) -> None:
        """Issue 16, build 2: also of sessions that are open, and of members of a group."""
        alice, bob = self.user("alice"), self.user("bob")
        self.code(alice, "topic.create", topic="shop.a")
        joined = bob.ask("group.join", {"group": "bob.a", "topics": ["shop.a"]})["result"]
        beat = {key: joined[key] for key in ("member", "generation")}
        self.assertEqual(self.code(bob, "group.heartbeat", group="bob.a", **beat), 0)
        self.reload(permissions=["joe log.subscribe shop.>"])
        self.assertEqual(self.code(bob, "group.heartbeat", group="bob.a", **beat), 33)
        self.assertEqual(self.code(alice, "log.produce", topic="shop.a", value="v"), 33)
        fetch = {"topic": "shop.a", "partition": 0, "offset": 0}
        self.assertEqual(self.code(self.user("joe"), "log.fetch", **fetch), 0)


class SettingTests(PasswordCase):
    """The settings are in effect, and those that say so after a reload."""

    settings: dict[str, Any] = {
        "permissions": ("* log.manage >", "* log.publish >", "* log.subscribe >", "* log.group >"),
        "max_topics": "2",
        "topics_max_groups": "2",
        "topics_user_groups": "1",
        "topics_group_partitions": "2",
        "topics_max_members": "1",
        "topics_max_transactions": "2",
        "topics_user_transactions": "1",
        "topics_transaction_timeout": "5s",
        "topics_fetches": "1",
        "topics_rate": "0",
    }
    users = ("alice", "bob", "joe")

    def test_limits(self) -> None:
        alice, bob, joe = (self.user(name) for name in self.users)
        for topic, code in (("a", 0), ("b", 0), ("c", 34)):
            self.assertEqual(self.code(alice, "topic.create", topic=topic), code)
        for peer, group, code in (
            (alice, "g", 0),
            (alice, "g", 34),
            (alice, "h", 34),
            (bob, "h", 0),
            (joe, "i", 34),
        ):
            self.assertEqual(self.code(peer, "group.join", group=group, topics=["a"]), code)
        self.assertEqual(self.code(bob, "topic.change", topic="a", settings={"partitions": 3}), 0)
        bob.request("group.join", {"group": "h", "topics": ["a"]})
        self.network.settle()
        self.assertIn("more than 2", bob.messages()[-1]["error"])
        for peer, code in ((alice, 0), (alice, 34), (bob, 0), (joe, 34)):
            self.assertEqual(self.code(peer, "log.begin"), code)
        self.network.advance(5)
        self.assertEqual(self.code(joe, "log.begin"), 0)
        wait = {"topic": "a", "partition": 0, "offset": 0, "wait_ms": 1000}
        alice.request("log.fetch", wait)
        self.assertEqual(self.code(alice, "log.fetch", **wait), 34)
        self.reload(topics_fetches="2")
        self.assertEqual(alice.request("log.fetch", wait) > 0, True)
        self.network.settle()
        self.assertEqual(alice.messages(), [], "it waits")

    def test_the_pace(self) -> None:
        alice = self.user("alice")
        self.reload(topics_rate="2")
        codes = [self.code(alice, "topic.list") for _ in range(3)]
        self.assertEqual(codes, [0, 0, 34])
        refused = self.daemon.parts.topics.refusals.counts  # type: ignore[union-attr]
        self.assertEqual(refused, {TOO_FAST: 1})
        self.network.advance(0.5)
        self.assertEqual(self.code(alice, "topic.list"), 0)

    def test_a_stop(self) -> None:
        """Fetches that wait are answered, and no timer is left, as ``stop`` of the case checks."""
        alice = self.user("alice")
        self.code(alice, "topic.create", topic="a")
        self.code(alice, "log.begin")
        self.code(alice, "group.join", group="g", topics=["a"])
        self.code(alice, "log.delay", topic="a", value="v", after_ms=100_000)
        alice.request("log.fetch", {"topic": "a", "partition": 0, "offset": 0, "wait_ms": 60_000})
        self.stop()
        codes = [message.get("code") for message in alice.messages()]
        self.assertIn(27, codes)


class CleanupTests(SynchronousTestCase):
    """Q-11: what topics do not keep is removed every ``--topics-cleanup-interval``."""

    def setUp(self) -> None:
        self.trims: list[float] = []
        self.answers: list[Deferred[int]] = []
        self.cleanup = TopicCleanup(self, 60)

    def trim(self, now: float) -> Deferred[int]:
        self.trims.append(now)
        return self.answers.pop(0) if self.answers else succeed(0)

    def test_when(self) -> None:
        """At once, so that records begin to age, and then at intervals of the retention clock."""
        for now in (100.0, 101.0, 159.0, 160.0, 161.0, 219.0, 221.0):
            self.cleanup.look(now)
        self.assertEqual(self.trims, [100.0, 160.0, 221.0])
        self.cleanup.interval = 5
        for now in (222.0, 226.0):
            self.cleanup.look(now)
        self.assertEqual(self.trims[3:], [226.0])

    def test_one_at_a_time(self) -> None:
        slow: Deferred[int] = Deferred()
        self.answers.append(slow)
        self.cleanup.look(0.0)
        self.cleanup.look(100.0)
        self.assertEqual(self.trims, [0.0])
        with capturedLogs() as events:
            slow.callback(7)
        self.assertEqual([event["count"] for event in events], [7])
        self.cleanup.look(101.0)
        self.assertEqual(self.trims, [0.0, 101.0])

    def test_one_that_fails(self) -> None:
        """It is tried again after the interval, and the log says why."""
        self.answers.append(fail(OSError("disk full")))
        with capturedLogs() as events:
            self.cleanup.look(0.0)
        self.assertIn("disk full", events[0]["reason"])
        self.cleanup.look(60.0)
        self.assertEqual(self.trims, [0.0, 60.0])

    def test_a_stop(self) -> None:
        """The rest is left for the next start."""
        slow: Deferred[int] = Deferred()
        self.answers.append(slow)
        self.cleanup.look(0.0)
        with capturedLogs() as events:
            self.cleanup.stop()
        self.cleanup.look(100.0)
        self.assertEqual((self.trims, len(events)), ([0.0], 0))
