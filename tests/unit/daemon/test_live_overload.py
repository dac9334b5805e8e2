"""Overload of live channels in the daemon: settings, events, and what operators see."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.live_overload import (
    LoadEvents,
    breaker_limits,
    gate_limits,
    load_concerns,
    shown_load,
)
from kupool.live.breaker import Breaker, BreakerLimits
from kupool.live.gate import GateLimits
from kupool.live.overload import LoadChange
from kupool.live.rules import ChannelRule
from kupool.live.wishes import SubscribeWishes
from kupool.settings import NodeLiveSettings
from tests.fakes.live import LiveWorld, new
from tests.unit.daemon.test_live import LiveCase


class Told:
    """A receiver of events that keeps them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def tell(self, kind: str, event: Any, key: str = "") -> None:
        self.events.append((kind, dict(event)))


class OverloadOfDaemonTests(SynchronousTestCase):
    """W-47, W-65: issue text of build 7, overload."""

    def test_defaults(self) -> None:
        """What the settings say is what the parts take without settings."""
        self.assertEqual(gate_limits(NodeLiveSettings()), GateLimits())
        self.assertEqual(breaker_limits(NodeLiveSettings()), BreakerLimits())

    def test_events(self) -> None:
        """W-47: entering and leaving degraded mode are events."""
        told = Told()
        events = LoadEvents(LiveWorld().service, told)
        events.changed(LoadChange(True, 0.05, 7, 3, 0.0))
        events.changed(LoadChange(False, 0.0, 0, 0, 12.34))
        load = {"lag_ms": 50, "backlog": 7, "clients": 3, "merged_total": 0}
        self.assertEqual(told.events[0], ("live.degraded", load))
        self.assertEqual(told.events[1][0], "live.recovered")
        self.assertEqual(told.events[1][1]["seconds"], 12.3)

    def test_what_operators_see(self) -> None:
        """W-65, W-46: what waits by priority, what was refused, and the breakers of topics."""
        world = LiveWorld(ChannelRule(pattern="*"))
        subscriber, session = world.client()
        outcome = self.successResultOf(session.subscribe("a", SubscribeWishes()))
        outcome.subscription.start()
        subscriber.stall()
        for priority in (1, 1, 2, 3):
            world.service.publish("a", new(1, priority=priority, device="d"))
        world.turns()
        breaker = Breaker("topic shop", world.clock, BreakerLimits(failures=1), lambda _: True)
        self.failureResultOf(breaker.call(lambda: fail(OSError("disk"))), OSError)
        shown: Deferred[Any] = ensureDeferred(shown_load(world.service, [breaker]))
        world.turns()
        found = self.successResultOf(shown)
        self.assertEqual(sum(found["queued"].values()), outcome.subscription.waiting)
        self.assertEqual(found["queued"], {"normal": 2, "high": 1, "emergency": 1})
        self.assertEqual((found["state"], found["degraded"]), ("normal", False))
        self.assertEqual((found["publications"], found["devices"]), (4, 1))
        self.assertEqual(
            found["breakers"], {"topic shop": {"state": "open", "opened": 1, "refused": 0}}
        )
        (concern,) = load_concerns(world.service, [breaker])
        self.assertIn("live: topic shop fails", concern)


class DeviceLimitOfSessionsTests(LiveCase):
    """W-41: the setting, and what the publisher is told."""

    settings = {**LiveCase.settings, "live_device_rate": 2}

    def test_over_the_limit(self) -> None:
        """The third event in a second is refused by name; an emergency passes."""
        peer = self.session("writer")
        event = {"channel": "chat.a", "data": 1, "device": "pump"}
        for offset in (1, 2):
            self.assertEqual(self.answer(peer, "publish", **event), {"offset": offset})
        refused = peer.ask("publish", event)
        self.assertEqual(refused["code"], 34)
        self.assertIn("device pump has published 2 events", refused["error"])
        self.assertEqual(self.answer(peer, "publish", **event, priority=3), {"offset": 3})
        self.network.advance(1.5)
        self.assertEqual(self.answer(peer, "publish", **event), {"offset": 4})
