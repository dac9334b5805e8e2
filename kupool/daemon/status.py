"""The status of the daemon, for health checks and the HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kupool.daemon.files import STORE_FILE
from kupool.daemon.parts import Parts
from kupool.kinds import format_duration
from kupool.log import Gap, LogStatus
from kupool.pool.acceptance import UNANSWERED
from kupool.pool.coordinator import RotationFailed
from kupool.settings import declared
from kupool.stats.sweep import Sweeper
from kupool.web import IStatusSource, Overview, ShutdownStatus

RUNNING = "running"

#: Batches that may wait to be counted before the daemon reports that it is behind.
BEHIND = 2000

#: Seconds that a commit may take before the daemon reports it.
SLOW = 3.0


@implementer(IStatusSource)
class Status:
    """The phase of the daemon, and the figures of its parts."""

    def __init__(
        self, wall: Callable[[], float], parts: Parts, sweeper: Sweeper | None = None
    ) -> None:
        self._wall = wall
        self._parts = parts
        self._sweeper = sweeper
        self.phase = "made"
        self._since = wall()
        #: Positions of the log that were lost before they were known to be counted.
        self.gaps: Sequence[tuple[Gap, str]] = ()

    def enter(self, phase: str) -> None:
        """Record that a phase has begun."""
        self.phase = phase
        self._since = self._wall()

    def ready(self) -> list[str]:
        """Return the reasons why submissions, or records of topics on this machine, are refused;
        none if they are accepted.
        """
        acceptance, coordinator = self._parts.acceptance, self._parts.coordinator
        reasons = [] if self.phase == RUNNING else [self.phase]
        problem = self._parts.log.status().problem
        if problem:
            reasons.append(f"log: {problem}")
        elif self._silence and acceptance.used_up:
            reasons.append(f"log: {self._silence}, submissions are refused")
        postgres = self._parts.postgres
        if postgres is not None and postgres.taken_over:
            reasons.append(f"store: {postgres.taken_over}")
        topics = self._parts.topics
        if topics is not None and topics.prevents_submissions and topics.problem:
            reasons.append(f"topics: {topics.problem}")
        if coordinator.stalled and self._without_jobs:
            reasons.append(f"jobs: {coordinator.problem}")
        return reasons

    @property
    def _silence(self) -> str:
        """How long the log has not answered, if that is too long."""
        unanswered = self._parts.acceptance.unanswered
        if unanswered < UNANSWERED:
            return ""
        return f"it has not answered for {format_duration(round(unanswered))}"

    @property
    def _without_jobs(self) -> bool:
        """Whether there is no job that a submission could name."""
        age, expire = self._parts.coordinator.age, self._parts.handlers.rules.expire
        return age == inf or bool(expire and age > expire)

    def concerns(self) -> list[str]:
        """Return problems that do not prevent submissions."""
        parts, log = self._parts, self._parts.log.status()
        reasons = [*self._about_the_log(log)]
        reasons += self._about_messages()
        topics = parts.topics
        if topics is not None and not topics.prevents_submissions and topics.problem:
            reasons.append(f"topics: {topics.problem}")
        if parts.coordinator.problem and not (parts.coordinator.stalled and self._without_jobs):
            reasons.append(f"jobs: {parts.coordinator.problem}")
        if parts.postgres is not None and parts.postgres.risk:
            reasons.append(f"store: {parts.postgres.risk}")
        if parts.logins is not None:
            reasons += [f"accounts: {text}" for text in parts.logins.authenticator.problems]
        reasons += [f"tls: {text}" for text in parts.certificates.concerns()]
        if parts.clock_watch.problem:
            reasons.append(f"clock: {parts.clock_watch.problem}")
        reasons += self._about_the_counts(log)
        for database in parts.databases:
            if database.path.name == STORE_FILE and not _said(database.problem, reasons):
                reasons.append(f"store: {database.problem}")
        return reasons

    def _about_messages(self) -> Iterator[str]:
        parts = self._parts
        if parts.bus is not None and parts.bus.problem:
            yield f"bus: {parts.bus.problem}"
        if parts.rooms is not None and parts.rooms.problem:
            yield f"rooms: {parts.rooms.problem}"
        if parts.live is not None:
            yield from parts.live.concerns

    def _about_the_log(self, log: LogStatus) -> Iterator[str]:
        if self._silence and not log.problem and not self._parts.acceptance.used_up:
            yield f"log: {self._silence}"
        if log.away:
            yield f"log: {log.away}"
        if log.spooled:
            age = format_duration(max(1, round(self._wall() - log.spooled_since)))
            yield f"spool: {log.spooled} batches wait for the log, the oldest for {age}"
        for gap, _ in self.gaps:
            yield (
                f"log: positions {gap.first} to {gap.last} were lost before they were known to "
                "be counted; see 'kupool audit'"
            )

    def _about_the_counts(self, log: LogStatus) -> Iterator[str]:
        consumer, postgres = self._parts.consumer, self._parts.postgres
        counting = consumer.problem
        if not counting and postgres is not None:
            counting = postgres.problem  # even if there is nothing to count
        if counting:
            yield f"statistics: {counting}"
        elif consumer.committing > SLOW:
            taken = format_duration(round(consumer.committing))
            yield f"statistics: a commit has not been answered for {taken}"
        if log.depth > BEHIND:
            yield f"statistics: {log.depth} batches wait to be counted"
        if self._sweeper is not None and self._sweeper.concern:
            yield f"statistics: {self._sweeper.concern}"

    def overview(self) -> Overview:
        """Return the sessions and users of the pool, and the newest job."""
        pool, job = self._parts.pool, self._parts.book.current
        return Overview(pool.sessions, len(pool.users), None if job is None else job.job_id)

    def shutdown(self) -> ShutdownStatus:
        """Return the phase of the daemon, and what a stop still has to do."""
        parts, log = self._parts, self._parts.log.status()
        return ShutdownStatus(
            self.phase,
            self._since,
            len(parts.server.manager),
            parts.acceptance.batches_in_flight,
            log.depth,
            log.spooled,
            log.dead_letters,
        )

    def bans(self) -> dict[str, float]:
        """Return the addresses that are banned, with the seconds that are left."""
        return self._parts.server.manager.bans

    def unban(self, address: str, by: str) -> bool:
        """Let an address in again; returns whether it was banned. ``by`` is for the log."""
        return self._parts.server.manager.unban(address, by)

    def rotate(self) -> Deferred[int]:
        """Make a new job now; fails with :class:`RotationFailed`."""
        return Deferred.fromCoroutine(self._rotate())

    async def _rotate(self) -> int:
        if self.phase != RUNNING:
            raise RotationFailed(f"the daemon is {self.phase}")
        return (await self._parts.coordinator.rotate()).job_id

    def set_interval(self, seconds: float) -> None:
        """Change the time between jobs, from the next rotation on."""
        least = declared()["interval"].metadata["least"]
        if seconds < least:
            raise ValueError(f"must be at least {format_duration(least)}")
        self._parts.coordinator.set_interval(seconds)


def _said(text: str, reasons: Iterable[str]) -> bool:
    """Return whether a reason mentions this already, or there is nothing to report."""
    return not text or any(text in reason for reason in reasons)
