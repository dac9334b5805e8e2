"""Events that are published again after a restart, to durable channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.alarms import LiveAlarm
from kupool.live.duplicates import FULL, RecentEvents
from kupool.live.failures import HistoryUnavailable
from kupool.live.logged_events import AGAIN, LONG, PATIENCE, UNREAD
from kupool.live.publications import PublishedRecord
from kupool.live.rules import ChannelKind, ChannelRule, ChannelRules
from kupool.live.service import LiveService
from kupool.live.session import LiveLimits
from kupool.live.wishes import HistoryWishes
from tests.fakes.live import new
from tests.unit.live.test_subscription import DURABLE, durable_world


class LoggedEventsTests(SynchronousTestCase):
    """W-55, W-56, W-57: what the log of a durable channel has is not published again."""

    def setUp(self) -> None:
        self.engine, world = durable_world()
        self.clock = world.clock
        self.rules: list[ChannelRule] = [DURABLE]
        self.sources = replace(world.service._table._sources, wall=self.clock.seconds)
        self.restart()

    def restart(self, **limits: Any) -> None:
        """Begin another run of the daemon, with the same log and the same clock."""
        self.service = LiveService(
            self.sources,
            ChannelRules(self.rules),
            may=lambda *_: True,
            limits=LiveLimits(**limits),
        )
        self.reasons: list[object] = []
        self.service.alarms.tell(lambda kind, event: self.reasons.append(event["reason"]))

    def start(self, event_id: str, **fields: Any) -> Deferred[PublishedRecord]:
        return self.service.publish("a", new(1, event_id=event_id, **fields))

    def publish(self, *event_ids: str, **fields: Any) -> list[int]:
        """Publish events; returns their offsets."""
        return [self.successResultOf(self.start(each, **fields)).offset for each in event_ids]

    def ids(self) -> list[str]:
        """Return the ids in the log."""
        found = self.successResultOf(self.service.history("a", HistoryWishes(100)))
        return [each.event_id for each in found.publications]

    def test_they_are_published_once(self) -> None:
        """The answer is that of the first time, with its offset, time and sequence."""
        first = self.successResultOf(self.start("x", device="d"))
        self.publish("y", "")
        self.restart()
        self.clock.advance(1)
        again = self.successResultOf(self.start("x", device="d"))
        self.assertEqual((again.offset, again.time, again.sequence), (first.offset, first.time, 1))
        self.assertEqual(self.publish("y", "z", "z"), [2, 4, 4])
        self.assertEqual(self.ids(), ["x", "y", "", "z"])
        self.assertEqual(self.service.repeated, 3)

    def test_the_window(self) -> None:
        """W-59: events of the log are remembered as long as others, and no longer."""
        self.publish("old")
        self.clock.advance(200)
        self.publish("young")
        self.clock.advance(101)
        self.restart()
        self.assertEqual(self.publish("young", "old"), [2, 3])
        self.assertEqual(self.ids(), ["old", "young", "old"])

    def test_at_most_so_many_are_read(self) -> None:
        """The newest ones; operators are told that older ones are not compared."""
        self.publish("a", "b", "c", "d")
        self.restart(remembered_events=2)
        self.assertEqual(self.publish("d", "c", "a"), [4, 3, 5])
        self.assertIn(LONG, self.reasons)

    def test_a_log_that_cannot_be_read(self) -> None:
        """W-58: events are published all the same, which is told, and it is read again later."""
        self.publish("a")
        self.restart()
        self.engine.broken = OSError("gone")
        self.failureResultOf(self.start("a"), HistoryUnavailable)
        self.engine.broken = None
        self.assertEqual(self.publish("b"), [2])
        self.assertEqual(self.reasons, [UNREAD])
        self.assertTrue(self.service.alarms.recent(LiveAlarm.UNCHECKED))
        self.clock.advance(AGAIN)
        self.assertEqual(self.publish("a", "b"), [1, 2])
        self.assertEqual(self.ids(), ["a", "b"])

    def test_a_log_that_does_not_answer(self) -> None:
        """W-58: events wait in their order, also those without an id, and not for ever."""
        self.publish("a")
        self.restart()
        self.engine.slow = True
        done = [self.start(each) for each in ("a", "", "b")]
        self.engine.slow = False
        for each in done:
            self.assertNoResult(each)
        self.clock.advance(PATIENCE)
        self.assertEqual([self.successResultOf(each).offset for each in done], [2, 3, 4])
        self.assertEqual(self.reasons, [UNREAD])

    def test_a_partition_of_two_channels(self) -> None:
        """The log does not tell to which of them an event was published, so it tells nothing."""
        self.publish("x")
        self.rules.append(msgspec.structs.replace(DURABLE, pattern="b"))
        self.restart()
        self.assertEqual(self.publish("x"), [2])
        self.assertEqual(self.reasons, [])

    def test_another_topic(self) -> None:
        """A channel whose rule names another partition has another log, which is read."""
        self.publish("x")
        other = msgspec.structs.replace(DURABLE, partition=1)
        knows = self.service._logged.knows
        self.assertEqual((knows(DURABLE), knows(other)), (True, False))


class LearnTests(SynchronousTestCase):
    """W-56: events that somebody else has published are remembered as one's own are."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.troubles: list[str] = []
        self.recent: RecentEvents[int] = RecentEvents(
            self.clock.seconds, most=2, seconds=300, troubled=self.troubles.append
        )

    def known(self, key: str) -> bool:
        published: list[int] = []

        def publish() -> Deferred[int]:
            published.append(1)
            return Deferred()

        self.recent.once(key, publish)
        return not published

    def test_their_time(self) -> None:
        """It ends as it would have in the process that published it, whatever was before it."""
        self.recent.learn("young", 1, 0.0)
        self.recent.learn("old", 2, 290.0)
        self.recent.learn("too old", 3, 300.0)
        self.recent.learn("of the future", 4, -1000.0)
        self.clock.advance(11)
        self.assertEqual(len(self.recent), 2)
        self.clock.advance(290)
        self.recent.forget_old()
        self.assertEqual(len(self.recent), 0)

    def test_one_behind_a_younger_one(self) -> None:
        self.recent.learn("young", 1, 0.0)
        self.recent.learn("old", 2, 290.0)
        self.clock.advance(11)
        self.assertTrue(self.known("young"))
        self.assertFalse(self.known("old"))

    def test_what_is_known_stays(self) -> None:
        self.recent.learn("a", 1, 0.0)
        self.recent.learn("a", 2, 0.0)
        self.assertEqual(self.successResultOf(self.recent.once("a", Deferred)), 1)

    def test_too_many(self) -> None:
        """The oldest is forgotten, which is told."""
        for number, key in enumerate("abc"):
            self.recent.learn(key, number, 0.0)
        self.assertEqual((len(self.recent), self.troubles), (2, [FULL]))
        self.assertTrue(self.known("c"))


class SharedLogTests(SynchronousTestCase):
    """W-57: which durable channels have a partition of their own."""

    def test_it(self) -> None:
        def rule(pattern: str, partition: int) -> ChannelRule:
            return ChannelRule(
                pattern=pattern, kind=ChannelKind.DURABLE, topic="t", partition=partition
            )

        rules = [rule("a", 0), rule("b", 1), rule("c", 1), rule("a", 0)]
        shared = [ChannelRules(rules).shares_log(each) for each in rules]
        self.assertEqual(shared, [False, True, True, False])
