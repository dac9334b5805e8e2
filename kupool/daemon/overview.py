"""Whether everything is all right, and the figures of this moment: ``/api/overview``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import inf
from socket import gethostname
from typing import Any, NamedTuple

from twisted.internet.threads import deferToThreadPool

from kupool import __version__
from kupool.daemon.parts import Parts
from kupool.daemon.status import BEHIND, Status
from kupool.web.activity import show_latency

#: Free bytes of the disk below which that is a problem.
LEAST_FREE = 256 * 1024 * 1024

#: Parts of a problem in the status, by the check that they belong to; of others see below.
_PARTS = {
    "log": ("log", "spool"),
    "jobs": ("jobs",),
    "clock": ("clock",),
    "database": ("store",),
    "topics": ("topics",),
    "live": ("live",),
}


class OverviewCheck(NamedTuple):
    """The answer to a question: yes, no, or None if it does not arise; with a text for people."""

    name: str
    ok: bool | None
    text: str


class PoolOverview:
    """Reads the checks and the figures."""

    def __init__(self, reactor: Any, parts: Parts, status: Status) -> None:
        self._reactor = reactor
        self._parts = parts
        self._status = status
        self._began = reactor.seconds()

    async def read(self) -> object:
        """Return the answer of the route."""
        parts, requests = self._parts, self._parts.activity.requests
        job, coordinator = parts.book.current, parts.coordinator
        rejections = requests.rejections()  # these also count what is new
        accepted, rejected = requests.rates()
        return {
            "checks": [check._asdict() for check in await self.checks()],
            "sessions": parts.pool.sessions,
            "users": len(parts.pool.users),
            "job": None
            if job is None
            else {
                "id": job.job_id,
                "age_seconds": round(coordinator.age, 3),
                "interval_seconds": coordinator.interval,
            },
            "rates": {"accepted": round(accepted, 2), "rejected": round(rejected, 2)},
            "rejections": rejections,
            "latency_ms": show_latency(requests.latency()),
            "version": __version__,
            "uptime_seconds": round(self._reactor.seconds() - self._began, 3),
            "node": gethostname(),
        }

    async def checks(self) -> list[OverviewCheck]:
        """Return all checks, in the order in which they are shown."""
        problems = [*self._status.ready(), *self._status.concerns()]
        return [
            self._stored(problems),
            self._counted(problems),
            self._jobs(problems),
            _check("clock", problems, "the clock runs evenly"),
            await self._disk(),
            _check("log", problems, "the log takes submissions"),
            self._database(problems),
            self._broker(problems),
            self._topics(problems),
            self._live(problems),
        ]

    def _stored(self, problems: Iterable[str]) -> OverviewCheck:
        """Whether everything that was answered with true is in the log, or on its way to it."""
        parts = self._parts
        if self._status.gaps:
            return OverviewCheck("stored", False, _first("log", problems) or "the log has gaps")
        if not parts.log.persistent:
            text = "the log is in memory: what is not counted is lost when the daemon ends"
            return OverviewCheck("stored", None, text)
        spooled = parts.log.status().spooled
        where = f", of which {spooled} batches wait here for the log" if spooled else ""
        return OverviewCheck("stored", True, f"everything that was answered is stored{where}")

    def _counted(self, problems: Iterable[str]) -> OverviewCheck:
        """Whether everything that is stored is counted, but for the last moments."""
        problem, log = _first("statistics", problems), self._parts.log.status()
        if problem:
            return OverviewCheck("counted", False, problem)
        if log.dead_letters:
            text = f"{log.dead_letters} entries could not be counted, see 'kupool dlq'"
            return OverviewCheck("counted", False, text)
        if log.depth > BEHIND:
            return OverviewCheck("counted", False, f"{log.depth} batches wait to be counted")
        if log.depth:
            text = f"counted but for the last {log.depth} batches, which are counted now"
            return OverviewCheck("counted", True, text)
        return OverviewCheck("counted", True, "everything that is stored is counted")

    def _jobs(self, problems: Iterable[str]) -> OverviewCheck:
        coordinator = self._parts.coordinator
        found = _first("jobs", problems)
        if found:
            return OverviewCheck("jobs", False, found)
        if coordinator.age == inf:
            return OverviewCheck("jobs", False, "there is no job")
        late = coordinator.age - coordinator.interval
        if late > max(2.0, coordinator.interval / 2):
            return OverviewCheck("jobs", False, f"a new job is overdue by {late:.0f} s")
        return OverviewCheck("jobs", True, f"a new job every {coordinator.interval:g} s")

    async def _disk(self) -> OverviewCheck:
        folder = self._parts.folder
        if folder is None:
            return OverviewCheck("disk", None, "nothing is kept on disk")
        try:
            found = await deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), os.statvfs, folder.path
            )
        except OSError as error:
            return OverviewCheck("disk", False, f"{folder.path}: {error.strerror}")
        free = found.f_bavail * found.f_frsize
        text = f"{free / 1e9:.1f} GB of {found.f_blocks * found.f_frsize / 1e9:.1f} GB are free"
        return OverviewCheck("disk", free >= LEAST_FREE, text)

    def _database(self, problems: Iterable[str]) -> OverviewCheck:
        parts = self._parts
        if not parts.stats.persistent:
            return OverviewCheck("database", None, "counts are in memory")
        problem = "" if parts.postgres is None else parts.postgres.problem
        if problem:
            return OverviewCheck("database", False, problem)
        kind = "PostgreSQL" if parts.postgres is not None else "SQLite"
        return _check("database", problems, f"{kind} takes counts")

    def _broker(self, problems: Iterable[str]) -> OverviewCheck:
        """Whether RabbitMQ can be reached, where something uses it."""
        parts = self._parts
        found = _first("bus", problems) or _first("rooms", problems)
        away = parts.log.status().away
        if not parts.log.positional and (away or parts.log.status().problem):
            return OverviewCheck("broker", False, away or parts.log.status().problem)
        if found:
            return OverviewCheck("broker", False, found)
        topics = parts.topics
        if topics is not None and topics.remote and topics.problem:
            return OverviewCheck("broker", False, topics.problem)
        bus_remote = parts.bus is not None and parts.bus.remote
        if parts.log.positional and not bus_remote and not (topics is not None and topics.remote):
            return OverviewCheck("broker", None, "no broker is used")
        return OverviewCheck("broker", True, "RabbitMQ answers")

    def _topics(self, problems: Iterable[str]) -> OverviewCheck:
        if self._parts.topics is None:
            return OverviewCheck("topics", None, "topics are off")
        return _check("topics", problems, "topics take records")

    def _live(self, problems: Iterable[str]) -> OverviewCheck:
        if self._parts.live is None:
            return OverviewCheck("live", None, "live channels are off")
        return _check("live", problems, "live channels work")


def _first(part: str, problems: Iterable[str]) -> str:
    """Return the first problem of a part: what is after the colon, as in ``log: the disk``."""
    for problem in problems:
        found, _, text = problem.partition(": ")
        if found == part:
            return text
    return ""


def _check(name: str, problems: Iterable[str], good: str) -> OverviewCheck:
    listed = list(problems)
    for part in _PARTS[name]:
        found = _first(part, listed)
        if found:
            return OverviewCheck(name, False, found)
    return OverviewCheck(name, True, good)


__all__ = ["LEAST_FREE", "OverviewCheck", "PoolOverview"]
