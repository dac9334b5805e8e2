"""Bounds that are kept, and rows that are cleared, on a fake clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.housekeeping import CLEAR, KEEP_IDS, Housekeeping
from kupool.daemon.memory import WORTH_RETURNING, Memory
from kupool.settings import Settings

NOW = 1.8e9


class _Part:
    """Stands for the log, the counts and the coordinator; notes what it is asked."""

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
        self.log = self.stats = self.coordinator = _Part()


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
        self.housekeeping = Housekeeping(
            self.clock, lambda: NOW, parts, lambda: self.settings, memory
        )
        self.housekeeping.start()

    def give_back(self) -> None:
        self.given_back += 1

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.housekeeping.stop())

    def test_every_second(self) -> None:
        """K-50, K-35: too many nonces, and jobs that could not be saved, are looked after."""
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.part.taken(), [("relieve",), ("save_again",)] * 3)
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
        self.clock.advance(CLEAR - 1)
        self.part.taken()
        self.settings = replace(
            self.settings, log_retention=100.0, log_max_size=5, keep_minutes=10.0, keep_hours=20.0
        )
        self.clock.advance(1)
        self.assertEqual(
            [call for call in self.part.taken() if call[0] not in ("relieve", "save_again")],
            [
                ("trim", NOW - 100.0, 5),
                ("roll_up", int(NOW - 10), int(NOW - 20)),
                ("forget_rejections", int(NOW - 10)),
                ("forget_batches", int(NOW - 100 - KEEP_IDS)),
            ],
        )

    def test_what_is_kept_for_ever(self) -> None:
        """K-76: 0 turns a retention off, and the ids of batches stay then."""
        self.settings = replace(self.settings, log_retention=0.0, keep_minutes=0.0, keep_hours=0.0)
        self.successResultOf(Deferred.fromCoroutine(self.housekeeping.clear()))
        self.assertEqual(
            self.part.taken(), [("trim", 0, self.settings.log_max_size), ("roll_up", 0, 0)]
        )

    def test_a_failure_is_logged_and_tried_again(self) -> None:
        """K-72: a store that is away stops nothing for good."""
        self.part.answers["trim"] = fail(OSError("disk full"))
        self.clock.advance(CLEAR)
        (error,) = self.flushLoggedErrors(OSError)
        self.assertIn("disk full", str(error.value))
        self.part.answers.clear()
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
