"""What the pool needs of those who keep its jobs and hear of its events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

from kupool.pool.saved import SavedJob, SavedJobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from kupool.pool.session import Session
    from kupool.wire.batches import Batch


class IJobStore(Interface):
    """Keeps the jobs of the recent past, so that a restart goes on from there."""

    persistent = Attribute("Whether the jobs outlive the process.")

    def load(limit: int) -> Deferred[SavedJobs]:
        """Return the newest jobs by id, ``limit`` at the most, oldest first."""

    def save(job: SavedJob, reserved_until: int) -> Deferred[None]:
        """Keep a job, and the highest id that may be given out before the next save.

        Of a job that is kept already, only a log position that was not known is added.
        """

    def reserve(job_id: int) -> Deferred[None]:
        """Keep that ids up to this one may be given out, though no job can be saved.

        Fails where not even that can be kept.
        """

    def forget(keep: int) -> Deferred[None]:
        """Drop all jobs but the newest ``keep`` by id."""


class IEvents(Interface):
    """Is told what has happened in the pool. Nothing here waits, or raises."""

    wants_accepted = Attribute("Whether :meth:`accepted` is to be called; it changes by itself.")

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


__all__ = ["IEvents", "IJobStore"]
