"""Settings that take effect while the daemon runs."""

from __future__ import annotations

from collections.abc import Iterable

from kupool.daemon.parts import Parts, attempts, rules, server_settings, session_settings
from kupool.daemon.permissions import grants_of
from kupool.settings import Settings, value_of, with_values


def apply_changes(parts: Parts, old: Settings, fresh: Settings, names: Iterable[str]) -> Settings:
    """Apply the named settings of ``fresh``; returns what is in effect then."""
    settings = with_values(old, {name: value_of(fresh, name) for name in names})
    parts.server.manager.settings = server_settings(settings.listen, settings.limits)
    parts.pool.settings = session_settings(settings.jobs, settings.rates, settings.limits)
    parts.handlers.rules = rules(settings.jobs, settings.rates)
    parts.handlers.use(attempts(settings.rates))
    parts.book.window = settings.jobs.history_window
    parts.book.max_jobs = settings.jobs.history_jobs
    parts.book.max_nonces = settings.jobs.max_nonces
    parts.permissions.use(grants_of(settings))
    for connection in parts.server.manager:
        parts.pool.route(connection)
    if parts.bus is not None:
        parts.bus.apply(settings.bus)
    if parts.compatible is not None:
        parts.compatible.apply(settings)
    if parts.rooms is not None:
        parts.rooms.pace.rate = settings.rooms.rate
    if parts.topics is not None:
        parts.topics.apply(settings.topics)
    if parts.live is not None:
        parts.live.apply(settings, old)
    if settings.jobs.interval != old.jobs.interval:
        parts.coordinator.set_interval(settings.jobs.interval)
    return settings
