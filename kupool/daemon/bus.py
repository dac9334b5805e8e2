"""The message bus of the daemon: for its sessions, for HTTP, and for the pool's events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from socket import gethostname
from typing import Any

from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorTime

from kupool.bus import BusSettings
from kupool.bus.local import LocalBus
from kupool.bus.rabbit.bus import RabbitBus
from kupool.bus.rabbit.settings import MeshSettings
from kupool.bus.remote.service import BusService, PeerLimits
from kupool.bus.topics import pattern_name
from kupool.daemon.bus_access import BusAccess
from kupool.daemon.tenants import user_of
from kupool.pool import ACCEPTED
from kupool.pool.acceptance import Acceptance
from kupool.pool.events import BusEvents
from kupool.pool.handlers import Handlers
from kupool.settings import Settings
from kupool.web.answers import ApiResource
from kupool.web.bus import bus_routes
from kupool.web.control import KnownHosts
from kupool.web.visitors import VisitorGate

#: Topics whose counts and last messages are remembered: a status of all of them, each
#: with a hundred messages, has to be made in one turn of the reactor.
STATUS_TOPICS = 200

#: How much of this machine's name other nodes, and those who look at RabbitMQ, are shown.
MAX_NODE_NAME = 40

#: Seconds that a stop leaves calls to get their answers.
LAST_CALLS = 1.0

#: Subscribers that one session may have; each has topics of its own.
MAX_SUBSCRIBERS = 100


@dataclass(frozen=True)
class BusPart:
    """The bus, what carries it to the sessions, and who may do what on it."""

    bus: LocalBus | RabbitBus
    service: BusService
    access: BusAccess
    events: BusEvents

    @property
    def problem(self) -> str:
        """Why the other nodes cannot be reached; empty where they can, or there are none."""
        return self.bus.problem if isinstance(self.bus, RabbitBus) else ""

    def watch(self, acceptance: Acceptance) -> None:
        """Have accepted submissions told of while somebody listens, and no one asked else."""
        broker = self.bus.broker

        def changed() -> None:
            acceptance.events = self.events if broker.listening(ACCEPTED) else None

        broker.changed = changed

    async def open(self) -> None:
        """Join the other nodes, if there are to be any, or go on trying to.

        Raises :class:`~kupool.bus.BusError` where RabbitMQ will not have us.
        """
        if isinstance(self.bus, RabbitBus):
            await self.bus.connect()

    async def stop(self, clock: IReactorTime) -> None:
        """Take no more, give calls a moment for their answers, and refuse those without."""
        with suppress(TimedOut):
            await self.service.finish().addTimeout(LAST_CALLS, clock)
        await self.bus.close()

    def routes(self, hosts: KnownHosts, settings: Settings) -> Mapping[str, ApiResource]:
        """Return the routes of the HTTP API that are about the bus."""
        visitors = VisitorGate(hosts, settings.bus_token, settings.bus_origins)
        return bus_routes(
            self.bus,
            visitors,
            refuse=lambda topic: self.access.refuse_topic(topic, everything=True),
            by_get=settings.bus_get == "on",
        )


def make_bus(
    settings: Settings, reactor: Any, wall: Callable[[], float], handlers: Handlers
) -> BusPart | None:
    """Make the bus and give the pool's sessions its methods; None where it is off.

    While nobody uses it, nothing of it runs and no timer is set.
    """
    if settings.bus == "off":
        return None
    limits = bus_settings(settings)
    bus: LocalBus | RabbitBus
    if settings.bus == "rabbit":
        url = settings.bus_url.strip() or settings.mq_url
        node = gethostname()[:MAX_NODE_NAME]
        mesh = MeshSettings(required=False)
        bus = RabbitBus(reactor, url, limits, wall=wall, node=node, mesh=mesh)
    else:
        bus = LocalBus(reactor, limits, wall=wall)
    access = BusAccess(
        settings.bus_publish,
        settings.bus_subscribe,
        settings.bus_operators,
        user_of,
        settings.bus_rate,
    )
    service = BusService(
        bus.broker,
        handlers.router,
        before=[access],
        limits=peer_limits(settings),
        taken=bus.taken if isinstance(bus, RabbitBus) else None,
    )
    handlers.fallback = service.router
    events = BusEvents(bus, bus.broker.listening, limits.max_data, wall)
    return BusPart(bus, service, access, events)


def bus_settings(settings: Settings) -> BusSettings:
    """Return the limits of the bus."""
    return BusSettings(
        timeout=settings.bus_timeout,
        direct=tuple(map(pattern_name, settings.bus_direct)),
        max_data=settings.bus_max_data,
        max_calls=settings.bus_max_calls,
        max_calls_bytes=settings.bus_max_calls_size,
        buffer_time=settings.bus_buffer_time,
        buffer_total=settings.bus_buffer_size,
        max_topics=STATUS_TOPICS,
    )


def peer_limits(settings: Settings) -> PeerLimits:
    """Return what one session may have of the bus."""
    return PeerLimits(
        publishing=settings.bus_calls, subscribers=MAX_SUBSCRIBERS, topics=settings.bus_topics
    )


__all__ = ["BusPart", "bus_settings", "make_bus", "peer_limits"]
