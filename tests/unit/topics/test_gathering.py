"""Small writes that are gathered: what becomes one batch, in which order, and when."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.batches import RecordCodec
from kupool.topics.errors import TopicsUnavailable
from kupool.topics.gathering import PATIENCE, Written, WrittenRange
from kupool.topics.interfaces import Append, Capabilities
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Stamp
from kupool.topics.service import TopicLimits, Topics
from kupool.topics.settings import TopicSettings

P0, P1 = Partition("t", 0), Partition("t", 1)


class SlowEngine:
    """Takes batches, and answers when the test says so."""

    capabilities = Capabilities(dense=True, atomic=True, persistent=True)

    def __init__(self, settings: TopicSettings) -> None:
        self.settings = settings
        self.appended: list[list[tuple[int, list[bytes]]]] = []
        self.waiting: list[tuple[Deferred[list[int]], Sequence[Append]]] = []
        self.next = 100
        self.changes: list[Deferred[None]] = []
        self.refusal: Exception | None = None

    def watch(self, told: object) -> None: ...

    def topic(self, name: str) -> TopicSettings | None:
        return self.settings if name == "t" else None

    def change(self, name: str, settings: TopicSettings) -> Deferred[None]:
        self.appended.append([])
        self.changes.append(Deferred())
        return self.changes[-1]

    def delete(self, name: str) -> Deferred[None]:
        return self.change(name, self.settings)

    def append(self, appends: Sequence[Append]) -> Deferred[list[int]]:
        if self.refusal is not None:
            return fail(self.refusal)
        codec = RecordCodec()
        self.appended.append(
            [
                (each.partition.number, [one.value for one in codec.decode(each.body, 0)[1]])
                for each in appends
            ]
        )
        answer: Deferred[list[int]] = Deferred()
        self.waiting.append((answer, appends))
        return answer

    def answer(self) -> None:
        """Answer the oldest call."""
        waiting, appends = self.waiting.pop(0)
        bases = []
        for each in appends:
            bases.append(self.next)
            self.next += each.records
        waiting.callback(bases)


class GatheringTests(SynchronousTestCase):
    """Q-93: few batches of many records are far cheaper than many of one."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.made(TopicSettings(partitions=2))

    def made(self, settings: TopicSettings, **limits: int) -> None:
        self.engine = SlowEngine(settings)
        self.topics = Topics(
            self.engine,
            self.clock,
            self.clock.seconds,
            lambda call: self.fail("nothing is done in a thread"),
            random=Random(1),
            limits=TopicLimits(**limits),
        )

    def write(self, *values: bytes, partition: int = 0) -> Deferred[Sequence[Written]]:
        return self.topics.produce("t", [NewRecord(each) for each in values], partition=partition)

    def test_the_writes_of_a_turn_are_one_batch(self) -> None:
        """Q-93: of each partition, in the order of the calls; each call gets its own places."""
        first, other = self.write(b"a", b"b"), self.write(b"x", partition=1)
        second = self.write(b"c")
        self.assertEqual(self.engine.appended, [])
        self.clock.advance(0)
        self.assertEqual(self.engine.appended, [[(0, [b"a", b"b", b"c"])], [(1, [b"x"])]])
        self.assertNoResult(first)
        self.engine.answer()
        self.engine.answer()
        self.assertEqual(self.successResultOf(first), [Written(0, 100), Written(0, 101)])
        self.assertEqual(self.successResultOf(second), [Written(0, 102)])
        self.assertEqual(self.successResultOf(other), [Written(1, 103)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_behind_a_batch_without_an_answer(self) -> None:
        """Q-93: later turns are gathered until it has come, and other partitions do not wait."""
        self.write(b"a")
        self.clock.advance(0)
        self.write(b"b")
        self.clock.advance(PATIENCE / 4)
        self.write(b"c")
        self.write(b"x", partition=1)
        self.clock.advance(PATIENCE / 4)
        self.assertEqual(self.engine.appended, [[(0, [b"a"])], [(1, [b"x"])]])
        self.engine.answer()
        self.write(b"d")  # what follows the answer is in it, too
        self.clock.advance(0)
        self.assertEqual(self.engine.appended[2:], [[(0, [b"b", b"c", b"d"])]])

    def test_no_longer_than_a_moment(self) -> None:
        """Q-93: a batch that gets no answer delays the ones behind it for a moment each."""
        self.write(b"a")
        self.write(b"x", partition=1)
        self.clock.advance(0)
        self.write(b"b")
        self.clock.advance(PATIENCE / 2)
        self.write(b"y", partition=1)
        self.clock.advance(PATIENCE / 2)
        self.assertEqual(self.engine.appended[2:], [[(0, [b"b"])]])
        self.clock.advance(PATIENCE / 2)
        self.assertEqual(self.engine.appended[3:], [[(1, [b"y"])]])
        self.write(b"c")  # two have no answer
        self.engine.answer()
        self.clock.advance(0)
        self.assertEqual(len(self.engine.appended), 4)
        self.clock.advance(PATIENCE)
        self.assertEqual(self.engine.appended[4:], [[(0, [b"c"])]])

    def test_the_limits_of_a_batch(self) -> None:
        """Q-13: what is gathered stays below them."""
        self.made(TopicSettings(), batch_records=3, batch_bytes=100)
        for value in (b"a", b"b", b"c", b"d", b"x" * 60, b"y" * 60):
            self.write(value)
        self.clock.advance(PATIENCE)
        self.assertEqual(
            [each for ((_, each),) in self.engine.appended],
            [[b"a", b"b", b"c"], [b"d", b"x" * 60], [b"y" * 60]],
        )

    def test_small_batches_are_compressed_at_once(self) -> None:
        """Q-20: together they are large enough to become smaller."""
        self.made(TopicSettings(compression="gzip", compression_threshold=100))
        for _ in range(20):
            self.write(b"the same again")
        self.clock.advance(0)
        ((_, (append,)),) = self.engine.waiting
        self.assertLess(len(append.body), 150)
        self.assertEqual(append.records, 20)

    def test_what_is_not_gathered_comes_behind(self) -> None:
        """Q-93: with a mark, in several partitions, or of several topics; and changes."""
        stamp, records = Stamp("p", 1), [NewRecord(b"s")]
        two = [NewRecord(b"1", key=b"a"), NewRecord(b"2", key=b"c")]
        for number, later in enumerate(
            (
                lambda: self.topics.produce("t", records, partition=0, stamp=stamp),
                lambda: self.topics.produce("t", two),
                lambda: self.topics.change("t", TopicSettings(partitions=3)),
                lambda: self.topics.delete("t"),
            )
        ):
            self.made(TopicSettings(partitions=2))
            self.write(b"a")
            later()
            self.assertEqual(self.engine.appended[0], [(0, [b"a"])], number)
            self.assertEqual(len(self.engine.appended), 2, number)
            self.clock.advance(0)
            self.assertEqual(len(self.engine.appended), 2, number)

    def test_what_is_written_while_a_topic_changes(self) -> None:
        """Q-29: it is written once the change is made, however long that takes."""
        changed = self.topics.change("t", TopicSettings(partitions=3))
        written = self.write(b"a")
        self.engine.changes.pop().callback(None)
        self.successResultOf(changed)
        self.clock.advance(0)
        self.engine.answer()
        self.assertEqual(self.successResultOf(written), [Written(0, 100)])

    def test_all_of_a_batch_fail_together(self) -> None:
        """Q-15: each of them is told, and the next are tried."""
        self.engine.refusal = TopicsUnavailable("no room")
        failing = [self.write(b"a"), self.write(b"b")]
        self.clock.advance(0)
        for each in failing:
            self.failureResultOf(each, TopicsUnavailable)
        self.engine.refusal = None
        again = self.write(b"c")
        self.clock.advance(0)
        self.engine.answer()
        self.assertEqual(self.successResultOf(again), [Written(0, 100)])

    def test_one_that_gives_up_harms_no_other(self) -> None:
        """Q-16: its record is written all the same, and the places of the others are right."""
        first, second = self.write(b"a"), self.write(b"b")
        first.addErrback(lambda failure: None)
        first.cancel()
        self.clock.advance(0)
        self.engine.answer()
        self.assertEqual(self.successResultOf(second), [Written(0, 101)])


class WrittenRangeTests(SynchronousTestCase):
    """Q-02: where records are, as a sequence."""

    def test_it_is_a_sequence(self) -> None:
        """It has the places one after the other."""
        places, wanted = WrittenRange(3, range(7, 10)), [Written(3, each) for each in (7, 8, 9)]
        self.assertEqual(places, wanted)
        self.assertEqual((len(places), places[-1], places[1:]), (3, wanted[2], wanted[1:]))
        self.assertEqual(repr(places), repr(wanted))
        self.assertNotEqual(places, wanted[:2])
        self.assertEqual(hash(places), hash(WrittenRange(3, range(7, 10))))
