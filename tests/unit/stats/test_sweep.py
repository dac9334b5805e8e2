"""What a queue did not deliver is counted from the log, once, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kupool.log import Entry, Extent, Identity, LogUnavailable, Mark
from kupool.log.memory import MemoryLog
from kupool.stats import Applied, BatchCounts, Rejection
from kupool.stats.comparison import Comparison, compare
from kupool.stats.fold import MAX_ID, fold_entry
from kupool.stats.memory import MemoryStats
from kupool.stats.sweep import CHUNK, FAILING, Sweeper, SweepSettings
from kupool.wire.batches import VERSION, Batch, decode_batch, encode_batch

T = 1_800_000_000
EVER = (0, 2**40)


class CopiedLog(MemoryLog):
    """Stands for a log with a queue beside it: what is delivered has no position."""

    positional = False

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, lambda: T + clock.seconds())
        self.told: list[Callable[[], object]] = []
        self.refusal = ""
        self.away = ""
        self.foreign = False
        self.reads = 0

    def watch(self, told: Callable[[], object]) -> None:
        self.told.append(told)

    def refuse(self, reason: str) -> None:
        self.refusal = reason

    def extent(self, known: Identity | None, mark: Mark) -> Deferred[Extent]:
        if self.away:
            return fail(LogUnavailable(self.away))
        found = super().extent(known, mark)
        if self.foreign:
            found.addCallback(lambda e: e._replace(identity=Identity("other", ())))
        return found.addCallback(lambda e: e._replace(acknowledged=e.last))

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        self.reads += 1
        return super().read(after, limit)


class NotedStats(MemoryStats):
    """A store that notes each transaction, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.applied: list[tuple[list[str], Mark | None]] = []
        self.broken = False

    def apply(
        self,
        batches: Sequence[BatchCounts],
        rejections: Mapping[Rejection, int],
        mark: Mark | None = None,
    ) -> Deferred[Applied]:
        if self.broken:
            return fail(OSError("the store is down"))
        self.applied.append(([batch.batch_id for batch in batches], mark))
        return super().apply(batches, rejections, mark)


class SweepCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = CopiedLog(self.clock)
        self.store = NotedStats()
        self.names = count()
        self.compared: list[Comparison] = []
        self.sweeper = self.make()

    def crashed(self) -> None:
        """Log and store are known to each other from a run before."""
        self.successResultOf(Deferred.fromCoroutine(self.compare()))

    def new_id(self) -> str:
        return f"made{next(self.names)}"

    async def compare(self) -> Comparison:
        self.compared.append(await compare(self.log, self.store, self.new_id))
        return self.compared[-1]

    def make(self, **settings: Any) -> Sweeper:
        return Sweeper(
            self.clock,
            lambda: T + self.clock.seconds(),
            self.log,
            self.store,
            compare=self.compare,
            new_id=self.new_id,
            settings=SweepSettings(**settings),
        )

    def begin(self, sweeper: Sweeper | None = None) -> None:
        self.successResultOf(Deferred.fromCoroutine((sweeper or self.sweeper).begin()))

    def body(self, batch_id: str, *usernames: str) -> bytes:
        number = len(usernames)
        columns = (list(usernames), [1] * number, ["x"] * number)
        return encode_batch(Batch(VERSION, batch_id, T * 1000, *columns))

    def append(self, batch_id: str, *usernames: str) -> None:
        self.successResultOf(self.log.append(batch_id, self.body(batch_id, *usernames)))

    def delivered(self, batch_id: str, *usernames: str) -> None:
        """The queue delivers a batch, and the consumer counts it."""
        counts = fold_entry(self.body(batch_id, *usernames))
        self.successResultOf(self.store.apply([counts], {}))

    def top(self) -> dict[str, int]:
        return dict(self.successResultOf(self.store.top(100, *EVER)))

    def mark(self) -> Mark:
        found: Mark = self.successResultOf(self.store.state()).mark
        return found

    def tries(self) -> list[float]:
        """Return a list that gets the time of each comparison from now on."""
        tries: list[float] = []
        compare = self.compare

        async def compared() -> Comparison:
            tries.append(self.clock.seconds())
            return await compare()

        self.patch(self.sweeper, "_compare", compared)
        return tries

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.advance(1.0)


class SweepTests(SweepCase):
    """Issue 11, point 1: the mark in the stream, and what lies beyond it."""

    def test_what_is_missing(self) -> None:
        """Batches that the queue does not deliver any more are counted, each once."""
        self.begin()
        self.append("b1", "alice", "bob")
        self.append("b2", "alice")
        self.delivered("b2", "alice")
        self.append("b3", "carol")
        self.wait(70)
        self.assertEqual(self.top(), {"alice": 2, "bob": 1, "carol": 1})
        self.assertEqual(self.sweeper.counted, 2)
        self.wait(200)
        self.delivered("b1", "alice", "bob")  # the queue delivers it after all
        self.wait(70)
        self.assertEqual(self.top(), {"alice": 2, "bob": 1, "carol": 1})

    def test_once_a_minute(self) -> None:
        self.begin()
        found = []
        for seconds in (0, 59, 1, 59, 1, 120):
            self.wait(seconds)
            found.append(self.sweeper.done)
        self.assertEqual(found, [1, 1, 2, 2, 3, 5])

    def test_the_usual_times(self) -> None:
        """A sweeper without settings has those of an object of them."""
        self.sweeper = Sweeper(
            self.clock, self.clock.seconds, self.log, self.store,
            compare=self.compare, new_id=self.new_id,
        )  # fmt: skip
        self.test_once_a_minute()

    def test_the_consumer_has_three_seconds(self) -> None:
        self.begin()
        self.append("b1", "alice")
        self.wait(62)
        self.assertEqual(self.top(), {})
        self.wait(1)
        self.assertEqual(self.top(), {"alice": 1})

    def test_notes_are_not_counted_as_missing(self) -> None:
        """A batch without submissions was never for the counts."""
        self.begin()
        for number in range(3):
            self.append(f"note{number}")
        self.append("b1", "alice")
        self.wait(70)
        self.assertEqual(self.sweeper.counted, 1)

    def test_the_ids_that_a_mark_may_name(self) -> None:
        """From the shortest to the longest that a store can keep."""
        self.begin()
        for name in ("x", "y" * MAX_ID):
            self.append(name, "alice")
            self.wait(70)
            self.assertEqual(self.mark().entry_id, name)
        self.append("z" * (MAX_ID + 1), "alice")
        self.wait(70)
        self.assertEqual(self.mark().entry_id, "y" * MAX_ID)

    def test_only_entries_that_a_mark_cannot_name(self) -> None:
        """They are counted by the ids of their batches, and the mark stays."""
        self.begin()
        before = self.mark()
        self.successResultOf(self.log.append("z" * (MAX_ID + 1), self.body("b1", "alice")))
        self.wait(70)
        self.assertEqual((self.top(), self.mark()), ({"alice": 1}, before))

    def test_the_mark_moves_with_it(self) -> None:
        """What is counted and how far that is are one transaction."""
        self.begin()
        self.append("b1", "alice")
        self.append("b2", "bob")
        self.store.applied.clear()
        self.wait(70)
        self.assertEqual(self.store.applied, [(["b1", "b2"], Mark(3, "b2"))])
        self.assertEqual(self.mark(), Mark(3, "b2"))

    def test_one_transaction_of_a_sweep_moves_the_mark(self) -> None:
        """However much is missing: what is counted meanwhile is noted under the mark before."""
        self.crashed()
        for number in range(3 * CHUNK):
            self.append(f"b{number}", "alice")
        self.begin()
        self.assertEqual(self.top(), {"alice": 3 * CHUNK})
        marks = [mark for _, mark in self.store.applied if mark is not None]
        self.assertEqual(len(marks), 1)
        self.assertGreater(len(self.store.applied), 2)
        self.assertLessEqual(max(len(names) for names, _ in self.store.applied), CHUNK)

    def test_how_far_it_is(self) -> None:
        """Issue 11, point 10: /ready says that the counts are behind the log, while they are."""
        self.crashed()
        for number in range(3 * CHUNK):
            self.append(f"b{number}", "alice")
        said: list[str] = []
        read = self.log.read

        def reading(after: int, limit: int) -> Deferred[Sequence[Entry]]:
            said.append(self.sweeper.concern)
            return read(after, limit)

        self.patch(self.log, "read", reading)
        self.begin()
        left = [f"being counted; {n * CHUNK} positions of the log are left" for n in (3, 2, 1)]
        for text, expected in zip(said, left, strict=False):
            self.assertIn(expected, text)
        self.assertEqual((said[3], self.sweeper.concern), ("", ""))

    def test_the_first_comparison_is_under_way(self) -> None:
        """Issue 11, point 10: /ready says so before it is known how much is missing."""
        held: Deferred[None] = Deferred()
        extent = self.log.extent

        async def later(known: Any, mark: Mark) -> Any:
            await held
            return await extent(known, mark)

        self.patch(self.log, "extent", lambda *of: Deferred.fromCoroutine(later(*of)))
        begun = Deferred.fromCoroutine(self.sweeper.begin())
        self.assertIn("the log is being compared with the counts", self.sweeper.concern)
        held.callback(None)
        self.successResultOf(begun)
        self.assertEqual(self.sweeper.concern, "")

    def test_the_first_sweep_of_an_empty_log(self) -> None:
        """Issue 11, point 10: nothing is left while it is made."""
        said: list[str] = []
        read = self.log.read

        def reading(after: int, limit: int) -> Deferred[Sequence[Entry]]:
            said.append(self.sweeper.concern)
            return read(after, limit)

        self.patch(self.log, "read", reading)
        self.begin()
        self.assertEqual(said, ["", ""])

    def test_what_comes_meanwhile(self) -> None:
        """It is left to the consumer and to the next sweep, unless the consumer has ended."""
        self.begin()
        read = self.log.read

        def reading(after: int, limit: int) -> Deferred[Sequence[Entry]]:
            self.patch(self.log, "read", read)
            self.append("late", "bob")
            return read(after, limit)

        self.append("b1", "alice")
        self.patch(self.log, "read", reading)
        self.wait(65)
        self.assertEqual(self.top(), {"alice": 1})
        self.wait(65)
        self.assertEqual(self.top(), {"alice": 1, "bob": 1})

        def reading_at_the_stop(after: int, limit: int) -> Deferred[Sequence[Entry]]:
            self.patch(self.log, "read", read)
            self.append("last", "carol")
            return read(after, limit)

        self.patch(self.log, "read", reading_at_the_stop)
        self.successResultOf(Deferred.fromCoroutine(self.sweeper.stop()))
        self.assertEqual(self.top(), {"alice": 1, "bob": 1, "carol": 1})

    def test_the_consumer_has_its_time_once(self) -> None:
        """However much is missing, a sweep waits for it only once."""
        self.begin()
        for number in range(3 * CHUNK):
            self.append(f"b{number}", "alice")
        self.wait(63)
        self.assertEqual(self.top(), {"alice": 3 * CHUNK})

    def test_a_sweep_that_finds_nothing_is_nobodys_concern(self) -> None:
        self.begin()
        for number in range(3 * CHUNK):
            self.append(f"b{number}", "alice")
            self.delivered(f"b{number}", "alice")
        said: list[str] = []
        read = self.log.read

        def reading(after: int, limit: int) -> Deferred[Sequence[Entry]]:
            said.append(self.sweeper.concern)
            return read(after, limit)

        self.patch(self.log, "read", reading)
        self.wait(70)
        self.assertGreater(len(said), 2)
        self.assertEqual(set(said), {""})

    def test_nothing_new(self) -> None:
        """A sweep that finds nothing writes nothing."""
        self.begin()
        self.append("b1", "alice")
        self.wait(70)
        self.store.applied.clear()
        done = self.sweeper.done
        self.wait(300)
        self.assertEqual(self.store.applied, [])
        self.assertGreaterEqual(self.sweeper.done, done + 4)

    def test_the_consumer_first(self) -> None:
        """What the consumer is about to count is left to it for a moment."""
        self.begin()
        self.wait(59)
        self.append("b1", "alice")
        self.wait(1)
        self.delivered("b1", "alice")
        self.wait(10)
        self.assertEqual(self.sweeper.counted, 0)
        self.assertEqual(self.top(), {"alice": 1})
        self.assertEqual(self.mark().entry_id, "b1")

    def test_a_mark_names_an_entry(self) -> None:
        """A new log gets an entry at once, so that another one in its place is noticed."""
        self.begin()
        self.assertEqual(self.log.status().appended, 1)
        self.assertEqual(self.mark().position, 1)
        self.assertTrue(self.mark().entry_id)
        self.assertEqual(self.top(), {})
        self.assertEqual(self.sweeper.counted, 0)
        (note,) = self.successResultOf(self.log.read(0, 10))
        self.assertEqual(decode_batch(note.body).at, T * 1000)
        again = self.make()
        self.begin(again)
        self.assertEqual(self.log.status().appended, 1)

    def test_a_log_that_was_replaced(self) -> None:
        """The mark names an entry of the newest epoch, also after a crash before there was one."""
        for crashed in (False, True):
            self.setUp()
            self.begin()
            self.append("b1", "alice")
            self.successResultOf(Deferred.fromCoroutine(self.sweeper.stop()))
            self.assertEqual(self.mark(), Mark(2, "b1"))
            self.log = CopiedLog(self.clock)
            if crashed:
                self.crashed()
            self.sweeper = self.make()
            self.begin()
            (note,) = self.successResultOf(self.log.read(0, 10))
            self.assertEqual(self.mark(), Mark(3, note.entry_id))

    def test_poison(self) -> None:
        """What cannot be read holds nothing up, and is not the sweep's to put away."""
        self.begin()
        for name in ("junk", "", "x" * 300, "nul\0"):
            self.successResultOf(self.log.append(name, b"?"))
        self.append("b1", "alice")
        self.successResultOf(self.log.append("", b"??"))
        self.wait(70)
        self.assertEqual(self.top(), {"alice": 1})
        self.assertEqual(self.mark().entry_id, "b1")  # the last that a store can keep

    def test_a_stranger_with_a_batch(self) -> None:
        """An entry whose id is not its batch's is counted under that of the batch."""
        self.begin()
        body = self.body("b1", "alice")
        for name in ("elsewhere", "", "b1"):
            self.successResultOf(self.log.append(name, body))
        self.wait(200)
        self.assertEqual(self.top(), {"alice": 1})

    def test_ids_that_no_store_can_hold(self) -> None:
        """Their batches are counted, and the mark stays at the last one that can be kept."""
        self.begin()
        before = self.mark()
        for number, name in enumerate(("", "with\0zero", "x" * (MAX_ID + 1))):
            self.successResultOf(self.log.append(name, self.body(f"b{number}", "alice")))
        self.wait(70)
        self.assertEqual(self.top(), {"alice": 3})
        self.assertEqual(self.mark(), before)

    def test_how_much_is_left(self) -> None:
        """K-95: an operator sees it while the first sweep runs."""
        self.begin()
        for number in range(5):
            self.append(f"b{number}", "alice")
        waiting: list[Deferred[list[str]]] = []

        def unapplied(ids: Sequence[str]) -> Deferred[list[str]]:
            waiting.append(Deferred())
            return waiting[-1]

        self.patch(self.store, "unapplied", unapplied)
        self.sweeper = self.make()
        begun = Deferred.fromCoroutine(self.sweeper.begin())
        self.assertEqual(
            self.sweeper.concern,
            "submissions that the log has and the counts lack are being counted; "
            "5 positions of the log are left",
        )
        waiting[0].callback([])
        self.assertEqual(self.sweeper.concern, "")
        self.successResultOf(begun)

    def test_at_the_start(self) -> None:
        """What a crash left is counted before anything else happens."""
        self.crashed()
        self.append("b1", "alice")
        self.begin()
        self.assertEqual(self.top(), {"alice": 1})

    def test_at_the_stop(self) -> None:
        self.begin()
        self.append("b1", "alice")
        self.successResultOf(Deferred.fromCoroutine(self.sweeper.stop()))
        self.assertEqual(self.top(), {"alice": 1})
        self.assertEqual(self.mark().entry_id, "b1")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_the_stop_in_the_middle(self) -> None:
        """Nobody else counts then: it is not waited for."""
        self.begin()
        self.append("b1", "alice")
        self.sweeper.soon()
        self.append("b2", "bob")
        self.successResultOf(Deferred.fromCoroutine(self.sweeper.stop()))
        self.assertEqual(self.top(), {"alice": 1, "bob": 1})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_a_reconnect(self) -> None:
        self.begin()
        self.append("b1", "alice")
        (told,) = self.log.told
        told()
        self.wait(5)
        self.assertEqual(self.top(), {"alice": 1})

    def test_again_behind_one_that_is_under_way(self) -> None:
        self.begin()
        self.append("b1", "alice")
        (told,) = self.log.told
        told()
        self.append("b2", "bob")
        told()
        self.wait(2)
        self.assertEqual(len(self.compared), 2)
        self.wait(1)
        self.assertEqual(len(self.compared), 3)
        self.wait(7)
        self.assertEqual(self.top(), {"alice": 1, "bob": 1})

    def test_begin_does_not_wait_for_ever(self) -> None:
        """A log that is far behind does not hold up the start, and is counted all the same."""
        waiting: list[Deferred[Any]] = []
        unapplied = self.store.unapplied

        def later(ids: Sequence[str]) -> Deferred[Sequence[str]]:
            waiting.append(Deferred())
            waiting[-1].addCallback(lambda _: unapplied(ids))
            return waiting[-1]

        self.patch(self.store, "unapplied", later)
        self.crashed()
        self.append("b1", "alice")
        begun = Deferred.fromCoroutine(self.sweeper.begin(5.0))
        self.wait(4)
        self.assertNoResult(begun)
        self.wait(2)
        self.successResultOf(begun)
        for one in waiting:
            one.callback(None)
        self.assertEqual(self.top(), {"alice": 1})


class TroubleTests(SweepCase):
    def watched(self) -> list[tuple[LogLevel, str | None]]:
        """Return the list that lines of the log are added to."""
        lines: list[tuple[LogLevel, str | None]] = []

        def see(event: Any) -> None:
            if event["log_namespace"].startswith("kupool.stats.sweep"):
                lines.append((event["log_level"], formatEvent(event)))

        globalLogPublisher.addObserver(see)
        self.addCleanup(globalLogPublisher.removeObserver, see)
        return lines

    def test_what_is_logged(self) -> None:
        """K-91: a trouble once, its end once, and what was missing."""
        lines = self.watched()
        self.begin()
        self.wait(200)
        self.assertEqual(lines, [])
        self.store.broken = True
        self.append("b1", "alice")
        self.wait(300)
        self.store.broken = False
        self.wait(70)
        self.assertEqual(
            lines,
            [
                (
                    LogLevel.info,
                    "The log cannot be compared with the counts: the store is down",
                ),
                (
                    LogLevel.warn,
                    "Counted 1 batches that are in the log and were not in the store",
                ),
                (LogLevel.info, "The log is compared with the counts again"),
            ],
        )

    def test_another_pool_is_an_error(self) -> None:
        """K-91: somebody has to do something about it."""
        self.begin()
        lines = self.watched()
        self.log.foreign = True
        self.wait(200)
        self.assertEqual([level for level, _ in lines], [LogLevel.error])

    def test_tries_again_soon_and_then_more_rarely(self) -> None:
        self.begin()
        self.log.away = "no broker"
        tries = self.tries()
        self.wait(60 + 1 + 2 + 4 + 8)
        self.assertEqual(tries, [60.0, 61.0, 63.0, 67.0, 75.0])

    def test_a_stop_does_not_wait_for_ever(self) -> None:
        """K-85: for a store that does not answer, so many seconds in all."""
        self.begin()
        self.append("b1", "alice")
        self.patch(self.store, "unapplied", lambda ids: Deferred())
        self.wait(61)
        stopped = Deferred.fromCoroutine(self.sweeper.stop(5.0))
        self.wait(4)
        self.assertNoResult(stopped)
        self.wait(1)
        self.successResultOf(stopped)

    def hang(self) -> list[Deferred[list[str]]]:
        """Have the store answer no more; returns what a sweep waits for."""
        waiting: list[Deferred[list[str]]] = []

        def unapplied(ids: Sequence[str]) -> Deferred[list[str]]:
            waiting.append(Deferred())
            return waiting[-1]

        self.patch(self.store, "unapplied", unapplied)
        return waiting

    def test_a_stop_that_waits_for_two_sweeps(self) -> None:
        """K-85: the one under way and the last one share its seconds."""
        self.begin()
        self.append("b1", "alice")
        waiting = self.hang()
        self.wait(64)
        (running,) = waiting
        stopped = Deferred.fromCoroutine(self.sweeper.stop(5.0))
        self.wait(2)
        self.append("b2", "bob")
        running.callback([])
        self.assertEqual(len(waiting), 2)
        self.wait(2)
        self.assertNoResult(stopped)
        self.wait(1)
        self.successResultOf(stopped)

    def test_a_stop_with_little_time(self) -> None:
        self.begin()
        self.append("b1", "alice")
        self.hang()
        self.wait(64)
        stopped = Deferred.fromCoroutine(self.sweeper.stop(0.5))
        self.clock.advance(0.5)
        self.clock.advance(0)  # nothing is left for the last sweep
        self.successResultOf(stopped)

    def test_a_stop_before_the_start_and_a_second_one(self) -> None:
        """Neither compares anything."""
        self.successResultOf(Deferred.fromCoroutine(self.sweeper.stop()))
        self.assertEqual(self.compared, [])
        self.begin()
        self.successResultOf(Deferred.fromCoroutine(self.sweeper.stop()))
        compared = len(self.compared)
        self.successResultOf(Deferred.fromCoroutine(self.sweeper.stop()))
        self.assertEqual(len(self.compared), compared)

    def test_a_failure_that_lasts(self) -> None:
        """K-95: after three minutes the operator is told, with the reason."""
        self.begin()
        self.log.away = "no broker"
        self.wait(60 + 179)
        self.assertEqual(self.sweeper.concern, "")
        self.wait(1)
        self.assertEqual(
            self.sweeper.concern,
            "the log has not been compared with the counts for a while: no broker",
        )
        self.log.away = ""
        self.wait(60)
        self.assertEqual(self.sweeper.concern, "")

    def test_a_failure_at_the_start(self) -> None:
        """The next attempt comes a second later, and the others more rarely."""
        self.log.away = "no broker"
        tries = self.tries()
        self.begin()
        self.wait(1 + 2 + 4)
        self.assertEqual(tries, [0.0, 1.0, 3.0, 7.0])

    def test_a_first_comparison_that_takes_long(self) -> None:
        """K-95: an operator is told what is done; later ones are short."""
        comparing: Deferred[Comparison] = Deferred()
        self.patch(self.sweeper, "_compare", lambda: comparing)
        begun = Deferred.fromCoroutine(self.sweeper.begin())
        self.assertEqual(
            self.sweeper.concern,
            "the log is being compared with the counts, and submissions that the counts lack "
            "are being counted",
        )
        comparing.addErrback(lambda failure: failure)
        comparing.errback(LogUnavailable("no broker"))
        self.successResultOf(begun)
        self.assertEqual(self.sweeper.concern, "")

    def test_an_error_in_the_sweeper_itself(self) -> None:
        """It is logged with what it was about."""
        self.begin()
        lines = self.watched()
        self.log.foreign = True
        self.patch(self.log, "refuse", lambda reason: 1 / 0)
        self.wait(60)
        said = (LogLevel.critical, "The comparison of the log with the counts failed")
        self.assertIn(said, lines)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_stop_without_a_limit(self) -> None:
        """It waits for the sweep, and for no time."""
        self.begin()
        self.append("b1", "alice")
        unapplied: Deferred[list[str]] = Deferred()
        self.patch(self.store, "unapplied", lambda ids: unapplied)
        self.wait(61)
        stopped = Deferred.fromCoroutine(self.sweeper.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        unapplied.callback([])
        self.successResultOf(stopped)

    def test_the_store_is_away(self) -> None:
        """A sweep that fails is made again; nothing is passed over, and the mark stays."""
        self.begin()
        self.append("b1", "alice")
        self.store.broken = True
        self.wait(70)
        self.assertEqual(self.sweeper.problem, "the store is down")
        self.assertNotEqual(self.mark().entry_id, "b1")
        self.assertEqual(self.sweeper.concern, "")
        self.wait(FAILING + 10)
        self.assertIn("the store is down", self.sweeper.concern)
        self.store.broken = False
        self.wait(70)
        self.assertEqual((self.sweeper.concern, self.sweeper.problem), ("", ""))
        self.assertEqual(self.top(), {"alice": 1})

    def test_the_log_is_away(self) -> None:
        self.begin()
        self.append("b1", "alice")
        self.log.away = "no broker"
        self.wait(200)
        self.assertEqual(self.log.refusal, "")
        self.log.away = ""
        self.wait(70)
        self.assertEqual(self.top(), {"alice": 1})

    def test_the_log_is_away_at_the_start(self) -> None:
        """Nothing is known then; the comparison is made as soon as it is back."""
        self.log.away = "no broker"
        self.begin()
        self.assertEqual(self.compared, [])
        self.log.away = ""
        (told,) = self.log.told
        told()
        self.assertEqual(len(self.compared), 1)
        self.wait(5)
        self.assertTrue(self.mark().entry_id)

    def test_another_pool(self) -> None:
        """A log of another pool that comes in place of ours takes nothing, until ours is back."""
        self.begin()
        self.log.foreign = True
        self.wait(70)
        self.assertIn("belongs to pool other", self.log.refusal)
        self.assertEqual(self.top(), {})
        self.log.foreign = False
        self.wait(70)
        self.assertEqual(self.log.refusal, "")

    def test_no_more_after_a_stop(self) -> None:
        self.begin()
        self.successResultOf(Deferred.fromCoroutine(self.sweeper.stop(inf)))
        reads = self.log.reads
        self.sweeper.soon()
        self.wait(200)
        self.assertEqual(self.log.reads, reads)
