"""The daemon's service for clients of the predecessor's bus, on an address of its own."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.logger import Logger

from kupool.bus.broker import Broker
from kupool.bus.compatible.frames import HEADER_SIZE, MAX_BODY, PREDECESSOR
from kupool.bus.compatible.service import PredecessorLimits, PredecessorService, TopicRules
from kupool.bus.remote.shares import Shares
from kupool.bus.topics import matches, pattern_name
from kupool.daemon.bus import LAST_CALLS
from kupool.daemon.bus import peer_limits as bus_limits
from kupool.daemon.connection_limits import descriptor_limit, http_limits, trusted_proxies
from kupool.errors import GOING_DOWN, CloseReason
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.refusals import Refusals
from kupool.net.server import Server
from kupool.net.transport.certificates import Certificates
from kupool.net.transport.proxied import ProxySettings
from kupool.settings import NodeBusSettings, Settings
from kupool.web.shared_port import SharedPortFactory
from kupool.wire.framing import Framing
from kupool.wire.messages import close_message

#: Seconds that a stop leaves these clients to take what they were sent last.
LAST_ANSWERS = 2.0


@dataclass(frozen=True)
class CompatiblePart:
    """The service for these clients, and its listener."""

    _log = Logger()

    clock: IReactorTime
    server: Server
    service: PredecessorService
    refusals: Refusals

    async def listen(self) -> None:
        """Start to listen; raises as :meth:`Server.listen` does."""
        await self.server.start()

    async def finish(self) -> None:
        """Refuse new connections and messages, and give open calls a moment for their answers."""
        await self.server.stop_listening()
        with suppress(TimedOut):
            await self.service.finish().addTimeout(LAST_CALLS, self.clock)

    async def stop(self) -> None:
        """End all connections."""
        await self.server.stop(GOING_DOWN, LAST_ANSWERS)
        self.refusals.stop()

    def apply(self, settings: Settings) -> None:
        """Apply changed settings."""
        self.server.manager.settings = server_limits(settings)
        self.service.limits = peer_limits(settings)
        ended = self.service.use_rules(topic_rules(settings.bus))
        if ended:
            self._log.warn(
                "Ended {count} subscriptions of the predecessor's clients to topics that the "
                "settings do not allow any more",
                count=ended,
            )


def make_compatible(
    settings: Settings,
    reactor: Any,
    broker: Broker,
    shares: Shares,
    *,
    certificates: Certificates,
) -> CompatiblePart | None:
    """Make the service for clients of the predecessor's bus; None if it is off.

    ``shares`` are the usage of users and addresses over the sessions of the pool.
    """
    address = settings.bus.compatible_addr
    if not address:
        return None
    refusals = Refusals(reactor)
    service = PredecessorService(
        reactor,
        broker,
        limits=peer_limits(settings),
        rules=topic_rules(settings.bus),
        refusals=refusals,
        shares=shares,
    )

    def factory(manager: ConnectionManager) -> IProtocolFactory:
        manager.close_message = last_word
        return SharedPortFactory(
            manager,
            PREDECESSOR,
            name="predecessor's clients",
            limits=http_limits(settings.listen, descriptor_limit()),
            origins=settings.listen.ws_origins,
            hosts=settings.listen.http_hosts,
            refusals=refusals,
        )

    server = Server(
        reactor,
        service,
        server_limits(settings),
        transport=settings.listen.transport,
        name="the predecessor's bus",
        addresses=[address],
        factory=factory,
        certificates=certificates,
    )
    return CompatiblePart(reactor, server, service, refusals)


def last_word(framing: Framing, reason: CloseReason, retry_after: float | None) -> bytes:
    """Return what a peer is told at the end: nothing, but where WebSocket has a form for it."""
    if framing.name == PREDECESSOR.name:
        return b""
    return close_message(framing, reason, retry_after)


def peer_limits(settings: Settings) -> PredecessorLimits:
    """Return the limits of one connection and one address on the bus."""
    return PredecessorLimits(
        peers=bus_limits(settings.bus),
        rate=settings.bus.rate,
        idle=settings.limits.idle_timeout,
    )


def server_limits(settings: Settings) -> ServerSettings:
    """Return the limits of the server: those of the pool's server, for another size of frames.

    The service handles idle peers. A frame must end within the idle time once it has begun.
    """
    limits = settings.limits
    return ServerSettings(
        max_frame=HEADER_SIZE + MAX_BODY,
        max_connections=limits.max_connections,
        max_connections_per_ip=limits.max_connections_per_ip,
        idle_timeout=0.0,
        message_timeout=limits.idle_timeout,
        write_timeout=limits.write_timeout,
        max_errors=0,
        outbox_limit=limits.outbox_limit,
        proxies=ProxySettings(settings.listen.proxy_trusted),
        shared_hosts=trusted_proxies(settings.listen),
        unix_mode=settings.listen.unix_mode,
    )


def topic_rules(settings: NodeBusSettings) -> TopicRules:
    """Return the topics that these clients may use: those that any session may use."""
    publish = tuple(map(pattern_name, settings.publish))
    subscribe = tuple(map(pattern_name, settings.subscribe))
    return TopicRules(
        lambda topic: any(matches(pattern, topic) for pattern in publish),
        lambda topic: any(matches(pattern, topic) for pattern in subscribe),
    )


__all__ = [
    "CompatiblePart",
    "last_word",
    "make_compatible",
    "peer_limits",
    "server_limits",
    "topic_rules",
]
