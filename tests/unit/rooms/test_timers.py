"""The timing wheel, against a naive model and on its own, and the statistics of its tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from math import ceil, floor
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import RequestError
from kupool.rooms.tasks import TaskCounts, TaskStatistics
from kupool.rooms.timers import LobbyTimers, RoomTimer

#: Exact in binary, so that the model needs no tolerance.
TICK = 0.25


class Naive:
    """What a wheel is to do, by looking at every timer every time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: dict[tuple[Hashable, str], dict[str, Any]] = {}
        self.missed = 0

    def add(self, room: Hashable, key: str, delay: float, interval: float) -> None:
        due = self.now + delay
        tick = max(ceil(due / TICK), floor(self.now / TICK) + 1)
        self.timers[room, key] = {"due": due, "tick": tick, "interval": interval}

    def cancel_prefix(self, room: Hashable, prefix: str) -> int:
        gone = [at for at in self.timers if at[0] == room and at[1].startswith(prefix)]
        for at in gone:
            del self.timers[at]
        return len(gone)

    def advance(self, seconds: float) -> list[tuple[int, Hashable, str]]:
        self.now += seconds
        now = floor(self.now / TICK)
        fired = []
        for (room, key), timer in list(self.timers.items()):
            if timer["tick"] > now:
                continue
            fired.append((timer["tick"], room, key))
            if not timer["interval"]:
                del self.timers[room, key]
                continue
            missed = floor((self.now - timer["due"]) / timer["interval"])
            missed = max(0, missed)
            self.missed += missed
            timer["due"] += (missed + 1) * timer["interval"]
            timer["tick"] = max(ceil(timer["due"] / TICK), now + 1)
        return fired


rooms = st.sampled_from(["a", "b"])
keys = st.sampled_from(["x:1", "x:2", "y:1", "xx"])
# In eighths of a second: from under a tick to some that pass through four levels.
spans = st.one_of(st.integers(0, 40), st.integers(0, 2**13), st.integers(0, 2**26)).map(
    lambda eighths: eighths / 8
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("once"), rooms, keys, spans),
        st.tuples(st.just("repeat"), rooms, keys, spans.map(lambda span: span + TICK)),
        st.tuples(st.just("cancel"), rooms, keys),
        st.tuples(st.just("cancel_prefix"), rooms, st.sampled_from(["", "x", "x:", "z"])),
        st.tuples(st.just("advance"), spans),
    ),
    max_size=60,
)


def fire_or_cancel(
    case: SynchronousTestCase, timers: LobbyTimers, clock: Clock, *, rooms: int
) -> None:
    """See that of 100 timers in each room 11 are cancelled, and the others fire, each once."""
    fired = 0

    def count(timer: RoomTimer) -> None:
        nonlocal fired
        fired += 1

    keys = [str(n) for n in range(100)]
    for room in range(rooms):
        for n, key in enumerate(keys):
            timers.once(room, key, (room * 7 + n * 37) % 3600, count)
    case.assertEqual(len(timers), 100 * rooms)
    case.assertEqual(len(clock.getDelayedCalls()), 1)
    case.assertEqual(sum(timers.cancel_prefix(room, "1") for room in range(rooms)), 11 * rooms)
    clock.advance(1800)
    case.assertLess(fired, 50 * rooms)
    case.assertEqual(fired + len(timers), 89 * rooms)
    clock.advance(1800.25)
    case.assertEqual((fired, len(timers)), (89 * rooms, 0))
    case.assertEqual(clock.getDelayedCalls(), [])


class ModelTests(SynchronousTestCase):
    """A-49: once and repeat, by (room, key), cancelled alone or by prefix."""

    @settings(max_examples=150)
    @given(steps, st.sampled_from([1, 3, 1000]))
    def test_a_wheel_does_what_the_model_does(self, todo: list[Any], per_turn: int) -> None:
        clock, naive = Clock(), Naive()
        tasks = TaskStatistics(clock.seconds)
        wheel = LobbyTimers(clock, TICK, tasks=tasks, per_turn=per_turn)
        fired: list[tuple[Hashable, str]] = []

        def note(timer: RoomTimer) -> None:
            self.assertGreaterEqual(clock.seconds(), timer.was_due)
            fired.append((timer.room, timer.key))

        for step in todo:
            match step:
                case ("once", room, key, delay):
                    naive.add(room, key, delay, 0.0)
                    wheel.once(room, key, delay, note)
                case ("repeat", room, key, interval):
                    naive.add(room, key, interval, interval)
                    wheel.repeat(room, key, interval, note)
                case ("cancel", room, key):
                    there = naive.timers.pop((room, key), None) is not None
                    self.assertEqual(wheel.cancel(room, key), there)
                case ("cancel_prefix", room, prefix):
                    self.assertEqual(
                        wheel.cancel_prefix(room, prefix), naive.cancel_prefix(room, prefix)
                    )
                case ("advance", seconds):
                    expected = naive.advance(seconds)
                    clock.advance(seconds)
                    at = {(room, key): tick for tick, room, key in expected}
                    self.assertEqual(Counter(fired), Counter(list(at)))
                    # What is due at once fires with the next tick, and what else has it.
                    ticks = [at[name] for name in fired]
                    self.assertEqual(ticks, sorted(ticks), "earlier ones first")
                    fired.clear()
            self.assertEqual(len(wheel), len(naive.timers))
            for room in ("a", "b"):
                expected_keys = {key for at, key in naive.timers if at == room}
                self.assertEqual(set(wheel.keys(room)), expected_keys)
            self.assertLessEqual(len(clock.getDelayedCalls()), 1, "one timer of the reactor")
        self.assertEqual(sum(c.missed for c in tasks.snapshot().values()), naive.missed)
        wheel.stop()
        self.assertEqual((len(wheel), clock.getDelayedCalls()), (0, []))


class WheelTests(SynchronousTestCase):
    """A-49: room timers on one timer of the reactor."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.tasks = TaskStatistics(self.clock.seconds)
        self.timers = LobbyTimers(self.clock, TICK, tasks=self.tasks)
        self.fired: list[tuple[float, str]] = []

    def note(self, timer: RoomTimer) -> None:
        self.fired.append((self.clock.seconds(), timer.key))

    def test_never_early_and_at_most_a_tick_late(self) -> None:
        for n in range(1, 40):
            self.timers.once("room", str(n / 10), n / 10, self.note)
        self.clock.pump([0.05] * 100)
        self.assertEqual(len(self.fired), 39)
        for at, key in self.fired:
            self.assertGreaterEqual(at, float(key) - 1e-6)
            self.assertLess(at, float(key) + TICK + 0.05)

    def test_a_long_interval_misses_no_firing_that_is_not_due(self) -> None:
        """A reactor that wakes late, by almost an interval, is in time for the next."""
        self.timers.repeat("room", "day", 250_000.0, self.note)
        self.clock.advance(499_999.75)
        self.clock.advance(0.5)
        self.assertEqual([key for _, key in self.fired], ["day", "day"])
        self.assertEqual(self.tasks.snapshot()["day"].missed, 0)

    def test_what_is_due_at_once_fires_with_the_next_tick(self) -> None:
        """A-49: also where some time has passed, and a later one waits."""
        fired: list[str] = []
        self.timers.once("r", "later", 10 * TICK, lambda timer: fired.append("later"))
        self.clock.advance(2.5 * TICK)
        self.timers.once("r", "now", 0.0, lambda timer: fired.append("now"))
        self.clock.advance(0.0)
        self.assertEqual(fired, [])
        self.clock.advance(0.5 * TICK)
        self.assertEqual(fired, ["now"])

    def test_the_same_key_replaces(self) -> None:
        self.timers.once("room", "turn", 1, self.note)
        self.timers.once("room", "turn", 3, self.note)
        self.timers.once("other", "turn", 2, self.note)
        self.clock.pump([1] * 4)
        self.assertEqual(self.fired, [(2, "turn"), (3, "turn")])

    def test_rounding_makes_no_tick_late(self) -> None:
        """Ticks that have no exact value in binary fire in the step of the clock they are of."""
        for tick in (0.05, 0.1, 0.3, 1 / 3):
            clock = Clock()
            tasks = TaskStatistics(clock.seconds)
            clock.advance(12345.678)
            LobbyTimers(clock, tick, tasks=tasks).repeat("room", "tick", tick, lambda timer: None)
            for _ in range(1000):
                clock.advance(tick)
            counts = tasks.of("tick")
            self.assertEqual((counts.runs, counts.missed), (1000, 0))
            self.assertLess(counts.lateness_max, tick / 1000)

    def test_a_callback_may_cancel_and_add_its_own_key(self) -> None:
        def again(timer: RoomTimer) -> None:
            self.note(timer)
            if len(self.fired) < 3:
                self.timers.once("room", "again", 0, again)

        def only_twice(timer: RoomTimer) -> None:
            self.note(timer)
            if [key for _, key in self.fired].count("twice") == 2:
                self.assertTrue(self.timers.cancel("room", "twice"))

        self.timers.once("room", "again", 0, again)
        self.clock.pump([TICK] * 5)
        self.assertEqual(self.fired, [(TICK * n, "again") for n in (1, 2, 3)])
        self.timers.repeat("room", "twice", 1, only_twice)
        self.clock.pump([1] * 5)
        self.assertEqual([key for _, key in self.fired[3:]], ["twice", "twice"])
        self.assertEqual(len(self.timers), 0)

    def test_an_idle_wheel_is_never_woken(self) -> None:
        """A wheel without timers leaves the reactor alone, and a far one wakes it rarely."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.timers.once("room", "year", 365 * 86400, self.note)
        for _ in range(366):
            self.clock.advance(86400)
        self.assertEqual([key for _, key in self.fired], ["year"])
        self.assertLess(self.timers.turns, 6, "once for each level, not once a tick")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_work_in_one_turn_is_bounded(self) -> None:
        wheel = LobbyTimers(self.clock, TICK, per_turn=100)
        turns: Counter[int] = Counter()
        for n in range(1000):
            wheel.once(n % 7, str(n), 1000, lambda timer: turns.update([wheel.turns]))
        self.clock.advance(1000)
        self.assertEqual(turns.total(), 1000)
        self.assertLessEqual(max(turns.values()), 100)

    def test_how_many_timers_fire_in_one_turn(self) -> None:
        """A thousand, unless told otherwise; and as many timers wait as there are."""
        turns: Counter[int] = Counter()
        for n in range(1001):
            self.timers.once("room", str(n), 1, lambda timer: turns.update([self.timers.turns]))
        self.clock.advance(1)
        self.assertEqual(sorted(turns.values()), [1, 1000])

    def test_how_late_a_timer_may_be(self) -> None:
        """A-49: 50 ms, unless told otherwise."""
        self.assertEqual(LobbyTimers(self.clock).tick, 0.05)

    def test_the_name_under_which_a_timer_is_counted(self) -> None:
        """A-56: its own one, or its key up to the first colon."""
        self.timers.once("room", "turn:ann:1", 1, self.note)
        self.timers.once("room", "end", 1, self.note, name="the end")
        self.timers.repeat("room", "hint:ann", 1, self.note)
        self.timers.repeat("room", "tick", 1, self.note, name="a tick")
        self.clock.advance(1)
        self.assertEqual(set(self.tasks.snapshot()), {"turn", "the end", "hint", "a tick"})

    def test_ten_thousand_timers(self) -> None:
        """A-49: of 100 rooms, all of which fire or are cancelled, on one timer of the reactor."""
        fire_or_cancel(self, self.timers, self.clock, rooms=100)

    def test_a_failing_callback_stops_nobody_else(self) -> None:
        def fail(timer: RoomTimer) -> None:
            raise ZeroDivisionError

        async def fail_later(timer: RoomTimer) -> None:
            raise ZeroDivisionError

        self.timers.once("room", "bad", 1, fail)
        self.timers.once("room", "worse", 1, fail_later)
        self.timers.once("room", "good", 1, self.note)
        self.clock.advance(1)
        self.assertEqual(self.fired, [(1, "good")])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        counts = self.tasks.snapshot()
        self.assertEqual([counts[n].failures for n in ("bad", "worse", "good")], [1, 1, 0])

    def test_without_statistics(self) -> None:
        """Firings are missed and skipped all the same; none is counted."""
        timers, ends = LobbyTimers(self.clock, TICK), list[Deferred[None]]()

        def start(timer: RoomTimer) -> Deferred[None]:
            self.note(timer)
            ends.append(Deferred())
            return ends[-1]

        timers.repeat("room", "slow", 1, start)
        for _ in range(2):
            self.clock.advance(3.5)
        self.assertEqual(self.fired, [(3.5, "slow")])
        ends[0].callback(None)
        self.clock.advance(1)
        self.assertEqual(self.fired, [(3.5, "slow"), (8, "slow")])

    def test_a_timer_that_is_not_counted(self) -> None:
        self.timers.repeat("room", "tick", 1, self.note, counted=False)
        self.clock.advance(1)
        self.assertEqual((self.fired, self.tasks.snapshot()), ([(1, "tick")], {}))

    def test_a_limit(self) -> None:
        wheel = LobbyTimers(self.clock, TICK, limit=2)
        wheel.once("room", "a", 1, self.note)
        wheel.once("room", "b", 1, self.note)
        for add in (wheel.once, wheel.repeat):
            error = self.assertRaises(RequestError, add, "room", "c", 1, self.note).error
            self.assertEqual(error.text, "too many requests: 2 timers")
        wheel.once("room", "b", 2, self.note)
        wheel.cancel("room", "a")
        wheel.once("room", "c", 1, self.note)
        self.assertEqual(len(wheel), 2)
        wheel.once("room", "d", 1, self.note, always=True)
        self.assertEqual(len(wheel), 3)

    def test_the_longest_delay(self) -> None:
        """That of 2**38 ticks; nothing is left of a longer one."""
        self.timers.once("room", "far", 2.0**36, self.note)
        self.assertRaises(ValueError, self.timers.once, "room", "more", 2.0**36 + 1, self.note)
        self.assertEqual(self.timers.keys("room"), ["far"])

    def test_all_timers_of_a_room(self) -> None:
        for room in ("room", "other"):
            for key in ("a", "b:1"):
                self.timers.once(room, key, 1, self.note)
        self.assertEqual(self.timers.cancel_prefix("room"), 2)
        self.assertEqual((self.timers.keys("room"), self.timers.keys("other")), ([], ["a", "b:1"]))

    def test_the_end(self) -> None:
        """A-47: no timer is left, and one may be set again."""
        for key in ("a", "b"):
            self.timers.once("room", key, 1, self.note)
        self.timers.stop()
        self.assertEqual((self.timers.keys("room"), self.timers.get("room", "a")), ([], None))
        self.assertFalse(self.timers.cancel("room", "a"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.timers.once("room", "a", 1, self.note)
        self.clock.advance(1)
        self.assertEqual(self.fired, [(1, "a")])

    def test_bad_values(self) -> None:
        self.assertRaises(ValueError, LobbyTimers, self.clock, 0)
        for delay in (-1, float("inf"), float("nan"), 1e12):
            self.assertRaises(ValueError, self.timers.once, "room", "a", delay, self.note)
        for interval in (0, TICK / 2, -1, float("nan")):
            self.assertRaises(ValueError, self.timers.repeat, "room", "a", interval, self.note)
        self.assertEqual(len(self.timers), 0)


class TaskStatisticsTests(SynchronousTestCase):
    """A-56: runs, lateness, duration and failures of every scheduled task."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.tasks = TaskStatistics(self.clock.seconds)
        self.timers = LobbyTimers(self.clock, TICK, tasks=self.tasks)

    def test_runs_lateness_and_duration(self) -> None:
        self.timers.repeat("room", "save:7", 1, lambda timer: self.clock.advance(0.5))
        self.clock.advance(1.125)
        self.clock.advance(0.625)
        counts = self.tasks.snapshot()["save"]
        self.assertEqual((counts.runs, counts.running, counts.failures), (2, 0, 0))
        self.assertEqual((counts.lateness_total, counts.lateness_max), (0.375, 0.25))
        self.assertEqual((counts.duration_total, counts.duration_max), (1.0, 0.5))

    def test_a_run_ends_with_its_deferred_and_does_not_overlap(self) -> None:
        ends: list[Deferred[None]] = []

        def start(timer: RoomTimer) -> Deferred[None]:
            ends.append(Deferred())
            return ends[-1]

        self.timers.repeat("room", "slow", 1, start)
        self.clock.pump([1, 1, 1, 0.5])
        counts = self.tasks.of("slow")
        self.assertEqual((counts.runs, counts.running, counts.skipped), (1, 1, 2))
        ends[0].errback(ZeroDivisionError())
        self.assertEqual((counts.running, counts.failures, counts.duration_total), (0, 1, 2.5))
        self.flushLoggedErrors(ZeroDivisionError)
        self.clock.advance(0.5)
        self.assertEqual((counts.runs, counts.running), (2, 1))

    def test_a_stall_is_not_made_up_for(self) -> None:
        self.timers.repeat("room", "tick", 1, lambda timer: None)
        self.clock.advance(10.5)
        counts = self.tasks.of("tick")
        self.assertEqual((counts.runs, counts.missed, counts.lateness_max), (1, 9, 9.5))
        self.clock.advance(0.5)
        self.assertEqual((counts.runs, counts.lateness_max), (2, 9.5))

    def test_a_stall_that_ends_with_a_firing(self) -> None:
        """Rounding makes no difference: this firing is the one that runs."""
        self.timers.repeat("room", "tick", 1, lambda timer: None)
        self.clock.advance(3 - 1e-9)
        counts = self.tasks.of("tick")
        self.assertEqual((counts.runs, counts.missed), (1, 2))
        self.clock.advance(0.5)
        self.assertEqual(counts.runs, 1)

    def test_names_are_bounded(self) -> None:
        tasks = TaskStatistics(self.clock.seconds, max_names=2)
        for n in range(5):
            tasks.run(str(n), 0, lambda: None)
        self.assertEqual(
            {k: c.runs for k, c in tasks.snapshot().items()}, {"0": 1, "1": 1, "other": 3}
        )

    def test_how_many_names_are_kept(self) -> None:
        """K-44: a thousand, unless told otherwise."""
        tasks = TaskStatistics(self.clock.seconds)
        for n in range(1001):
            tasks.run(f"task {n}", 0, lambda: None)
        counts = tasks.snapshot()
        self.assertEqual((len(counts), counts["task 999"].runs, counts["other"].runs), (1001, 1, 1))

    def test_what_a_run_raises(self) -> None:
        """It is counted, and the caller gets it: at once, or later."""
        later: Deferred[None] = Deferred()

        def fail() -> None:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.tasks.run, "fail", 0, fail)
        run: Any = self.tasks.run("fail", 0, lambda: later)
        later.errback(ZeroDivisionError())
        self.failureResultOf(run, ZeroDivisionError)
        counts = self.tasks.of("fail")
        self.assertEqual((counts.runs, counts.running, counts.failures), (2, 0, 2))

    def test_a_run_in_time(self) -> None:
        """Nothing but the run is counted; a run before its time is not late."""
        self.clock.advance(5)
        for due in (5.0, 5.5):
            self.tasks.run(f"due {due}", due, lambda: None)
            self.assertEqual(self.tasks.of(f"due {due}"), TaskCounts(1, 0, 0, 0, 0, 0, 0, 0, 0))
