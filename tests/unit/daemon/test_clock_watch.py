"""Steps of the wall clock are noticed, and only told."""

from __future__ import annotations

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.clock_watch import TOLD, ClockWatch


class ClockWatchTests(SynchronousTestCase):
    """Issue 11, point 3: a step is a log line and a reason in /ready."""

    def setUp(self) -> None:
        self.steady = 100.0
        self.wrong = 0.0
        self.lines: list[str] = []
        self.watch = ClockWatch(lambda: 1.8e9 + self.steady + self.wrong, lambda: self.steady)
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: dict[str, object]) -> None:
        if event.get("log_namespace") == "kupool.daemon.clock_watch.ClockWatch":
            self.lines.append(str(event["moved"]))

    def second(self, step: float = 0.0) -> str:
        self.steady += 1.0
        self.wrong += step
        self.watch.look()
        return self.watch.problem

    def test_directions(self) -> None:
        for step, text in (
            (7200.0, "was set ahead by 2h"),
            (-600.0, "was set back by 10m"),
            (-40 * 86400.0, "was set back by 960h"),
            (3.5, "was set ahead by 3.5s"),
        ):
            self.assertEqual(self.second(step), f"the wall clock {text}")
            self.second()
            self.assertEqual(self.lines.pop(), text)
            self.assertEqual(self.lines, [])

    def test_small_steps(self) -> None:
        """A clock that is put right slowly, or by a little, is no news."""
        for step in (0.5, -2.0, 2.0, 0.0, -1.9):
            self.assertEqual(self.second(step), "")
        self.assertEqual(self.lines, [])

    def test_a_machine_that_slept(self) -> None:
        """Both clocks go on while it does."""
        self.steady += 3600.0
        self.assertEqual(self.second(), "")

    def test_told_for_ten_minutes(self) -> None:
        self.second(60.0)
        self.steady += TOLD - 1.0
        self.assertNotEqual(self.watch.problem, "")
        self.steady += 1.0
        self.assertEqual(self.watch.problem, "")
