"""Interfaces that the pool uses: a store of jobs, and a receiver of events."""

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
    """Keeps the recent jobs, so that a restart can continue with them."""

    persistent = Attribute("Whether the jobs outlive the process.")

    def load(limit: int) -> Deferred[SavedJobs]:
        """Return the newest jobs by id, at most ``limit``, oldest first."""

    def save(job: SavedJob, reserved_until: int) -> Deferred[None]:
        """Save a job, and the highest id that may be used before the next save.

        For a job that is saved already, only a missing log position is added.
        """

    def reserve(job_id: int) -> Deferred[None]:
        """Reserve the ids up to this one, although no job can be saved.

        Fails if not even that can be saved.
        """

    def forget(keep: int) -> Deferred[None]:
        """Delete all jobs but the newest ``keep`` by id."""


class IEvents(Interface):
    """Receives the events of the pool. No method here waits or raises."""

    wants_accepted = Attribute("Whether :meth:`accepted` is to be called; it changes by itself.")

    def job(job: SavedJob) -> None:
        """There is a new job, which is being sent to the sessions."""

    def accepted(batch: Callable[[], Batch]) -> None:
        """The submissions of a batch are durable and answered.

        ``batch`` makes the list, and is called only if somebody wants it.
        """

    def opened(session: Session, peer: str) -> None:
        """A session has authorized; ``peer`` is its address."""

    def closed(session: Session, reason: str) -> None:
        """A session has ended."""


__all__ = ["IEvents", "IJobStore"]
