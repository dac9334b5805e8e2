"""Every part of the daemon, made from the settings. Nothing here opens or starts."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker

from kupool.daemon.bus import BusPart, make_bus, make_events, serve_bus
from kupool.daemon.clock_watch import ClockWatch
from kupool.daemon.fence import FencedLog
from kupool.daemon.rooms import RoomsPart, make_rooms
from kupool.daemon.tenants import Tenants
from kupool.live.hub import Hub
from kupool.log.memory import MemoryLog
from kupool.log.rabbit.log import RabbitLog, RabbitSettings
from kupool.log.rabbit.publisher import PublisherSettings
from kupool.log.rabbit.topology import Topology
from kupool.log.spool import SpooledLog, SpoolSettings
from kupool.log.spool_file import SpoolFile
from kupool.log.sqlite import SqliteLog
from kupool.net.manager import ServerSettings
from kupool.net.server import Server
from kupool.net.transport.endpoints import parse_address
from kupool.net.transport.proxied import ProxySettings
from kupool.pool.acceptance import Acceptance, BatchSettings
from kupool.pool.coordinator import Coordinator
from kupool.pool.credentials import Authenticator
from kupool.pool.handlers import AttemptSettings, Handlers
from kupool.pool.jobs import JobBook
from kupool.pool.jobstore import MemoryJobStore, SqliteJobStore
from kupool.pool.judge import Rules
from kupool.pool.notes import JobNotes
from kupool.pool.pgjobs import PostgresJobStore
from kupool.pool.pool import Pool, SessionSettings
from kupool.settings import ListenSettings, RateSettings, Settings, SubmissionSettings
from kupool.stats.consumer import ConsumerSettings, StatsConsumer
from kupool.stats.memory import MemoryStats
from kupool.stats.postgres import PostgresStats
from kupool.stats.sqlite import SqliteStats
from kupool.storage.clocks import BootClock, this_boot
from kupool.storage.database import Database
from kupool.storage.folder import DataFolder
from kupool.storage.postgres import PostgresDatabase, PostgresSettings

#: Names of the files in the data folder.
LOG_FILE = "log.sqlite"
STORE_FILE = "store.sqlite"
SPOOL_FILE = "spool.sqlite"

#: Seconds that the broker has for a batch for which nobody waits: longer than any failover,
#: so that one that is only slow is not asked again and again.
DRAIN_TIMEOUT = 30.0

#: Seconds that a stop leaves the broker to confirm what is in the spool.
SPOOLED_CLOSE = 1.0

#: Seconds that a stop leaves PostgreSQL to answer what it was asked, after the counting ended.
PATIENCE = 2.0

#: What is lost with each file, for whom it is damaged.
_LOST = {
    LOG_FILE: "what was not counted yet is lost then, and old jobs are retired",
    STORE_FILE: "what the log still holds is counted again then, older counts are lost",
    SPOOL_FILE: "what had not reached RabbitMQ is lost then",
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
    pool: Pool
    server: Server
    coordinator: Coordinator
    consumer: StatsConsumer
    clock_watch: ClockWatch
    bus: BusPart | None
    rooms: RoomsPart | None


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
    folder = DataFolder(settings.storage.data) if uses_files(settings) else None
    databases: list[Database] = []

    def database(file: str, schema: str) -> Database:
        path = Path(settings.storage.data) / file
        databases.append(Database(reactor, path, schema, lost=_LOST[file]))
        return databases[-1]

    log = _make_log(settings, reactor, wall, database)
    postgres = None
    if settings.storage.kind == "pg":
        postgres = PostgresDatabase(
            reactor,
            settings.storage.pg_dsn,
            PostgresSettings(patience=PATIENCE),
            # Whoever takes submissions by the log in a data folder is gone once we have it.
            own="alone" if settings.log.kind == "sqlite" else "shared",
        )
    stats, job_store = _make_stores(settings, wall, database, postgres)
    book = JobBook(
        settings.jobs.history_window, settings.jobs.history_jobs, settings.jobs.max_nonces
    )
    instance = f"{int(wall()):x}-{secrets.token_hex(6)}"
    way: Any = log if postgres is None else FencedLog(log, lambda: postgres.taken_over)
    bus = make_bus(settings, reactor, wall)
    events = make_events(bus, wall)
    acceptance = Acceptance(
        reactor, wall, way, batch_settings(settings.submissions), instance=instance, events=events
    )
    handlers = Handlers(book, acceptance, wall, rules(settings), attempts=attempts(settings.rates))
    authenticator = Authenticator(checkers) if checkers else None
    pool = Pool(
        reactor,
        book,
        acceptance,
        handlers,
        channel=Hub(reactor).latest("job"),
        events=events,
        settings=session_settings(settings),
        authenticator=authenticator,
    )
    bus_part = None if bus is None else serve_bus(bus, settings, handlers)
    rooms = make_rooms(settings, reactor, wall, handlers)
    tenants = [part.service for part in (bus_part, rooms) if part is not None]
    server = Server(
        reactor,
        Tenants(pool, *tenants) if tenants else pool,
        server_settings(settings),
        framing=settings.listen.framing,
        transport=settings.listen.transport,
        http_port=http_hint(settings.listen),
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
        handlers.take_rejections,
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
        pool=pool,
        server=server,
        coordinator=coordinator,
        consumer=consumer,
        clock_watch=ClockWatch(wall, boot.seconds),
        bus=bus_part,
        rooms=rooms,
    )


def uses_files(settings: Settings) -> bool:
    """Say whether anything is kept in the data folder."""
    return "sqlite" in (settings.storage.kind, settings.log.kind) or has_spool(settings)


def has_spool(settings: Settings) -> bool:
    """Say whether batches are kept here while the log is away."""
    return settings.log.kind == "rabbit" and settings.log.spool == "on"


def _make_log(
    settings: Settings, reactor: Any, wall: Callable[[], float], database: MakeDatabase
) -> Any:
    if settings.log.kind == "memory":
        return MemoryLog(reactor, wall, settings.submissions.memory_log_limit)
    if settings.log.kind == "rabbit":
        remote = make_rabbit(settings, reactor, wall, required=not has_spool(settings))
        if not has_spool(settings):
            return remote
        database_file = database(SPOOL_FILE, "spool")
        file = SpoolFile(database_file, reactor, wall, settings.log.spool_max_size)
        drain_timeout = max(DRAIN_TIMEOUT, settings.log.timeout)
        bounds = SpoolSettings(settings.log.timeout, drain_timeout, hold=True)
        return SpooledLog(remote, file, reactor, bounds)
    return SqliteLog(database(LOG_FILE, "log"), reactor, wall)


def topology(settings: Settings) -> Topology:
    """Return what the log in RabbitMQ consists of."""
    return Topology(
        queue=settings.log.queue,
        kind=settings.log.queue_kind,
        max_age=f"{settings.submissions.log_retention:.0f}s"
        if settings.submissions.log_retention
        else "",
        max_bytes=settings.submissions.log_max_size,
    )


def make_rabbit(
    settings: Settings, reactor: Any, wall: Callable[[], float], required: bool
) -> RabbitLog:
    """Return the log in RabbitMQ; ``required`` says that it cannot be opened without one.

    A batch that has been sent is sent again there until it is certain. Only where a spool
    does the same it is given up after a while.
    """
    give_up = 0.0 if required else max(DRAIN_TIMEOUT, settings.log.timeout)
    publisher = PublisherSettings(stalled=settings.log.timeout, give_up=give_up)
    engine = RabbitSettings(
        topology=topology(settings), publisher=publisher, required=required, hold=True
    )
    if not required:
        # What is on its way at a stop is in the spool as well.
        engine = replace(engine, close_timeout=SPOOLED_CLOSE)
    return RabbitLog(reactor, wall, settings.log.url, engine)


def _make_stores(
    settings: Settings,
    wall: Callable[[], float],
    database: MakeDatabase,
    postgres: PostgresDatabase | None,
) -> tuple[Any, Any]:
    if postgres is not None:
        return PostgresStats(postgres), PostgresJobStore(postgres)
    if settings.storage.kind == "memory":
        return MemoryStats(), MemoryJobStore(wall)
    store = database(STORE_FILE, "store")
    return SqliteStats(store), SqliteJobStore(store)


def rules(settings: Settings) -> Rules:
    """Return what the judge goes by."""
    return Rules(settings.jobs.expire, settings.rates.submit_interval)


def attempts(settings: RateSettings) -> AttemptSettings:
    """Return how many rejected attempts a session has."""
    return AttemptSettings(
        settings.attempts_rate,
        settings.attempts_burst,
        settings.ban_score,
        settings.ban_time,
    )


def batch_settings(settings: SubmissionSettings) -> BatchSettings:
    """Return when a batch closes."""
    return BatchSettings(
        settings.batch_delay,
        settings.batch_size,
        settings.batches_in_flight,
    )


def session_settings(settings: Settings) -> SessionSettings:
    """Return what a session gets."""
    return SessionSettings(
        nonce_scope=settings.jobs.nonce_scope,
        duplicate_scope=settings.jobs.duplicate_scope,
        user_rate=settings.rates.user_rate,
        ip_rate=settings.rates.ip_rate,
        authorize_timeout=settings.limits.authorize_timeout,
        first_frame=settings.limits.first_frame,
        max_frame=settings.limits.max_frame,
    )


def server_settings(settings: Settings) -> ServerSettings:
    """Return the limits of the server."""
    return ServerSettings(
        max_frame=settings.limits.max_frame,
        max_connections=settings.limits.max_connections,
        max_connections_per_ip=settings.limits.max_connections_per_ip,
        idle_timeout=settings.limits.idle_timeout,
        write_timeout=settings.limits.write_timeout,
        max_errors=settings.limits.max_errors,
        outbox_limit=settings.limits.outbox_limit,
        proxies=ProxySettings(settings.listen.proxy_trusted),
    )


def http_hint(settings: ListenSettings) -> str:
    """Return how an HTTP client that came to the wrong port is told of the right one."""
    address = parse_address(settings.http) if settings.http else None
    return f"port {address.port}" if address is not None else settings.http
