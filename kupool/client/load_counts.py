"""The counters of a load, in a fixed amount of memory. Pure."""

from __future__ import annotations

from collections import Counter

from kupool.timing.histogram import Histogram

#: Most jobs whose spread is remembered.
MAX_JOBS = 100


class Spread:
    """When sessions received each job: the first time, the last time, the number of sessions."""

    def __init__(self) -> None:
        self._jobs: dict[int, tuple[float, float, int]] = {}

    def received(self, job_id: int, now: float) -> None:
        """Record that a session received a job."""
        first, _, sessions = self._jobs.get(job_id, (now, now, 0))
        self._jobs[job_id] = (first, now, sessions + 1)
        if len(self._jobs) > MAX_JOBS:
            del self._jobs[next(iter(self._jobs))]

    def widest(self) -> tuple[int, float, int] | None:
        """Return (job, seconds from first to last, sessions) of the slowest job.

        None if no job reached two sessions. Only jobs that reached most sessions count.
        """
        found = [(j, last - first, n) for j, (first, last, n) in self._jobs.items() if n > 1]
        most = max((n for _, _, n in found), default=0)
        return max((row for row in found if row[2] == most), key=lambda r: r[1], default=None)


class LoadCounts:
    """The counters of all sessions of a load."""

    def __init__(self) -> None:
        self.accepted = 0
        #: Number of refused submissions, by outcome.
        self.refused: Counter[str] = Counter()
        #: Number of submissions whose connection was lost before the answer.
        self.unanswered = 0
        #: Time from a submission to its answer.
        self.latency = Histogram()
        self.spread = Spread()

    @property
    def answered(self) -> int:
        """Number of submissions that were answered, with any answer."""
        return self.accepted + sum(self.refused.values())
