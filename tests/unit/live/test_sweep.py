"""The sweep: what is left of clients that have gone."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.live.alarms import LiveAlarm
from kupool.live.rules import ChannelRule
from kupool.live.session import LiveSession
from kupool.live.sweep import LiveSweep, SweptIndex
from kupool.live.wishes import SubscribeWishes
from tests.fakes.live import FakeSubscriber, LiveWorld, new

INTERVAL = 300.0


class LiveSweepTests(SynchronousTestCase):
    """W-11: each five minutes, and nothing is left behind in any index."""

    def setUp(self) -> None:
        self.world = LiveWorld(ChannelRule(pattern="*", presence=True))
        service = self.world.service
        self.sweep = LiveSweep(self.world.clock, service.alarms, service.swept(), INTERVAL)
        self.sweep.start()
        self.addCleanup(self.sweep.stop)
        self.told: list[tuple[str, Any]] = []
        service.alarms.tell(lambda kind, event: self.told.append((kind, event)))

    def join(self, user: str = "u") -> tuple[FakeSubscriber, LiveSession]:
        subscriber, session = self.world.client(user)
        done = session.subscribe("a", SubscribeWishes())
        self.successResultOf(done).subscription.start()
        return subscriber, session

    def intervals(self, count: int) -> None:
        for _ in range(count):
            self.world.clock.advance(INTERVAL)
            self.world.turns()

    def counts(self) -> tuple[int, int, int, int]:
        """Return the clients, users and channels, and who is present in the channel."""
        service = self.world.service
        present = service.presence_stats("a").clients
        return service.clients, service.users, len(service.channels()), present

    def test_nothing_is_found_of_those_that_live(self) -> None:
        subscriber, _ = self.join()
        self.intervals(3)
        self.assertEqual((self.sweep.sweeps, self.sweep.found, self.told), (3, {}, []))
        self.world.service.publish("a", new(1))
        self.assertEqual(subscriber.data(), [1])

    def test_a_session_whose_transport_has_gone(self) -> None:
        """Nobody has said that it has ended: every index forgets it, and that is told."""
        gone, _ = self.join("gone")
        _, other = self.join("other")
        gone.peer.abort()
        self.intervals(1)
        self.assertEqual(self.counts(), (2, 2, 1, 2), "it may be about to be told")
        self.intervals(1)
        self.assertEqual(self.counts(), (1, 1, 1, 1))
        self.assertEqual(self.sweep.found, {"sessions": 1})
        self.assertEqual(self.world.service.alarms.counts, {LiveAlarm.LEFTOVERS: 1})
        self.assertEqual(
            self.told, [("live.leftovers", {"found": "1 sessions", "count": 1, "total": 1})]
        )
        other.disconnect()
        self.assertEqual(self.counts(), (0, 0, 0, 0))

    def test_a_session_that_has_ended(self) -> None:
        """It ended, and is in the index of users all the same."""
        subscriber, session = self.join()
        session.disconnect()
        ghost = self.world.service.connect(subscriber)
        ghost.disconnect()
        self.world.service._sessions.setdefault("u", {})[subscriber.client_id] = ghost
        self.intervals(2)
        self.assertEqual((self.counts(), self.sweep.found), ((0, 0, 0, 0), {"sessions": 1}))

    def test_a_subscription_without_a_session(self) -> None:
        _, session = self.join()
        self.world.service.gone(session)
        self.assertEqual(self.counts(), (0, 0, 1, 1))
        self.intervals(2)
        self.assertEqual((self.counts(), self.sweep.found), ((0, 0, 0, 0), {"subscriptions": 1}))
        self.assertEqual(len(self.world.service._table), 0)

    def test_a_subscription_without_a_channel(self) -> None:
        """Its client would wait for ever: it is told to subscribe again."""
        subscriber, session = self.join()
        (subscription,) = session.subscriptions
        channel = self.world.service._table.find("a")
        assert channel is not None
        channel.remove(subscription)
        self.intervals(2)
        self.assertEqual(self.sweep.found, {"lost subscriptions": 1})
        self.assertEqual(subscriber.log, [("unsubscribed", "a", "insufficient")])
        self.assertEqual(session.subscriptions, [])

    def test_presence_that_is_miscounted(self) -> None:
        self.join()
        channel = self.world.service._table.find("a")
        assert channel is not None
        channel._users = {"u": 2, "ghost": 1}
        self.assertEqual(self.counts()[3], 3)
        self.intervals(2)
        self.assertEqual((self.counts()[3], self.sweep.found), (1, {"counts of presence": 1}))

    def test_an_index_that_fails(self) -> None:
        """The others are looked at all the same."""
        mended: list[int] = []

        def fail(entry: object) -> None:
            raise ValueError(entry)

        indexes = (
            SweptIndex("bad", lambda: [[1]], fail, fail),
            SweptIndex("good", lambda: [[1, 2, 3]], lambda entry: entry, mended.append),
        )
        sweep = LiveSweep(self.world.clock, self.world.service.alarms, indexes, 0)
        sweep.start()
        for _ in range(2):
            self.successResultOf(sweep.sweep())
        self.assertEqual((mended, sweep.found), ([1, 2, 3], {"good": 3}))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
