"""The pool: sessions, jobs, verdicts, and the way of an accepted submission."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred


class SavedJob(NamedTuple):
    """A job as it is kept: ``created_at`` is in seconds since the epoch, UTC."""

    job_id: int
    server_nonce: str
    created_at: float


class SavedJobs(NamedTuple):
    """What a job store remembers at a restart.

    ``reserved_until`` is the highest id that may have been given out, saved or not.
    """

    jobs: Sequence[SavedJob]
    reserved_until: int


class IJobStore(Interface):
    """Keeps the jobs of the recent past, so that a restart goes on from there."""

    persistent = Attribute("Whether the jobs outlive the process.")

    def load(since: float) -> Deferred[SavedJobs]:
        """Return the jobs made at ``since`` or later, oldest first."""

    def save(job: SavedJob, reserved_until: int) -> Deferred[None]:
        """Keep a job, and the highest id that may be given out before the next save."""

    def forget(before: float) -> Deferred[None]:
        """Drop the jobs made before a time, but never the newest."""


__all__ = ["IJobStore", "SavedJob", "SavedJobs"]
