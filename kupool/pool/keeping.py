"""Decides which saved jobs a restart can continue with, and their ages. Pure.

Positions in the log decide whether the nonces used for a job are known. The age of a job is taken
from the boot clock, which nobody can set. The wall clock is used only after a reboot, and only if
it does not show a time before the newest job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kupool.log import Extent, Plan
from kupool.pool import SavedJob


class Moment(NamedTuple):
    """The time of both clocks: seconds since the epoch, and since the boot with this id."""

    wall: float
    boot_id: str
    boot_seconds: float


class KeptJob(NamedTuple):
    """A job that a restart continues with; ``age`` is in seconds."""

    job: SavedJob
    age: float


class Choice(NamedTuple):
    """The decision about saved jobs: the kept jobs, oldest first, and how many are retired.

    ``unknown`` counts jobs whose nonces cannot be known. ``ageless`` counts jobs whose age no clock
    can tell. To know the nonces of the kept jobs, read the log after the position ``after``.
    """

    kept: Sequence[KeptJob]
    unknown: int
    ageless: int
    after: int


def choose(
    saved: Sequence[SavedJob], plan: Plan, extent: Extent, now: Moment, *, window: float
) -> Choice:
    """Decide which saved jobs are kept; ``saved`` is sorted by id.

    Jobs older than ``window`` seconds are left out, except the newest: sessions may still have it.
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
    """Return whether the log has all nonces used for a job.

    Entries from before the log's newest epoch may be missing, whatever its first entry is: the log
    may be an older copy with later entries behind it. A job that was retired for this reason is
    still in the store at the next start.
    """
    if not plan.keep_jobs:
        return False
    if job.log_position is None:
        return plan.adopt
    first = max(extent.first - 1, plan.identity.begins_after)
    return first <= job.log_position <= extent.last


def age_of(job: SavedJob, now: Moment, newest_save: float) -> float | None:
    """Return the age of a job in seconds; None if no clock can tell.

    ``newest_save`` is the latest wall-clock time at which a job was made.
    """
    if job.boot_id and job.boot_id == now.boot_id and job.boot_seconds is not None:
        age = now.boot_seconds - job.boot_seconds
        if age >= 0:
            return age
    return now.wall - job.created_at if now.wall >= newest_save else None


__all__ = ["Choice", "KeptJob", "Moment", "age_of", "choose"]
