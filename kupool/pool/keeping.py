"""Which jobs of the last run can be gone on with, and how old they are. Pure.

Positions in the log decide whether the nonces used for a job are known, and a clock that
nobody sets, since the boot, how old it is. The wall clock is asked only after a reboot, and
only where it shows no time before the newest job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kupool.log import Extent, Plan
from kupool.pool import SavedJob


class Moment(NamedTuple):
    """What the clocks show: seconds since the epoch, and since the boot of an id."""

    wall: float
    boot_id: str
    boot_seconds: float


class KeptJob(NamedTuple):
    """A job that can be gone on with; ``age`` is in seconds."""

    job: SavedJob
    age: float


class Choice(NamedTuple):
    """What becomes of the saved jobs: those kept, oldest first, and how many are retired.

    ``unknown`` are those whose nonces cannot be known, ``ageless`` those of which no clock
    can tell the age. The log is read from ``after`` on to know the nonces of the others.
    """

    kept: Sequence[KeptJob]
    unknown: int
    ageless: int
    after: int


def choose(
    saved: Sequence[SavedJob], plan: Plan, extent: Extent, now: Moment, *, window: float
) -> Choice:
    """Say what becomes of saved jobs, which are sorted by id.

    Jobs older than ``window`` seconds are left out, but for the newest: sessions may still
    have it.
    """
    begin = extent.first - 1
    known = [job for job in saved if _known(job, plan, extent)]
    newest_save = max((job.created_at for job in saved), default=0.0)
    kept: list[KeptJob] = []
    ageless = 0
    for job in known:
        age = age_of(job, now, newest_save)
        if age is None:
            ageless += 1
        elif age <= window or job is saved[-1]:
            kept.append(KeptJob(job, age))
    positions = [begin if job.log_position is None else job.log_position for job, _ in kept]
    after = begin if plan.adopt else min(positions, default=extent.last)
    return Choice(kept, len(saved) - len(known), ageless, after)


def _known(job: SavedJob, plan: Plan, extent: Extent) -> bool:
    """Say whether the log tells all nonces used for a job.

    What was appended before its newest epoch began may be missing in it, wherever its first
    entry is: it may be an older copy, with what came later behind it. A job that was retired
    then is still in the store, also for the start after the next.
    """
    if not plan.keep_jobs:
        return False
    if job.log_position is None:
        return plan.adopt
    first = max(extent.first - 1, plan.identity.begins_after)
    return first <= job.log_position <= extent.last


def age_of(job: SavedJob, now: Moment, newest_save: float) -> float | None:
    """Return the age of a job in seconds; None where no clock can tell.

    ``newest_save`` is the latest time of the wall clock that a job was made at.
    """
    if job.boot_id and job.boot_id == now.boot_id and job.boot_seconds is not None:
        age = now.boot_seconds - job.boot_seconds
        if age >= 0:
            return age
    return now.wall - job.created_at if now.wall >= newest_save else None


__all__ = ["Choice", "KeptJob", "Moment", "age_of", "choose"]
