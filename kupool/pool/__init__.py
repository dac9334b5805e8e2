"""The pool: sessions, jobs, verdicts, and the way of an accepted submission."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from kupool.pool.session import Session
    from kupool.wire.batches import Batch


#: The topics of the pool's events, together and each.
EVENTS = "kupool.>"
JOB = "kupool.job"
ACCEPTED = "kupool.submission.accepted"
OPENED = "kupool.session.opened"
CLOSED = "kupool.session.closed"


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


class IEvents(Interface):
    """Is told what has happened in the pool. Nothing here waits, or raises."""

    def job(job: SavedJob) -> None:
        """There is a new job, which is on its way to the sessions."""

    def accepted(batch: Callable[[], Batch]) -> None:
        """The submissions of a batch are durable and answered.

        ``batch`` makes it, and is called only where somebody wants to know.
        """

    def opened(session: Session, peer: str) -> None:
        """A session has authorized; ``peer`` is its address."""

    def closed(session: Session, reason: str) -> None:
        """A session has ended."""


__all__ = [
    "ACCEPTED",
    "CLOSED",
    "EVENTS",
    "JOB",
    "OPENED",
    "IEvents",
    "IJobStore",
    "SavedJob",
    "SavedJobs",
]
