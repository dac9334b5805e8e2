"""Statistics of scheduled tasks: runs, lateness, duration and result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kupool.callbacks import attempt

#: The name under which further tasks are counted when the statistics are full.
OTHER = "other"


@dataclass(slots=True)
class TaskCounts:
    """The counts of one task. Lateness and duration are in seconds.

    ``running`` counts runs that have not ended. ``skipped`` counts runs that were due while the
    previous one had not ended. ``missed`` counts runs that a stalled process did not start.
    """

    runs: int = 0
    running: int = 0
    failures: int = 0
    skipped: int = 0
    missed: int = 0
    lateness_total: float = 0.0
    lateness_max: float = 0.0
    duration_total: float = 0.0
    duration_max: float = 0.0


class TaskStatistics:
    """The counts of tasks by name; ``now`` returns seconds of the injected clock.

    At most ``max_names`` names are kept; further ones are counted as ``other``.
    """

    def __init__(self, now: Callable[[], float], max_names: int = 1000) -> None:
        self._now = now
        self._max_names = max_names
        self._counts: dict[str, TaskCounts] = {}

    def of(self, name: str) -> TaskCounts:
        """Return the counts for a task of this name."""
        counts = self._counts.get(name)
        if counts is None:
            if len(self._counts) >= self._max_names:
                name = OTHER
            counts = self._counts.setdefault(name, TaskCounts())
        return counts

    def snapshot(self) -> dict[str, TaskCounts]:
        """Return a copy of all counts, by name."""
        return {name: replace(counts) for name, counts in self._counts.items()}

    def run(self, name: str, due: float, call: Callable[..., object], *args: Any) -> object:
        """Call a function and count the run; returns its result.

        A coroutine is started and returned as a Deferred; the run then ends when that fires. An
        exception is counted and raised.
        """
        counts, start = self.of(name), self._now()
        late = max(0.0, start - due)
        counts.runs += 1
        counts.running += 1
        counts.lateness_total += late
        counts.lateness_max = max(counts.lateness_max, late)
        result = attempt(call, *args)
        if isinstance(result, Deferred):
            return result.addBoth(self._ended, counts, start)
        self._end(counts, start, failed=isinstance(result, Failure))
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def _ended(self, result: object, counts: TaskCounts, start: float) -> object:
        self._end(counts, start, failed=isinstance(result, Failure))
        return result

    def _end(self, counts: TaskCounts, start: float, *, failed: bool) -> None:
        took = self._now() - start
        counts.running -= 1
        counts.failures += failed
        counts.duration_total += took
        counts.duration_max = max(counts.duration_max, took)


__all__ = ["OTHER", "TaskCounts", "TaskStatistics"]
