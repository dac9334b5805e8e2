"""How the daemon is, for whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kupool.daemon.parts import Parts
from kupool.kinds import format_duration
from kupool.log import Gap
from kupool.pool.coordinator import RotationFailed
from kupool.settings import declared
from kupool.stats.sweep import Sweeper
from kupool.web import IStatusSource, Overview, ShutdownStatus

RUNNING = "running"

#: Batches that may wait to be counted before the daemon says that it is behind.
BEHIND = 2000

#: Seconds that a commit may take before the daemon says that it does.
SLOW = 3.0


@implementer(IStatusSource)
class Status:
    """The phase of the daemon's life, and the figures of its parts."""

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
        """Note that a phase has begun."""
        self.phase = phase
        self._since = self._wall()

    def ready(self) -> list[str]:
        """Return why the daemon takes no work, a text for each reason; none when it does."""
        coordinator = self._parts.coordinator
        reasons = [] if self.phase == RUNNING else [self.phase]
        problem = self._parts.log.status().problem
        if problem:
            reasons.append(f"log: {problem}")
        postgres = self._parts.postgres
        if postgres is not None and postgres.taken_over:
            reasons.append(f"store: {postgres.taken_over}")
        if coordinator.stalled:
            reasons.append(f"jobs: {coordinator.problem}")
        return reasons

    def concerns(self) -> list[str]:
        """Return what is away or behind while work is taken, to be caught up with later."""
        parts, log = self._parts, self._parts.log.status()
        reasons = []
        if log.away:
            reasons.append(f"log: {log.away}")
        if log.spooled:
            age = format_duration(max(1, round(self._wall() - log.spooled_since)))
            reasons.append(f"spool: {log.spooled} batches wait for the log, the oldest for {age}")
        if parts.bus is not None and parts.bus.problem:
            reasons.append(f"bus: {parts.bus.problem}")
        if parts.coordinator.problem and not parts.coordinator.stalled:
            reasons.append(f"jobs: {parts.coordinator.problem}")
        counting = parts.consumer.problem
        if not counting and parts.postgres is not None:
            counting = parts.postgres.problem  # also while there is nothing to count
        if counting:
            reasons.append(f"statistics: {counting}")
        elif parts.consumer.committing > SLOW:
            taken = format_duration(round(parts.consumer.committing))
            reasons.append(f"statistics: a commit has not been answered for {taken}")
        if log.depth > BEHIND:
            reasons.append(f"statistics: {log.depth} batches wait to be counted")
        return reasons + self._not_compared()

    def _not_compared(self) -> list[str]:
        """Return why the counts may not be what the log says."""
        reasons = []
        if self._parts.clock_watch.problem:
            reasons.append(f"clock: {self._parts.clock_watch.problem}")
        if self._sweeper is not None and self._sweeper.concern:
            reasons.append(f"statistics: {self._sweeper.concern}")
        for gap, _ in self.gaps:
            reasons.append(
                f"log: positions {gap.first} to {gap.last} were lost before they were known to "
                "be counted; see 'kupool audit'"
            )
        return reasons

    def overview(self) -> Overview:
        """Return who is on the pool, and the newest job."""
        pool, job = self._parts.pool, self._parts.book.current
        return Overview(pool.sessions, len(pool.users), None if job is None else job.job_id)

    def shutdown(self) -> ShutdownStatus:
        """Return the phase of the daemon's life, and what a stop still has to do."""
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
