"""Figures of broadcasts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.live.broadcasts import BroadcastFigures
from kupool.live.hub import Channel, Hub
from kupool.live.rules import ChannelRule
from kupool.live.wishes import SubscribeWishes
from kupool.timing.chunks import CHUNK
from tests.fakes.live import FakeSubscriber, LiveWorld, new


class TwoPlacesHub(Hub):
    """Two publications may be under way in a channel."""

    def channel(self, *, limit: int = 2) -> Channel:
        return super().channel(limit=limit)


class BroadcastTests(SynchronousTestCase):
    """W-85: number, reached, failed, dropped, average and most time; of a channel, and of all."""

    def world(self, *counts: int) -> LiveWorld:
        """Return a world with channels of so many subscribers."""
        world = LiveWorld(ChannelRule(pattern="*"), hub=TwoPlacesHub)
        self.clients: list[FakeSubscriber] = []
        for name, count in zip("ab", counts, strict=False):
            for _ in range(count):
                client, session = world.client()
                self.clients.append(client)
                outcome = self.successResultOf(session.subscribe(name, SubscribeWishes()))
                outcome.subscription.start()
        return world

    def figures(self, world: LiveWorld, name: str) -> tuple[int, int, int, int, int]:
        found: BroadcastFigures = (
            world.service.broadcasts
            if name == "all"
            else dict(world.service.figures_of_channels())[name]
        )
        return found.count, found.reached, found.failed, found.dropped, found.overflowed

    def test_of_channels_and_of_all(self) -> None:
        world = self.world(3, 1)
        for name in ("a", "a", "b", "nobody"):
            world.service.publish(name, new(1))
        self.assertEqual(self.figures(world, "a"), (2, 6, 0, 0, 0))
        self.assertEqual(self.figures(world, "b"), (1, 1, 0, 0, 0))
        self.assertEqual(self.figures(world, "all"), (3, 7, 0, 0, 0))
        self.assertEqual(len(list(world.service.figures_of_channels())), 2)

    def test_the_time_until_everybody_has_it(self) -> None:
        world = self.world(CHUNK + 1)
        world.service.publish("a", new(1))
        self.assertEqual(world.service.broadcasts.count, 0, "it is under way")
        world.clock.advance(0.25)
        world.turns()
        world.service.publish("a", new(2))
        world.turns()
        found = world.service.broadcasts
        self.assertEqual((found.count, found.reached), (2, 2 * (CHUNK + 1)))
        self.assertEqual((found.longest, found.average), (0.25, 0.125))
        self.assertEqual(BroadcastFigures().average, 0.0)

    def test_those_that_fail(self) -> None:
        world = self.world(2)
        self.patch(self.clients[0].peer, "framing", None)
        world.service.publish("a", new(1))
        self.assertEqual(self.figures(world, "a"), (1, 1, 1, 0, 0))
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_what_subscribers_do_not_get(self) -> None:
        """A slow client drops; and a channel may have too much to send at once."""
        world = self.world(2)
        self.clients[0].stall()
        for each in range(150):
            world.service.publish("a", new(each))
        count, reached, _, dropped, _ = self.figures(world, "a")
        self.assertEqual((count, reached), (150, 300))
        self.assertEqual(dropped, sum(world.service.drops.values()))
        self.assertGreater(dropped, 0)
        world = self.world(CHUNK + 1)
        for each in range(5):
            world.service.publish("a", new(each))
        world.turns()
        missed = 3 * (CHUNK + 1)
        self.assertEqual(self.figures(world, "all"), (2, 2 * (CHUNK + 1), 0, missed, 3))
