"""The daemon as a service: starts, reloads and stops its parts in order."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from kupool.accounts.web_tokens import public_keys
from kupool.backup import BackupError
from kupool.backup.switching import check_finished
from kupool.bus import BusError
from kupool.daemon import moves
from kupool.daemon.apply import apply_changes
from kupool.daemon.checks import check
from kupool.daemon.connection_limits import descriptor_limit, http_limits
from kupool.daemon.events import EventWatch
from kupool.daemon.exposed import exposed_secrets
from kupool.daemon.files import has_spool, topics_setting
from kupool.daemon.housekeeping import Housekeeping
from kupool.daemon.http_access import HttpAccess, make_http_access
from kupool.daemon.limit_use import LimitUses
from kupool.daemon.memory import Memory, make_give_back
from kupool.daemon.notify import notify
from kupool.daemon.overview import PoolOverview
from kupool.daemon.parts import Parts, build
from kupool.daemon.start_warnings import start_warnings
from kupool.daemon.status import RUNNING, Status
from kupool.errors import GOING_DOWN
from kupool.log import IdentityMismatch, LogUnavailable
from kupool.log.rabbit import BrokerError
from kupool.net.collector import collect_rarely
from kupool.net.transport.endpoints import endpoint_for, probe
from kupool.net.transport.proxied import ProxySettings
from kupool.pool.restore import restore_jobs
from kupool.settings import ListenSettings, Loaded, Settings, changes
from kupool.stats.comparison import Comparison, compare
from kupool.stats.sweep import Sweeper
from kupool.storage.copies import CopyError
from kupool.storage.database import DatabaseClosed, DatabaseUnusable
from kupool.storage.folder import FolderError
from kupool.storage.migrations import SchemaTooNew
from kupool.storage.postgres import DatabaseUnavailable
from kupool.timing.waiting import after
from kupool.web.site import make_site

#: Errors of a listener that are explained by their text.
NOT_LISTENING = (CannotListenError, OSError, ValueError)

#: What may keep the data folder from being used.
CANNOT_USE = (
    BackupError,
    CopyError,
    FolderError,
    DatabaseUnusable,
    SchemaTooNew,
    OSError,
    ValueError,
)

#: Errors of a log or a store that are explained by their text.
UNUSABLE = (LogUnavailable, BrokerError, BusError, DatabaseUnusable, SchemaTooNew)

#: What the steps of a start after that may fail with.
LOST_AT_THE_START = (LogUnavailable, DatabaseUnavailable, DatabaseUnusable)

#: Seconds that a stop gives clients to receive their last answers.
LAST_ANSWERS = 5.0

#: Seconds without progress after which a stop leaves the rest to be counted at the next start,
#: because the counts or the log are unavailable.
NO_PROGRESS = 3.0

#: Seconds that a start and a stop wait for a log that is far behind or unavailable.
FIRST_SWEEP = 5.0
LAST_SWEEP = 3.0

#: Seconds that a stop waits for PostgreSQL to save that it is released.
RELEASE = 1.0

#: Seconds of the time for a stop that are reserved for closing the files.
CLOSING = 2.0


def new_id() -> str:
    """Return a new unique id, for a pool or for an epoch."""
    return secrets.token_hex(16)


class CannotStart(Exception):
    """The daemon cannot start; the text says in one line why, and which setting is concerned."""


class Daemon:
    """Starts and stops every part.

    ``failed`` is called with one line of text if the start fails. ``level`` sets the lowest level
    that is logged. ``read`` returns the settings anew, for a reload.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        loaded: Loaded,
        *,
        checkers: Sequence[ICredentialsChecker] = (),
        failed: Callable[[str], None],
        level: Callable[[str], None] = lambda name: None,
        read: Callable[[], Loaded] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self.settings: Settings = loaded.settings
        self._sources = loaded.sources
        self._warnings = [*loaded.remarks, *exposed_secrets(loaded)]
        self._checkers = checkers
        self._report = failed
        self._level = level
        self._read = read
        self._wall = wall
        self.parts: Parts = build(loaded.settings, reactor, wall, checkers)
        self._sweeper: Sweeper | None = None
        if not self.parts.log.positional:
            self._sweeper = Sweeper(
                reactor,
                wall,
                self.parts.log,
                self.parts.stats,
                compare=self._compare,
                new_id=new_id,
            )
        self.status = Status(wall, self.parts, self._sweeper)
        book = self.parts.book
        memory = Memory(reactor, lambda: book.retired_nonces, make_give_back())
        self._housekeeping = Housekeeping(
            reactor,
            wall,
            time.monotonic,
            self.parts,
            settings=lambda: self.settings.submissions,
            memory=memory,
            watch=EventWatch(self.parts.news, self.status).look,
        )
        self._http: IListeningPort | None = None
        self._http_access: HttpAccess | None = None
        self._starting: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None

    # -- start

    def prepare(self) -> None:
        """Do the steps that can fail, before anything is changed and without waiting.

        Opening the files blocks, so call it before the process does anything else. Raises
        :class:`CannotStart` if a port is in use or the data folder cannot be used.
        """
        self._probe()
        try:
            others = public_keys(self.settings.logins.token_keys)
        except (OSError, ValueError) as error:
            raise self._about("token_keys", error) from None
        try:
            folder = self.parts.folder
            if folder is not None:
                folder.open()
                check_finished(folder.path)
                if folder.warning:
                    self._log.warn("{text}", text=folder.warning)
            self._http_access = make_http_access(
                self.settings,
                self._wall,
                self.parts.logins,
                permissions=self.parts.permissions,
                others=others,
                folder=None if folder is None else folder.path,
                trail=self.parts.activity.trail,
            )
            for database in self.parts.databases:
                database.check(verify=folder is None or not folder.is_clean(database.path))
        except CANNOT_USE as error:
            raise self._about("data", error) from None
        if self.parts.postgres is not None:
            try:
                self.parts.postgres.check()
            except UNUSABLE as error:
                raise self._about("pg_dsn", error) from None

    def _probe(self) -> None:
        """Try whether the addresses are free; raises :class:`CannotStart`."""
        for name, addresses in (
            ("addr", self.settings.listen.addr),
            ("http", (self.settings.listen.http,)),
            ("bus_compatible_addr", (self.settings.bus.compatible_addr,)),
        ):
            for text in addresses:
                try:
                    probe(text)
                except NOT_LISTENING as error:
                    raise self._about(name, error) from None

    def _about(self, name: str, error: Exception) -> CannotStart:
        return CannotStart(f"{name}: {explain(error)} (from {self._sources[name]})")

    def start(self) -> None:
        """Start the parts; a failure is reported."""
        self._starting = ensureDeferred(self._start())
        self._starting.addErrback(self._failed)

    async def _start(self) -> None:
        try:
            await self._start_parts()
        except LOST_AT_THE_START as error:
            # The database was lost again between these two steps.
            name = "pg_dsn" if isinstance(error, DatabaseUnavailable) else "data"
            if isinstance(error, LogUnavailable) and self._sweeper is not None:
                name = "mq_url"
            raise self._about(name, error) from error

    async def _start_parts(self) -> None:
        settings, parts = self.settings, self.parts
        for warning in start_warnings(settings, parts):
            self._log.warn("{text}", text=warning)
        for line in self._warnings:
            self._log.warn("{line}", line=line)
        self.status.enter("opening")
        await self._open("mq_url" if settings.log.kind == "rabbit" else "data", parts.log)
        await self._open("pg_dsn" if settings.storage.kind == "pg" else "data", parts.stats)
        await self._open("mq_url" if settings.log.kind == "rabbit" else "data", parts.history)
        if parts.bus is not None:
            await self._open("bus_url" if settings.bus.url.strip() else "mq_url", parts.bus)
        if parts.rooms is not None:
            await self._open("bus_url" if settings.bus.url.strip() else "mq_url", parts.rooms)
        self.status.enter("comparing")
        await self._look_for_moves()
        if parts.topics is not None:  # it is written to at once
            self._look_for_moved_topics()
            await self._open(topics_setting(settings), parts.topics)
        compared = await self._compare_first()
        self.status.enter("restoring")
        await self._restore(compared)
        if self._sweeper is not None:
            await self._sweeper.begin(FIRST_SWEEP)
        await parts.consumer.start(parts.log, None if compared is None else compared.plan.resume)
        await parts.coordinator.start()
        await self._housekeeping.start()
        if parts.logins is not None:
            parts.logins.start()
        if parts.live is not None:
            parts.live.start()
        await parts.activity.start()
        self.status.enter("listening")
        await self._listen_everywhere()
        collect_rarely()
        self.status.enter(RUNNING)
        parts.news.started()
        self._announce()

    async def _listen_everywhere(self) -> None:
        settings, parts = self.settings, self.parts
        await self._listen("addr", parts.server.listen(settings.listen.addr))
        if settings.listen.http:
            await self._listen("http", self._listen_http(settings.listen))
        if parts.compatible is not None:
            await self._listen("bus_compatible_addr", parts.compatible.listen())

    def _look_for_moved_topics(self) -> None:
        """Refuse to start if the topics were moved elsewhere."""
        try:
            moves.look_for_moved_topics(self.settings)
        except moves.MovedAway as error:
            raise self._about("data", error) from None

    async def _look_for_moves(self) -> None:
        """Refuse to start if the pool was moved elsewhere, and report other data that is here."""
        try:
            for line in await moves.look_for_moves(
                self.settings.storage, self.settings.log, self.parts
            ):
                self._log.warn("{line}", line=line)
        except moves.MovedAway as error:
            name = "pg_dsn" if self.settings.storage.kind == "pg" else "data"
            raise self._about(name, error) from None

    async def _compare_first(self) -> Comparison | None:
        """Check that log and store belong together.

        None if the log is unavailable and a spool takes its place: then nothing reaches the log
        before the check.
        """
        try:
            compared = await self._compare()
        except IdentityMismatch as error:
            raise self._about("data", error) from None
        except LogUnavailable as error:
            if not has_spool(self.settings.log):
                raise self._about("mq_url" if self._sweeper else "data", error) from None
            return None
        if compared.plan.text and not compared.changed:
            self._tell(compared)
        return compared

    async def _compare(self) -> Comparison:
        """Check that log and store belong together, and save their common identity."""
        stats = self.parts.stats
        compared = await compare(self.parts.log, stats, new_id)
        if compared.plan.text and compared.changed:
            self._tell(compared)
        self.status.gaps = await stats.gaps()
        if self.parts.live is not None:
            self.parts.live.use_log_epoch(compared.plan.identity.epoch)
        return compared

    async def _restore(self, compared: Comparison | None) -> None:
        """Continue with the jobs of the last run whose nonces the log tells."""
        parts = self.parts
        plan, extent = (None, None) if compared is None else (compared.plan, compared.extent)
        if plan is not None and not self._owns_jobs():
            plan = plan._replace(keep_jobs=False)
        restored = await restore_jobs(
            self._reactor,
            parts.log,
            plan,
            extent,
            coordinator=parts.coordinator,
            duplicate_scope=self.settings.jobs.duplicate_scope,
        )
        if restored.minutes:
            await parts.stats.cover(restored.minutes)
        if restored.used:
            self._log.info(
                "Restored {jobs} jobs and {used} used nonces",
                jobs=restored.jobs,
                used=restored.used,
            )

    def _tell(self, compared: Comparison) -> None:
        extent, state, plan, _ = compared
        self._log.warn(
            "{text} (pool {pool}, epoch {epoch}, positions {first} to {last} in the log, "
            "counted up to {mark})",
            text=plan.text[:1].upper() + plan.text[1:],
            pool=plan.identity.pool_id,
            epoch=plan.identity.epoch,
            first=extent.first,
            last=extent.last,
            mark=state.mark.position,
        )

    def _owns_jobs(self) -> bool:
        """Return whether no other process can take submissions for the jobs in the store."""
        postgres = self.parts.postgres
        if postgres is None or not postgres.jobs_retired:
            return True
        self._log.warn(
            "Another daemon ({owner}) did not release the database: its jobs are retired",
            owner=str(postgres.previous_owner),
        )
        return False

    async def _release(self) -> None:
        """Release the store, with its jobs, if this daemon leaves nothing unfinished."""
        postgres = self.parts.postgres
        if postgres is None or self.parts.log.status().spooled:
            return
        try:
            await postgres.release().addTimeout(RELEASE, self._reactor)
        except (DatabaseClosed, DatabaseUnavailable, TimedOut) as error:
            reason = str(error) or "no answer"
            self._log.warn(
                "The database could not be released to the next daemon: {reason}", reason=reason
            )

    async def _open(self, name: str, part: Any) -> None:
        try:
            await part.open()
        except UNUSABLE as error:
            broker = isinstance(error, BrokerError) and not name.endswith("_url")
            raise self._about("mq_url" if broker else name, error) from error

    async def _listen(self, name: str, listening: Awaitable[None]) -> None:
        try:
            await listening
        except NOT_LISTENING as error:
            raise self._about(name, error) from error

    async def _listen_http(self, settings: ListenSettings) -> None:
        bus, http = self.parts.bus, self._http_access
        assert http is not None
        more = {**http.routes, **self.parts.history.routes(http.access)}
        if bus is not None:
            more.update(bus.routes(http.access, self.settings.bus))
        limits = LimitUses(self.parts, lambda: self.settings).pages()
        more.update(limits.routes(http.access))
        if self.parts.topics is not None:
            more.update(self.parts.topics.routes(http.access, self.settings.topics))
        overview = PoolOverview(self._reactor, self.parts, self.status)
        more.update(self.parts.activity.routes(http.access, settings, overview.read))
        live = self.parts.live
        if live is not None:
            more.update(live.routes(http, self.settings, more))
        site = make_site(
            self._reactor,
            self.status,
            self.parts.stats,
            self._wall,
            manager=self.parts.server.manager,
            ws_origins=settings.ws_origins,
            access=http.access,
            limits=http_limits(settings, descriptor_limit(), self.settings.topics),
            more=more,
            centrifuge=None if live is None else live.centrifuge,
        )
        proxies = ProxySettings(settings.proxy_trusted)
        endpoint = endpoint_for(
            self._reactor,
            settings.http,
            proxies=proxies,
            certificates=self.parts.certificates,
            unix_mode=settings.unix_mode,
        )
        self._http = await endpoint.listen(site)

    def _announce(self) -> None:
        addresses = ", ".join(map(_shown, self.parts.server.addresses))
        http = _shown(self._http.getHost()) if self._http is not None else "off"
        if self.parts.compatible is not None:
            compatible = ", ".join(map(_shown, self.parts.compatible.server.addresses))
            self._log.info(
                "Clients of the predecessor's bus are served on {compatible}",
                compatible=compatible,
            )
        self._log.info("Ready: pool on {addresses}, HTTP on {http}", addresses=addresses, http=http)
        notify("READY=1")

    def _failed(self, failure: Failure) -> None:
        if self._stopping is None and failure.value is not None:
            level = LogLevel.debug if failure.check(CannotStart) else LogLevel.critical
            self._log.failure("The start failed", failure, level=level)
            self._report(explain(failure.value))

    # -- reload

    def reload(self) -> None:
        """Read the settings again, apply reloadable ones, and log those that need a restart."""
        if self._read is None or self._stopping is not None:
            return
        try:
            loaded = self._read()
            check(loaded)
            fresh = loaded.settings
        except ValueError as error:
            self._log.error(
                "The settings were not reloaded, and nothing has changed: {reason}",
                reason=str(error),
            )
            self.parts.news.not_reloaded(str(error))
            return
        now, restart = changes(self.settings, fresh)
        self.settings = apply_changes(self.parts, self.settings, fresh, now)
        self._level(self.settings.process.log_level)
        self._log.info("Reloaded: {changed}", changed=", ".join(now) or "nothing has changed")
        if restart:
            self._log.warn(
                "These settings take effect only after a restart: {names}", names=", ".join(restart)
            )
        self.parts.news.reloaded(now, restart)
        if self.parts.logins is not None:
            self.parts.logins.reload()
        self.parts.certificates.reload()

    # -- stop

    def stop(self) -> Deferred[None]:
        """Stop the parts in order; may be called again, and fires when all have."""
        if self._stopping is None:
            self._stopping = ensureDeferred(self._stop())
        return after(self._stopping)

    async def _stop(self) -> None:
        parts, clock = self.parts, self._reactor
        deadline = clock.seconds() + self.settings.process.shutdown_timeout
        working = deadline - min(CLOSING, self.settings.process.shutdown_timeout / 2)
        notify("STOPPING=1")
        parts.news.stopping()
        if self._starting is not None:
            await self._step("starting", self._starting, working)
        await self._step("listeners", parts.server.stop_listening(), working)
        if parts.compatible is not None:
            await self._step("compatible", parts.compatible.finish(), working)
        await self._step("jobs", parts.coordinator.stop(), working)
        await self._stop_tenants(working)
        await self._step("answers", self._last_answers(), working)
        left = max(0.1, min(LAST_ANSWERS, working - clock.seconds()))
        await self._step("clients", parts.server.stop(GOING_DOWN, left), working)
        if parts.logins is not None:
            await self._step("logins", parts.logins.stop(), working)
        await self._step("counting", self._finish_counting(working), working)
        if self._http is not None:
            await self._step("http", maybeDeferred(self._http.stopListening), deadline)
        await self._step("activity", parts.activity.stop(), deadline)
        await self._step("certificates", parts.certificates.stop(), deadline)
        await self._step("housekeeping", self._housekeeping.stop(), deadline)
        await self._step("owner", self._release(), deadline)
        if parts.topics is not None:
            await self._step("topics", parts.topics.close(), deadline)
        await self._step("history", parts.history.close(), deadline)
        await self._step("store", parts.stats.close(), deadline)
        await self._step("log", parts.log.close(), deadline)
        if parts.folder is not None:
            parts.folder.close([d.path for d in parts.databases if d.closed_clean])
        self.status.enter("stopped")
        self._log.info("Stopped")

    async def _stop_tenants(self, deadline: float) -> None:
        """Stop what else sessions use, while they are still read, so that their answers count."""
        parts = self.parts
        if parts.bus is not None:
            await self._step("bus", parts.bus.stop(self._reactor), deadline)
        if parts.compatible is not None:
            await self._step("compatible", parts.compatible.stop(), deadline)
        if parts.rooms is not None:
            await self._step("rooms", parts.rooms.stop(), deadline)
        if parts.live is not None:
            await self._step("live", parts.live.stop(), deadline)
        if parts.topics is not None:
            parts.topics.finish()

    async def _last_answers(self) -> None:
        """Stop reading from clients, and answer what was read."""
        await self.parts.server.manager.each(lambda connection: connection.hold())
        settled = self.parts.acceptance.settle()
        if settled is not None:
            await settled

    async def _finish_counting(self, deadline: float) -> None:
        # Entries of a log in memory are lost with the process.
        patience = NO_PROGRESS if self.parts.log.persistent else inf
        if not await self.parts.consumer.drain(deadline - 0.1, patience):
            self._log.warn(
                "{depth} batches are left in the log; the next start counts them",
                depth=self.parts.log.status().depth,
            )
        await self.parts.consumer.stop()
        if self._sweeper is not None:
            await self._sweeper.stop(LAST_SWEEP)

    async def _step(self, name: str, work: Awaitable[object], deadline: float) -> None:
        """Run one step of the stop; a failure or a timeout does not stop the other steps."""
        self.status.enter("stopping: " + name)
        left = max(0.05, deadline - self._reactor.seconds())
        try:
            await _deferred(work).addTimeout(left, self._reactor)
        except TimedOut:
            self._log.error(
                "Stop: the step {name} did not finish within {s:.1f} s", name=name, s=left
            )
        except GeneratorExit:
            raise  # the coroutine is closed: nobody waits for this step
        except BaseException as error:
            self._log.error("Stop: the step {name} failed: {error!r}", name=name, error=error)


def _deferred(work: Awaitable[object]) -> Deferred[Any]:
    return work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)  # type: ignore[arg-type]


def _shown(address: Any) -> str:
    host = getattr(address, "host", None)
    if host is None:
        return os.fsdecode(getattr(address, "name", None) or str(address))
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def explain(error: BaseException) -> str:
    """Return why a start failed, in one line."""
    if isinstance(error, CannotListenError):
        why = getattr(error.socketError, "strerror", None) or error.socketError
        if not isinstance(error.port, int):
            return f"cannot listen on {os.fsdecode(error.port)}: {why}"
        host = error.interface or "*"
        return f"cannot listen on {f'[{host}]' if ':' in host else host}:{error.port}: {why}"
    if isinstance(error, OSError) and error.strerror:
        file = os.fsdecode(error.filename2 or error.filename or "")
        return f"{file}: {error.strerror}" if file else error.strerror
    told = (BackupError, CannotStart, FolderError, IdentityMismatch, moves.MovedAway, ValueError)
    if isinstance(error, (*told, *UNUSABLE, DatabaseUnavailable)):
        return " ".join(str(error).split())
    return " ".join(f"{type(error).__name__}: {error}".split())
