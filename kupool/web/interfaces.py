"""The interface of the daemon for the HTTP API."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zope.interface import Interface

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred


class Overview(NamedTuple):
    """The sessions of the pool, and the newest job; ``job_id`` is None before the first.

    ``users`` counts each user once, however many sessions they have.
    """

    sessions: int
    users: int
    job_id: int | None


class ShutdownStatus(NamedTuple):
    """The progress of a shutdown.

    ``phase`` is a word or two, such as ``running`` or ``stopping: clients``; ``since`` is when it
    began, in seconds since the epoch. What is left: ``connections``; ``batches_in_flight``, batches
    of submissions that the log has not answered for; ``log_depth``, batches in the log that have
    not been counted. ``spooled`` batches wait to be sent to the log; they stay there, and the next
    start sends them. ``dead_letters`` are entries that could not be counted.
    """

    phase: str
    since: float
    connections: int
    batches_in_flight: int
    log_depth: int
    spooled: int = 0
    dead_letters: int = 0


class IStatusSource(Interface):
    """What the daemon reports, and what it can be asked to do. Nothing here blocks."""

    def ready() -> Sequence[str]:
        """Return why the daemon is not ready, a short text for each reason.

        Empty while it accepts connections and makes submissions durable. It is not ready before its
        listeners are open, from the first moment of a shutdown, and while it can make no job or
        store no submission.
        """

    def concerns() -> Sequence[str]:
        """Return problems that do not stop the service, a text for each.

        For example that a broker or a database is unavailable while submissions are stored and are
        sent or counted later.
        """

    def overview() -> Overview:
        """Return the sessions of the pool, and the newest job."""

    def shutdown() -> ShutdownStatus:
        """Return the phase of the daemon, and what a shutdown still has to do."""

    def bans() -> dict[str, float]:
        """Return the banned addresses, with the remaining seconds."""

    def unban(address: str, by: str) -> bool:
        """End the ban of an address; returns whether it was banned. ``by`` is for the log."""

    def rotate() -> Deferred[int]:
        """Make a new job now and send it; fires with its ``job_id``.

        Fails with :class:`kupool.pool.coordinator.RotationFailed` if no job could be made, or if
        the daemon is shutting down.
        """

    def set_interval(seconds: float) -> None:
        """Change the time between jobs, from the next rotation on.

        Raises :class:`ValueError` that says what is wrong with it, as in ``must be at least 10ms``.
        """


__all__ = ["IStatusSource", "Overview", "ShutdownStatus"]
