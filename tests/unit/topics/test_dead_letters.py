"""Dead letters, on topics in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.dead_letters import FIRST, DeadLetters, DeadPlace, DeadRecord
from kupool.topics.errors import InvalidTopic, TopicsUnavailable, UnknownTopic
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Record
from kupool.topics.settings import TopicSettings
from tests.fakes.topics import topics_in_memory

P0, P1 = Partition("t", 0), Partition("t", 1)
WHY = Failure(ValueError("no such account"))


class DeadLettersTests(SynchronousTestCase):
    """Q-51."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.topics = topics_in_memory(self.clock, run_in_thread=maybeDeferred)
        self.engine: Any = self.topics.engine
        self.settle(self.topics.create("t", TopicSettings(partitions=2, max_record=100)))
        self.told: list[DeadRecord] = []
        self.dead = DeadLetters(self.topics, self.told.append)

    def settle(self, done: Deferred[Any]) -> Any:
        return self.successResultOf(done)

    def bury(self, offset: int, partition: Partition = P0, **fields: Any) -> None:
        record = Record(offset, 5, b"k", b"v%d" % offset, fields.pop("headers", {}))
        delivery = DeliveredRecord(partition, record, attempt=3)
        self.settle(self.dead.give_away("g", delivery, WHY))

    def letters(self, limit: int = 100) -> list[DeadRecord]:
        found: list[DeadRecord] = self.settle(self.dead.letters("t", limit))
        return found

    def records(self, partition: Partition) -> list[Record]:
        found: list[Record] = self.settle(self.topics.fetch(partition, 0)).records
        return found

    def test_a_letter_says_where_it_was_and_why_it_is_there(self) -> None:
        self.bury(7, P1, headers={"own": "h"})
        headers = {
            "own": "h",
            "dlq-topic": "t",
            "dlq-partition": "1",
            "dlq-offset": "7",
            "dlq-group": "g",
            "dlq-reason": "ValueError: no such account",
            "dlq-attempts": "3",
        }
        (record,) = self.records(Partition("t.dlq", 1))
        headers["dlq-id"] = record.headers["dlq-id"]
        self.assertEqual(record, Record(0, 5, b"k", b"v7", headers))
        self.assertEqual(
            self.letters(),
            [DeadRecord(1, 0, P1, 7, "g", "ValueError: no such account", 3, record)],
        )

    def test_the_topic_is_made_once_and_keeps_everything(self) -> None:
        both = gatherResults(
            [
                self.dead.give_away("g", DeliveredRecord(P0, Record(n, 5, None, b"", {})), WHY)
                for n in range(2)
            ]
        )
        self.settle(both)
        self.assertEqual(
            self.engine.topics()["t.dlq"],
            TopicSettings(partitions=2, retention_time=0, max_record=100 + 16_384),
        )
        self.assertEqual(len(self.letters()), 2)

    def test_a_record_of_the_largest_size_has_room(self) -> None:
        self.settle(self.topics.create("big", TopicSettings(max_record=16 * 1024 * 1024)))
        delivery = DeliveredRecord(Partition("big", 0), Record(0, 5, None, b"x", {}))
        self.settle(self.dead.give_away("g", delivery, WHY))
        self.assertEqual(self.engine.topics()["big.dlq"].max_record, 16 * 1024 * 1024)
        long = Failure(ValueError("w" * 100_000))
        delivery = DeliveredRecord(P0, Record(0, 5, None, b"x" * 100, {}))
        self.settle(self.dead.give_away("g", delivery, long))
        self.assertEqual(len(self.letters()[0].reason), 1000)

    def test_the_topic_takes_larger_records_than_before(self) -> None:
        """Q-51, Q-13: a group that gives up on one is not stuck."""
        self.bury(1)
        self.settle(self.topics.change("t", TopicSettings(partitions=2, max_record=90_000)))
        large = DeliveredRecord(P0, Record(2, 5, None, b"x" * 90_000, {}))
        self.settle(self.dead.give_away("g", large, WHY))
        self.assertEqual([x.source_offset for x in self.letters()], [1, 2])

    def test_one_by_one_in_any_order(self) -> None:
        """Q-51: the oldest may be the last that is sent back."""
        for offset in range(8):
            self.bury(offset)
        for offset in (7, 6, 5, 4, 3, 2, 1, 0):
            self.assertEqual(self.settle(self.dead.redrive_one("t", DeadPlace(0, offset))), 1)
        self.assertEqual(len(self.records(P0)), 8)

    def test_letters_behind_a_deleted_topic_of_letters(self) -> None:
        """Q-51: what has the place of one that was sent back is another letter."""
        for _ in range(2):
            self.bury(1)
            self.assertEqual(self.settle(self.dead.redrive("t")), 1)
            self.settle(self.topics.delete("t.dlq"))
        self.assertEqual(len(self.records(P0)), 2)

    def test_a_page_has_so_many_bytes(self) -> None:
        """Q-51, Q-62: large letters do not make one answer; one is given whatever its size."""
        for offset in range(4):
            self.bury(offset)
        page, following = self.settle(self.dead.page("t", FIRST, 100, 300))
        self.assertEqual([x.offset for x in page], [0, 1])
        self.assertEqual(following, DeadPlace(0, 2))
        page, _ = self.settle(self.dead.page("t", DeadPlace(0, 3), 100, 1))
        self.assertEqual([x.offset for x in page], [3])

    def test_a_topic_with_fewer_partitions_takes_all(self) -> None:
        self.settle(self.topics.create("t.dlq", TopicSettings()))
        self.bury(1, P1)
        self.assertEqual([(x.partition, x.source) for x in self.letters()], [(0, P1)])

    def test_what_cannot_be_kept_fails(self) -> None:
        def give(topic: str) -> Deferred[None]:
            delivery = DeliveredRecord(Partition(topic, 0), Record(0, 5, None, b"", {}))
            return self.dead.give_away("g", delivery, WHY)

        self.settle(self.topics.create("l" * 246, TopicSettings()))
        self.failureResultOf(give("l" * 246), InvalidTopic)
        self.failureResultOf(give("no"), UnknownTopic)
        self.patch(self.engine, "append", lambda _: fail(TopicsUnavailable("full")))
        self.failureResultOf(give("t"), TopicsUnavailable)

    def test_list(self) -> None:
        for offset in range(5):
            self.bury(offset)
        self.bury(9, P1)
        self.assertEqual([x.source_offset for x in self.letters()], [0, 1, 2, 3, 4, 9])
        self.assertEqual([x.source_offset for x in self.letters(3)], [0, 1, 2])
        self.settle(self.topics.create("none", TopicSettings()))
        self.assertEqual(self.settle(self.dead.letters("none")), [])
        for call in (self.dead.letters, self.dead.redrive, self.dead.purge):
            self.failureResultOf(call("no"), UnknownTopic)

    def test_a_letter_of_somebody_else(self) -> None:
        self.bury(1)
        bad = {
            "dlq-topic": "other",
            "dlq-partition": "x",
            "dlq-offset": "²",
            "dlq-attempts": "9" * 20,
        }
        self.settle(self.topics.produce("t.dlq", [NewRecord(b"v", headers=bad)], partition=0))
        record = Record(1, 0, None, b"v", bad)
        self.assertEqual(self.letters()[1], DeadRecord(0, 1, P0, 0, "", "", 0, record))

    def test_sent_back_they_are_as_they_were(self) -> None:
        self.bury(7, P1, headers={"own": "h"})
        self.bury(8, P1)
        self.bury(9, P0)
        self.assertEqual(self.settle(self.dead.redrive("t", 2)), 2)
        self.assertEqual(self.records(P0), [Record(0, 5, b"k", b"v9", {})])
        self.assertEqual(self.records(P1), [Record(0, 5, b"k", b"v7", {"own": "h"})])
        self.assertEqual([x.source_offset for x in self.letters()], [8])
        self.assertEqual(self.settle(self.dead.redrive("t")), 1)
        self.assertEqual(self.settle(self.dead.redrive("t")), 0)
        self.assertEqual([r.value for r in self.records(P1)], [b"v7", b"v8"])

    def test_sent_back_again_after_a_crash_they_are_written_once(self) -> None:
        """The record was written, and the place was not saved."""
        self.bury(7)
        commit = self.engine.commit
        self.patch(self.engine, "commit", lambda *_: fail(TopicsUnavailable("killed")))
        self.failureResultOf(self.dead.redrive("t"), TopicsUnavailable)
        self.patch(self.engine, "commit", commit)
        self.assertEqual(self.settle(self.dead.redrive("t")), 1)
        self.assertEqual(len(self.records(P0)), 1)

    def test_given_away_again_it_is_written_once(self) -> None:
        """As whoever gave it away has lost the answer; also when others came between."""
        for offset in (3, 3, 9, 3, 9):
            self.bury(offset)
        self.assertEqual([each.source_offset for each in self.letters()], [3, 9])
        self.assertEqual([each.source_offset for each in self.told], [3, 9])
        self.assertEqual(self.told, self.letters())

    def test_given_away_again_by_another_process(self) -> None:
        self.bury(3)
        self.dead = DeadLetters(self.topics, self.told.append)
        self.bury(3)
        self.assertEqual([each.source_offset for each in self.letters()], [3])

    def test_in_any_order(self) -> None:
        """Records are processed at the same time: an earlier one may come after many others."""
        for offset in (10, 11, 12, 13, 14, 15, 2, 1, 2, 10, 1):
            self.bury(offset)
        found = [each.source_offset for each in self.letters()]
        self.assertEqual(found, [10, 11, 12, 13, 14, 15, 2, 1])
        self.assertEqual([each.source_offset for each in self.told], found)

    def test_each_group_gives_it_away_by_itself(self) -> None:
        delivery = DeliveredRecord(P0, Record(3, 5, None, b"v", {}))
        other = DeliveredRecord(P1, Record(3, 5, None, b"v", {}))
        for group, each in (("g", delivery), ("h", delivery), ("g", other), ("h", delivery)):
            self.settle(self.dead.bury(group, each, "why"))
        self.assertEqual(
            [(each.group, each.source) for each in self.letters()],
            [("g", P0), ("h", P0), ("g", P1)],
        )

    def test_given_away_again_after_it_was_sent_back_or_dropped(self) -> None:
        """A group that was reset has read the record again: it is a new letter, which is not lost,
        and is written once, too.
        """
        self.bury(3)
        self.settle(self.dead.redrive("t"))
        for _ in range(2):
            self.bury(3)
            self.assertEqual([each.offset for each in self.letters()], [1])
        self.settle(self.dead.purge_one("t", DeadPlace(0, 1)))
        for _ in range(2):
            self.bury(3)
            self.assertEqual([each.offset for each in self.letters()], [2])
        self.assertEqual(len(self.told), 3)

    def test_two_at_once_after_it_was_dropped(self) -> None:
        self.bury(3)
        self.settle(self.dead.purge("t"))
        delivery = DeliveredRecord(P0, Record(3, 5, None, b"v", {}))
        self.settle(gatherResults([self.dead.bury("g", delivery, "why") for _ in range(2)]))
        self.assertEqual(len(self.letters()), 1)

    def test_how_many_wait(self) -> None:
        for offset in range(4):
            self.bury(offset)
        self.bury(0, P1)
        waiting = lambda: self.settle(self.dead.waiting(["t", "none", "t.dlq"]))  # noqa: E731
        self.assertEqual(waiting(), {"t": 5})
        self.settle(self.dead.redrive("t", 1))
        self.assertEqual(waiting(), {"t": 4})
        self.settle(self.dead.purge_one("t", DeadPlace(0, 2)))
        self.assertEqual((waiting(), len(self.letters())), ({"t": 3}, 3))
        self.settle(self.dead.purge("t"))
        self.assertEqual(waiting(), {})

    def test_purge(self) -> None:
        for offset in range(3):
            self.bury(offset)
        self.bury(9, P1)
        self.settle(self.dead.redrive("t", 1))
        self.assertEqual(self.settle(self.dead.purge("t")), 3)
        self.assertEqual(self.letters(), [])
        self.assertEqual([e.size for e in self.settle(self.engine.extents("t.dlq"))], [0, 0])
        self.bury(10)
        self.assertEqual([(x.offset, x.source_offset) for x in self.letters()], [(3, 10)])
        self.assertEqual(self.settle(self.dead.purge("t")), 1)
