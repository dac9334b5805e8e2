"""What one client may do with live channels, and what it is granted."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.live.failures import (
    AlreadySubscribed,
    ChannelForbidden,
    ClientsMayNotPublish,
    HistoryUnavailable,
    InvalidChannelName,
    InvalidWish,
    LiveError,
    LiveLimitExceeded,
    NotAvailable,
    SubscriptionCancelled,
    UnknownChannel,
)
from kupool.live.publications import StreamPosition
from kupool.live.rules import ChannelKind, ChannelRule, QueueLimits, QueuePolicy
from kupool.live.wishes import HistoryWishes, SubscribeOutcome, SubscribeWishes
from tests.fakes.live import LiveWorld, new, offsets
from tests.unit.live.test_subscription import durable_world

PLAIN = ChannelRule(pattern="*", history_size=10, presence=True, publish_by_clients=True)


class Case(SynchronousTestCase):
    def outcome(self, session: Any, channel: str, **wishes: Any) -> SubscribeOutcome:
        return self.successResultOf(session.subscribe(channel, SubscribeWishes(**wishes)))

    def refused(
        self, error: type[LiveError], session: Any, channel: str, **wishes: Any
    ) -> LiveError:
        done = session.subscribe(channel, SubscribeWishes(**wishes))
        found = self.failureResultOf(done, error).value
        assert isinstance(found, LiveError)
        return found


class SubscribeTests(Case):
    """W-67, W-72: who gets a subscription."""

    def test_refusals(self) -> None:
        world = LiveWorld(PLAIN, may=lambda user, role, action, channel: channel != "secret")
        _, session = world.client()
        self.refused(InvalidChannelName, session, "")
        self.refused(UnknownChannel, session, "n:a")
        error = self.refused(ChannelForbidden, session, "secret")
        self.assertEqual(error.name, "permission_denied")
        self.outcome(session, "secret", permitted=True)
        self.refused(AlreadySubscribed, session, "secret", permitted=True)
        session.disconnect()
        self.refused(SubscriptionCancelled, session, "a")
        self.assertEqual(world.service.channels(), [])

    def test_limits(self) -> None:
        """W-14: 10,000 subscriptions by one client end at its limit."""
        world = LiveWorld(
            ChannelRule(pattern="few", most_subscribers=1),
            ChannelRule(pattern="*"),
            channels_per_client=3,
            channels=4,
        )
        _, session = world.client()
        for name in "abc":
            self.outcome(session, name)
        error = self.refused(LiveLimitExceeded, session, "d")
        self.assertIn("3 channels", str(error))
        _, other = world.client()
        self.outcome(other, "few")
        self.assertIn("few has 1", str(self.refused(LiveLimitExceeded, world.client()[1], "few")))
        self.assertIn("4 channels", str(self.refused(LiveLimitExceeded, other, "e")))
        session.unsubscribe("a")
        self.outcome(other, "e")

    def test_wishes_that_cannot_be_served(self) -> None:
        """W-18: a client does not choose a queue without bounds."""
        world = LiveWorld(ChannelRule(pattern="a"))
        _, session = world.client()
        for wishes in (
            {"policy": QueuePolicy.REPLAY},
            {"max_rate": -1.0},
            {"max_rate": float("nan")},
            {"max_rate": float("inf")},
            {"queue": QueueLimits(messages=0)},
            {"queue": QueueLimits(messages=1001)},
            {"queue": QueueLimits(size=1 << 30)},
            {"queue": QueueLimits(deadline=float("inf"))},
        ):
            self.refused(InvalidWish, session, "a", **wishes)
        self.outcome(session, "a", queue=QueueLimits(messages=1000))

    def test_ten_times_in_a_row(self) -> None:
        """W-71: unsubscribed and subscribed at once, it is there once."""
        world = LiveWorld(PLAIN)
        _, session = world.client("bob")
        for _ in range(10):
            self.outcome(session, "a").subscription.start()
            self.assertTrue(session.unsubscribe("a"))
        self.assertFalse(session.unsubscribe("a"))
        self.assertFalse(session.unsubscribe("never"))
        self.outcome(session, "a").subscription.start()
        self.assertEqual(world.service.presence_stats("a"), (1, 1))

    def test_unsubscribed_before_it_began(self) -> None:
        engine, world = durable_world()
        _, session = world.client()
        engine.slow = True
        first = session.subscribe("a", SubscribeWishes())
        self.refused(AlreadySubscribed, session, "a")
        self.assertTrue(session.unsubscribe("a"))
        second = session.subscribe("a", SubscribeWishes())
        engine.answer()
        self.failureResultOf(first, SubscriptionCancelled)
        self.successResultOf(second)
        session.disconnect()
        self.assertEqual((world.service.channels(), world.service.clients), ([], 0))

    def test_a_history_that_fails(self) -> None:
        engine, world = durable_world()
        _, session = world.client()
        engine.broken = OSError("gone")
        self.assertTrue(self.refused(HistoryUnavailable, session, "a").temporary)
        self.assertEqual((session.subscriptions, world.service.channels()), ([], []))
        engine.broken = None
        self.outcome(session, "a")
        session.disconnect()


class GrantTests(Case):
    """W-75: positions and recovery, as the rule, the client and its token say."""

    def test_what_is_granted(self) -> None:
        table: tuple[tuple[Any, Any, tuple[bool, bool]], ...] = (
            ({}, {}, (False, False)),
            ({}, {"positioned": True}, (False, True)),
            ({}, {"recoverable": True}, (True, True)),
            ({}, {"recover": StreamPosition(0, "")}, (True, True)),
            ({"recovery": False}, {"recoverable": True, "positioned": True}, (False, False)),
            ({"forced_recovery": True}, {}, (True, True)),
            ({"forced_positions": True}, {}, (False, True)),
            ({"forced_recovery": True}, {"force_recovery": False}, (False, False)),
            ({"recovery": False}, {"force_recovery": True}, (True, True)),
            ({"history_size": 0, "forced_recovery": True}, {}, (False, False)),
        )
        for rule, wishes, expected in table:
            world = LiveWorld(ChannelRule(**{"pattern": "a", "history_size": 5, **rule}))
            found = self.outcome(world.client()[1], "a", **wishes)
            self.assertEqual((found.recoverable, found.positioned), expected, (rule, wishes))

    def test_recovery_without_history(self) -> None:
        world = LiveWorld(ChannelRule(pattern="a"))
        found = self.outcome(world.client()[1], "a", recover=StreamPosition(3, "x"))
        self.assertEqual((found.was_recovering, found.recovered), (True, False))

    def test_recovered_in_the_reply_and_after_it(self) -> None:
        world = LiveWorld(ChannelRule(pattern="a", history_size=50), recovered_per_reply=3)
        for each in range(10):
            world.service.publish("a", new(each))
        subscriber, session = world.client()
        found = self.outcome(session, "a", recover=StreamPosition(2, "epoch1"))
        self.assertEqual(offsets(found.publications), [3, 4, 5])
        self.assertEqual((found.position.offset, found.recovered), (2, True))
        found.subscription.start()
        self.assertEqual(subscriber.data(), [5, 6, 7, 8, 9])

    def test_the_last_value_on_connect(self) -> None:
        world = LiveWorld(ChannelRule(pattern="a", kind=ChannelKind.LATEST))
        for each in range(10):
            world.service.publish("a", new(each))
        subscriber, session = world.client()
        found = self.outcome(session, "a", recover=StreamPosition(0, ""))
        self.assertEqual((offsets(found.publications), found.recovered), ([10], True))
        found.subscription.start()
        world.service.publish("a", new("next"))
        self.assertEqual(subscriber.data(), ["next"])


class OtherTests(Case):
    """W-72: publishing, history and presence are permitted each by itself."""

    def test_permissions(self) -> None:
        allowed: set[str] = set()
        world = LiveWorld(PLAIN, may=lambda user, role, action, channel: action in allowed)
        _, session = world.client()
        failure = self.failureResultOf(session.publish("a", new(1)), ChannelForbidden)
        self.assertIn("allows channel.publish", str(failure.value))
        self.failureResultOf(session.history("a", HistoryWishes(1)), ChannelForbidden)
        self.assertRaises(ChannelForbidden, session.presence, "a")
        self.assertRaises(ChannelForbidden, session.presence_stats, "a")
        self.failureResultOf(session.publish("n:a", new(1)), UnknownChannel)
        allowed.update(("publish", "history", "presence"))
        self.assertEqual(self.successResultOf(session.publish("a", new(1))).offset, 1)
        found = self.successResultOf(session.history("a", HistoryWishes(5)))
        self.assertEqual((offsets(found.publications), session.presence("a")), ([1], []))
        self.assertEqual(session.presence_stats("a"), (0, 0))

    def test_a_channel_to_which_no_client_publishes(self) -> None:
        world = LiveWorld(ChannelRule(pattern="a"))
        _, session = world.client()
        failure = self.failureResultOf(session.publish("a", new(1)), ClientsMayNotPublish)
        self.assertIn("publish_by_clients=on", str(failure.value))
        with self.assertRaises(NotAvailable) as caught:
            session.presence("a")
        self.assertIn("presence=on", str(caught.exception))

    def test_permissions_that_change(self) -> None:
        """W-03: who may no longer have a channel gets nothing more of it."""
        forbidden: set[str] = set()
        world = LiveWorld(PLAIN, may=lambda user, role, action, channel: user not in forbidden)
        clients = [world.client(user) for user in ("bob", "eve", "eve")]
        for _, session in clients:
            self.outcome(session, "a").subscription.start()
        self.outcome(clients[2][1], "b", permitted=True).subscription.start()
        forbidden.add("eve")
        self.assertEqual(world.service.check_again("bob"), 0)
        self.assertEqual(world.service.check_again(), 2)
        world.service.publish("a", new(1))
        self.assertEqual([subscriber.data() for subscriber, _ in clients], [[1], [], []])
        self.assertEqual(clients[1][0].log, [("unsubscribed", "a", "forbidden")])
        self.assertEqual([each.channel for each in clients[2][1].subscriptions], ["b"])
