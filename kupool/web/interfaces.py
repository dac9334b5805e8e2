"""What the HTTP API asks of the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zope.interface import Interface

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred


class Overview(NamedTuple):
    """Who is on the pool now, and the newest job; ``job_id`` is None before the first.

    ``users`` counts each user once, however many sessions they have.
    """

    sessions: int
    users: int
    job_id: int | None


class ShutdownStatus(NamedTuple):
    """How far a stop has come.

    ``phase`` is a word or two, such as ``running`` or ``stopping: clients``; ``since``
    is when it began, in seconds since the epoch. What is left: ``connections``;
    ``batches_in_flight``, batches of submissions that the log has not answered for;
    ``log_depth``, batches in the log that have not been counted. ``spooled`` batches wait
    to be sent to the log; they stay, and the next start goes on with them. ``dead_letters``
    are entries that could not be counted and are kept aside.
    """

    phase: str
    since: float
    connections: int
    batches_in_flight: int
    log_depth: int
    spooled: int = 0
    dead_letters: int = 0


class IStatusSource(Interface):
    """What the daemon tells and lets be done. Nothing here blocks."""

    def ready() -> Sequence[str]:
        """Return why the daemon is not ready, a short text for each reason.

        Empty when it takes connections and makes submissions durable. It is not ready
        before its listeners are open, from the first moment of a stop, and while it
        can make no job or keep no submission.
        """

    def concerns() -> Sequence[str]:
        """Return what is not as it should be and keeps nobody from work, a text for each.

        Such as a broker or a database that is away while submissions are kept, to be sent
        or counted later.
        """

    def overview() -> Overview:
        """Return who is on the pool, and the newest job."""

    def shutdown() -> ShutdownStatus:
        """Return the phase of the daemon's life, and what a stop still has to do."""

    def bans() -> dict[str, float]:
        """Return the addresses that are banned, with the seconds that are left."""

    def unban(address: str, by: str) -> bool:
        """Let an address in again; returns whether it was banned."""

    def rotate() -> Deferred[int]:
        """Make a new job now and send it out; fires with its ``job_id``.

        Fails with :class:`kupool.pool.coordinator.RotationFailed` when no job could be
        made, or when the daemon is stopping.
        """

    def set_interval(seconds: float) -> None:
        """Change the time between jobs, from the next rotation on.

        Raises :class:`ValueError` saying what is wrong with it, as in ``must be at
        least 10ms``.
        """


__all__ = ["IStatusSource", "Overview", "ShutdownStatus"]
