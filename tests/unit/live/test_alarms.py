"""Alarms of live channels."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.alarms import LONGEST_DETAIL, LiveAlarm, LiveAlarms


class AlarmTests(SynchronousTestCase):
    """W-52, W-58: what is wrong is counted, logged and told, and a flood of it once a minute."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.alarms = LiveAlarms(self.clock)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.alarms.tell(lambda kind, event: self.told.append((kind, dict(event))))
        self.logged: list[Any] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def test_told_and_logged(self) -> None:
        for number in range(10):
            self.alarms.note(LiveAlarm.UNCHECKED, {"reason": f"r{number}"})
        self.clock.advance(60)
        kind = "live.duplicates_unchecked"
        self.assertEqual(
            self.told,
            [
                (kind, {"reason": "r0", "count": 1, "total": 1}),
                (kind, {"reason": "r9", "count": 9, "total": 10}),
            ],
        )
        self.assertEqual([each["total"] for each in self.logged], [1, 10])
        self.assertTrue(self.alarms.recent(LiveAlarm.UNCHECKED))
        self.assertFalse(self.alarms.recent(LiveAlarm.SEQUENCE))
        self.clock.advance(60)
        self.assertFalse(self.alarms.recent(LiveAlarm.UNCHECKED))
        self.assertEqual(self.alarms.counts, {LiveAlarm.UNCHECKED: 10})

    def test_details_are_bounded(self) -> None:
        self.alarms.note(LiveAlarm.UNCHECKED, {"reason": "r" * 1000})
        self.assertEqual(self.told[0][1]["reason"], "r" * LONGEST_DETAIL)

    def test_the_end(self) -> None:
        self.alarms.note(LiveAlarm.UNCHECKED, {"reason": "r"})
        self.alarms.note(LiveAlarm.UNCHECKED, {"reason": "r"})
        self.alarms.stop()
        self.assertEqual([event["count"] for _, event in self.told], [1, 1])
        self.assertEqual(self.clock.getDelayedCalls(), [])
