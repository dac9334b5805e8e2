"""Requests by minute, on a clock of the test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kupool.activity.minutes import KEPT_MINUTES, MINUTE
from kupool.activity.requests import Latency, RequestMinutes, RunningTotals, ShownMinute

#: A whole minute.
NOON = 1_800_000_000


class KeptMinutes:
    """A store in memory that may fail."""

    def __init__(self) -> None:
        self.rows: dict[int, str] = {}
        self.error: Exception | None = None
        self.saves = 0
        self.closed = False

    def load(self, after: int) -> Deferred[list[tuple[int, str]]]:
        if self.error is not None:
            return fail(self.error)
        return succeed([row for row in sorted(self.rows.items()) if row[0] > after])

    def save(self, rows: Sequence[tuple[int, bytes]], until: int) -> Deferred[None]:
        self.saves += 1
        if self.error is not None:
            return fail(self.error)
        self.rows.update((minute, text.decode()) for minute, text in rows)
        self.rows = {minute: text for minute, text in self.rows.items() if minute > until}
        return succeed(None)

    def close(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)


class RequestMinutesTests(SynchronousTestCase):
    """A-55: requests are counted by minute and by method, for a day, also over a restart."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = KeptMinutes()
        self.ahead = float(NOON)
        self.methods: Counter[str] = Counter()
        self.accepted = 0
        self.rejections: Counter[str] = Counter()
        self.requests = self.start()

    def totals(self) -> RunningTotals:
        return RunningTotals(Counter(self.methods), self.accepted, Counter(self.rejections))

    def start(self) -> RequestMinutes:
        made = RequestMinutes(
            self.clock, lambda: self.clock.seconds() + self.ahead, self.totals, self.store
        )
        self.run_it(made.start())
        return made

    def run_it(self, work: Any) -> Any:
        done = Deferred.fromCoroutine(work)
        while not done.called:
            self.clock.advance(0)
        return self.successResultOf(done)

    def pass_by(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)

    def shown(self, number: int = KEPT_MINUTES) -> list[ShownMinute]:
        found: list[ShownMinute] = self.run_it(self.requests.minutes(number))
        return found

    def submit(self, accepted: int, **rejected: int) -> None:
        self.accepted += accepted
        self.rejections.update(rejected)
        self.methods["submit"] += accepted + sum(rejected.values())

    def test_each_minute_has_its_own(self) -> None:
        self.methods["ping"] += 1
        self.submit(5, late=2)
        self.pass_by(60)
        self.submit(1)
        self.pass_by(60)
        self.pass_by(5)
        self.methods["ping"] += 3
        found = self.shown()
        self.assertEqual([each.minute - NOON for each in found], [0, 60, 120])
        self.assertEqual(
            [(each.record.methods, each.record.accepted, each.record.rejected) for each in found],
            [({"ping": 1, "submit": 7}, 5, 2), ({"submit": 1}, 1, 0), ({"ping": 3}, 0, 0)],
        )
        self.assertEqual([each.minute - NOON for each in self.shown(2)], [60, 120])

    def test_what_is_before_the_start_does_not_count(self) -> None:
        """A-55: the counters may have begun earlier than this."""
        self.submit(100)
        self.requests = self.start()
        self.submit(1)
        self.assertEqual([each.record.accepted for each in self.shown()], [1])

    def test_restart(self) -> None:
        """A-55: minutes are there after a restart, and the minute of the restart goes on."""
        self.submit(5)
        self.requests.answered(0.004)
        self.pass_by(90)
        self.submit(2, late=1)
        self.requests.answered(0.001)
        self.run_it(self.requests.stop())
        self.assertTrue(self.store.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.accepted, self.methods, self.rejections = 0, Counter(), Counter()
        self.requests = self.start()
        self.submit(3)
        self.requests.answered(0.009)
        found = self.shown()
        self.assertEqual(
            [(each.minute - NOON, each.record.accepted) for each in found], [(0, 5), (60, 5)]
        )
        self.assertEqual(found[1].record.methods, {"submit": 6})
        self.assertEqual(sum(found[1].record.latency.values()), 2)
        self.assertEqual(found[1].record.longest, 0.009)

    def test_a_kill_costs_less_than_a_minute(self) -> None:
        """A-55: what a minute had is stored when it is over, once."""
        self.submit(5)
        self.pass_by(61)
        self.assertEqual((list(self.store.rows), self.store.saves), ([NOON], 1))
        self.submit(5)
        self.pass_by(30)
        self.assertEqual(self.store.saves, 1)

    def test_a_day(self) -> None:
        """A-55: older minutes go away, in memory and in the store."""
        self.pass_by(MINUTE * (KEPT_MINUTES + 3))
        found = self.shown()
        self.assertEqual(len(found), KEPT_MINUTES)
        self.assertEqual(found[0].minute, NOON + 4 * MINUTE)
        self.assertLessEqual(len(self.store.rows), KEPT_MINUTES)

    def test_a_day_without_the_daemon(self) -> None:
        """Issue 18, bad input: minutes in which nobody counted are left out."""
        self.submit(5)
        self.pass_by(30)
        self.run_it(self.requests.stop())
        self.ahead += 3 * 3600
        self.requests = self.start()
        self.assertEqual([each.minute - NOON for each in self.shown()], [0, 3 * 3600])
        self.ahead += 25 * 3600
        self.run_it(self.requests.stop())
        self.requests = self.start()
        self.assertEqual(len(self.shown()), 1)

    def test_the_clock_is_set_back(self) -> None:
        """Issue 18, bad input: a minute that comes again goes on, and nothing is lost."""
        self.submit(5)
        self.pass_by(130)
        self.ahead -= 120
        self.submit(7)
        self.pass_by(5)
        found = {each.minute - NOON: each.record.accepted for each in self.shown()}
        self.assertEqual(found[0], 12)

    def test_the_clock_was_ahead(self) -> None:
        """Issue 18, bad input: what is ahead of the clock is not shown, and is bounded."""
        self.ahead += 10 * 24 * 3600
        self.submit(1)
        self.pass_by(120)
        self.ahead -= 10 * 24 * 3600
        self.submit(2)
        self.pass_by(2)
        found = self.shown()
        self.assertEqual(sum(each.record.accepted for each in found), 2)
        self.assertLessEqual(len(self.requests._minutes), KEPT_MINUTES)

    def test_a_store_that_fails(self) -> None:
        """A-55: it is told once, and what could not be stored is stored later."""
        self.store.error = OSError("disk full")
        self.submit(5)
        with capturedLogs() as told:
            self.pass_by(130)
        texts = [formatEvent(event) for event in told]
        self.assertEqual(texts, ["Requests by minute are kept in memory alone: disk full"])
        self.assertEqual(self.store.rows, {})
        self.store.error = None
        self.pass_by(60)
        self.assertEqual(list(self.store.rows), [NOON, NOON + 60, NOON + 120])

    def test_rows_that_cannot_be_read(self) -> None:
        """A-55: a row of something else is left out, and told."""
        self.run_it(self.requests.stop())
        self.store.rows = {NOON - 60: "nonsense", NOON - 120: '[{"a":1},1,0,{"99999":1},0.1]'}
        with capturedLogs() as told:
            self.requests = self.start()
        self.assertEqual(len([e for e in told if "cannot be read" in formatEvent(e)]), 2)
        self.assertEqual([each.minute for each in self.shown()], [NOON])

    def test_rates_and_rejections_of_now(self) -> None:
        """Issue 18, build 3: by second over ten seconds, and by reason over a minute."""
        self.submit(100, late=20)
        self.assertEqual(self.requests.rejections(), {"late": 20})
        self.assertEqual(self.requests.rates(), (10.0, 2.0))
        self.pass_by(5)
        self.submit(50, twice=30)
        self.pass_by(1)
        self.assertEqual(self.requests.rejections(), {"twice": 30, "late": 20})
        self.assertEqual(self.requests.rates(), (15.0, 5.0))
        self.pass_by(6)
        self.assertEqual(self.requests.rates(), (5.0, 3.0))
        self.pass_by(50)
        self.assertEqual(self.requests.rejections(), {"twice": 30})
        self.pass_by(10)
        self.assertEqual(self.requests.rejections(), {})
        self.assertEqual(self.requests.rates(), (0.0, 0.0))

    def test_readers_take_no_memory(self) -> None:
        """Issue 18, acceptance 3: a thousand looks within a moment are kept as one."""
        for _ in range(1000):
            self.submit(1)
            self.requests.rejections()
        self.assertEqual(len(self.requests._lately), 1)
        self.assertEqual(self.requests.rates()[0], 100.0)

    def test_latency(self) -> None:
        """Issue 18, build 2: the latency of the last minute, and of each minute."""
        self.assertIs(self.requests.latency(), None)
        for number in range(1, 101):
            self.requests.answered(number / 1000)
        self.assertEqual(self.requests.latency(), Latency(0.05, 0.099))
        found = self.shown()[0].latency
        assert found is not None
        self.assertApproximates(found.p50, 0.05, 0.05 / 16)
        self.assertApproximates(found.p99, 0.099, 0.099 / 16)
        self.pass_by(61)
        self.assertIs(self.requests.latency(), None)
        self.assertIs(self.shown()[-1].latency, None)
