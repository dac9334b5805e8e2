"""The daemon's live channels: for sessions, for ``/events``, and for the Centrifuge protocol."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import SystemRandom
from socket import gethostname
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from kupool import __version__
from kupool.accounts.key_guard import KeyGuard
from kupool.daemon.connection_limits import trusted_proxies
from kupool.daemon.events import EventReceiver
from kupool.daemon.http_access import HttpAccess
from kupool.daemon.live_channels import LiveEvents, PoolSnapshots, ServerChannel, pool_figures
from kupool.daemon.live_overload import (
    LoadEvents,
    breaker_limits,
    gate_limits,
    load_concerns,
    overload_limits,
    shown_load,
)
from kupool.daemon.live_rpc import TopicCalls
from kupool.daemon.live_rules import channel_rules
from kupool.daemon.live_status import shown_broadcasts, shown_duplicates
from kupool.daemon.login_limits import login_settings
from kupool.daemon.pace import RequestPace
from kupool.live.breaker import Breaker, BreakerLimits
from kupool.live.centrifuge.noted_tokens import NotedTokens
from kupool.live.centrifuge.server_api import ApiLimits, NodeIdentity, ServerApi
from kupool.live.centrifuge.tokens import CentrifugeTokens
from kupool.live.centrifuge.world import CentrifugeSettings, CentrifugeWorld
from kupool.live.duplicate_audit import DuplicateAudit
from kupool.live.durable import DurableHistory, topic_breaker
from kupool.live.hub import Hub
from kupool.live.methods import LiveMethods, SessionUser
from kupool.live.rules import ChannelRule, ChannelRules
from kupool.live.service import LiveService
from kupool.live.session import LiveLimits
from kupool.live.sweep import LiveSweep
from kupool.live.table import ChannelSources
from kupool.net.refusals import Refusals
from kupool.net.routing.router import Router
from kupool.permissions.roles import WORKER
from kupool.permissions.table import PermissionTable
from kupool.pool.session import Session
from kupool.session.connection import Connection
from kupool.settings import NodeLiveSettings, Settings
from kupool.topics.events import EVENTS
from kupool.topics.partition import Partition
from kupool.topics.submissions import SUBMISSIONS
from kupool.web.answers import ApiResource
from kupool.web.centrifuge_clients import CentrifugeClients, client_limits
from kupool.web.event_streams import EventStreams
from kupool.web.live_control import LIVE_STATUS, LiveControl
from kupool.web.server_api import ServerApiRoutes

if TYPE_CHECKING:
    from kupool.daemon.topics import TopicsPart


class DurableChannels:
    """Makes the histories of durable channels from the partitions of topics.

    ``epoch`` is that of the submissions' log, as soon as that is known: a log that is restored
    uses offsets again. ``wall`` returns seconds since the epoch of time.
    """

    def __init__(
        self,
        topics: TopicsPart,
        clock: Any,
        wall: Callable[[], float],
        limits: BreakerLimits,
    ) -> None:
        self._limits = limits
        #: Guard the topics of durable channels, by name; there is a rule for each.
        self._breakers: dict[str, Breaker] = {}
        self._topics = topics.world.topics
        self._persistent = self._topics.engine.capabilities.persistent
        self._clock = clock
        self._wall = wall
        self.epoch = new_id()

    def use_log_epoch(self, epoch: str) -> None:
        """Take the epoch of a log that outlives this process."""
        if self._persistent:
            self.epoch = epoch

    def make(self, rule: ChannelRule) -> DurableHistory:
        """Return the history of a channel."""
        identity = self._topics.engine.identity(rule.topic)
        return DurableHistory(
            self._topics,
            Partition(rule.topic, rule.partition),
            f"{self.epoch[:16]}.{identity}",
            clock=self._clock,
            wall=self._wall,
            breaker=self._breaker(rule.topic),
        )

    @property
    def breakers(self) -> list[Breaker]:
        """What guards the topics that were used, by their names."""
        return [self._breakers[topic] for topic in sorted(self._breakers)]

    def _breaker(self, topic: str) -> Breaker:
        breaker = self._breakers.get(topic)
        if breaker is None:
            breaker = self._breakers[topic] = topic_breaker(topic, self._clock, self._limits)
        return breaker


@dataclass(frozen=True)
class LivePart:
    """The live channels, what the daemon publishes to them, and those who speak to clients."""

    _log = Logger()

    service: LiveService
    methods: LiveMethods
    pace: RequestPace
    events: LiveEvents
    server: ServerChannel
    snapshots: PoolSnapshots
    durable: DurableChannels | None
    #: Looks for what is left of clients that have gone.
    sweep: LiveSweep
    #: Looks for events that durable channels have more than once; None without topics.
    audit: DuplicateAudit | None
    centrifuge: CentrifugeClients
    streams: EventStreams
    api: ServerApi
    #: Who may use the server API.
    keys: KeyGuard

    def apply(self, settings: Settings, old: Settings) -> None:
        """Apply changed settings and permissions, and end what they do not allow."""
        self.pace.rate = settings.live.rate
        self.service.gate.devices.rate = settings.live.device_rate
        self.service.gate.watch.limits = overload_limits(settings.live)
        if settings.live.pool_interval != old.live.pool_interval:
            # Another one may have been set by hand.
            self.snapshots.interval = settings.live.pool_interval
        ended = self.service.use_rules(ChannelRules(channel_rules(settings)))
        ended += self.service.check_again()
        if ended:
            self._log.warn(
                "Ended {count} subscriptions to channels whose rules or permissions have changed",
                count=ended,
            )

    def routes(
        self, http: HttpAccess, settings: Settings, others: Mapping[str, ApiResource]
    ) -> Mapping[str, ApiResource]:
        """Return the routes of the HTTP API that are about live channels.

        Pages of ``ws_origins`` of the settings may use ``/events``. ``others`` are the other
        routes, of which some may have the same path.
        """
        control, access = LiveControl(self._set_interval, self._status), http.access
        path = "/api/live/interval"
        api = ServerApiRoutes(
            self.api, access, http.api_key, self.keys, most_body=settings.live.api_max_body
        )
        return {
            "/events": self.streams.route(access, settings.listen.ws_origins),
            path: access.resource(path, {b"POST": control.interval}),
            LIVE_STATUS: access.resource(LIVE_STATUS, {b"GET": control.status}),
            **api.routes(others),
        }

    def _set_interval(self, seconds: float) -> None:
        self.snapshots.interval = seconds

    async def _status(self) -> object:
        return {
            **await shown_load(self.service, self._breakers),
            "duplicates": shown_duplicates(self.service, self.audit),
            "sequences": self.service.sequences.shown(),
            "broadcasts": shown_broadcasts(self.service),
            "leftovers": {"sweeps": self.sweep.sweeps, "found": dict(self.sweep.found)},
            "alarms": {each.value: count for each, count in self.service.alarms.counts.items()},
        }

    @property
    def concerns(self) -> list[str]:
        """What operators should know."""
        return list(load_concerns(self.service, self._breakers))

    @property
    def _breakers(self) -> list[Breaker]:
        return [] if self.durable is None else self.durable.breakers

    def use_log_epoch(self, epoch: str) -> None:
        """Take the epoch of the log of the submissions, which its channel has as well."""
        if self.durable is not None:
            self.durable.use_log_epoch(epoch)

    def tell_load(self, receiver: EventReceiver) -> None:
        """Tell somebody when degraded mode begins and ends, and what else is wrong."""
        self.service.gate.tell(LoadEvents(self.service, receiver).changed)
        self.service.alarms.tell(receiver.tell)

    def start(self) -> None:
        """Begin to look after what there is, with or without an HTTP API."""
        self.service.gate.start()
        self.centrifuge.start()
        self.streams.start()
        self.sweep.start()
        if self.audit is not None:
            self.audit.start()

    async def stop(self) -> None:
        """Tell the clients the end, and end all subscriptions."""
        self.snapshots.stop()
        self.sweep.stop()
        if self.audit is not None:
            self.audit.stop()
        await self.centrifuge.stop()
        await self.streams.stop()
        self.service.stop()
        self.api.stop()
        self.keys.stop()


def make_live(
    settings: Settings,
    reactor: Any,
    wall: Callable[[], float],
    methods: Router,
    *,
    table: PermissionTable,
    topics: TopicsPart | None,
    figures: tuple[Callable[[], Mapping[str, object]], Any],
    role_of: Callable[[str], str],
    behind: Callable[[], int],
) -> LivePart:
    """Make the live channels, and add their methods for the pool's sessions.

    They go by the ``table`` of permissions. ``figures`` are for the snapshots of the pool: what
    returns figures of its sessions, and the store of counts. ``role_of`` returns the role of an
    account, empty if there is none; ``behind`` how many sessions have requests that
    wait; the clients of the Centrifuge protocol are counted with them. ``wall`` returns seconds
    since the epoch.
    """
    own = settings.live
    durable = (
        None if topics is None else DurableChannels(topics, reactor, wall, breaker_limits(own))
    )
    service = LiveService(
        ChannelSources(
            reactor,
            Hub(reactor),
            wall,
            partial(secrets.token_hex, 8),
            None if durable is None else durable.make,
        ),
        ChannelRules(channel_rules(settings)),
        may=table.may_channel,
        limits=live_limits(own),
        gate=gate_limits(own),
        # Its clients are made below, and are asked after the start.
        behind=lambda: behind() + centrifuge.manager.behind,
    )
    pace = RequestPace(own.rate)
    connections = replace(
        client_limits(own.clients, own.clients_per_ip),
        shared_hosts=trusted_proxies(settings.listen),
    )
    world = _make_world(own, service, reactor, wall, table=table, topics=topics, role_of=role_of)
    centrifuge = CentrifugeClients(world, connections)
    streams = EventStreams(
        service,
        reactor,
        wall,
        new_id,
        heartbeat=own.ping_interval,
        limits=connections,
        lifetime=own.max_lifetime,
    )
    live_methods = LiveMethods(service, methods, session_user, new_id, before=[pace])
    swept = (*service.swept(), *live_methods.swept(), *centrifuge.swept(), *streams.swept())
    return LivePart(
        service,
        live_methods,
        pace,
        LiveEvents(service, wall),
        ServerChannel(service, wall),
        PoolSnapshots(service, reactor, partial(pool_figures, *figures, wall), own.pool_interval),
        durable,
        LiveSweep(reactor, service.alarms, swept, own.sweep_interval),
        None if topics is None else _make_audit(own, service, topics, reactor),
        centrifuge,
        streams,
        ServerApi(
            world,
            NodeIdentity(new_id(), gethostname(), reactor.seconds()),
            ApiLimits(own.api_max_calls, own.api_max_answer),
        ),
        KeyGuard(reactor, login_settings(settings.logins)),
    )


def _make_audit(
    own: NodeLiveSettings, service: LiveService, topics: TopicsPart, reactor: Any
) -> DuplicateAudit:
    def partitions() -> list[Partition]:
        """Return the partitions of durable channels; records of the daemon itself have no ids."""
        return [
            Partition(rule.topic, rule.partition)
            for rule in service.durable_rules()
            if rule.topic not in (SUBMISSIONS, EVENTS)
        ]

    return DuplicateAudit(
        topics.world.topics,
        reactor,
        service.alarms,
        partitions,
        interval=own.audit_interval,
        most=own.audit_records,
    )


def _make_world(
    own: NodeLiveSettings,
    service: LiveService,
    reactor: Any,
    wall: Callable[[], float],
    *,
    table: PermissionTable,
    topics: TopicsPart | None,
    role_of: Callable[[str], str],
) -> CentrifugeWorld:
    """Make what the clients of the Centrifuge protocol share.

    Who has a token that names them, and no account, is a worker: somebody has proved the name.
    """
    refusals = Refusals(reactor)
    tokens = CentrifugeTokens(own.token_secret, wall) if own.token_secret else None
    return CentrifugeWorld(
        service,
        reactor,
        wall,
        SystemRandom(),
        new_id,
        TopicCalls(None if topics is None else topics.api, table).call,
        NotedTokens(tokens, refusals),
        lambda user: role_of(user) or WORKER,
        refusals,
        CentrifugeSettings(
            ping=own.ping_interval,
            pong_wait=own.pong_timeout,
            anonymous=own.anonymous == "on",
            insecure=own.insecure == "on",
            version=__version__,
            lifetime=own.max_lifetime,
        ),
    )


def live_limits(settings: NodeLiveSettings) -> LiveLimits:
    """Return the limits of live channels."""
    return LiveLimits(
        channels_per_client=settings.client_channels,
        channels=settings.channels,
        history_per_call=settings.history_per_call,
        recovered_per_reply=settings.history_per_call,
        publication_bytes=settings.max_data,
        remembered_events=settings.remembered_events,
        remembered_seconds=settings.remembered_time,
        devices=settings.devices,
    )


def session_user(connection: Connection) -> SessionUser:
    """Return the user of an authorized session."""
    session: Session = connection.context
    return SessionUser(session.user, session.role)


def new_id() -> str:
    """Return an id that nobody can guess."""
    return secrets.token_hex(16)


__all__ = ["DurableChannels", "LivePart", "live_limits", "make_live", "session_user"]
