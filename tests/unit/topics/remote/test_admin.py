"""Administration of a server's topics and groups."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kupool.topics.dead_letters import DeadRecord
from kupool.topics.errors import GroupInUse, TopicExists, UnknownGroup, UnknownTopic
from kupool.topics.interfaces import PartitionExtent
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.membership import GroupSubscription
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.remote.admin import TopicAdmin
from kupool.topics.remote.failures import AnswerLost, BadAnswer
from kupool.topics.remote.groups import RemoteGroupClient
from kupool.topics.settings import TopicSettings
from tests.fakes.remote_topics import RemoteCase

P0, P1 = Partition("t", 0), Partition("t", 1)


class AdminCase(RemoteCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = self.topics()
        self.admin = TopicAdmin(self.client)


class TopicTests(AdminCase):
    """Q-59, Q-26."""

    def test_a_life(self) -> None:
        settings = TopicSettings(partitions=3, retention_time=60.0)
        self.assertEqual(self.result(self.admin.create("u", settings)), settings)
        with self.assertRaisesRegex(TopicExists, "topic u exists already"):
            self.result(self.admin.create("u", settings))
        self.assertEqual(self.result(self.admin.names()), {"t": 2, "u": 3})
        changed = self.result(self.admin.change("u", {"partitions": 4, "retention_time": 9.0}))
        self.assertEqual((changed.partitions, changed.retention_time), (4, 9.0))
        self.write(b"a")
        found = self.result(self.admin.describe("t"))
        self.assertEqual((found.name, found.settings.partitions), ("t", 2))
        self.assertEqual(found.partitions[1], PartitionExtent(0, 0, 0))
        self.assertEqual(found.partitions[0].high, 1)
        self.result(self.admin.delete("u"))
        for asked in (self.admin.delete("u"), self.admin.describe("u")):
            with self.assertRaises(UnknownTopic):
                self.result(asked)

    def test_what_is_known_is_asked_anew(self) -> None:
        """Q-61: a change made here is seen here at once."""
        self.assertEqual(self.result(self.client.facts("t")).settings.partitions, 2)
        self.result(self.admin.change("t", {"partitions": 3}))
        self.assertEqual(self.result(self.client.facts("t")).settings.partitions, 3)
        self.result(self.admin.delete("t"))
        with self.assertRaises(UnknownTopic):
            self.result(self.client.facts("t"))

    def test_many_topics(self) -> None:
        names = sorted(f"n{number:03}" for number in range(250))
        for name in names:
            self.result(self.server.topics.create(name, TopicSettings()))
        self.assertEqual(list(self.result(self.admin.names())), [*names, "t"])
        self.assertEqual(self.server.times("topic.list"), 3)

    def test_pages_without_an_end(self) -> None:
        """Q-62."""
        self.server.answers["topic.list"] = lambda params: {"topics": [], "next": "a"}
        with self.assertRaisesRegex(BadAnswer, "the page after 'a' is 'a'"):
            self.result(self.admin.names())

    def test_partitions_without_an_order(self) -> None:
        """Q-62."""
        entry = {"partition": 1, "low": 0, "high": 0, "size": 0}
        answer = {"topic": "t", "settings": {}, "partitions": [entry]}
        self.server.answers["topic.describe"] = lambda params: answer
        with self.assertRaisesRegex(BadAnswer, "not numbered"):
            self.result(self.admin.describe("t"))

    def test_a_creation_without_an_answer(self) -> None:
        """It is not sent twice: the second one would say that the topic exists."""
        self.server.answers["topic.create"] = lambda params: Deferred()
        asked = self.admin.create("u", TopicSettings())
        self.network.settle()
        self.network.cut()
        self.network.advance(5.0)
        self.failureResultOf(asked, AnswerLost)
        self.assertEqual(self.server.times("topic.create"), 1)


class DelayTests(AdminCase):
    def test_a_life(self) -> None:
        """Q-52: delay, query and cancel."""
        records = [NewRecord(b"x"), NewRecord(b"y")]
        (one,) = self.result(self.admin.delay("t", records, after=1.5, partition=1))
        (two,) = self.result(self.admin.delay("t", records, after=9.0, partition=0))
        first, second = self.result(self.admin.delayed("t"))
        self.assertEqual((first.id, first.due, first.partition, first.records), (one, 1500, 1, 2))
        self.assertEqual(second.id, two)
        self.assertIs(self.result(self.admin.cancel("t", one)), True)
        self.assertIs(self.result(self.admin.cancel("t", one)), False)


class DeadLetterTests(AdminCase):
    """Q-51, Q-59: list, inspect, redrive, purge."""

    def bury(self, *values: bytes) -> None:
        self.write(*values)
        for record in self.result(self.server.topics.fetch(P0, 0)).records:
            delivery = DeliveredRecord(P0, record, 3)
            failure = Failure(RuntimeError("why not"))
            self.result(self.server.letters.give_away("g", delivery, failure))

    def test_listed_and_sent_back(self) -> None:
        self.bury(b"a", b"b\xff")
        first, second = self.result(self.admin.dead("t"))
        self.assertIsInstance(first, DeadRecord)
        self.assertEqual((first.source, first.source_offset, first.group), (P0, 0, "g"))
        self.assertEqual((first.attempts, first.record.value), (3, b"a"))
        self.assertIn("why not", first.reason)
        self.assertEqual(second.record.value, b"b\xff")
        self.assertEqual(self.result(self.admin.redrive("t")), 2)
        self.assertEqual(self.stored(), [b"a", b"b\xff", b"a", b"b\xff"])
        self.assertEqual(self.result(self.admin.dead("t")), [])

    def test_dropped(self) -> None:
        self.bury(b"a", b"b")
        self.assertEqual(self.result(self.admin.purge("t")), 2)
        self.assertEqual(self.result(self.admin.dead("t")), [])

    def test_one_of_them(self) -> None:
        self.bury(b"a", b"b")
        _, second = self.result(self.admin.dead("t"))
        for asked in (self.admin.redrive, self.admin.purge):
            self.result(asked("t", second))
            said = self.server.asked[-1][1]
            self.assertEqual(said, {"topic": "t", "partition": 0, "offset": 1})

    def test_pages(self) -> None:
        """Q-62: they end, and a page that is the one before is refused."""
        self.bury(b"a")
        page = self.server.answers["log.dead"] = self.paged
        self.assertIsNotNone(page)
        self.assertEqual(len(self.result(self.admin.dead("t", limit=250))), 3)
        self.stuck = True
        with self.assertRaisesRegex(BadAnswer, "the same one"):
            self.result(self.admin.dead("t"))

    stuck = False

    def paged(self, params: Any) -> Any:
        offset = params.get("offset", 0)
        entry = {
            "partition": 0,
            "offset": offset,
            "source": {"topic": "t", "partition": 0, "offset": offset},
            "group": "g",
            "reason": "r",
            "attempts": 1,
            "record": {"offset": offset, "timestamp": 1, "value": "x"},
        }
        after = {"partition": 0, "offset": 1 if self.stuck else offset + 1}
        return {"dead": [entry], "next": after if self.stuck or offset < 2 else None}


class GroupTests(AdminCase):
    """Q-41, Q-59."""

    def test_a_group(self) -> None:
        self.write(b"a", b"b", b"c")
        member = RemoteGroupClient(self.client)
        wanted = GroupSubscription(frozenset(["t"]), 10.0)
        place = self.result(member.join("g", "m", wanted))
        self.result(member.commit("g", "m", place.generation, {P0: 1}))
        self.assertEqual(self.result(self.admin.groups()), ["g"])
        found = self.result(self.admin.describe_group("g"))
        self.assertEqual((found.group, found.generation), ("g", place.generation))
        self.assertEqual([each.member for each in found.members], ["m"])
        positions = [(each.partition, each.committed, each.lag) for each in found.positions]
        self.assertEqual(positions, [(0, 1, 2), (1, None, 0)])
        with self.assertRaises(GroupInUse):
            self.result(self.admin.reset("g", "t"))
        self.result(member.leave("g", "m"))
        one = self.result(self.admin.reset("g", "t", offset=2, partition=0, dry_run=True))
        self.assertEqual(one, {P0: 2})
        latest = self.result(self.admin.reset("g", "t", at="latest", dry_run=True))
        self.assertEqual(latest, {P0: 3, P1: 0})
        self.assertEqual(self.result(member.committed("g")), {P0: 1})
        self.result(self.admin.reset("g", "t", at="latest"))
        self.assertEqual(self.result(member.committed("g"))[P0], 3)
        self.result(self.admin.delete_group("g"))
        with self.assertRaises(UnknownGroup):
            self.result(self.admin.describe_group("g"))
