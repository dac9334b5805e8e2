"""What every store of counts does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

from kupool.log import Gap, Mark, Plan, StoreState
from kupool.wire.batches import Rejection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.defer import Deferred

    from kupool.stats.counts import Applied, BatchCounts, MinuteCount
    from kupool.stats.snapshot import IVisitor


class IStatsStore(Interface):
    """Keeps the counts. Minutes are UTC, in seconds since the epoch; a range holds its
    start and not its end. A user's name is without the worker.
    """

    persistent = Attribute("Whether the counts outlive the process.")

    def open() -> Deferred[None]:
        """Make the store ready; fails with a clear error where that is impossible."""

    def state() -> Deferred[StoreState]:
        """Return how far the store has counted, and of which log."""

    def identify(plan: Plan) -> Deferred[None]:
        """Carry the identity of a plan from now on, and what else it says of the store.

        The mark becomes the plan's ``resume`` where it is below that. Minutes with batches
        after the plan's ``fork`` are in no log any more; its gap is kept.
        """

    def gaps() -> Deferred[Sequence[tuple[Gap, str]]]:
        """Return the positions that were lost before they were known to be counted, each
        with the reason, oldest first.
        """

    def forget_gaps() -> Deferred[int]:
        """Forget the gaps, as an operator has taken note of them; returns how many."""

    def cover(minutes: Mapping[int, int]) -> Deferred[None]:
        """Note, for the minutes that the release before counted, a position that every batch
        of the minute is above.
        """

    def apply(
        batches: Sequence[BatchCounts],
        rejections: Mapping[Rejection, int],
        mark: Mark | None = None,
    ) -> Deferred[Applied]:
        """Count some batches, each at most once ever, in one transaction.

        With ``mark``, everything in the log up to there is counted then: the mark moves on in
        the same transaction, unless it is further on already.
        """

    def count(username: str, minute: int, worker: str = "") -> Deferred[int]:
        """Return the accepted submissions of a user, or one worker, in one minute."""

    def series(
        username: str, start: int, end: int, worker: str = ""
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (minute, count) of a user in a range, oldest first."""

    def workers(username: str, start: int, end: int) -> Deferred[Sequence[tuple[str, int]]]:
        """Return (worker, count) of a user in a range, most first."""

    def top(limit: int, start: int, end: int) -> Deferred[Sequence[tuple[str, int]]]:
        """Return (username, count) of the users with most in a range."""

    def minutes(start: int, end: int) -> Deferred[Sequence[tuple[int, int, int]]]:
        """Return (minute, users, count) over all users in a range, oldest first."""

    def total(start: int, end: int, username: str = "") -> Deferred[int]:
        """Return the accepted submissions in a range, also of what is rolled up."""

    def rejections(
        start: int, end: int, username: str = ""
    ) -> Deferred[Sequence[tuple[str, int, int]]]:
        """Return (username, code, count) of rejections in a range, most first."""

    def rolled_up_before() -> Deferred[int]:
        """Return the minute before which the per-minute rows have been rolled up."""

    def snapshot(visitor: IVisitor, start: int, end: int) -> Deferred[None]:
        """Show a visitor all of the store as it is at one moment, in pieces; of the per-minute
        rows those in a range. The visitor is shown it from the beginning again where that
        fails on the way.
        """

    def correct(rows: Sequence[MinuteCount], serial: int) -> Deferred[int]:
        """Add to some per-minute rows, in one transaction; returns the new serial number.

        A negative number is taken away; a row that comes to nothing is gone. Minutes that are
        rolled up meanwhile are passed over. Fails with :class:`Superseded`, having changed
        nothing, where another has corrected the store since the snapshot of that ``serial``.
        """

    def revive() -> Deferred[None]:
        """Make tables again that were dropped."""

    def unapplied(batch_ids: Sequence[str]) -> Deferred[Sequence[str]]:
        """Return those of the given ids that have not been counted."""

    def roll_up(minutes_before: int, hours_before: int) -> Deferred[int]:
        """Roll minutes before a time up into hours, and hours into days.

        0 turns either off. Returns how many rows were rolled up.
        """

    def forget_batches(first: int) -> Deferred[int]:
        """Forget the ids of counted batches that the log does not hold any more.

        ``first`` is the position of its first entry. Returns how many were forgotten.
        """

    def retention_time() -> Deferred[float | None]:
        """Return the last time of the retention clock that was kept; None for none."""

    def keep_retention_time(seconds: float) -> Deferred[None]:
        """Keep a time of the retention clock, in seconds since the epoch."""

    def forget_rejections(before: int) -> Deferred[int]:
        """Forget the rejections of minutes before a time; returns how many rows."""

    def close() -> Deferred[None]:
        """Finish what was begun and close; may be called again."""


__all__ = ["IStatsStore"]
