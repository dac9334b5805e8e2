"""A whole pool in memory: a fake clock, transports in memory, and logs that tests steer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Container, Sequence
from hashlib import sha256
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.accounts.authenticator import Authenticator
from kupool.accounts.login_guard import LoginSettings
from kupool.accounts.logins import Logins
from kupool.live.hub import Hub
from kupool.log import ILog, LogStatus, LogUnavailable
from kupool.log.memory import MemoryLog
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.permissions.table import PermissionTable
from kupool.pool import IJobStore, SavedJob, SavedJobs
from kupool.pool.acceptance import Acceptance, BatchSettings
from kupool.pool.coordinator import Coordinator
from kupool.pool.events import NoEvents
from kupool.pool.handlers import AttemptSettings, Handlers
from kupool.pool.jobs import Job, JobBook
from kupool.pool.jobstore import MemoryJobStore
from kupool.pool.judge import Rules
from kupool.pool.names import Names
from kupool.pool.notes import JobNotes
from kupool.pool.pool import Pool, SessionSettings
from kupool.storage.clocks import BootClock
from kupool.wire.batches import decode_batch
from kupool.wire.framing import FRAME, LINE, Framing, encode_frame
from tests.fakes.peers import PeerTransport, frames

#: Where the wall clock of a test begins: a whole minute, in seconds since the epoch.
WALL = 1_800_000_000.0


def hash_of(server_nonce: str, client_nonce: str) -> str:
    """The right result, worked out without the code under test."""
    return sha256((server_nonce + client_nonce).encode()).hexdigest()


class Peer:
    """A client on a transport in memory."""

    def __init__(self, bench: PoolBench, framing: Framing, host: str) -> None:
        self.bench = bench
        self.framing = framing
        self.transport = PeerTransport(host)
        self.connection = bench.manager.admit(self.transport, host, framing)
        #: Everything heard so far, and the last job among it.
        self.messages: list[dict[str, Any]] = []
        self.closes: list[str] = []
        #: The details of the closes, where they had one.
        self.details: list[str] = []
        self.job: dict[str, Any] | None = None
        self._next_id = 100

    def send_bytes(self, data: bytes) -> None:
        self.connection.feed(data)

    def send(self, *messages: object) -> None:
        """Send some messages in one packet."""
        self.send_bytes(
            b"".join(
                self.framing.encode(json.dumps(m, ensure_ascii=False).encode()) for m in messages
            )
        )

    def authorize(self, username: str = "alice", **more: str) -> Peer:
        self.send({"id": 1, "method": "authorize", "params": {"username": username, **more}})
        self.hear()
        return self

    def submission(
        self,
        client_nonce: object,
        *,
        job_id: object = None,
        server_nonce: str | None = None,
        result: object = None,
        message_id: object = None,
    ) -> dict[str, Any]:
        """Make a submission: a right one for the last job, but for what is given."""
        if server_nonce is None:
            server_nonce = "" if self.job is None else self.job["server_nonce"]
        if job_id is None:
            job_id = 0 if self.job is None else self.job["job_id"]
        if result is None:
            result = hash_of(server_nonce, str(client_nonce))
        if message_id is None:
            self._next_id += 1
            message_id = self._next_id
        params = {"job_id": job_id, "client_nonce": client_nonce, "result": result}
        return {"id": message_id, "method": "submit", "params": params}

    def submit(self, client_nonce: object, **more: Any) -> dict[str, Any]:
        """Submit, let the pool work, and return the one answer."""
        message = self.submission(client_nonce, **more)
        self.send(message)
        self.bench.settle()
        answers = [m for m in self.hear() if m.get("id") == message["id"]]
        assert len(answers) == 1, answers
        return answers[0]

    def hear(self) -> list[dict[str, Any]]:
        """Return what came since the last call."""
        data = self.transport.taken()
        if self.framing is FRAME:
            found = []
            for opcode, payload in frames(data):
                if opcode == 8:
                    self.closes.append(payload.decode())
                    continue
                message = json.loads(payload)
                if message.get("method") == "close":  # the close itself follows
                    self.details.append(message["params"]["detail"])
                else:
                    found.append(message)
        else:
            found = [json.loads(line) for line in data.splitlines()]
        for message in found:
            if message.get("method") == "job":
                self.job = message["params"]
            if message.get("method") == "close":
                self.closes.append(message["params"]["reason"])
                if "detail" in message["params"]:
                    self.details.append(message["params"]["detail"])
        self.messages += found
        return found

    def raw(self) -> bytes:
        """Return the bytes that came since the last call."""
        return self.transport.taken()

    def leave(self) -> None:
        self.connection.lost(Failure(ConnectionDone()))

    @property
    def closed(self) -> bool:
        return self.transport.disconnecting or self.transport.aborted


class PoolBench:
    """A pool on a fake clock. What is not given is as the defaults have it."""

    def __init__(
        self,
        *,
        log: Any = None,
        store: Any = None,
        rules: Rules | None = None,
        attempts: AttemptSettings | None = None,
        proxies: Container[str] = (),
        session: SessionSettings | None = None,
        batches: BatchSettings | None = None,
        checkers: Sequence[Any] = (),
        login: LoginSettings | None = None,
        names: Names | None = None,
        permissions: PermissionTable | None = None,
        interval: float = 30.0,
        window: float = 600.0,
        max_jobs: int = 1000,
        max_nonces: int = 5_000_000,
        random_hex: Callable[[int], str] = secrets.token_hex,
        clock: Clock | None = None,
        boot: BootClock | None = None,
        events: Any = None,
        instance: str = "test",
        **server: Any,
    ) -> None:
        self.clock = clock or Clock()
        events = events or NoEvents()
        self.log = log if log is not None else MemoryLog(self.clock, self.wall)
        self.store = store if store is not None else MemoryJobStore(self.wall)
        self.book = JobBook(window, max_jobs, max_nonces)
        self.acceptance = Acceptance(
            self.clock,
            self.wall,
            self.log,
            batches or BatchSettings(),
            instance=instance,
            events=events,
        )
        self.channel = Hub(self.clock).latest("job")
        self.handlers = Handlers(
            self.book,
            self.acceptance,
            rules or Rules(),
            attempts=attempts or AttemptSettings(),
            proxies=proxies,
        )
        self.logins: Logins | None = None
        if checkers:
            authenticator = Authenticator(self.clock, checkers)
            self.logins = Logins(self.clock, authenticator, login or LoginSettings(delay=0.0))
        self.pool = Pool(
            self.clock,
            self.book,
            self.acceptance,
            self.handlers,
            channel=self.channel,
            events=events,
            settings=session or SessionSettings(),
            logins=self.logins,
            names=names,
            permissions=permissions,
            wall=self.wall,
        )
        self.manager = ConnectionManager(self.clock, self.pool, ServerSettings(**server))
        self.manager.start()
        self.published: list[Job] = []
        self.notes = JobNotes(self.log, self.wall, instance)
        self.coordinator = Coordinator(
            self.clock,
            self.wall,
            self.book,
            self.store,
            publish=self._publish,
            interval=interval,
            notes=self.notes,
            boot=boot or BootClock("boot", self.clock.seconds, -10.0),
            random_hex=random_hex,
        )

    def _publish(self, job: Job) -> object:
        self.published.append(job)
        return self.pool.publish(job)

    def wall(self) -> float:
        return WALL + self.clock.seconds()

    def start(self) -> PoolBench:
        """Make the first job; everything that it waits for has to be at hand."""
        started = Deferred.fromCoroutine(self.coordinator.start())
        failed: list[Failure] = []
        started.addErrback(failed.append)
        if failed:
            failed[0].raiseException()
        assert started.called
        return self

    def connect(self, framing: Framing = LINE, host: str = "192.0.2.1") -> Peer:
        return Peer(self, framing, host)

    def at(self, seconds: float) -> None:
        """Go on to a time of the clock, exactly; there is no pause on the way."""
        while seconds - self.clock.seconds() > 1.0:
            self.clock.advance(1.0)
        self.clock.advance(seconds - self.clock.seconds())
        self.clock.rightNow = seconds

    def settle(self) -> None:
        """Give what is under way 20 ms, in many turns."""
        for _ in range(20):
            self.clock.advance(0.001)


class KeptLog(MemoryLog):
    """A log that outlives its pool, and takes nothing when it is told to."""

    persistent = True

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, lambda: WALL)
        self.broken = False

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        if self.broken:
            return fail(LogUnavailable("the log is down"))
        return super().append(entry_id, body)

    def notes(self) -> list[int]:
        """Return the ids of the notes about jobs in it."""
        batches = [decode_batch(entry.body) for entry in self._entries]
        return [batch.jobs_until for batch in batches if batch.jobs_until]


@implementer(ILog)
class HeldLog:
    """A log whose appends are decided by the test."""

    persistent = True
    instant = False

    def __init__(self) -> None:
        self.appended: list[tuple[str, bytes]] = []
        self.waiting: list[Deferred[None]] = []

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        self.appended.append((entry_id, body))
        done: Deferred[None] = Deferred()
        self.waiting.append(done)
        return done

    def status(self) -> LogStatus:
        return LogStatus(len(self.appended), 0, 0, "")

    def decide(self, keep: bool) -> None:
        """Decide the oldest append that waits."""
        done = self.waiting.pop(0)
        if keep:
            done.callback(None)
        else:
            done.errback(LogUnavailable("no space left"))


@implementer(IJobStore)
class SteeredJobStore:
    """A job store that outlives its pool, and fails or hangs when it is told to."""

    persistent = True

    def __init__(self) -> None:
        self.jobs: dict[int, SavedJob] = {}
        self.reserved_until = 0
        #: The id kept by ``reserve``, which may work while nothing else does.
        self.in_file = 0
        self.broken = self.hanging = self.forget_broken = False
        self.reserving = True

    def load(self, limit: int) -> Deferred[SavedJobs]:
        jobs = [job for _, job in sorted(self.jobs.items())][-limit:]
        return self._answer(lambda: SavedJobs(jobs, max(self.reserved_until, self.in_file)))

    def save(self, job: SavedJob, reserved_until: int) -> Deferred[None]:
        def keep() -> None:
            kept = self.jobs.setdefault(job.job_id, job)
            if kept.log_position is None:
                self.jobs[job.job_id] = kept._replace(log_position=job.log_position)
            self.reserved_until = reserved_until

        return self._answer(keep)

    def reserve(self, job_id: int) -> Deferred[None]:
        if self.reserving:
            self.in_file = job_id
            return succeed(None)
        return fail(OSError("the store is down"))

    def forget(self, keep: int) -> Deferred[None]:
        def drop() -> None:
            if self.forget_broken:
                raise OSError("cannot forget")
            self.jobs = dict(sorted(self.jobs.items())[-keep:])

        return self._answer(drop)

    def _answer(self, call: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        if self.hanging:
            return done
        if self.broken:
            done.errback(OSError("the store is down"))
        else:
            try:
                done.callback(call())
            except OSError:
                done.errback()
        return done


__all__ = [
    "FRAME",
    "LINE",
    "WALL",
    "HeldLog",
    "KeptLog",
    "Peer",
    "PoolBench",
    "SteeredJobStore",
    "encode_frame",
    "hash_of",
]
