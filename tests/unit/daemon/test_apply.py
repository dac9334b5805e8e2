"""Every setting that may change while the daemon runs reaches the part that goes by it."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.apply import apply_changes
from kupool.daemon.parts import build, name_settings
from kupool.settings import (
    LimitSettings,
    ListenSettings,
    Settings,
    changes,
    declared,
    reloadable,
    value_of,
    with_values,
)

#: Those that the daemon asks for when it needs them, from the settings in effect.
ASKED_FOR = {
    "shutdown_timeout", "log_level",  # kupool.daemon.service
    "log_retention", "log_max_size", "keep_minutes", "keep_hours",  # kupool.daemon.housekeeping
    "bus_publish", "bus_subscribe", "bus_permissions", "bus_operators",  # test_bus.py
    "rooms_create", "rooms_join", "rooms_match", "rooms_permissions",  # test_rooms.py
    "permissions",  # test_permissions.py
    "live_rules", "live_history_size", "live_history_time",  # test_live.py
}  # fmt: skip


class ApplyTests(SynchronousTestCase):
    """K-32: what is marked as taking effect at once does."""

    def setUp(self) -> None:
        self.old = with_values(Settings(), {"store": "memory", "mq": "memory", "rooms": "on"})
        self.parts = build(self.old, Clock(), lambda: 1.8e9)

    def in_effect(self) -> dict[str, Any]:
        """What the parts go by, under the name of the setting."""
        parts = self.parts
        server, session = parts.server.manager.settings, parts.pool.settings
        assert parts.bus is not None
        assert parts.rooms is not None
        assert parts.topics is not None
        assert parts.live is not None
        limits = parts.bus.service.limits
        return {
            "interval": parts.coordinator.interval,
            "expire": parts.handlers.rules.expire,
            "submit_interval": parts.handlers.rules.submit_interval,
            "history_window": parts.book.window,
            "history_jobs": parts.book.max_jobs,
            "max_nonces": parts.book.max_nonces,
            "attempts_rate": parts.handlers.attempts.rate,
            "attempts_burst": parts.handlers.attempts.burst,
            "ban_score": parts.handlers.attempts.ban_score,
            "ban_time": parts.handlers.attempts.ban_time,
            "attempts_pause": parts.handlers.attempts.pause,
            "max_connections": server.max_connections,
            "max_connections_per_ip": server.max_connections_per_ip,
            "max_unauthorized": server.max_unauthorized,
            "max_unauthorized_per_ip": server.max_unauthorized_per_ip,
            "accept_pace": server.accept_pace,
            "refusals_per_ip": server.refusals_per_ip,
            "max_frame": server.max_frame,
            "first_frame": session.first_frame,
            "authorize_timeout": session.authorize_timeout,
            "idle_timeout": server.idle_timeout,
            "write_timeout": server.write_timeout,
            "max_errors": server.max_errors,
            "outbox_limit": server.outbox_limit,
            "bus_rate": parts.bus.access.pace.rate,
            "bus_topics": limits.topics,
            "bus_calls": limits.publishing,
            "bus_user_calls": limits.user_calls,
            "bus_user_calls_size": limits.user_calls_bytes,
            "bus_user_topics": limits.user_topics,
            "bus_address_calls": limits.address_calls,
            "bus_address_calls_size": limits.address_calls_bytes,
            "bus_address_topics": limits.address_topics,
            "rooms_rate": parts.rooms.pace.rate,
            "topics_rate": parts.topics.pace.rate,
            "topics_fetches": parts.topics.sessions.limits.fetches,
            "topics_fetches_size": parts.topics.sessions.limits.size,
            "topics_cleanup_interval": parts.topics.cleanup.interval,
            "live_rate": parts.live.pace.rate,
            "live_device_rate": parts.live.service.gate.devices.rate,
            "live_overload_lag": parts.live.service.gate.watch.limits.lag,
            "live_overload_backlog": parts.live.service.gate.watch.limits.backlog,
            "live_overload_clients": parts.live.service.gate.watch.limits.clients,
            "live_overload_enter": parts.live.service.gate.watch.limits.enter_after,
            "live_overload_leave": parts.live.service.gate.watch.limits.leave_after,
            "live_pool_interval": parts.live.snapshots.interval,
        }

    def test_each_alone(self) -> None:
        """K-32: a change of one setting changes what goes by it, and nothing else."""
        self.assertEqual(set(self.in_effect()) | ASKED_FOR, set(reloadable()))
        for name in self.in_effect():
            self.setUp()
            before = self.in_effect()
            self.assertEqual(before[name], value_of(self.old, name))
            new = with_values(self.old, {name: value_of(self.old, name) + 7})
            result = apply_changes(self.parts, self.old, new, [name])
            self.assertEqual(result, new)
            self.assertEqual(self.in_effect(), {**before, name: value_of(new, name)}, name)

    def test_what_is_not_named_stays(self) -> None:
        """K-32: what only a restart changes is not in effect, and is not said to be."""
        new = with_values(self.old, {"batch_size": 7, "nonce_scope": "session", "expire": 5.0})
        now, restart = changes(self.old, new)
        self.assertEqual((now, restart), (["expire"], ["nonce_scope", "batch_size"]))
        result = apply_changes(self.parts, self.old, new, now)
        self.assertEqual(result, with_values(self.old, {"expire": 5.0}))
        self.assertEqual(self.parts.pool.settings.nonce_scope, "pool")
        self.assertEqual(changes(result, new)[1], restart)

    def test_a_pace_set_by_hand_stays(self) -> None:
        """K-32: a reload for another reason leaves an interval alone that was set meanwhile."""
        assert self.parts.live is not None
        self.parts.coordinator.set_interval(5.0)
        self.parts.live.snapshots.interval = 6.0
        apply_changes(self.parts, self.old, with_values(self.old, {"expire": 5.0}), ["expire"])
        self.assertEqual(self.parts.coordinator.interval, 5.0)
        self.assertEqual(self.parts.live.snapshots.interval, 6.0)

    def test_every_other_setting_says_that_it_needs_a_restart(self) -> None:
        for name, f in declared().items():
            self.assertEqual(f.metadata["reload"], name in self.in_effect() or name in ASKED_FOR)


class NameLimitTests(SynchronousTestCase):
    """Issue 15, build 5: a full pool may come at once, and a small one leaves room for names."""

    def test_at_once(self) -> None:
        for most, of_one, expected in (
            (0, 0, (10_000, 5_000)),
            (1, 1, (10_000, 5_000)),
            (50_000, 20_000, (50_000, 20_000)),
        ):
            limits = LimitSettings(max_connections=most, max_connections_per_ip=of_one)
            names = name_settings(ListenSettings(), limits)
            self.assertEqual((names.at_once, names.at_once_per_address), expected)
            self.assertEqual((names.a_minute, names.a_minute_per_address), (600, 60))
            self.assertIn("127.0.0.1", names.shared)
