"""Every part of the daemon, made from the settings. Nothing here opens or starts."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker

from kupool.live.hub import LatestChannel
from kupool.log.memory import MemoryLog
from kupool.log.sqlite import SqliteLog
from kupool.net.endpoints import parse_address
from kupool.net.manager import ServerSettings
from kupool.net.server import Server
from kupool.pool.acceptance import Acceptance, BatchSettings
from kupool.pool.coordinator import Coordinator
from kupool.pool.credentials import Authenticator
from kupool.pool.handlers import AttemptSettings, Handlers
from kupool.pool.jobs import JobBook
from kupool.pool.jobstore import MemoryJobStore, SqliteJobStore
from kupool.pool.judge import Rules
from kupool.pool.pool import Pool, SessionSettings
from kupool.settings import Settings
from kupool.stats.consumer import ConsumerSettings, StatsConsumer
from kupool.stats.memory import MemoryStats
from kupool.stats.sqlite import SqliteStats
from kupool.storage.database import Database
from kupool.storage.folder import DataFolder

#: Names of the files in the data folder.
LOG_FILE = "log.sqlite"
STORE_FILE = "store.sqlite"

#: Returns the database in a file of the data folder, with a schema.
MakeDatabase = Callable[[str, str], Database]


@dataclass(frozen=True)
class Parts:
    """The parts, as :mod:`kupool.daemon.service` starts and stops them."""

    folder: DataFolder | None
    databases: Sequence[Database]
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


def build(
    settings: Settings,
    reactor: Any,
    wall: Callable[[], float],
    checkers: Sequence[ICredentialsChecker] = (),
) -> Parts:
    """Make every part. ``wall`` returns seconds since the epoch."""
    uses_files = "sqlite" in (settings.store, settings.mq)
    folder = DataFolder(settings.data) if uses_files else None
    databases: list[Database] = []

    def database(file: str, schema: str) -> Database:
        databases.append(Database(reactor, Path(settings.data) / file, schema))
        return databases[-1]

    log = _make_log(settings, reactor, wall, database)
    stats, job_store = _make_stores(settings, wall, database)
    book = JobBook(settings.history_window, settings.history_jobs, settings.max_nonces)
    instance = f"{int(wall()):x}-{secrets.token_hex(6)}"
    acceptance = Acceptance(reactor, wall, log, batch_settings(settings), instance)
    handlers = Handlers(book, acceptance, wall, rules(settings), attempts(settings))
    authenticator = Authenticator(checkers) if checkers else None
    pool = Pool(reactor, book, acceptance, handlers, session_settings(settings), authenticator)
    server = Server(
        reactor,
        pool,
        server_settings(settings),
        framing=settings.framing,
        transport=settings.transport,
        http_port=http_hint(settings),
    )
    pool.use_channel(LatestChannel(server.manager, "job"))
    coordinator = Coordinator(reactor, wall, book, job_store, pool.publish, settings.interval)
    consumer = StatsConsumer(
        reactor,
        stats,
        handlers.take_rejections,
        ConsumerSettings(interval=settings.flush_interval),
    )
    return Parts(
        folder=folder,
        databases=databases,
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
    )


def _make_log(
    settings: Settings, reactor: Any, wall: Callable[[], float], database: MakeDatabase
) -> Any:
    if settings.mq == "memory":
        return MemoryLog(reactor, wall, settings.memory_log_limit)
    return SqliteLog(database(LOG_FILE, "log"), reactor, wall)


def _make_stores(
    settings: Settings, wall: Callable[[], float], database: MakeDatabase
) -> tuple[Any, Any]:
    if settings.store == "memory":
        return MemoryStats(), MemoryJobStore(wall)
    store = database(STORE_FILE, "store")
    return SqliteStats(store), SqliteJobStore(store)


def rules(settings: Settings) -> Rules:
    """Return what the judge goes by."""
    return Rules(settings.expire, settings.submit_interval)


def attempts(settings: Settings) -> AttemptSettings:
    """Return how many rejected attempts a session has."""
    return AttemptSettings(
        settings.attempts_rate, settings.attempts_burst, settings.ban_score, settings.ban_time
    )


def batch_settings(settings: Settings) -> BatchSettings:
    """Return when a batch closes."""
    return BatchSettings(settings.batch_delay, settings.batch_size, settings.batches_in_flight)


def session_settings(settings: Settings) -> SessionSettings:
    """Return what a session gets."""
    return SessionSettings(
        nonce_scope=settings.nonce_scope,
        duplicate_scope=settings.duplicate_scope,
        user_rate=settings.user_rate,
        ip_rate=settings.ip_rate,
        authorize_timeout=settings.authorize_timeout,
        first_frame=settings.first_frame,
        max_frame=settings.max_frame,
    )


def server_settings(settings: Settings) -> ServerSettings:
    """Return the limits of the server."""
    return ServerSettings(
        max_frame=settings.max_frame,
        max_connections=settings.max_connections,
        max_connections_per_ip=settings.max_connections_per_ip,
        idle_timeout=settings.idle_timeout,
        write_timeout=settings.write_timeout,
        max_errors=settings.max_errors,
        outbox_limit=settings.outbox_limit,
    )


def http_hint(settings: Settings) -> str:
    """Return how an HTTP client that came to the wrong port is told of the right one."""
    address = parse_address(settings.http) if settings.http else None
    return f"port {address.port}" if address is not None else settings.http
