"""The daemon's message bus: for sessions, for HTTP, and for the pool's events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from socket import gethostname
from typing import Any

from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.bus.local import LocalBus
from kupool.bus.rabbit.bus import RabbitBus
from kupool.bus.rabbit.settings import MeshSettings
from kupool.bus.remote.service import BusService
from kupool.bus.settings import BusSettings, PeerLimits
from kupool.bus.topics import pattern_name
from kupool.daemon.bus_access import BusAccess
from kupool.daemon.tenants import user_of
from kupool.net.routing.router import Router
from kupool.permissions.table import PermissionTable
from kupool.pool import IEvents
from kupool.pool.events import BusEvents, NoEvents
from kupool.settings import NodeBusSettings
from kupool.web.access import WebAccess
from kupool.web.answers import ApiResource
from kupool.web.bus import bus_routes
from kupool.web.visitors import VisitorGate

#: The number of topics whose counts and recent messages are kept: a status of all of them, with a
#: hundred messages each, is made in one turn of the reactor.
STATUS_TOPICS = 200

#: The length to which this machine's name is cut, for other nodes and in RabbitMQ.
MAX_NODE_NAME = 40

#: The prefix of the names of the rooms' bus in RabbitMQ.
ROOMS_PREFIX = "kupool.rooms"

#: Nodes start without RabbitMQ, and join the others later.
_MESH = MeshSettings(required=False)

#: Seconds that a stop waits for answers to calls.
LAST_CALLS = 1.0

#: The most users that a log line names.
SHOWN_USERS = 10

#: Subscribers that one session may have; each has topics of its own.
MAX_SUBSCRIBERS = 100


@dataclass(frozen=True)
class BusPart:
    """The bus, its service for sessions, and the check of permissions."""

    _log = Logger()

    bus: LocalBus | RabbitBus
    service: BusService
    access: BusAccess

    def apply(self, settings: NodeBusSettings) -> None:
        """Apply changed settings; subscriptions that are no longer allowed are ended."""
        self.access.use(settings)
        self.access.pace.rate = settings.rate
        self.service.limits = peer_limits(settings)
        ended = self.service.end_subscriptions(self.access.may_subscribe)
        if ended:
            self._log.warn(
                "Ended {count} subscriptions to topics that the settings do not allow any more, "
                "of {users}",
                count=sum(ended.values()),
                users=", ".join(sorted(ended)[:SHOWN_USERS]) + ", .." * (len(ended) > SHOWN_USERS),
            )

    @property
    def remote(self) -> bool:
        """Whether it has other nodes, which it reaches over RabbitMQ."""
        return isinstance(self.bus, RabbitBus)

    @property
    def problem(self) -> str:
        """Why the other nodes cannot be reached; empty if they can, or if there are none."""
        return self.bus.problem if isinstance(self.bus, RabbitBus) else ""

    async def open(self) -> None:
        """Join the other nodes, if configured, or keep trying.

        Raises :class:`~kupool.bus.BusError` if RabbitMQ refuses the login.
        """
        if isinstance(self.bus, RabbitBus):
            await self.bus.connect()

    async def stop(self, clock: IReactorTime) -> None:
        """Take no more messages, wait a moment for answers, and refuse unanswered calls."""
        with suppress(TimedOut):
            await self.service.finish().addTimeout(LAST_CALLS, clock)
        await self.bus.close()

    def routes(self, access: WebAccess, settings: NodeBusSettings) -> Mapping[str, ApiResource]:
        """Return the routes of the HTTP API that are about the bus."""
        visitors = VisitorGate(access.hosts, settings.token, settings.origins, access)
        return bus_routes(
            self.bus,
            visitors,
            refuse=self.access.refuse_event,
            by_get=settings.get == "on",
        )


def make_bus(
    settings: NodeBusSettings, reactor: Any, wall: Callable[[], float], *, log_url: str
) -> LocalBus | RabbitBus | None:
    """Make the bus; None if it is off.

    Without a RabbitMQ of its own, it uses that of the log, at ``log_url``. While the bus is not
    used, no part of it runs and no timer is set.
    """
    if settings.kind == "off":
        return None
    limits = bus_settings(settings)
    if settings.kind == "rabbit":
        return RabbitBus(
            reactor,
            settings.url.strip() or log_url,
            limits,
            wall=wall,
            node=_node_name(),
            mesh=_MESH,
        )
    return LocalBus(reactor, limits, wall=wall)


def make_room_bus(
    settings: NodeBusSettings, reactor: Any, wall: Callable[[], float], *, log_url: str
) -> RabbitBus | None:
    """Make the bus over which nodes share their rooms; None if the bus is not on RabbitMQ.

    It is separate, because sessions may publish and subscribe on their bus, and must not reach the
    messages between nodes.
    """
    if settings.kind != "rabbit":
        return None
    url = settings.url.strip() or log_url
    return RabbitBus(reactor, url, wall=wall, node=_node_name(), prefix=ROOMS_PREFIX, mesh=_MESH)


def _node_name() -> str:
    return gethostname()[:MAX_NODE_NAME]


def make_events(bus: LocalBus | RabbitBus | None, wall: Callable[[], float]) -> IEvents:
    """Make the publisher of the pool's events."""
    if bus is None:
        return NoEvents()
    broker = bus.broker
    events = BusEvents(bus, broker.listening, broker.settings.max_data, wall)
    events.look()
    broker.on_listeners_changed(events.look)
    return events


def serve_bus(
    bus: LocalBus | RabbitBus,
    settings: NodeBusSettings,
    methods: Router,
    *,
    table: PermissionTable,
    known_users: bool,
) -> BusPart:
    """Add the methods of the bus for the pool's sessions, which go by the ``table``.

    ``known_users`` says whether passwords prove who a user is.
    """
    access = BusAccess(settings, table)
    service = BusService(
        bus.broker,
        methods,
        before=[access],
        limits=peer_limits(settings),
        # Without passwords anybody could use up another user's share.
        user_of=user_of if known_users else lambda connection: "",
        taken=bus.taken if isinstance(bus, RabbitBus) else None,
    )
    return BusPart(bus, service, access)


def bus_settings(settings: NodeBusSettings) -> BusSettings:
    """Return the limits of the bus."""
    return BusSettings(
        timeout=settings.timeout,
        direct=tuple(map(pattern_name, settings.direct)),
        max_data=settings.max_data,
        max_calls=settings.max_calls,
        max_calls_bytes=settings.max_calls_size,
        buffer_time=settings.buffer_time,
        buffer_total=settings.buffer_size,
        max_topics=STATUS_TOPICS,
    )


def peer_limits(settings: NodeBusSettings) -> PeerLimits:
    """Return the limits of one session, one user and one address on the bus."""
    return PeerLimits(
        publishing=settings.calls,
        subscribers=MAX_SUBSCRIBERS,
        topics=settings.topics,
        user_calls=settings.user_calls,
        user_calls_bytes=settings.user_calls_size,
        user_topics=settings.user_topics,
        address_calls=settings.address_calls,
        address_calls_bytes=settings.address_calls_size,
        address_topics=settings.address_topics,
    )


__all__ = [
    "BusPart",
    "bus_settings",
    "make_bus",
    "make_events",
    "make_room_bus",
    "peer_limits",
    "serve_bus",
]
