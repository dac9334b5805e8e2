"""Overload of live channels in the daemon: its limits, its events, and what operators see of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kupool.daemon.events import EventReceiver
from kupool.live.alarms import LiveAlarm
from kupool.live.breaker import Breaker, BreakerLimits, BreakerState
from kupool.live.gate import GateLimits
from kupool.live.overload import LoadChange, OverloadLimits
from kupool.live.publications import PublicationPriority
from kupool.live.service import LiveService
from kupool.settings import NodeLiveSettings

#: The types of events.
DEGRADED = "live.degraded"
RECOVERED = "live.recovered"


def overload_limits(settings: NodeLiveSettings) -> OverloadLimits:
    """Return when live channels are overloaded."""
    return OverloadLimits(
        lag=settings.overload_lag,
        backlog=settings.overload_backlog,
        clients=settings.overload_clients,
        enter_after=settings.overload_enter,
        leave_after=settings.overload_leave,
    )


def gate_limits(settings: NodeLiveSettings) -> GateLimits:
    """Return the limits of publications of clients."""
    return GateLimits(
        device_rate=settings.device_rate,
        devices=settings.devices,
        overload=overload_limits(settings),
        held=settings.held,
        batch_interval=settings.batch_interval,
    )


def breaker_limits(settings: NodeLiveSettings) -> BreakerLimits:
    """Return when a topic is not written to for a while."""
    return BreakerLimits(
        failures=settings.breaker_failures,
        timeout=settings.breaker_timeout,
        first=settings.breaker_wait,
        longest=max(settings.breaker_wait, settings.breaker_longest),
    )


class LoadEvents:
    """Tells that degraded mode of live channels begins or ends."""

    def __init__(self, live: LiveService, receiver: EventReceiver) -> None:
        self._live = live
        self._receiver = receiver

    def changed(self, change: LoadChange) -> None:
        """Tell a change, with the load at that moment."""
        event: dict[str, object] = {
            "lag_ms": round(change.lag * 1000),
            "backlog": change.backlog,
            "clients": change.clients,
            "merged_total": self._live.gate.merged,
        }
        if change.degraded:
            self._receiver.tell(DEGRADED, event)
        else:
            self._receiver.tell(RECOVERED, {**event, "seconds": round(change.seconds, 1)})


def load_concerns(live: LiveService, breakers: Iterable[Breaker]) -> Iterator[str]:
    """Yield what operators should know of the load."""
    watch = live.gate.watch
    if watch.degraded:
        yield "live: overloaded, so normal messages are merged and important ones batched"
    if live.alarms.recent(LiveAlarm.UNCHECKED):
        yield "live: not all repeated messages can be noticed, so some may be there twice"
    for breaker in breakers:
        if breaker.state is not BreakerState.CLOSED:
            yield f"live: {breaker.name} fails, and is not written to by its channels"


async def shown_load(live: LiveService, breakers: Iterable[Breaker]) -> Mapping[str, Any]:
    """Return the load of live channels and what was done about it, as JSON."""
    gate = live.gate
    names = {level: level.name.lower() for level in PublicationPriority}
    queued = await live.queued()
    return {
        "state": gate.watch.state.value,
        "degraded": gate.watch.degraded,
        "lag_ms": round(gate.watch.lag * 1000, 1),
        "clients_behind": gate.watch.clients,
        "entered": gate.watch.entered,
        "left": gate.watch.left,
        "waiting": {names[level]: gate.waiting[level] for level in names},
        "queued": {names[level]: queued[level] for level in names},
        "publications": live.publications,
        "repeated": live.repeated,
        "merged": gate.merged,
        "batches": gate.batches,
        "refused": dict(gate.refusals.counts),
        "dropped": dict(live.drops),
        "devices": len(gate.devices),
        "clients": live.clients,
        "breakers": {
            each.name: {
                "state": each.state.value,
                "opened": each.opened,
                "refused": each.refused,
            }
            for each in breakers
        },
    }


__all__ = [
    "DEGRADED",
    "RECOVERED",
    "LoadEvents",
    "breaker_limits",
    "gate_limits",
    "load_concerns",
    "overload_limits",
    "shown_load",
]
