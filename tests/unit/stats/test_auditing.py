"""Counts compared with the log they were made from, and put right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import Entry, Plan, reconcile
from kupool.log.memory import MemoryLog
from kupool.stats import MinuteCount
from kupool.stats.auditing import Audit, Auditor, NotComparable, Rebuilt
from kupool.stats.consumer import StatsConsumer
from kupool.stats.fold import fold_entry
from kupool.stats.memory import MemoryStats
from kupool.stats.side_by_side import LOST, ROLLED_UP, TRIMMED, UNKNOWN, Difference, SideBySide
from kupool.stats.snapshot import Superseded
from kupool.wire.batches import VERSION, Batch, encode_batch

T = 1_800_000_000
EVER = (0, 2**40)


def body(batch_id: str, at: float, usernames: Sequence[str]) -> bytes:
    count = len(usernames)
    return encode_batch(
        Batch(VERSION, batch_id, int(at * 1000), list(usernames), [1] * count, ["x"] * count)
    )


class AuditCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log: Any = MemoryLog(self.clock, self.now)
        self.store: Any = MemoryStats()
        self.consumer: StatsConsumer | None = None
        self.ids = iter(f"id{number}" for number in range(100))

    def now(self) -> float:
        return T + self.clock.seconds()

    def start(self) -> Plan:
        """Begin to count, as a daemon does."""
        state = self.successResultOf(self.store.state())
        extent = self.successResultOf(self.log.extent(state.identity, state.mark))
        plan = reconcile(extent, state, self.ids.__next__)
        self.successResultOf(self.store.identify(plan))
        self.successResultOf(self.log.identify(plan.identity))
        self.consumer = StatsConsumer(self.clock, self.store)
        self.done(self.consumer.start(self.log, plan.resume))
        self.count()
        return plan

    def count(self) -> None:
        for _ in range(30):
            self.clock.advance(0.05)

    def stop(self) -> None:
        assert self.consumer is not None
        self.done(self.consumer.stop())

    def append(self, batch_id: str, *usernames: str) -> None:
        self.successResultOf(self.log.append(batch_id, body(batch_id, self.now(), usernames)))

    def minutes(self, count: int, name: str = "b") -> None:
        """Fill some minutes: three batches in each."""
        for minute in range(count):
            for n in range(3):
                self.append(f"{name}{minute}-{n}", "alice.rig1", "alice", "bob")
            self.clock.advance(60)

    def counted(self, count: int) -> None:
        """Fill some minutes and count them."""
        self.start()
        self.minutes(count)
        self.count()

    def done(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def both(self) -> SideBySide:
        both = SideBySide(None)
        self.addCleanup(both.close)
        return both

    def audit(self, start: int = 0, end: int = 2**40, **of: Any) -> tuple[Audit, list[Difference]]:
        both = self.both()
        found: Audit = self.done(Auditor(self.log, self.store, both, **of).audit(start, end))
        rows = list(both.difference_rows())
        self.assertEqual(found.differences, len(rows))
        return found, rows

    def reads(self) -> list[tuple[int, int]]:
        """Return a list that gets position and limit of each read of the log from now on."""
        reads: list[tuple[int, int]] = []
        read = self.log.read

        def reading(after: int, limit: int) -> Deferred[Sequence[Entry]]:
            reads.append((after, limit))
            found: Deferred[Sequence[Entry]] = read(after, limit)
            return found

        self.log.read = reading
        return reads

    def rebuild(self, **of: Any) -> Rebuilt:
        auditor = Auditor(self.log, self.store, self.both(), **of)
        rebuilt: Rebuilt = self.done(auditor.rebuild())
        return rebuilt

    def rows(self) -> dict[tuple[str, str, int], int]:
        return {key: count for key, count in self.store._minutes.items() if count}

    def total(self) -> int:
        return int(self.successResultOf(self.store.total(*EVER)))


class AuditTests(AuditCase):
    """K-77: a check proves that log and counts agree, and says of what."""

    def test_equal(self) -> None:
        """Point 6: it says what it compared."""
        self.counted(5)
        found, rows = self.audit()
        self.assertEqual(rows, [])
        self.assertEqual(found.compared, (5, 15, 45, 1, 15, T, T + 240))
        self.assertEqual((found.skipped, found.waiting), ([], (0, 0, 0)))
        self.assertEqual((found.lost, found.beyond), (False, False))

    def test_each_kind_of_difference(self) -> None:
        """Point 6: a row that is changed, missing or made up is found, and nothing else."""
        self.counted(4)
        self.store._minutes["alice", "", T] += 7
        self.store._minutes["alice", "rig1", T] -= 1
        del self.store._minutes["bob", "", T + 60]
        self.store._minutes["mallory", "x", T + 120] = 5
        self.store._minutes["bob", "", T + 123] = 1  # no whole minute
        self.store._minutes["mallory", "", T + 86400] = 9  # a minute nobody counted in
        self.store._minutes["mallory", "", T - 86400] = 9
        _, rows = self.audit()
        self.assertEqual(
            rows,
            [
                Difference("alice", "", T, 6, 13),
                Difference("alice", "rig1", T, 3, 2),
                Difference("bob", "", T + 60, 3, 0),
                Difference("bob", "", T + 123, 0, 1),
                Difference("mallory", "", T - 86400, 0, 9),
                Difference("mallory", "", T + 86400, 0, 9),
                Difference("mallory", "x", T + 120, 0, 5),
            ],
        )
        _, rows = self.audit(T + 60, T + 120)
        self.assertEqual([row.minute for row in rows], [T + 60])

    def test_the_range(self) -> None:
        self.counted(4)
        found, _ = self.audit(T + 60, T + 180)
        self.assertEqual(found.compared, (2, 6, 18, 4, 9, T + 60, T + 120))
        found, _ = self.audit(0, T)
        self.assertEqual(found.compared.minutes, 0)

    def test_acknowledged_and_not_counted(self) -> None:
        """Point 6: what is acknowledged and is not counted is a difference by itself."""
        self.counted(3)
        self.stop()
        self.append("late", "alice", "bob")
        found, rows = self.audit()
        self.assertEqual((rows, found.waiting), ([], (1, 2, 0)))
        self.assertEqual(found.compared.batches, 9)

    def test_waits_for_who_counts(self) -> None:
        """K-77: what a daemon is about to count is waited for."""
        self.counted(3)
        self.append("late", "alice")
        looking = Deferred.fromCoroutine(
            Auditor(self.log, self.store, self.both(), self.clock).audit(*EVER)
        )
        for _ in range(100):
            self.clock.advance(0.1)
        found: Audit = self.successResultOf(looking)
        self.assertEqual((found.waiting.batches, found.differences), (0, 0))
        self.stop()
        self.append("later", "alice")
        looking = Deferred.fromCoroutine(
            Auditor(self.log, self.store, self.both(), self.clock).audit(*EVER)
        )
        for _ in range(100):
            self.clock.advance(0.1)
        found = self.successResultOf(looking)
        self.assertEqual((found.waiting.batches, found.differences), (1, 0))

    def test_in_the_spool(self) -> None:
        """Point 6: what waits in a spool is acknowledged, too; once counted it is not missed."""
        self.counted(1)
        entries = [
            Entry(1, "spooled", T, body("spooled", T, ["alice"])),
            Entry(2, "b0-0", T, body("b0-0", T, ["alice.rig1", "alice", "bob"])),
            Entry(3, "later", T, body("later", T, ["alice", "bob"])),
        ]

        class Spool:
            def read_spool(self, after: int, limit: int) -> Deferred[list[Entry]]:
                assert limit <= 100
                return succeed([entry for entry in entries if entry.position > after][:limit])

        spool: Any = Spool()
        found, rows = self.audit(spool=spool)
        self.assertEqual((rows, found.waiting), ([], (2, 3, 2)))

    def test_repeated_and_unreadable(self) -> None:
        """K-53, K-80: repeated batches count once, poison not at all, notes are no batches."""
        self.start()
        self.append("b1", "alice")
        self.append("b1", "alice")
        self.successResultOf(self.log.append("bad", b"poison"))
        self.append("b2", "alice")
        self.append("note")
        self.count()
        found, rows = self.audit()
        self.assertEqual((rows, found.unreadable), ([], 1))
        self.assertEqual(found.compared[:3], (1, 2, 2))

    def test_counted_from_a_queue(self) -> None:
        """Point 1: positions that were not known do no harm: ids decide above the mark."""
        self.start()
        self.log.positional = False
        self.stop()
        self.start()
        self.minutes(2)
        self.count()
        self.assertEqual(self.successResultOf(self.store.state()).mark.position, 0)
        found, rows = self.audit()
        self.assertEqual((rows, found.compared[:3]), ([], (2, 6, 18)))
        self.assertEqual(found.waiting.batches, 0)

    def test_many(self) -> None:
        """Point 6: the log is read in pieces, with the progress told."""
        self.start()
        for n in range(2010):
            self.append(f"b{n}", "alice")
        self.count()
        reads = self.reads()
        seen: list[tuple[str, float]] = []
        found, rows = self.audit(progress=lambda what, part: seen.append((what, part)))
        self.assertEqual((rows, found.compared.batches), ([], 2010))
        self.assertEqual([limit for _, limit in reads], [10, 20, 40, 80, 160, 320, 640, 1000])
        parts = [part * 2010 for what, part in seen if what == "Reading the log"]
        for part, position in zip(parts, (0, 10, 30, 70, 150, 310, 630, 1270, 2010), strict=True):
            self.assertAlmostEqual(part, position)
        self.assertEqual(seen[-1], ("Comparing", 1.0))

    def test_one_entry(self) -> None:
        """Point 6: the least of a log is read wholly, too."""
        self.start()
        self.append("b1", "alice")
        self.count()
        seen: list[tuple[str, float]] = []
        self.audit(progress=lambda what, part: seen.append((what, part)))
        self.assertEqual(
            seen, [("Reading the log", 0.0), ("Reading the log", 1.0), ("Comparing", 1.0)]
        )

    def test_a_log_that_grows(self) -> None:
        """Point 6: no more than the whole is read."""
        self.counted(1)
        self.stop()
        read = self.log.read

        def reading(after: int, limit: int) -> Deferred[Sequence[Entry]]:
            self.append("late", "alice")
            found: Deferred[Sequence[Entry]] = read(after, limit)
            return found

        self.log.read = reading
        seen: list[tuple[str, float]] = []
        self.audit(progress=lambda what, part: seen.append((what, part)))
        self.assertEqual(seen[:2], [("Reading the log", 0.0), ("Reading the log", 1.0)])

    def test_large_entries(self) -> None:
        """Point 6: about 2 MiB are in memory at once, and at least one entry."""
        # A byte less in each, and twenty would do.
        for size, limits in ((104_857, [10, 19, 19]), (3 << 20, [10, 1, 1])):
            self.setUp()
            self.start()
            for n in range(sum(limits)):
                self.successResultOf(self.log.append(f"b{n}", b"x" * size))
            reads = self.reads()
            self.audit()
            self.assertEqual([limit for _, limit in reads], limits)

    def test_compared_in_pieces(self) -> None:
        """Point 6: the daemon works on between one hour and the next."""
        self.counted(61)
        seen: list[tuple[str, float]] = []
        auditor = Auditor(
            self.log, self.store, self.both(), self.clock,
            progress=lambda what, part: seen.append((what, part)),
        )  # fmt: skip
        auditing = Deferred.fromCoroutine(auditor.audit(*EVER))
        self.assertEqual(seen[-1], ("Comparing", 60 / 61))
        self.assertNoResult(auditing)
        self.clock.advance(0)
        self.assertEqual(seen[-1], ("Comparing", 1.0))
        self.successResultOf(auditing)


class PatienceTests(AuditCase):
    """K-77: what a daemon is about to count is waited for, as long as it counts."""

    def looks(self) -> list[float]:
        """Return a list that gets the seconds from now to each question to the store."""
        looks: list[float] = []
        unapplied, began = self.store.unapplied, self.clock.seconds()

        def looking(ids: Sequence[str]) -> Deferred[Sequence[str]]:
            looks.append(self.clock.seconds() - began)
            found: Deferred[Sequence[str]] = unapplied(ids)
            return found

        self.store.unapplied = looking
        return looks

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)

    def auditing(self, **of: Any) -> Deferred[Audit]:
        auditor = Auditor(self.log, self.store, self.both(), self.clock, **of)
        return Deferred.fromCoroutine(auditor.audit(*EVER))

    def test_nobody_counts(self) -> None:
        """It looks four times a second, and for five seconds."""
        self.counted(1)
        self.stop()
        self.append("b1", "alice")
        looks = self.looks()
        auditing = self.auditing()
        self.wait(10)
        self.assertEqual(looks, [quarter / 4 for quarter in range(21)])
        self.assertEqual(self.successResultOf(auditing).waiting.batches, 1)

    def test_somebody_counts_slowly(self) -> None:
        """It waits for five more seconds whenever some were counted."""
        self.counted(1)
        self.stop()
        for name in ("b1", "b2", "b3"):
            self.append(name, "alice")
        looks = self.looks()
        auditing = self.auditing()
        for name in ("b1", "b2"):
            self.wait(4.75)
            counts = fold_entry(body(name, self.now(), ["alice"]))
            self.successResultOf(self.store.apply([counts], {}))
        self.wait(10)
        self.assertEqual(looks, [quarter / 4 for quarter in range(60)])
        self.assertEqual(self.successResultOf(auditing).waiting.batches, 1)

    def test_without_a_clock(self) -> None:
        """It looks once, for a thousand batches at a time, whatever their ids are."""
        self.counted(1)
        self.stop()
        names = [" first", *(f"b{n}" for n in range(1000))]
        for name in names:
            self.append(name, "alice")
        asked: list[list[str]] = []
        unapplied = self.store.unapplied

        def looking(ids: Sequence[str]) -> Deferred[Sequence[str]]:
            asked.append(list(ids))
            found: Deferred[Sequence[str]] = unapplied(ids)
            return found

        self.store.unapplied = looking
        self.assertEqual(self.audit()[0].waiting.batches, 1001)
        self.assertEqual([len(ids) for ids in asked], [1000, 1])
        self.assertEqual([name for ids in asked for name in ids], sorted(names))


class ReachTests(AuditCase):
    """Point 6: what cannot be compared is said, with the reason."""

    def trim(self, entries: int) -> None:
        """Drop the oldest entries, as the retention does."""
        keep, self.log._entries = self.log._entries[entries:], self.log._entries[:entries]
        self.log._trimmed = self.log._entries[-1].position
        self.log._entries = keep

    def test_trimmed(self) -> None:
        """K-76: minutes that the log does not hold wholly are left out, and only they."""
        self.counted(5)
        self.trim(4)
        self.store._minutes["alice", "", T] = 1
        self.store._minutes["alice", "", T + 60] = 1
        found, rows = self.audit()
        self.assertEqual((rows, found.compared.first_minute), ([], T + 120))
        self.assertEqual(found.skipped, [(TRIMMED, 2, T, T + 60)])
        self.assertEqual((found.lost, found.beyond), (False, False))
        found, _ = self.audit(start=T + 60)
        self.assertTrue(found.beyond)
        found, _ = self.audit(start=T + 120)
        self.assertEqual((found.beyond, found.compared.minutes), (False, 3))
        self.assertEqual([self.audit(start)[0].beyond for start in (0, 1)], [False, True])

    def test_trimmed_while_reading(self) -> None:
        """K-76: what a trim takes away on the way is no difference."""
        self.counted(5)
        read = self.log.read

        def reading(after: int, limit: int) -> Deferred[Sequence[Entry]]:
            if after == 0:
                self.trim(7)
            found: Deferred[Sequence[Entry]] = read(after, limit)
            return found

        self.log.read = reading
        found, rows = self.audit()
        self.assertEqual((rows, found.compared.first_minute), ([], T + 180))

    def test_made_up_before_the_log(self) -> None:
        """Before the log begins nobody knows; within it, a minute never counted is too many."""
        self.counted(5)
        self.trim(4)
        self.store._minutes["mallory", "", T - 600] = 1
        self.store._minutes["mallory", "", T + 600] = 1
        found, rows = self.audit()
        self.assertEqual(rows, [Difference("mallory", "", T + 600, 0, 1)])
        self.assertIn((UNKNOWN, 1, T - 600, T - 600), found.skipped)

    def test_rolled_up(self) -> None:
        """K-76: rows that are rolled up are not compared, nor missed."""
        self.counted(120)
        self.successResultOf(self.store.roll_up(T + 3600, 0))
        found, rows = self.audit()
        self.assertEqual((rows, found.compared.first_minute), ([], T + 3600))
        self.assertEqual(found.skipped, [(ROLLED_UP, 60, T, T + 3540)])
        self.assertEqual((found.lost, found.beyond), (False, False))
        found, _ = self.audit(start=T)
        self.assertTrue(found.beyond)
        found, _ = self.audit(start=T + 3600)
        self.assertFalse(found.beyond)
        self.trim(180)  # nothing of that time is left anywhere
        found, _ = self.audit(start=T + 3540)
        self.assertEqual((found.skipped, found.beyond), ([], True))

    def test_log_gone(self) -> None:
        """Point 1: where the log is another one now, what it does not hold is lost."""
        self.counted(3)
        self.stop()
        self.log = MemoryLog(self.clock, self.now)
        found_before = Deferred.fromCoroutine(
            Auditor(self.log, self.store, self.both()).audit(*EVER)
        )
        self.failureResultOf(found_before, NotComparable)
        self.start()
        self.minutes(1, "c")
        self.count()
        found, rows = self.audit()
        self.assertEqual((rows, found.compared[:3]), ([], (1, 3, 9)))
        self.assertEqual(found.skipped, [(LOST, 3, T, T + 120)])
        self.assertTrue(found.lost)
        found, _ = self.audit(start=T + 180)
        self.assertEqual((found.lost, found.beyond), (False, False))

    def test_older_log(self) -> None:
        """Point 1: an older copy of the log: what was counted from the rest is lost."""
        self.counted(2)
        copy = MemoryLog(self.clock, self.now)
        copy._entries, copy._last = list(self.log._entries), self.log._last
        copy._identity = self.log._identity
        self.minutes(2, "c")
        self.count()
        self.stop()
        self.log = copy
        found, rows = self.audit()
        self.assertEqual((rows, found.skipped), ([], [(LOST, 2, T + 120, T + 180)]))
        self.start()
        self.minutes(1, "d")
        self.count()
        found, rows = self.audit()
        self.assertEqual((rows, found.skipped), ([], [(LOST, 2, T + 120, T + 180)]))
        self.assertEqual(found.compared[:3], (3, 9, 27))

    def test_hole(self) -> None:
        """Point 6: where an entry was taken out of the log, what was counted from it stays."""
        self.counted(5)
        del self.log._entries[7]
        read = self.log.read

        def reading(after: int, limit: int) -> Deferred[Sequence[Entry]]:
            found: Deferred[Sequence[Entry]] = read(after, 3)
            return found

        self.log.read = reading
        found, rows = self.audit()
        self.assertEqual((rows, found.skipped), ([], [(LOST, 1, T + 120, T + 120)]))
        self.assertEqual((found.lost, found.compared.minutes), (True, 4))
        before = self.rows()
        self.rebuild()
        self.assertEqual(self.rows(), before)

    def test_positions_before_an_epoch(self) -> None:
        """Point 1: those that a new epoch left out are no hole, also in the middle of a minute."""
        identity = self.start().identity.with_epoch("two", 10)
        self.append("b1", "alice")
        self.append("b2", "alice")
        self.count()
        self.stop()
        self.successResultOf(self.store.identify(Plan(identity, 2, 2, True)))
        self.successResultOf(self.log.identify(identity))
        self.assertEqual(self.start().identity, identity)
        self.append("b3", "alice")
        self.count()
        found, rows = self.audit()
        self.assertEqual((rows, found.skipped), ([], []))
        self.assertEqual(found.compared, (1, 3, 3, 1, 11, T, T))

    def test_how_far_a_trimmed_log_is_read(self) -> None:
        """Point 6: the progress is that of what the log still holds."""
        self.counted(5)
        self.trim(3)
        seen: list[tuple[str, float]] = []
        self.audit(progress=lambda what, part: seen.append((what, part)))
        parts = [part for what, part in seen if what == "Reading the log"]
        self.assertEqual(parts, [0.0, 10 / 12, 1.0])

    def test_gap(self) -> None:
        """Point 1: positions that were lost before they were counted are told until accepted."""
        self.counted(1)
        self.stop()
        self.minutes(2, "c")
        self.trim(6)
        self.start()
        found, rows = self.audit()
        self.assertEqual((rows, [tuple(gap) for gap, _ in found.gaps]), ([], [(4, 6)]))
        self.assertTrue(found.lost)
        self.successResultOf(self.store.forget_gaps())
        self.assertEqual(self.audit()[0].gaps, [])

    def test_other_pool(self) -> None:
        self.counted(1)
        other = AuditTests("test_equal")
        other.setUp()
        other.ids = iter(f"other{number}" for number in range(100))
        other.counted(1)
        self.log = other.log
        looking = Deferred.fromCoroutine(Auditor(self.log, self.store, self.both()).audit(*EVER))
        error = self.failureResultOf(looking, NotComparable)
        self.assertIn("the log belongs to pool other0 and the store to pool id0", str(error.value))

    def test_no_marks(self) -> None:
        """Point 1: what was never compared by a start cannot be."""
        self.minutes(1)
        looking = Deferred.fromCoroutine(Auditor(self.log, self.store, self.both()).audit(*EVER))
        self.assertIn("start the daemon once", str(self.failureResultOf(looking).value))

    def test_a_log_that_cannot_tell_what_it_dropped(self) -> None:
        """Point 1: a stream that lost its first entries of an epoch was trimmed, one that begins
        with a later epoch was made again.
        """
        self.counted(3)
        self.log.trimmed = lambda: succeed(None)
        self.trim(4)
        self.assertFalse(self.audit()[0].lost)
        self.stop()
        self.log = MemoryLog(self.clock, self.now)
        self.log.trimmed = lambda: succeed(None)
        self.start()
        self.assertTrue(self.audit()[0].lost)

    def test_a_later_epoch_that_was_trimmed(self) -> None:
        """Point 1: what is gone before an epoch is lost, and what is gone of it was dropped."""
        for entries, reason, last in ((6, LOST, T + 60), (7, TRIMMED, T + 240)):
            self.setUp()
            self.counted(2)
            copy = MemoryLog(self.clock, self.now)
            copy._entries, copy._last = list(self.log._entries), self.log._last
            copy._identity = self.log._identity
            self.minutes(2, "c")
            self.count()
            self.stop()
            self.log = copy
            self.assertEqual(self.start().identity.begins_after, 12)
            self.minutes(2, "d")
            self.count()
            self.trim(entries)
            self.log.trimmed = lambda: succeed(None)
            found, rows = self.audit()
            self.assertEqual(rows, [])
            gone = [skipped for skipped in found.skipped if skipped.reason == reason]
            self.assertEqual((gone[0].first_minute, gone[-1].last_minute >= last), (T, True))


class RebuildTests(AuditCase):
    """K-77, X-06: the aggregates can be made again."""

    def test_falsified(self) -> None:
        """K-77: rows that were lost, changed or made up are as the log has it."""
        self.counted(5)
        before = self.rows()
        self.store._minutes["alice", "", T] += 7
        del self.store._minutes["bob", "", T + 60]
        self.store._minutes["mallory", "", T + 120] = 1000
        self.store._minutes["mallory", "x", T + 900] = 1
        done = self.rebuild()
        self.assertEqual((done.corrected, done.counted), (4, 0))
        self.assertEqual(self.rows(), before)
        self.assertEqual(self.audit()[1], [])
        self.assertEqual(self.rebuild().corrected, 0)

    def test_all_rows_gone(self) -> None:
        """X-06: the table is what it was."""
        self.counted(5)
        before = self.rows()
        self.store._minutes.clear()
        self.rebuild()
        self.assertEqual(self.rows(), before)

    def test_trimmed_log(self) -> None:
        """Point 6: only minutes that the log holds wholly are rewritten."""
        self.counted(5)
        del self.log._entries[:4]
        self.log._trimmed = 4
        for minute in (T, T + 60, T + 120):
            self.store._minutes["alice", "", minute] = 1
        self.rebuild()
        series = self.successResultOf(self.store.series("alice", *EVER))
        self.assertEqual([count for _, count in series], [1, 1, 6, 6, 6])

    def test_not_counted(self) -> None:
        """Point 6: acknowledged batches that are missing are counted, each once."""
        self.counted(2)
        self.stop()
        self.minutes(1, "c")
        done = self.rebuild()
        self.assertEqual((done.counted, done.waiting.batches), (3, 0))
        self.assertEqual(self.total(), 27)
        self.assertEqual(self.audit()[1], [])
        self.start()
        self.assertEqual(self.total(), 27)
        self.assertEqual(self.audit()[0].compared.batches, 9)

    def test_where_the_missing_ones_are_read(self) -> None:
        """Point 6: from the first of them on; not at all if none is missing."""
        self.counted(2)
        self.stop()
        reads = self.reads()
        self.rebuild()
        self.assertEqual([after for after, _ in reads], [0])
        self.minutes(1, "c")
        reads.clear()
        self.rebuild()
        self.assertEqual([after for after, _ in reads], [0, 6])

    def test_what_strangers_put_between(self) -> None:
        """K-80: a batch is counted by its own id, and an unreadable entry is passed over, whatever
        ids their entries have.
        """
        self.counted(1)
        self.stop()
        self.append("b1", "alice")
        for name, content in (
            ("b1", b"poison"),
            ("stranger", body("b2", self.now(), ["alice"])),
            ("b2", b"poison"),
        ):
            self.successResultOf(self.log.append(name, content))
        self.append("b3", "alice")
        done = self.rebuild()
        self.assertEqual((done.counted, done.waiting.batches), (3, 0))
        self.assertEqual(self.total(), 9 + 3)
        self.assertEqual(self.audit()[1], [])

    def test_tables_that_were_dropped(self) -> None:
        """K-77: they are made again before the store is looked at."""
        self.counted(1)
        calls: list[str] = []
        for name in ("revive", "snapshot"):
            call: Callable[..., Deferred[None]] = getattr(self.store, name)

            def noted(*of: Any, name: str = name, call: Any = call) -> Deferred[None]:
                calls.append(name)
                done: Deferred[None] = call(*of)
                return done

            setattr(self.store, name, noted)
        self.rebuild()
        self.assertEqual(calls, ["revive", "snapshot"])

    def test_at_the_epoch(self) -> None:
        """Point 6: rows of whatever time are made right."""
        self.counted(1)
        before = self.rows()
        self.store._minutes["mallory", "", 0] = 5
        self.assertEqual(self.rebuild().corrected, 1)
        self.assertEqual(self.rows(), before)

    def test_counted_meanwhile(self) -> None:
        """Point 6: what a daemon counts between the look and the correction stays right."""
        self.counted(2)
        before = self.rows()
        self.store._minutes["alice", "", T + 60] = 1
        correct = self.store.correct

        def late(rows: Sequence[MinuteCount], serial: int) -> Deferred[int]:
            entry = body("meanwhile", T + 70, ["alice", "zoe"])
            self.successResultOf(self.log.append("meanwhile", entry))
            self.count()
            done: Deferred[int] = correct(rows, serial)
            return done

        self.store.correct = late
        self.assertEqual(self.rebuild().corrected, 1)
        before["alice", "", T + 60] += 1
        before["zoe", "", T + 60] = 1
        self.assertEqual(self.rows(), before)

    def test_rolled_up_meanwhile(self) -> None:
        """K-76: a minute that is rolled up before it is corrected is left alone."""
        self.counted(120)
        self.store._minutes["alice", "", T] += 1
        self.store._minutes["alice", "", T + 7140] += 1
        correct = self.store.correct

        def late(rows: Sequence[MinuteCount], serial: int) -> Deferred[int]:
            self.store.roll_up(T + 3600, 0)
            done: Deferred[int] = correct(rows, serial)
            return done

        self.store.correct = late
        self.rebuild()
        self.assertNotIn(("alice", "", T), self.rows())
        self.assertEqual(self.rows()["alice", "", T + 7140], 6)

    def test_two_at_once(self) -> None:
        """Point 6: the second ends, and nothing is corrected twice."""
        self.counted(2)
        before = self.rows()
        self.store._minutes["alice", "", T] += 7
        correct = self.store.correct
        second: list[Rebuilt] = []

        def other_first(rows: Sequence[MinuteCount], serial: int) -> Deferred[int]:
            self.store.correct = correct
            second.append(self.rebuild())
            done: Deferred[int] = correct(rows, serial)
            return done

        self.store.correct = other_first
        first = Deferred.fromCoroutine(Auditor(self.log, self.store, self.both()).rebuild())
        self.failureResultOf(first, Superseded)
        self.assertEqual(second[0].corrected, 1)
        self.assertEqual(self.rows(), before)

    def test_in_pieces(self) -> None:
        """Point 6: many corrections go in transactions of bounded size."""
        self.start()
        names = [f"user{number}" for number in range(2500)]
        self.append("b", *names)
        self.count()
        before = self.rows()
        self.store._minutes.clear()
        sizes: list[int] = []
        correct: Callable[..., Deferred[int]] = self.store.correct

        def sized(rows: Sequence[MinuteCount], serial: int) -> Deferred[int]:
            sizes.append(len(rows))
            return correct(rows, serial)

        self.store.correct = sized
        seen: list[tuple[str, float]] = []
        done = self.rebuild(progress=lambda what, part: seen.append((what, part)))
        self.assertEqual(done.corrected, 2500)
        self.assertEqual(sizes, [1000, 1000, 500])
        self.assertEqual(seen[-2:], [("Correcting", 0.4), ("Correcting", 0.8)])
        self.assertEqual(self.rows(), before)

    def test_nothing_there(self) -> None:
        """Point 6: with nothing counted, nothing is touched."""
        self.start()
        done = self.rebuild()
        self.assertEqual((done.corrected, done.counted, done.found.compared.minutes), (0, 0, 0))
