"""Makes every part of the daemon from the settings. Nothing is opened or started here.

Parts that are off by default are imported where they are made, so that a start is faster without
them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ICredentialsChecker

from kupool.accounts.authenticator import Authenticator
from kupool.accounts.logins import Logins
from kupool.daemon.activity import ActivityPart, MethodCounts, PoolTotals, make_activity
from kupool.daemon.addresses import advertised
from kupool.daemon.bus import BusPart, make_bus, make_events, make_room_bus, serve_bus
from kupool.daemon.bus_compatible import CompatiblePart, make_compatible
from kupool.daemon.clock_watch import ClockWatch
from kupool.daemon.connection_limits import DescriptorShares, descriptor_limit, trusted_proxies
from kupool.daemon.events import DaemonNews, EventReceiver
from kupool.daemon.fence import FencedLog
from kupool.daemon.files import (
    LOG_FILE,
    RABBIT_TOPICS_FILE,
    SPOOL_FILE,
    STORE_FILE,
    TOPICS_FILE,
    has_spool,
    topics_kind,
    uses_files,
)
from kupool.daemon.history import PastPart, make_history
from kupool.daemon.login_limits import login_settings
from kupool.daemon.permissions import grants_of
from kupool.daemon.rooms import RoomsPart, make_rooms
from kupool.daemon.tenants import Tenants
from kupool.live.hub import Hub
from kupool.log.sqlite import SqliteLog
from kupool.net.manager import ServerSettings
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.transport.certificates import Certificates
from kupool.net.transport.endpoints import parse_address
from kupool.net.transport.proxied import ProxySettings
from kupool.permissions.table import PermissionTable
from kupool.pool.acceptance import Acceptance, BatchSettings
from kupool.pool.coordinator import Coordinator
from kupool.pool.events import ManyEvents
from kupool.pool.handlers import AttemptSettings, Handlers
from kupool.pool.jobs import JobBook
from kupool.pool.jobstore import MemoryJobStore, SqliteJobStore
from kupool.pool.judge import Rules
from kupool.pool.names import Names, NameSettings
from kupool.pool.notes import JobNotes
from kupool.pool.pool import Pool, SessionSettings
from kupool.settings import (
    JobSettings,
    LimitSettings,
    ListenSettings,
    LogSettings,
    NodeLoginSettings,
    RateSettings,
    Settings,
    StorageSettings,
    SubmissionSettings,
)
from kupool.stats.consumer import ConsumerSettings, StatsConsumer
from kupool.stats.sqlite import SqliteStats
from kupool.storage.clocks import BootClock, this_boot
from kupool.storage.database import Database
from kupool.storage.folder import DataFolder
from kupool.storage.postgres import PostgresDatabase, PostgresSettings
from kupool.storage.reading import ReadOnlyDatabase
from kupool.wire.messages import split_username

if TYPE_CHECKING:
    from kupool.daemon.live import LivePart
    from kupool.daemon.topics import TopicsPart

#: Seconds that a stop waits for PostgreSQL to reply, after the counting has ended.
PATIENCE = 2.0

#: The loss if each file is damaged, for the message about it.
_LOST = {
    LOG_FILE: "what was not counted yet is lost then, and old jobs are retired",
    STORE_FILE: "what the log still holds is counted again then, older counts are lost",
    SPOOL_FILE: "what had not reached RabbitMQ is lost then",
    TOPICS_FILE: "all topics and the positions of their groups are lost then",
    RABBIT_TOPICS_FILE: "the names of topics, the positions of their groups and delayed records "
    "are lost then, and the streams in RabbitMQ keep records that no topic has",
}

#: Returns the database in a file of the data folder, with a schema.
MakeDatabase = Callable[[str, str], Database]


@dataclass(frozen=True)
class Parts:
    """The parts, as :mod:`kupool.daemon.service` starts and stops them."""

    folder: DataFolder | None
    databases: Sequence[Database]
    postgres: PostgresDatabase | None
    log: Any
    stats: Any
    job_store: Any
    book: JobBook
    acceptance: Acceptance
    handlers: Handlers
    permissions: PermissionTable
    pool: Pool
    server: Server
    coordinator: Coordinator
    consumer: StatsConsumer
    clock_watch: ClockWatch
    logins: Logins | None
    certificates: Certificates
    bus: BusPart | None
    compatible: CompatiblePart | None
    rooms: RoomsPart | None
    topics: TopicsPart | None
    live: LivePart | None
    history: PastPart
    activity: ActivityPart
    news: DaemonNews


def build(
    settings: Settings,
    reactor: Any,
    wall: Callable[[], float],
    checkers: Sequence[ICredentialsChecker] = (),
    *,
    boot: BootClock | None = None,
) -> Parts:
    """Make every part. ``wall`` returns seconds since the epoch; ``boot`` is by default the
    clock of this machine.
    """
    files = uses_files(settings)
    folder = DataFolder(settings.storage.data) if files else None
    databases: list[Database] = []

    def database(file: str, schema: str) -> Database:
        path = Path(settings.storage.data) / file
        databases.append(Database(reactor, path, schema, lost=_LOST[file]))
        return databases[-1]

    log = _make_log(settings.log, settings.submissions, reactor, wall, database=database)
    postgres = None
    if settings.storage.kind == "pg":
        postgres = PostgresDatabase(
            reactor,
            settings.storage.pg_dsn,
            PostgresSettings(patience=PATIENCE),
            # Once this process has the folder, no other process takes submissions by its log.
            own="alone" if settings.log.kind == "sqlite" else "shared",
        )
    stats, job_store = _make_stores(settings.storage, wall, database, postgres)
    book = JobBook(
        settings.jobs.history_window, settings.jobs.history_jobs, settings.jobs.max_nonces
    )
    instance = f"{int(wall()):x}-{secrets.token_hex(6)}"
    way: Any = log if postgres is None else FencedLog(log, lambda: postgres.taken_over)
    bus = make_bus(settings.bus, reactor, wall, log_url=settings.log.url)
    methods = Router()
    calls = MethodCounts(methods)
    table = PermissionTable(grants_of(settings))
    known_users = bool(settings.listen.auth)
    bus_part = None
    if bus is not None:
        bus_part = serve_bus(bus, settings.bus, methods, table=table, known_users=known_users)
    room_bus = None
    if settings.rooms.offered == "on":
        room_bus = make_room_bus(settings.bus, reactor, wall, log_url=settings.log.url)
    rooms = make_rooms(
        settings.rooms,
        reactor,
        wall,
        methods,
        table=table,
        max_waiting=settings.limits.max_connections,
        known_users=known_users,
        bus=room_bus,
    )
    topics = None
    if topics_kind(settings) != "off":
        from kupool.daemon.topics import make_topics

        topics = make_topics(
            settings,
            reactor,
            wall,
            methods,
            log=log,
            instance=instance,
            address=lambda: advertised(settings.topics.advertise, server.addresses),
            database=database,
            table=table,
        )
    logins = make_logins(settings.logins, reactor, checkers) if checkers else None
    events, live = make_events(bus, wall), None
    if settings.live.offered == "on":
        from kupool.daemon.live import make_live

        def overview() -> dict[str, object]:
            job = book.current
            job_id = None if job is None else job.job_id
            return {"sessions": pool.sessions, "users": len(pool.users), "job_id": job_id}

        live = make_live(
            settings,
            reactor,
            wall,
            methods,
            table=table,
            topics=topics,
            figures=(overview, stats),
            role_of=_no_role if logins is None else logins.authenticator.role_of,
            behind=lambda: server.manager.behind,
        )
        # A submission comes to the bus first.
        events = ManyEvents([events, live.events])
    acceptance = Acceptance(
        reactor, wall, way, batch_settings(settings.submissions), instance=instance, events=events
    )
    handlers = Handlers(
        book,
        acceptance,
        rules(settings.jobs, settings.rates),
        attempts=attempts(settings.rates),
        proxies=trusted_proxies(settings.listen),
        methods=methods,
        others=None if bus_part is None else bus_part.service.router,
    )
    pool = Pool(
        reactor,
        book,
        acceptance,
        handlers,
        channel=Hub(reactor).latest("job"),
        events=events if topics is None else topics.for_pool(events, wall),
        settings=session_settings(settings.jobs, settings.rates, settings.limits),
        logins=logins,
        names=Names(
            reactor,
            name_settings(settings.listen, settings.limits),
            lambda name: stats.counted(*split_username(name)),
        ),
        permissions=table,
        wall=wall,
    )
    activity = make_activity(
        settings,
        reactor,
        wall,
        PoolTotals(calls, acceptance, lambda: pool, lambda: server),
        acceptance=acceptance,
        server=lambda: server,
        topics=None if topics is None else topics.world.topics,
        events=None if topics is None else topics.events,
    )
    certificates = Certificates(reactor, wall)
    tenants: list[Any] = [activity.book]
    tenants += [part.service for part in (bus_part, rooms) if part is not None]
    if topics is not None:
        tenants.append(topics.sessions)
    if live is not None:
        tenants.append(live.methods)
    server = Server(
        reactor,
        Tenants(pool, *tenants),
        server_settings(settings.listen, settings.limits),
        framing=settings.listen.framing,
        transport=settings.listen.transport,
        http_port=http_hint(settings.listen),
        certificates=certificates,
    )
    boot = boot or this_boot()
    coordinator = Coordinator(
        reactor,
        wall,
        book,
        job_store,
        publish=pool.publish,
        interval=settings.jobs.interval,
        notes=JobNotes(log, wall, instance),
        boot=boot,
    )
    consumer = StatsConsumer(
        reactor,
        stats,
        acceptance.rejections.take,
        ConsumerSettings(interval=settings.submissions.flush_interval),
    )
    return Parts(
        folder=folder,
        databases=databases,
        postgres=postgres,
        log=log,
        stats=stats,
        job_store=job_store,
        book=book,
        acceptance=acceptance,
        handlers=handlers,
        permissions=table,
        pool=pool,
        server=server,
        coordinator=coordinator,
        consumer=consumer,
        clock_watch=ClockWatch(wall, boot.seconds),
        logins=logins,
        certificates=certificates,
        bus=bus_part,
        compatible=None
        if bus_part is None
        else make_compatible(
            settings,
            reactor,
            bus_part.bus.broker,
            bus_part.service.shares,
            certificates=certificates,
        ),
        rooms=rooms,
        topics=topics,
        live=live,
        history=make_history(
            settings,
            reactor,
            wall,
            log=log,
            stats=stats,
            pool=pool,
            connections=server.manager,
            bus=bus is not None,
        ),
        activity=activity,
        news=_news(topics, live),
    )


def _news(topics: TopicsPart | None, live: LivePart | None) -> DaemonNews:
    """Return what tells all that happens to the daemon, the load of live channels included."""
    news = DaemonNews(_receivers(topics, live))
    if live is not None:
        live.tell_load(news)
    return news


def _receivers(topics: TopicsPart | None, live: LivePart | None) -> Iterator[EventReceiver]:
    """Yield those who are told what happens to the daemon."""
    if topics is not None and topics.events is not None:
        yield topics.events
    if live is not None:
        yield live.server


def _no_role(user: str) -> str:
    """Return the role of an account where there are none."""
    return ""


def _make_log(
    settings: LogSettings,
    submissions: SubmissionSettings,
    reactor: Any,
    wall: Callable[[], float],
    *,
    database: MakeDatabase,
) -> Any:
    if settings.kind == "memory":
        from kupool.log.memory import MemoryLog

        return MemoryLog(reactor, wall, submissions.memory_log_limit)
    if settings.kind == "rabbit":
        from kupool.daemon.rabbit_log import make_rabbit, make_spooled

        required = not has_spool(settings)
        remote = make_rabbit(settings, submissions, reactor, wall, required=required)
        if required:
            return remote
        file = database(SPOOL_FILE, "spool")
        return make_spooled(settings, reactor, wall, remote=remote, database=file)
    return SqliteLog(database(LOG_FILE, "log"), reactor, wall)


def _make_stores(
    settings: StorageSettings,
    wall: Callable[[], float],
    database: MakeDatabase,
    postgres: PostgresDatabase | None,
) -> tuple[Any, Any]:
    if postgres is not None:
        from kupool.pool.pgjobs import PostgresJobStore
        from kupool.stats.postgres import PostgresStats

        return PostgresStats(postgres), PostgresJobStore(postgres)
    if settings.kind == "memory":
        from kupool.stats.memory import MemoryStats

        return MemoryStats(), MemoryJobStore(wall)
    store = database(STORE_FILE, "store")
    reader = ReadOnlyDatabase(store.reactor, store.path, "store")
    return SqliteStats(store, reader), SqliteJobStore(store)


def make_logins(
    settings: NodeLoginSettings, reactor: Any, checkers: Sequence[ICredentialsChecker]
) -> Logins:
    """Make the check of logins from the checkers of ``--auth``."""
    return Logins(
        reactor,
        Authenticator(reactor, checkers, settings.timeout),
        login_settings(settings),
    )


def rules(jobs: JobSettings, rates: RateSettings) -> Rules:
    """Return the rules of the judge."""
    return Rules(jobs.expire, rates.submit_interval)


def attempts(settings: RateSettings) -> AttemptSettings:
    """Return the limits of rejected submissions."""
    return AttemptSettings(
        settings.attempts_rate,
        settings.attempts_burst,
        settings.ban_score,
        settings.ban_time,
        settings.attempts_pause,
    )


def batch_settings(settings: SubmissionSettings) -> BatchSettings:
    """Return when a batch closes."""
    return BatchSettings(
        settings.batch_delay,
        settings.batch_size,
        settings.batches_in_flight,
        peers=settings.log_peers == "on",
    )


def session_settings(
    jobs: JobSettings, rates: RateSettings, limits: LimitSettings
) -> SessionSettings:
    """Return the limits of a session."""
    return SessionSettings(
        nonce_scope=jobs.nonce_scope,
        duplicate_scope=jobs.duplicate_scope,
        user_rate=rates.user_rate,
        ip_rate=rates.ip_rate,
        authorize_timeout=limits.authorize_timeout,
        first_frame=limits.first_frame,
        max_frame=limits.max_frame,
    )


def name_settings(listen: ListenSettings, limits: LimitSettings) -> NameSettings:
    """Return the limits of new names; at least as many as connections may come at once."""
    at_once = max(limits.max_connections, NameSettings.at_once)
    return NameSettings(
        limits.new_names,
        at_once,
        limits.new_names_per_ip,
        max(limits.max_connections_per_ip, NameSettings.at_once_per_address),
        trusted_proxies(listen),
    )


def server_settings(listen: ListenSettings, limits: LimitSettings) -> ServerSettings:
    """Return the limits of the server. Descriptors may leave fewer places than are set."""
    shares = DescriptorShares.of(listen, descriptor_limit())
    return ServerSettings(
        max_frame=limits.max_frame,
        max_connections=shares.max_connections(limits),
        max_connections_per_ip=limits.max_connections_per_ip,
        max_unauthorized=limits.max_unauthorized,
        max_unauthorized_per_ip=limits.max_unauthorized_per_ip,
        max_refused=shares.refused,
        accept_pace=limits.accept_pace,
        refusals_per_ip=limits.refusals_per_ip,
        idle_timeout=limits.idle_timeout,
        write_timeout=limits.write_timeout,
        max_errors=limits.max_errors,
        outbox_limit=limits.outbox_limit,
        proxies=ProxySettings(listen.proxy_trusted, most=shares.refused),
        shared_hosts=trusted_proxies(listen),
        unix_mode=listen.unix_mode,
    )


def http_hint(settings: ListenSettings) -> str:
    """Return how an HTTP client that came to the wrong port is told of the right one."""
    address = parse_address(settings.http) if settings.http else None
    return f"port {address.port}" if address is not None else settings.http
