"""Bounds that are kept, and rows that are cleared, on a fake clock."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.housekeeping import CLEAR, KEEP, LOOK, Housekeeping
from kupool.daemon.memory import WORTH_RETURNING, Memory
from kupool.log import Extent, LogUnavailable, Mark, StoreState
from kupool.settings import Settings, with_values
from tests.fakes.raising import ENDINGS

NOW = 1.8e9


class _Part:
    """Stands for the log, the counts and the coordinator; notes what it is asked."""

    newest_save: float | None

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            answer = self.answers.get(name, 0)
            return answer if isinstance(answer, Deferred) else succeed(answer)

        return call

    def taken(self) -> list[tuple[Any, ...]]:
        calls, self.calls = self.calls, []
        return calls


class _Parts:
    def __init__(self) -> None:
        self.log = self.stats = self.coordinator = self.clock_watch = _Part()
        #: The file of the store; the look at it is seen in ``looked``.
        self.databases = [SimpleNamespace(look=self._look)]
        self.looked = 0
        #: When topics were looked at, on the retention clock.
        self.topics = SimpleNamespace(cleanup=SimpleNamespace(look=lambda now: self.at.append(now)))
        self.at: list[float] = []
        #: Sessions that have ended; the look at them is seen in ``summed``.
        self.activity = SimpleNamespace(look=self._sum)
        self.summed = 0
        answers = self.log.answers
        answers["retention_time"] = succeed(None)
        answers["state"] = succeed(StoreState(None, Mark(8), 0, True))
        answers["extent"] = succeed(Extent(None, 7, 9, True))
        self.coordinator.newest_save = None

    def _look(self) -> None:
        self.looked += 1

    def _sum(self) -> None:
        self.summed += 1


#: What is done each second, and each minute.
OFTEN = ("relieve", "save_again", "look", "keep_retention_time")


class HousekeepingTests(SynchronousTestCase):
    """K-50, K-76: bounds once a second, retention every ten minutes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.parts = _Parts()
        self.part = self.parts.log
        self.settings = Settings()
        parts: Any = self.parts
        self.retired = self.given_back = 0
        memory = Memory(self.clock, lambda: self.retired, self.give_back)
        #: What the wall clock shows beyond the right time, in seconds.
        self.wrong = 0.0
        self.housekeeping = Housekeeping(
            self.clock,
            self.wall,
            self.clock.seconds,
            parts,
            settings=lambda: self.settings.submissions,
            memory=memory,
        )
        self.start()
        self.part.taken()

    def wall(self) -> float:
        return NOW + self.wrong + self.clock.seconds()

    def start(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.housekeeping.start()))

    def run_for(self, seconds: float) -> None:
        """Let time pass, a second at once."""
        self.clock.pump([LOOK] * int(seconds))

    def rare(self) -> list[tuple[Any, ...]]:
        """What was asked since the last look that is not asked often."""
        return [call for call in self.part.taken() if call[0] not in OFTEN]

    def give_back(self) -> None:
        self.given_back += 1

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.housekeeping.stop())

    def test_every_second(self) -> None:
        """K-50, K-35, Q-11, issue 11, point 4: too many nonces, jobs that could not be saved, and
        files that may have been moved are looked after.
        """
        self.clock.pump([1.0] * 3)
        self.assertEqual((self.parts.looked, self.parts.summed), (3, 3))
        self.assertEqual(self.parts.at, [NOW + 1, NOW + 2, NOW + 3])
        self.assertEqual(self.part.taken(), [("relieve",), ("save_again",), ("look",)] * 3)
        self.successResultOf(self.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_memory(self) -> None:
        """K-50: what many retired nonces took is given back soon, and the rest of it later."""
        self.retired = WORTH_RETURNING - 1
        self.clock.pump([1.0] * 100)
        self.assertEqual(0, self.given_back)
        self.retired += 1
        self.clock.advance(1.0)  # the look that notices
        self.clock.pump([1.0] * 2)
        self.assertEqual(1, self.given_back)
        self.clock.pump([1.0] * 57)
        self.assertEqual(1, self.given_back)
        self.clock.advance(1.0)
        self.assertEqual(2, self.given_back)
        self.retired += 1
        self.clock.pump([1.0] * 100)
        self.assertEqual(2, self.given_back)

    def test_memory_of_a_stalled_process(self) -> None:
        """K-50: one look does for all that is overdue."""
        self.retired = WORTH_RETURNING
        self.clock.advance(1.0)
        self.clock.advance(100.0)
        self.assertEqual(1, self.given_back)

    def test_every_ten_minutes(self) -> None:
        """K-76: with the retention of the settings of that moment."""
        self.run_for(CLEAR - 1)
        self.part.taken()
        self.settings = with_values(
            self.settings,
            {"log_retention": 100.0, "log_max_size": 5, "keep_minutes": 10.0, "keep_hours": 20.0},
        )
        self.run_for(1)
        now = NOW + CLEAR
        self.assertEqual(
            self.rare(),
            [
                ("trim", now, 100.0, 5),
                ("roll_up", int(now - 10), int(now - 20)),
                ("forget_rejections", int(now - 10)),
                ("state",),
                ("extent", None, Mark(8)),
                ("forget_batches", 7),
            ],
        )

    def test_what_is_kept_for_ever(self) -> None:
        """K-76: 0 turns a retention off."""
        self.settings = with_values(
            self.settings, {"log_retention": 0.0, "keep_minutes": 0.0, "keep_hours": 0.0}
        )
        self.successResultOf(Deferred.fromCoroutine(self.housekeeping.clear()))
        self.assertEqual(
            self.rare()[:2],
            [("trim", NOW, 0.0, self.settings.submissions.log_max_size), ("roll_up", 0, 0)],
        )

    def test_a_log_that_is_away(self) -> None:
        """Issue 11: it is asked again later what it holds, and no id is forgotten."""
        self.part.answers["extent"] = fail(LogUnavailable("away"))
        self.run_for(CLEAR)
        self.assertNotIn("forget_batches", [call[0] for call in self.part.taken()])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_failure_is_logged_and_tried_again(self) -> None:
        """K-72: a store that is away stops nothing for good."""
        self.part.answers["trim"] = fail(OSError("disk full"))
        with capturedLogs() as events:
            self.clock.advance(CLEAR)
        found = [(event["log_level"], event["reason"]) for event in events if "reason" in event]
        self.assertEqual(found, [(LogLevel.warn, "disk full")])
        self.part.answers["trim"] = succeed(0)
        self.part.taken()
        self.clock.advance(CLEAR)
        self.assertIn("roll_up", [call[0] for call in self.part.taken()])

    def test_a_stop_waits_for_what_is_under_way(self) -> None:
        """K-85: nothing is cleared any more when the files close."""
        trimming: Deferred[int] = Deferred()
        self.part.answers["trim"] = trimming
        self.clock.advance(CLEAR)
        stopped = self.stop()
        self.assertNoResult(stopped)
        trimming.callback(3)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_clearing_at_a_time(self) -> None:
        """K-76: one that takes long is not overtaken by the next."""
        self.part.answers["trim"] = Deferred()
        self.clock.advance(CLEAR)
        self.clock.advance(CLEAR)
        self.assertEqual([c[0] for c in self.part.taken()].count("trim"), 1)

    def test_a_clock_that_is_ahead(self) -> None:
        """Issue 11, point 3: retention follows a clock that no wrong wall clock can rush."""
        self.run_for(CLEAR - 100)
        self.wrong = 40 * 86400.0
        self.run_for(100)
        (trim, roll_up, forget, *_) = self.rare()
        self.assertEqual(trim[1], NOW + CLEAR + 100)
        self.assertEqual(roll_up[1], int(trim[1] - self.settings.submissions.keep_minutes))
        self.assertEqual(forget[1], int(trim[1] - self.settings.submissions.keep_minutes))

    def test_a_clock_in_1970(self) -> None:
        """Issue 11, point 3: ages in the log are not noted by it, and nothing is rolled up."""
        self.wrong = -NOW
        self.run_for(CLEAR)
        (trim, roll_up, forget, *_) = self.rare()
        self.assertEqual(trim[1], NOW)
        self.assertEqual((roll_up[1:], forget[1:]), ((0, 0), (0,)))

    def test_the_retention_clock_is_kept(self) -> None:
        """Issue 11, point 3: each minute and at the end, and a failure stops nothing."""
        self.run_for(KEEP)
        self.assertIn(("keep_retention_time", NOW + KEEP), self.part.taken())
        self.part.answers["keep_retention_time"] = fail(OSError("disk full"))
        self.run_for(2 * KEEP)
        self.part.answers["keep_retention_time"] = succeed(None)
        self.part.taken()
        self.successResultOf(self.stop())
        self.assertEqual(self.part.taken(), [("keep_retention_time", NOW + 3 * KEEP)])

    def test_a_store_that_fails_to_keep_the_retention_clock(self) -> None:
        """Issue 12, point 5: whatever it raises, the clock is kept the next time."""
        for error in ENDINGS:
            with capturedLogs() as logs:
                self.part.answers["keep_retention_time"] = fail(error())
                self.run_for(KEEP)
                self.part.answers["keep_retention_time"] = succeed(None)
                self.part.taken()
                self.run_for(KEEP)
            self.assertIn(("keep_retention_time", self.wall()), self.part.taken())
            self.assertEqual([e["log_level"] for e in logs], [LogLevel.warn], error)

    def test_the_retention_clock_goes_on(self) -> None:
        """Issue 11, point 3: after a downtime from where it was kept."""
        self.successResultOf(self.stop())
        self.part.answers["retention_time"] = succeed(NOW - 5000.0)
        self.start()
        self.run_for(CLEAR)
        trims = [call for call in self.rare() if call[0] == "trim"]
        self.assertEqual(trims[-1][1], NOW - 5000.0 + 2 * CLEAR)

    def test_over_the_data_of_the_release_before(self) -> None:
        """Issue 11, point 3: it begins at the newest job, where the wall clock is ahead."""
        self.successResultOf(self.stop())
        self.wrong = 1e9
        self.part.newest_save = NOW - 10.0
        self.part.taken()
        self.start()
        # From here on the log's entries get older: a clearing has a time to count from.
        self.assertIn(("trim", NOW - 10.0, 0, 0), self.part.taken())
        self.run_for(CLEAR)
        (trim,) = [call for call in self.rare() if call[0] == "trim"]
        self.assertEqual(trim[1], NOW - 10.0 + 2 * CLEAR)
