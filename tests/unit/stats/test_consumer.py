"""From the log to the counts, on a fake clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.log import IConsumer, Mark
from kupool.log.memory import MemoryLog
from kupool.settings.declaration import SubmissionSettings
from kupool.stats import Applied, BatchCounts, Rejection
from kupool.stats.consumer import ConsumerSettings, StatsConsumer
from kupool.stats.memory import MemoryStats
from kupool.wire.batches import VERSION, Batch, encode_batch

T = 1_800_000_000
EVER = (0, 2**40)
CONSUMER = "kupool.stats.consumer.StatsConsumer"


class SteeredStats(MemoryStats):
    """A store that fails, hangs, or commits without saying so, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = self.hanging = self.forgetful = False
        self.calls: list[int] = []
        #: The positions of the batches of all commits, and the marks.
        self.positions: list[int] = []
        self.marks: list[Mark | None] = []
        self.waiting: list[Deferred[Applied]] = []

    def apply(
        self,
        batches: Sequence[BatchCounts],
        rejections: Mapping[Rejection, int],
        mark: Mark | None = None,
    ) -> Deferred[Applied]:
        self.calls.append(len(batches))
        self.positions += [batch.position for batch in batches]
        self.marks.append(mark)
        if self.broken:
            return fail(OSError("the store is down"))
        applied = super().apply(batches, rejections, mark)
        if self.forgetful:
            return fail(OSError("the answer was lost"))
        if self.hanging:
            self.waiting.append(Deferred())
            applied.chainDeferred(self.waiting[-1])
            self.waiting[-1].pause()
            return self.waiting[-1]
        return applied


class ConsumerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = MemoryLog(self.clock, lambda: T + self.clock.seconds())
        self.store = SteeredStats()
        self.rejections: Counter[Rejection] = Counter()
        self.consumer = self.start()

    def start(self, **settings: Any) -> StatsConsumer:
        consumer = StatsConsumer(
            self.clock, self.store, self.take_rejections, ConsumerSettings(**settings)
        )
        self.successResultOf(Deferred.fromCoroutine(consumer.start(self.log)))
        return consumer

    def take_rejections(self) -> Counter[Rejection]:
        taken, self.rejections = self.rejections, Counter()
        return taken

    def append(self, batch_id: str, *usernames: str, at: int = T) -> None:
        count = len(usernames)
        made = Batch(VERSION, batch_id, at * 1000, list(usernames), [1] * count, ["x"] * count)
        self.successResultOf(self.log.append(batch_id, encode_batch(made)))

    def run_for(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)

    def total(self, *names: str) -> int:
        return int(self.successResultOf(self.store.total(*EVER, *names)))


class CountTests(ConsumerCase):
    def test_interface(self) -> None:
        verifyObject(IConsumer, self.consumer)

    def test_counted_and_acknowledged(self) -> None:
        """K-78, K-68: what is in the log is counted, then acknowledged."""
        for n in range(100):
            self.append(f"b{n}", *["alice"] * 100)
        self.run_for(2)
        self.assertEqual(self.successResultOf(self.store.count("alice", T)), 10_000)
        self.assertEqual(self.consumer.committed, 100)
        self.assertEqual(self.log.status().depth, 0)

    def test_how_far_the_counts_are(self) -> None:
        """K-47: a log with positions gives each batch its own, and a commit that of the last."""
        self.append("b1", "alice")
        self.append("b2", "alice")
        self.run_for(2)
        self.assertEqual((self.store.positions, self.store.marks), ([1, 2], [Mark(2, "b2")]))

    def test_a_log_without_positions(self) -> None:
        """Issue 11, point 1: those of its deliveries say nothing about the log."""
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.patch(self.log, "positional", False)
        self.consumer = self.start()
        self.append("b1", "alice")
        self.append("b2", "alice")
        self.run_for(2)
        self.assertEqual((self.store.positions, self.store.marks), ([0, 0], [None]))

    def test_no_commit_at_the_start(self) -> None:
        """K-71: the first one comes a second later, with what has come until then."""
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.rejections[Rejection("alice", 23, T)] += 1
        self.consumer = self.start()
        self.assertEqual(self.store.calls, [])
        self.run_for(1.1)
        self.assertEqual(self.store.calls, [0])

    def test_batched(self) -> None:
        """K-71: one write a second, whatever came; none when nothing came."""
        for turn in range(10):
            self.append(f"b{turn}", "alice")
            self.append(f"c{turn}", "alice")
            self.clock.advance(0.1)
        self.run_for(5)
        self.assertLessEqual(len(self.store.calls), 2)
        self.assertEqual(sum(self.store.calls), 20)

    def test_full_buffer(self) -> None:
        """K-71: a full buffer is written without waiting for the second."""
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.consumer = self.start(interval=1000.0, buffer=10, prefetch=100)
        for n in range(25):
            self.append(f"b{n}", "alice")
        self.run_for(1)
        self.assertEqual(self.total(), 25)  # the log hands all over in one go
        self.append("b25", "alice")
        self.run_for(1)
        self.assertEqual(self.total(), 25)
        self.assertEqual(self.consumer.pending, 1)

    def test_defaults(self) -> None:
        """K-71, K-82: how often, after how many batches, and how many are taken at once."""
        self.assertEqual(ConsumerSettings().interval, SubmissionSettings().flush_interval)
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.consumer = self.start(interval=1000.0)
        for n in range(249):
            self.append(f"b{n}", "alice")
        self.run_for(1)
        self.assertEqual((self.total(), self.consumer.pending), (0, 249))
        self.append("b249", "alice")
        self.run_for(1)
        self.assertEqual((self.total(), self.consumer.pending), (250, 0))
        self.store.broken = True
        for n in range(4010):
            self.append(f"c{n}", "alice")
        self.run_for(1)
        self.assertEqual(self.consumer.pending, 4000)

    def test_full_behind_a_commit(self) -> None:
        """K-71: what filled the buffer meanwhile is committed right behind it."""
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.consumer = self.start(interval=1000.0, buffer=10, prefetch=100)
        self.store.hanging = True
        for n in range(20):
            self.append(f"b{n}", "alice")
            self.clock.advance(0.1)
        self.assertEqual((self.store.calls, self.consumer.pending), ([10], 10))
        self.store.waiting.pop().unpause()
        self.assertEqual((self.store.calls, self.consumer.pending), ([10, 10], 0))

    def test_prefetch(self) -> None:
        """K-82: no more than the prefetch is taken while nothing can be committed."""
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.store.broken = True
        self.consumer = self.start(prefetch=10)
        for n in range(50):
            self.append(f"b{n}", "alice")
        self.run_for(60)
        self.assertEqual(self.consumer.pending, 10)
        self.store.broken = False
        self.run_for(60)
        self.assertEqual(self.total(), 50)


class OnceTests(ConsumerCase):
    """K-53: exactly once, whatever happens between."""

    def test_delivered_twice(self) -> None:
        self.append("b1", "alice")
        self.append("b1", "alice")
        self.run_for(2)
        self.assertEqual(self.total(), 1)
        self.assertEqual((self.consumer.committed, self.consumer.repeated), (1, 1))
        self.assertEqual(self.log.status().depth, 0)

    def test_crash_between_commit_and_acknowledgement(self) -> None:
        """K-53: committed, and then the process died: it comes again, and counts once."""
        self.store.hanging = True
        self.append("b1", "alice", "bob")
        self.run_for(2)
        self.assertEqual(self.total(), 2)
        self.assertEqual(self.log.status().depth, 1)
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.store.hanging = False
        self.consumer = self.start()
        self.run_for(2)
        self.assertEqual(self.total(), 2)
        self.assertEqual(self.consumer.repeated, 1)
        self.assertEqual(self.log.status().depth, 0)

    def test_answer_of_the_commit_lost(self) -> None:
        """K-53: committed, but the answer was an error: the retry counts nothing."""
        self.store.forgetful = True
        self.append("b1", "alice")
        self.run_for(1.5)
        self.store.forgetful = False
        self.run_for(5)
        self.assertEqual(self.total(), 1)
        self.assertEqual(self.consumer.repeated, 1)

    def test_late_answer_after_the_stop(self) -> None:
        """K-85: an answer that comes after the stop disturbs nothing."""
        self.store.hanging = True
        self.append("b1", "alice")
        self.run_for(2)
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.store.waiting[0].unpause()
        self.run_for(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OutageTests(ConsumerCase):
    """K-72: the store is down for ten minutes, and nothing is lost."""

    def test_ten_minutes(self) -> None:
        self.store.broken = True
        minute = 0
        for minute in range(10):
            for n in range(30):
                self.append(f"b{minute}-{n}", "alice", "bob.rig", at=T + 60 * minute)
            self.rejections[Rejection("alice", 23, T + 60 * minute)] += 3
            self.run_for(60)
        self.assertEqual(self.total(), 0)
        self.assertIn("the store is down", self.consumer.problem)
        self.store.broken = False
        self.run_for(60)
        self.assertEqual(self.consumer.problem, "")
        self.assertEqual(self.log.status().depth, 0)
        for at in range(10):
            count = self.store.count("alice", T + 60 * at)
            self.assertEqual(self.successResultOf(count), 30)
        self.assertEqual(self.total("bob"), 300)
        found = self.successResultOf(self.store.rejections(*EVER))
        self.assertEqual(found, [("alice", 23, 30)])

    def test_tries_again_soon_and_then_more_rarely(self) -> None:
        """K-72: after the interval, then twice that; so also after a commit that succeeded."""
        for _ in range(2):
            self.store.broken = True
            self.append("b1", "alice")
            tried = []
            for quarter in range(1, 19):
                before = len(self.store.calls)
                self.clock.advance(0.25)
                tried += [quarter / 4] * (len(self.store.calls) - before)
            self.assertEqual(tried, [1.0, 2.0, 4.0])
            self.store.broken = False
            for _ in range(14):
                self.clock.advance(0.25)

    def test_tries_again_between_two_commits(self) -> None:
        """K-72: an interval after the failure, whenever the next commit would be."""
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.consumer = self.start(buffer=1)
        self.store.broken = True
        tried = []
        for quarter in range(1, 9):
            before = len(self.store.calls)
            if quarter == 2:
                self.append("b1", "alice")
            self.clock.advance(0.25)
            tried += [quarter / 4] * (len(self.store.calls) - before)
        self.assertEqual(tried, [0.5, 1.5])

    def test_what_is_logged(self) -> None:
        """K-91: a trouble once, and its end once; a commit that succeeds says nothing."""
        self.assertEqual(self.consumer.problem, "")
        with capturedLogs() as events:
            for broken in (False, True, False):
                self.store.broken = broken
                self.append(f"b{broken}", "alice")
                self.run_for(8)
        said = [formatEvent(event) for event in events if event["log_namespace"] == CONSUMER]
        self.assertEqual(
            said,
            [
                "The counts cannot be committed, trying again: the store is down",
                "The counts are committed again",
            ],
        )

    def test_backs_off(self) -> None:
        """K-72: tries grow rarer, to one in thirty seconds."""
        self.store.broken = True
        self.append("b1", "alice")
        tried = []
        for second in range(1, 150):
            before = len(self.store.calls)
            self.clock.advance(1.0)
            tried += [second] * (len(self.store.calls) - before)
        self.assertEqual(tried, [1, 2, 4, 8, 16, 32, 62, 92, 122])

    def test_rejections_are_bounded(self) -> None:
        """K-75: during an outage new rejections stay where they are bounded."""
        self.store.broken = True
        self.append("b1", "alice")
        taken = 0
        for minute in range(60):
            before = len(self.rejections)
            self.rejections[Rejection("alice", 23, T + 60 * minute)] += 1
            self.run_for(60)
            taken += before + 1 - len(self.rejections)
        self.assertEqual(taken, 1)
        self.store.broken = False
        self.run_for(60)
        found = self.successResultOf(self.store.rejections(*EVER))
        self.assertEqual(found, [("alice", 23, 60)])


class PoisonTests(ConsumerCase):
    """K-80: what cannot be counted is put aside with its reason; the rest is counted."""

    def test_poison(self) -> None:
        self.append("b1", "alice")
        self.successResultOf(self.log.append("bad", b"no batch"))
        self.successResultOf(
            self.log.append(
                "worse", encode_batch(Batch(VERSION, "worse", 2**70, ["eve"], [1], ["x"]))
            )
        )
        self.append("b2", "alice")
        self.run_for(2)
        self.assertEqual(self.total(), 2)
        self.assertEqual(self.consumer.poisoned, 2)
        self.assertEqual(self.log.status().depth, 0)
        letters = [(d.entry.entry_id, reason) for _, d, reason in self.log.dead_letters]
        # The name under which a log keeps how far the counts are, also over an upgrade.
        self.assertEqual({group for group, _, _ in self.log.dead_letters}, {"stats"})
        self.assertEqual([entry_id for entry_id, _ in letters], ["bad", "worse"])
        self.assertIn("not a batch", letters[0][1])
        self.assertIn("out of range", letters[1][1])

    def test_same_id_other_content(self) -> None:
        """K-80, K-53: the first is counted and the other put aside, in one commit or two."""
        self.append("b1", "alice")
        self.append("b1", "mallory", "mallory")
        self.run_for(2)
        self.append("b1", "mallory")
        self.append("b1", "alice")
        self.append("b2", "bob")
        self.run_for(2)
        self.assertEqual((self.total("alice"), self.total("mallory"), self.total("bob")), (1, 0, 1))
        self.assertEqual((self.consumer.poisoned, self.consumer.repeated), (2, 1))
        bodies = [delivery.entry.body for _, delivery, _ in self.log.dead_letters]
        self.assertEqual([b"mallory" in body for body in bodies], [True, True])
        reasons = {reason for _, _, reason in self.log.dead_letters}
        self.assertEqual(reasons, {"a batch of this id with other content was counted before"})
        self.assertEqual(self.log.status().depth, 0)


class StopTests(ConsumerCase):
    """K-85: at the end, everything that can be is committed."""

    def drain(self, seconds: float, patience: float = inf) -> Deferred[bool]:
        deadline = self.clock.seconds() + seconds
        return Deferred.fromCoroutine(self.consumer.drain(deadline, patience))

    def test_drain(self) -> None:
        for n in range(300):
            self.append(f"b{n}", "alice")
        self.rejections[Rejection("alice", 23, T)] += 1
        drained = self.drain(5)
        self.run_for(1)
        self.assertIs(self.successResultOf(drained), True)
        self.assertEqual(self.total(), 300)
        self.assertEqual(len(self.successResultOf(self.store.rejections(*EVER))), 1)

    def test_how_soon_a_drain_ends(self) -> None:
        """K-85: fifty times a second it is looked whether all is committed."""
        self.store.hanging = True
        self.append("b1", "alice")
        self.run_for(2)
        drained = self.drain(5)
        self.store.waiting.pop().unpause()
        self.clock.advance(0.015)
        self.assertNoResult(drained)
        self.clock.advance(0.01)
        self.assertIs(self.successResultOf(drained), True)

    def test_drain_before_the_start(self) -> None:
        """K-85: a stop in the middle of a start has nothing to wait for."""
        consumer = StatsConsumer(self.clock, self.store)
        drained = Deferred.fromCoroutine(consumer.drain(self.clock.seconds() + 5))
        self.assertIs(self.successResultOf(drained), True)

    def test_drain_of_nothing(self) -> None:
        self.assertIs(self.successResultOf(self.drain(5)), True)

    def test_drain_without_any_time(self) -> None:
        """K-85: at the deadline no commit is begun any more."""
        self.append("b1", "alice")
        self.clock.advance(0)
        self.assertEqual(self.consumer.pending, 1)
        self.assertIs(self.successResultOf(self.drain(0)), False)
        self.assertEqual(self.store.calls, [])

    def test_drain_past_the_deadline(self) -> None:
        """K-85: a store that stays down holds nothing up; the log keeps the rest."""
        self.store.broken = True
        self.append("b1", "alice")
        drained = self.drain(5)
        self.run_for(4)
        self.assertNoResult(drained)
        self.run_for(2)
        self.assertIs(self.successResultOf(drained), False)
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.assertEqual(self.log.status().depth, 1)

    def test_drain_that_brings_nothing(self) -> None:
        """K-85: a store that is down, or does not answer, holds a stop up for moments only."""
        for fault in ("broken", "hanging"):
            setattr(self.store, fault, True)
            self.append(fault, "alice")
            drained = self.drain(30, patience=3)
            self.run_for(2.5)
            self.assertNoResult(drained)
            self.run_for(1)
            self.assertIs(self.successResultOf(drained), False)
            self.store.broken = False
        self.assertEqual(self.log.status().depth, 2)

    def test_drain_that_is_slow(self) -> None:
        """K-85: as long as something comes of it, it goes on, whatever becomes of batches."""
        self.store.hanging = True
        self.append("b0", "alice")
        drained = self.drain(30, patience=3)
        later = (("b1", "alice"), *[("b0", "alice")] * 2, *[("b0", "mallory")] * 3)
        for batch_id, username in later:
            self.run_for(2)
            self.append(batch_id, username)
            self.store.waiting.pop().unpause()
        self.run_for(1)
        self.assertNoResult(drained)
        self.store.waiting.pop().unpause()
        self.run_for(1)
        self.assertIs(self.successResultOf(drained), True)
        consumer = self.consumer
        self.assertEqual((consumer.committed, consumer.repeated, consumer.poisoned), (2, 2, 3))

    def test_the_end_of_patience(self) -> None:
        self.store.hanging = True
        self.append("b0", "alice")
        for _ in range(8):
            self.clock.advance(0.25)
        drained = self.drain(30, patience=3)
        self.clock.advance(2.75)
        self.assertNoResult(drained)
        self.clock.advance(0.25)
        self.assertIs(self.successResultOf(drained), False)

    def test_how_long_a_commit_takes(self) -> None:
        """K-91: a store that hangs fails nothing, so its commit is what tells."""
        self.assertEqual(self.consumer.committing, 0.0)
        self.store.hanging = True
        self.append("b1", "alice")
        self.clock.advance(0.5)
        self.assertEqual(self.consumer.committing, 0.0)
        self.clock.advance(0.5)  # now it begins
        for seconds, committing in ((1.0, 1.0), (7.0, 8.0)):
            self.clock.advance(seconds)
            self.consumer.flush()
            self.assertEqual(self.consumer.committing, committing)
        self.store.waiting.pop().unpause()
        self.assertEqual(self.consumer.committing, 0.0)

    def test_drain_tries_at_once(self) -> None:
        """K-85: a store that is back is not kept waiting by the backoff."""
        self.store.broken = True
        self.append("b1", "alice")
        self.run_for(300)
        self.store.broken = False
        drained = self.drain(1)
        self.run_for(0.5)
        self.assertIs(self.successResultOf(drained), True)
        self.assertEqual(self.total(), 1)

    def test_stop(self) -> None:
        """K-85: no timer is left, also while the store is down."""
        self.store.broken = True
        self.append("b1", "alice")
        self.run_for(3)
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.successResultOf(Deferred.fromCoroutine(self.consumer.stop()))
        self.run_for(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
