"""Questions about counts over days and months, and about the batches they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from zope.interface import Interface

from kupool.stats.fold import DAY, HOUR

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from kupool.stats.positions import Span

#: The steps of a series, with their seconds.
STEPS = {"minute": 60, "hour": HOUR, "day": DAY}

#: The orders of workers.
Order = Literal["accepted", "worker", "last", "user"]


class WorkerQuery(NamedTuple):
    """Which workers to list: those with counts on some days, and those of ``present``.

    ``start`` and ``end`` are midnights in UTC, in seconds since the epoch; the range excludes
    ``end``. ``user`` is one user, or empty
    for all. ``search`` is a part of a full name, whatever the case of its ASCII letters.
    ``present`` are (user, worker), each once, that are listed without counts, too.
    """

    start: int
    end: int
    user: str = ""
    search: str = ""
    sort: Order = "accepted"
    descending: bool = True
    limit: int = 100
    offset: int = 0
    present: Sequence[tuple[str, str]] = ()


class WorkerRow(NamedTuple):
    """A worker on some days; ``worker`` is empty for what a user submitted without one.

    ``last`` is the newest minute with an accepted submission, in seconds since the epoch, None if
    there is none. Of rolled-up counts that the release before made it is the hour or the day.
    """

    username: str
    worker: str
    accepted: int
    rejected: int
    last: int | None


class WorkerPage(NamedTuple):
    """Some of the workers of a query, and how many there are in all."""

    total: int
    rows: Sequence[WorkerRow]


class Rank(NamedTuple):
    """The place of a user among ``of`` with accepted submissions; 0 if they have none."""

    rank: int
    of: int
    accepted: int


class RolledUp(NamedTuple):
    """Before which times minutes have become hours, and hours days; 0 if none have."""

    minutes: int
    hours: int

    def before(self, step: str) -> int:
        """Return before which time a series of a step lacks points, which are in longer ones."""
        return {"minute": self.minutes, "hour": self.hours, "day": 0}[step]


class CountedBatch(NamedTuple):
    """A counted batch: its minute, and when it was counted, in seconds since the epoch.

    ``position`` is its position in the log, or one that it is above.
    """

    minute: int
    position: int
    counted_at: int


class IHistory(Interface):
    """Answers the questions from a store of counts; a range excludes its end."""

    def series(
        username: str, worker: str, step: str, between: tuple[int, int]
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (time, count) of a user, or of one worker, by one of the :data:`STEPS`.

        Oldest first, without times that have none. Both ends, start and end, have to be whole
        steps.
        """

    def rejection_codes(
        username: str, worker: str, start: int, end: int
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (code, count) of the rejections of a user, or of one worker, highest first."""

    def workers(query: WorkerQuery) -> Deferred[WorkerPage]:
        """Return workers with their counts on some days, rolled-up ones included."""

    def rank(username: str, start: int, end: int) -> Deferred[Rank]:
        """Return the place of a user by accepted submissions on some days, as those of a
        :class:`WorkerQuery`.
        """

    def rolled_up() -> Deferred[RolledUp]:
        """Return what has been rolled up."""

    def batch(batch_id: str) -> Deferred[CountedBatch | None]:
        """Return a counted batch, as long as its id is known."""

    def span(start: int, end: int) -> Deferred[Span | None]:
        """Return between which positions the batches of the minutes of a range are.

        None if no minute of it is known. ``after`` is below 0 if parts are in no log any more.
        """


__all__ = [
    "STEPS",
    "CountedBatch",
    "IHistory",
    "Order",
    "Rank",
    "RolledUp",
    "WorkerPage",
    "WorkerQuery",
    "WorkerRow",
]
