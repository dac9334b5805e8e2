"""Channels come and go, and leave nothing behind."""

from __future__ import annotations

import gc
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from kupool.live.publications import StreamPosition
from kupool.live.rules import ChannelRule
from kupool.live.table import SWEEP
from kupool.live.wishes import HistoryWishes, SubscribeWishes
from tests.fakes.live import FakeSubscriber, LiveWorld, new, offsets
from tests.unit.live.test_subscription import durable_world

#: So many clients come and go; what each would leave behind is seen after some thousands.
CYCLES = 3_000


class LifeTests(SynchronousTestCase):
    """W-12, W-71: what is not needed is dropped."""

    def names(self, world: LiveWorld) -> list[str]:
        return [each.name for each in world.service._table]

    def test_without_subscribers_and_history(self) -> None:
        world = LiveWorld(ChannelRule(pattern="n:*"), ChannelRule(pattern="*", history_size=3))
        world.service.publish("n:a", new(1))
        world.service.history("b", HistoryWishes(1))
        self.assertEqual(self.names(world), [])
        world.service.publish("b", new(1))
        self.assertEqual(self.names(world), ["b"])
        world.service.history_remove("b")
        self.assertEqual(self.names(world), [])

    def test_old_publications_are_dropped(self) -> None:
        """One timer for all channels; a channel with a subscriber stays."""
        world = LiveWorld(ChannelRule(pattern="*", history_size=3, history_time=5))
        _, session = world.client()
        session.subscribe("a", SubscribeWishes())
        for channel in ("a", "b", "c"):
            world.service.publish(channel, new(1))
        self.assertEqual(len(world.clock.getDelayedCalls()), 1)
        world.clock.advance(SWEEP)
        world.turns()
        self.assertEqual(self.names(world), ["a"])
        session.disconnect()
        world.clock.advance(SWEEP)
        world.turns()
        self.assertEqual((self.names(world), world.clock.getDelayedCalls()), ([], []))

    def test_it_looks_again_and_again(self) -> None:
        world = LiveWorld(ChannelRule(pattern="*", history_size=3, history_time=2.5 * SWEEP))
        world.service.publish("a", new(1))
        for expected in (["a"], ["a"], []):
            world.clock.advance(SWEEP)
            world.turns()
            self.assertEqual(self.names(world), expected)

    def test_a_durable_channel_without_subscribers_is_not_read(self) -> None:
        _, world = durable_world()
        _, session = world.client()
        self.successResultOf(session.subscribe("a", SubscribeWishes()))
        session.disconnect()
        world.clock.advance(SWEEP)
        world.turns()
        self.assertEqual((self.names(world), world.clock.getDelayedCalls()), ([], []))

    def test_a_position_outlives_the_channel(self) -> None:
        """W-75: so a client that comes back learns what it missed."""
        world = LiveWorld(ChannelRule(pattern="*", history_size=3, history_time=5), channels=2)
        for _ in range(2):
            world.service.publish("a", new(1))
        world.clock.advance(SWEEP)
        world.turns()
        _, session = world.client()
        wishes = SubscribeWishes(recover=StreamPosition(1, "epoch1"))
        found = self.successResultOf(session.subscribe("a", wishes))
        self.assertEqual((found.position, found.missed), (StreamPosition(2, "epoch1"), (1, True)))
        session.disconnect()
        for channel in ("b", "c"):  # more are not remembered
            world.service.publish(channel, new(1))
            world.service.history_remove(channel)
        found = self.successResultOf(world.client()[1].subscribe("a", wishes))
        self.assertEqual((found.position.offset, found.recovered, found.missed), (0, False, None))
        self.assertNotEqual(found.position.epoch, "epoch1")

    def test_a_position_of_an_empty_channel_outlives_it(self) -> None:
        """W-75: a client that left before anything was published gets everything."""
        world = LiveWorld(ChannelRule(pattern="*", history_size=3, history_time=5), channels=2)
        _, session = world.client()
        start = self.successResultOf(session.subscribe("a", SubscribeWishes())).position
        session.disconnect()
        self.assertEqual(self.names(world), [])
        world.service.publish("a", new(1))
        wishes = SubscribeWishes(recover=start)
        found = self.successResultOf(world.client()[1].subscribe("a", wishes))
        self.assertEqual((found.recovered, offsets(found.publications)), (True, [1]))

    def test_positions_of_empty_channels_push_out_no_others(self) -> None:
        world = LiveWorld(ChannelRule(pattern="*", history_size=3, history_time=5), channels=2)
        world.service.publish("a", new(1))
        world.service.history_remove("a")
        for channel in ("b", "c", "d"):
            world.service.history(channel, HistoryWishes(1))
        self.assertEqual(self.names(world), [])
        found = self.successResultOf(world.service.history("a", HistoryWishes(0)))
        self.assertEqual(found.position, StreamPosition(1, "epoch1"))


class LeftoverTests(SynchronousTestCase):
    """W-12: thousands of clients come and go, and no object is left of them."""

    def objects(self) -> Counter[str]:
        gc.collect()
        return Counter(type(each).__name__ for each in gc.get_objects())

    def cycle(self, world: LiveWorld, subscriber: FakeSubscriber, number: int) -> None:
        session = world.service.connect(subscriber)
        for channel in ("a", f"own.{number % 50}"):
            session.subscribe(channel, SubscribeWishes(recoverable=True, max_rate=1.0)).addCallback(
                lambda outcome: outcome.subscription.start()
            )
        if number % 10 == 0:
            world.service.publish("a", new(number, event_id=str(number)))
            world.service.publish("a", new(number))
        session.disconnect()

    def test_nothing_is_left_of_clients(self) -> None:
        world = LiveWorld(
            ChannelRule(pattern="a", presence=True, forced_join_leave=True),
            ChannelRule(pattern="own.*", history_size=5),
            remembered_events=10,
        )
        subscriber, session = world.client("bob")
        session.disconnect()
        for number in range(500):
            self.cycle(world, subscriber, number)
        subscriber.transport.clear()
        before = self.objects()
        for number in range(CYCLES):
            self.cycle(world, subscriber, number)
            if number % 100 == 0:
                subscriber.transport.clear()
        subscriber.transport.clear()
        grown = {name: count for name, count in (self.objects() - before).items() if count > 100}
        self.assertEqual(grown, {})
        self.assertEqual(len(world.service._table), 0)
        self.assertEqual(len(world.service._timers), 0)
