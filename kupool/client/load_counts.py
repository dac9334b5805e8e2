"""What is counted while a load runs, in a fixed amount of memory. Pure."""

from __future__ import annotations

from collections import Counter

from kupool.client.histogram import Histogram

#: Jobs of which the spread is remembered.
MAX_JOBS = 100


class Spread:
    """When the sessions received each job: the first one, the last one, how many."""

    def __init__(self) -> None:
        self._jobs: dict[int, tuple[float, float, int]] = {}

    def received(self, job_id: int, now: float) -> None:
        """Note that a session received a job."""
        first, _, sessions = self._jobs.get(job_id, (now, now, 0))
        self._jobs[job_id] = (first, now, sessions + 1)
        if len(self._jobs) > MAX_JOBS:
            del self._jobs[next(iter(self._jobs))]

    def widest(self) -> tuple[int, float, int] | None:
        """Return (job, seconds from first to last, sessions) of the slowest job.

        None while no job came to two sessions. Jobs that went to most sessions count.
        """
        found = [(j, last - first, n) for j, (first, last, n) in self._jobs.items() if n > 1]
        most = max((n for _, _, n in found), default=0)
        return max((row for row in found if row[2] == most), key=lambda r: r[1], default=None)


class LoadCounts:
    """The counts over all sessions of a load."""

    def __init__(self) -> None:
        self.accepted = 0
        #: Submissions refused, by outcome.
        self.refused: Counter[str] = Counter()
        #: Submissions whose connection was lost before they were answered.
        self.unanswered = 0
        #: From a submission to its answer.
        self.latency = Histogram()
        self.spread = Spread()

    @property
    def answered(self) -> int:
        """Submissions that were answered, whatever with."""
        return self.accepted + sum(self.refused.values())
