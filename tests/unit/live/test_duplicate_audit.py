"""The audit of durable channels: events that are there more than once."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.live.alarms import LiveAlarms
from kupool.live.duplicate_audit import DuplicateAudit
from kupool.live.durable import record_of
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.settings import TopicSettings
from tests.fakes.live import LiveWorld, SlowEngine, new, topics_on


class DuplicateAuditTests(SynchronousTestCase):
    """W-60: periodic, and of bounded cost."""

    def setUp(self) -> None:
        world = LiveWorld()
        self.clock = world.clock
        self.engine = SlowEngine(self.clock.seconds)
        self.engine.create("t", TopicSettings())
        self.topics = topics_on(self.engine, self.clock, self.clock.seconds)
        alarms = LiveAlarms(self.clock)
        self.told: list[Any] = []
        alarms.tell(lambda kind, event: self.told.append((kind, dict(event))))
        self.partitions = [Partition("t", 0)]
        self.audit = DuplicateAudit(
            self.topics, self.clock, alarms, lambda: self.partitions, interval=600.0, most=5
        )

    def write(self, *ids: str) -> None:
        for event_id in ids:
            record = record_of(new(1, event_id=event_id))
            self.successResultOf(self.topics.produce("t", [record], partition=0))

    def counts(self) -> tuple[int, int]:
        self.successResultOf(self.audit.audit())
        return self.audit.audited, self.audit.repeated

    def test_what_is_there_twice(self) -> None:
        """It is told with its places, also when it comes after the last look."""
        self.write("a", "b", "a")
        self.assertEqual(self.counts(), (3, 1))
        found = {"topic": "t", "partition": 0, "event_id": "a", "offset": 2, "first": 0}
        self.assertEqual(self.told, [("live.duplicates", {**found, "count": 1, "total": 1})])
        self.assertEqual(self.counts(), (3, 1), "nothing is read again")
        self.write("b", "c", "b")
        self.assertEqual(self.counts(), (6, 3))

    def test_now_and_then(self) -> None:
        self.write("a", "a")
        self.audit.start()
        self.clock.advance(599)
        self.assertEqual(self.audit.audits, 0)
        self.clock.advance(1)
        self.assertEqual((self.audit.audits, self.audit.repeated), (1, 1))
        self.audit.stop()
        self.assertEqual(self.clock.getDelayedCalls()[1:], [])

    def test_the_cost_is_bounded(self) -> None:
        """At first the newest, and then so many each time; and so many ids are remembered."""
        self.write(*map(str, range(20)))
        self.assertEqual(self.counts(), (5, 0))
        self.write(*map(str, range(20, 32)))
        self.audit.audit()
        self.assertEqual(self.audit._found[Partition("t", 0)].next, 32, "one read has all of it")
        self.assertEqual(len(self.audit._found[Partition("t", 0)].seen), 5)
        self.write("26", "31", "31")
        self.assertEqual(self.counts()[1], 2)

    def test_a_look_ends(self) -> None:
        """What has grown by more is read the next times."""
        self.write("a")
        self.counts()
        record = record_of(new("x" * 20_000, event_id="large"))
        for _ in range(12):
            self.successResultOf(self.topics.produce("t", [record], partition=0))
        audited = [self.counts()[0] for _ in range(3)]
        self.assertTrue(5 < audited[0] < 10, audited)
        self.assertEqual(audited[2], 13)

    def test_records_of_others(self) -> None:
        """They have no ids."""
        records = [NewRecord(b"x"), NewRecord(b"1", None, {"live": "no"})]
        self.successResultOf(self.topics.produce("t", records, partition=0))
        self.assertEqual((self.counts(), self.flushLoggedErrors()), ((0, 0), []))

    def test_topics_that_come_and_go(self) -> None:
        """One that cannot be read is logged; the others are read."""
        self.partitions = [Partition("none", 0), Partition("t", 0)]
        self.write("a", "a")
        self.assertEqual(self.counts(), (2, 1))
        self.partitions = []
        self.counts()
        self.partitions = [Partition("t", 0)]
        self.assertEqual(self.counts(), (4, 2), "it begins again")

    def test_what_was_dropped(self) -> None:
        """It goes on behind it; with a topic that was made again it begins anew."""
        self.write("a", "b")
        self.counts()
        self.write(*"cdefg", "g")
        self.successResultOf(self.engine.drop_below(Partition("t", 0), 5))
        self.assertEqual(self.counts(), (5, 1))
        self.successResultOf(self.engine.delete("t"))
        self.engine.create("t", TopicSettings())
        self.write("g", "h")
        self.assertEqual(self.counts(), (7, 1))
