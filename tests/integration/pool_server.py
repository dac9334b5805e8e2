"""A pool in this process: the real parts, a log in memory, and a port that can go away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.defer import Deferred

from kupool.live.hub import LatestChannel
from kupool.log.memory import MemoryLog
from kupool.net.manager import ServerSettings
from kupool.net.server import Server
from kupool.pool.acceptance import Acceptance, BatchSettings
from kupool.pool.coordinator import Coordinator
from kupool.pool.credentials import Authenticator
from kupool.pool.handlers import AttemptSettings, Handlers
from kupool.pool.jobs import JobBook
from kupool.pool.jobstore import MemoryJobStore
from kupool.pool.judge import Rules
from kupool.pool.pool import Pool, SessionSettings
from kupool.pool.restore import remember_used
from kupool.stats.replay import replay


class HoldingLog(MemoryLog):
    """A log that keeps at once what it is given, and may say so later."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        MemoryLog.__init__(self, *arguments, **named)
        self.held: list[Deferred[None]] | None = None

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        done = MemoryLog.append(self, entry_id, body)
        if self.held is None:
            return done
        answer: Deferred[None] = Deferred()
        done.chainDeferred(answer)
        answer.pause()
        self.held.append(answer)
        return answer

    def let_go(self) -> None:
        """Say of all that is held that it is kept."""
        held, self.held = self.held or [], None
        for answer in held:
            answer.unpause()


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
        batch_delay: float = 0.005,
    ) -> None:
        self.reactor = reactor
        self.wall = wall
        self.interval = interval
        self.rules = Rules(submit_interval=submit_interval)
        self.attempts = attempts or AttemptSettings()
        self.limits = ServerSettings(max_connections=max_connections)
        self.password = password
        self.batch_delay = batch_delay
        self.log = HoldingLog(reactor, wall)
        self.store = MemoryJobStore(wall)
        self.port = 0
        self.runs = 0

    async def start(self, *, listen: bool = True) -> None:
        """Start, and after a stop start again on the same port with what is kept."""
        self.runs += 1
        self.book = JobBook(600.0, 100, 1_000_000)
        self.acceptance = Acceptance(
            self.reactor, self.wall, self.log, BatchSettings(self.batch_delay), f"run{self.runs}"
        )
        self.handlers = Handlers(self.book, self.acceptance, self.wall, self.rules, self.attempts)
        authenticator = None
        if self.password is not None:
            checker = InMemoryUsernamePasswordDatabaseDontUse()
            checker.addUser(*(text.encode() for text in self.password))
            authenticator = Authenticator([checker])
        self.pool = Pool(
            self.reactor,
            self.book,
            self.acceptance,
            self.handlers,
            SessionSettings(),
            authenticator,
        )
        self.server = Server(self.reactor, self.pool, self.limits)
        self.pool.use_channel(LatestChannel(self.server.manager, "job"))
        self.coordinator = Coordinator(
            self.reactor, self.wall, self.book, self.store, self.pool.publish, self.interval
        )
        if self.store.saved:
            self._restore()
            await remember_used(self.log, self.book, "user")
        await self.coordinator.start()
        if listen:
            await self.server.listen([f"127.0.0.1:{self.port}"])
            self.port = self.server.addresses[0].port

    def _restore(self) -> None:
        """Take the jobs over, as a store on disk would give them back."""
        from kupool.pool.jobs import Job

        now, wall = self.reactor.seconds(), self.wall()
        jobs = [
            Job(s.job_id, s.server_nonce, now - (wall - s.created_at), s.created_at)
            for s in self.store.saved
        ]
        self.book.restore(jobs, jobs[-1].job_id)

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
        """End as a killed process does: nobody is told anything, nothing is answered."""
        for connection in self.server.manager:
            connection.abort()
        await self.server.stop()
        await self.coordinator.stop()

    async def counted(self) -> list[tuple[str, int]]:
        """Return what the log holds: (username, submissions), over all batches."""
        totals: dict[str, int] = {}
        for batch in (await replay(self.log)).batches:
            for key, number in batch.counts.items():
                name = key if isinstance(key, str) else key[0]
                totals[name] = totals.get(name, 0) + number
        return sorted(totals.items())
