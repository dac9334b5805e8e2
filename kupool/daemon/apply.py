"""Settings that take effect while the daemon runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kupool.daemon.bus import peer_limits
from kupool.daemon.parts import Parts, attempts, rules, server_settings, session_settings
from kupool.settings import Settings


def apply_changes(parts: Parts, old: Settings, fresh: Settings, names: Iterable[str]) -> Settings:
    """Apply the named settings of ``fresh``; returns what is in effect then."""
    settings = replace(old, **{name: getattr(fresh, name) for name in names})
    parts.server.manager.settings = server_settings(settings)
    parts.pool.settings = session_settings(settings)
    parts.handlers.rules = rules(settings)
    parts.handlers.attempts = attempts(settings)
    parts.book.window = settings.history_window
    parts.book.max_jobs = settings.history_jobs
    parts.book.max_nonces = settings.max_nonces
    if parts.bus is not None:
        parts.bus.access.pace.rate = settings.bus_rate
        parts.bus.service.limits = peer_limits(settings)
    if parts.rooms is not None:
        parts.rooms.pace.rate = settings.rooms_rate
    if settings.interval != old.interval:
        parts.coordinator.set_interval(settings.interval)
    return settings
