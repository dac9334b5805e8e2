"""Counts made again from the log, and compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.log.memory import MemoryLog
from kupool.stats import BatchCounts
from kupool.stats.consumer import StatsConsumer
from kupool.stats.memory import MemoryStats
from kupool.stats.replay import CHUNK, Difference, RebuildGaveUp, audit, rebuild, replay
from kupool.wire.batches import VERSION, Batch, encode_batch

T = 1_800_000_000
EVER = (0, 2**40)


class ReplayCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = MemoryLog(self.clock, lambda: T + self.clock.seconds())
        self.store: Any = MemoryStats()

    def append(self, batch_id: str, *usernames: str) -> None:
        count = len(usernames)
        at = int((T + self.clock.seconds()) * 1000)
        made = Batch(VERSION, batch_id, at, list(usernames), [1] * count, ["x"] * count)
        self.successResultOf(self.log.append(batch_id, encode_batch(made)))

    def minutes(self, count: int) -> None:
        """Fill some minutes: three batches in each."""
        for minute in range(count):
            for n in range(3):
                self.append(f"b{minute}-{n}", "alice.rig1", "alice", "bob")
            self.clock.advance(60)

    def consume(self) -> StatsConsumer:
        consumer = StatsConsumer(self.clock, self.store)
        self.done(consumer.start(self.log))
        for _ in range(50):
            self.clock.advance(0.1)
        return consumer

    def done(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def total(self) -> int:
        return int(self.successResultOf(self.store.total(*EVER)))


class RebuildTests(ReplayCase):
    """K-77: the aggregates can be made again."""

    def test_from_nothing(self) -> None:
        self.minutes(5)
        self.assertEqual(self.done(rebuild(self.log, self.store)), 15)
        self.assertEqual(self.total(), 45)
        self.consume()  # what is in the counts is not counted again
        self.assertEqual(self.total(), 45)

    def test_damaged(self) -> None:
        """K-77: rows that were lost, changed or made up are as the log has it."""
        self.minutes(5)
        self.consume()
        rows = self.successResultOf(self.store.rows(*EVER))
        self.store._minutes["alice", "", T] += 7
        del self.store._minutes["bob", "", T + 60]
        self.store._minutes["mallory", "", T + 120] = 1000
        self.done(rebuild(self.log, self.store))
        self.assertEqual(self.successResultOf(self.store.rows(*EVER)), rows)

    def test_repeated_and_poisoned(self) -> None:
        """K-53, K-80: repeated batches count once, and poison not at all."""
        self.append("b1", "alice")
        self.append("b1", "alice")
        self.successResultOf(self.log.append("bad", b"poison"))
        self.append("b2", "alice")
        self.assertEqual(self.done(replay(self.log)).poisoned, 1)
        self.done(rebuild(self.log, self.store))
        self.assertEqual(self.total(), 2)

    def test_trimmed_log(self) -> None:
        """K-76, K-77: minutes that the log does not hold completely are left alone."""
        self.minutes(5)
        self.consume()
        self.successResultOf(self.log.trim(T + 61, 0))
        # What was dropped may have been of the minute of the first entry that is left.
        for minute in (T + 60, T + 120, T + 180):
            self.store._minutes["alice", "", minute] = 1
        self.done(rebuild(self.log, self.store))
        self.assertEqual(self.successResultOf(self.store.count("alice", T)), 6)
        series = self.successResultOf(self.store.series("alice", *EVER))
        self.assertEqual([count for _, count in series], [6, 1, 1, 6, 6])

    def test_progress(self) -> None:
        for n in range(CHUNK + 10):
            self.append(f"b{n}", "alice")
        seen: list[tuple[int, int]] = []
        self.done(rebuild(self.log, self.store, lambda done, total: seen.append((done, total))))
        self.assertEqual(seen, [(CHUNK, CHUNK + 10), (CHUNK + 10, CHUNK + 10)])

    def test_counted_meanwhile(self) -> None:
        """K-77: what the daemon counts while the log is read is not lost."""
        self.minutes(2)
        case = self

        class Busy(MemoryStats):
            counted = 0

            def replace(self, start: int, batches: Sequence[BatchCounts]) -> Deferred[bool]:
                if self.counted < 2:
                    self.counted += 1
                    case.append(f"meanwhile{self.counted}", "zoe")
                    known = {b.batch_id for b in batches}
                    late = [
                        b for b in case.done(replay(case.log)).batches if b.batch_id not in known
                    ]
                    self.apply(late, {})
                return super().replace(start, batches)

        self.store = Busy()
        self.done(rebuild(self.log, self.store))
        self.assertEqual(self.total(), 20)
        self.assertEqual(self.successResultOf(self.store.total(*EVER, "zoe")), 2)

    def test_gives_up(self) -> None:
        """K-77: it does not try for ever, and changes nothing then."""

        class Always(MemoryStats):
            def replace(self, start: int, batches: Sequence[BatchCounts]) -> Deferred[bool]:
                answer: Deferred[bool] = Deferred()
                answer.callback(False)
                return answer

        failed = Deferred.fromCoroutine(rebuild(self.log, Always()))
        self.failureResultOf(failed, RebuildGaveUp)


class AuditTests(ReplayCase):
    """K-77: a check proves that log and counts agree."""

    def audit(self, start: int = 0, end: int = 2**40) -> tuple[list[Difference], int, int]:
        result: tuple[list[Difference], int, int] = self.done(
            audit(self.log, self.store, start, end)
        )
        return result

    def test_equal(self) -> None:
        self.minutes(5)
        self.consume()
        self.assertEqual(self.audit(), ([], 0, 2**40))

    def test_differences(self) -> None:
        """K-77: each row that differs is named, with both counts."""
        self.minutes(3)
        self.consume()
        self.store._minutes["alice", "", T] += 7
        del self.store._minutes["bob", "", T + 60]
        self.store._minutes["mallory", "x", T + 120] = 5
        found, _, _ = self.audit()
        self.assertEqual(
            found,
            [
                Difference("alice", "", T, 6, 13),
                Difference("bob", "", T + 60, 3, 0),
                Difference("mallory", "x", T + 120, 0, 5),
            ],
        )
        self.assertEqual([d.minute for d in self.audit(T + 60, T + 120)[0]], [T + 60])
        self.done(rebuild(self.log, self.store))
        self.assertEqual(self.audit()[0], [])

    def test_waiting_batches(self) -> None:
        """K-77: what waits to be counted is no difference; the range ends before it."""
        self.minutes(3)
        consumer = self.consume()
        self.done(consumer.stop())
        self.append("late", "alice")
        minute = int(T + self.clock.seconds()) // 60 * 60
        self.assertEqual(self.audit(), ([], 0, minute))

    def test_trimmed_and_rolled_up(self) -> None:
        """K-76, K-77: the range begins where both are complete."""
        self.minutes(5)
        self.consume()
        self.successResultOf(self.log.trim(T + 61, 0))
        self.assertEqual(self.audit(), ([], T + 180, 2**40))
        self.successResultOf(self.store.roll_up(T + 3600, 0))
        found, start, _ = self.audit()
        self.assertEqual(found, [])
        self.assertGreaterEqual(start, self.successResultOf(self.store.rolled_up_before()))
