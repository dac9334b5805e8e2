"""A pool in this process: the real parts, a log in memory, and a port that can go away."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.defer import Deferred, fail

from kupool.accounts.authenticator import Authenticator
from kupool.accounts.login_guard import LoginSettings
from kupool.accounts.logins import Logins
from kupool.live.hub import Hub
from kupool.log import Extent, Identity, LogUnavailable, Plan
from kupool.log.memory import MemoryLog
from kupool.net.manager import ServerSettings
from kupool.net.server import Server
from kupool.pool.acceptance import Acceptance, BatchSettings
from kupool.pool.coordinator import Coordinator
from kupool.pool.events import NoEvents
from kupool.pool.handlers import AttemptSettings, Handlers
from kupool.pool.jobs import JobBook
from kupool.pool.judge import Rules
from kupool.pool.notes import JobNotes
from kupool.pool.pool import Pool, SessionSettings
from kupool.pool.restore import restore_jobs
from kupool.stats.fold import read_entry
from kupool.storage.clocks import this_boot
from tests.fakes.pool_fixture import SteeredJobStore


class RunLog:
    """The log as one run of a pool has it: it may answer later, or end with the run."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.dead = False
        self.held: list[Deferred[None]] | None = None
        #: Whether what is held is not kept, and lost when the run ends.
        self.loses = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        if self.dead:
            return fail(LogUnavailable("this run is over"))
        if self.held is None:
            return self._log.append(entry_id, body)
        if not self.loses:
            self._log.append(entry_id, body)
        answer: Deferred[None] = Deferred()
        self.held.append(answer)
        return answer

    def let_go(self) -> None:
        """Say of all that is held whether it is kept."""
        held, self.held = self.held or [], None
        for answer in held:
            if self.loses:
                answer.errback(LogUnavailable("lost"))
            else:
                answer.callback(None)


class PoolServer:
    """A pool over a log and a job store that outlive its restarts."""

    def __init__(
        self,
        reactor: Any,
        *,
        wall: Callable[[], float] = time.time,
        interval: float = 30.0,
        submit_interval: float = 1.0,
        attempts: AttemptSettings | None = None,
        max_connections: int = 10_000,
        password: tuple[str, str] | None = None,
        path: str = "",
    ) -> None:
        self.reactor = reactor
        self.wall = wall
        self.interval = interval
        self.rules = Rules(submit_interval=submit_interval)
        self.attempts = attempts or AttemptSettings()
        self.limits = ServerSettings(max_connections=max_connections)
        self.password = password
        self.path = path
        self.kept = MemoryLog(reactor, wall)
        self.store = SteeredJobStore()
        self.port = 0
        self.runs = 0

    async def start(self, *, listen: bool = True) -> None:
        """Start, and after a stop start again on the same port with what is kept."""
        self.runs += 1
        self.log = RunLog(self.kept)
        self.book = JobBook(600.0, 100, 1_000_000)
        self.acceptance = Acceptance(
            self.reactor,
            self.wall,
            self.log,
            BatchSettings(),
            instance=f"run{self.runs}",
            events=NoEvents(),
        )
        self.handlers = Handlers(self.book, self.acceptance, self.rules, attempts=self.attempts)
        logins = None
        if self.password is not None:
            checker = InMemoryUsernamePasswordDatabaseDontUse()
            checker.addUser(*(text.encode() for text in self.password))
            authenticator = Authenticator(self.reactor, [checker])
            logins = Logins(self.reactor, authenticator, LoginSettings(delay=0.0))
        self.pool = Pool(
            self.reactor,
            self.book,
            self.acceptance,
            self.handlers,
            channel=Hub(self.reactor).latest("job"),
            events=NoEvents(),
            settings=SessionSettings(),
            logins=logins,
        )
        self.server = Server(self.reactor, self.pool, self.limits)
        self.coordinator = Coordinator(
            self.reactor,
            self.wall,
            self.book,
            self.store,
            publish=self.pool.publish,
            interval=self.interval,
            notes=JobNotes(self.log, self.wall, f"run{self.runs}"),
            boot=this_boot(),
        )
        if self.store.jobs:
            await self._restore()
        await self.coordinator.start()
        if listen:
            await self.server.listen([self.listening])
            self.port = getattr(self.server.addresses[0], "port", 0)

    async def _restore(self) -> None:
        """Go on with the jobs of the last run, whose log is still there."""
        extent = Extent(None, 1, self.kept.status().appended, True)
        plan = Plan(Identity("pool", ()), 0, 0, True)
        await restore_jobs(
            self.reactor,
            self.kept,
            plan,
            extent,
            coordinator=self.coordinator,
            duplicate_scope="user",
        )

    @property
    def listening(self) -> str:
        return self.path or f"127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """Stop in order: every client is told."""
        await self.coordinator.stop()
        self.log.let_go()
        self.acceptance.flush()
        await self.server.stop(timeout=1.0)

    async def crash(self) -> None:
        """End as a killed process does: nobody is told, nothing more reaches the log."""
        await self.server.stop_listening()  # or new clients would meet a log that is gone
        self.log.dead = True
        for connection in self.server.manager:
            connection.abort()
        self.acceptance.flush()
        self.log.let_go()
        await self.server.stop()
        await self.coordinator.stop()

    async def counted(self) -> dict[str, int]:
        """Return how many submissions of each username the log holds, batch by batch."""
        totals: Counter[str] = Counter()
        for entry in await self.kept.read(0, 2**31):
            totals.update(read_entry(entry.body, entry.position).usernames)
        return dict(totals)
