"""The interface of every store of counts."""

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
    """Keeps the counts. Minutes are UTC, in seconds since the epoch; a range excludes its end. A
    user's name is without the worker.
    """

    persistent = Attribute("Whether the counts outlive the process.")
    history = Attribute(
        "Answers questions about days and months: an :class:`~kupool.stats.history.IHistory`."
    )

    def open() -> Deferred[None]:
        """Prepare the store; fails with a clear error if that is impossible."""

    def state() -> Deferred[StoreState]:
        """Return up to which position the store has counted, and of which log."""

    def identify(plan: Plan) -> Deferred[None]:
        """Take over the identity of a plan, and its other changes of the store.

        The mark becomes the plan's ``resume`` if that is lower. Minutes with batches after the
        plan's ``fork`` are marked as missing in the log; the plan's gap is saved.
        """

    def gaps() -> Deferred[Sequence[tuple[Gap, str]]]:
        """Return the positions that were lost before they were known to be counted, each with the
        reason, oldest first.
        """

    def forget_gaps() -> Deferred[int]:
        """Delete the gaps, after an operator has taken note of them; returns how many there
        were.
        """

    def cover(minutes: Mapping[int, int]) -> Deferred[None]:
        """Save, for minutes that the previous release counted, a position that every batch of the
        minute is above.
        """

    def apply(
        batches: Sequence[BatchCounts],
        rejections: Mapping[Rejection, int],
        mark: Mark | None = None,
    ) -> Deferred[Applied]:
        """Count some batches in one transaction; each batch counts at most once ever.

        With ``mark``, everything in the log up to that position is counted then. The mark moves
        there in the same transaction, unless it is further already.
        """

    def count(username: str, minute: int, worker: str = "") -> Deferred[int]:
        """Return the accepted submissions of a user, or one worker, in one minute."""

    def counted(username: str, worker: str = "") -> Deferred[bool]:
        """Return whether there are counts of a user, or of one worker, at any time."""

    def series(
        username: str, start: int, end: int, worker: str = ""
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (minute, count) of a user in a range, oldest first."""

    def workers(
        username: str, start: int, end: int, limit: int = 0
    ) -> Deferred[Sequence[tuple[str, int]]]:
        """Return (worker, count) of a user in a range, highest first; at most ``limit``."""

    def names(start: int, end: int, username: str = "") -> Deferred[int]:
        """Return how many users have counts in a range, or how many workers of one user."""

    def top(limit: int, start: int, end: int) -> Deferred[Sequence[tuple[str, int]]]:
        """Return (username, count) of the users with the highest counts in a range."""

    def minutes(start: int, end: int) -> Deferred[Sequence[tuple[int, int, int]]]:
        """Return (minute, users, count) over all users in a range, oldest first."""

    def total(start: int, end: int, username: str = "") -> Deferred[int]:
        """Return the accepted submissions in a range, including rolled-up ones."""

    def worker_total(username: str, worker: str, start: int, end: int) -> Deferred[int]:
        """Return the accepted submissions of a worker in the minutes of a range that are not
        rolled up.
        """

    def rejections(
        start: int, end: int, username: str = ""
    ) -> Deferred[Sequence[tuple[str, int, int]]]:
        """Return (username, code, count) of rejections in a range, highest first."""

    def rejection_codes(
        start: int, end: int, username: str = ""
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (code, count) of rejections in a range over all users, or of one, highest
        first.
        """

    def rolled_up_before() -> Deferred[int]:
        """Return the minute before which the per-minute rows have been rolled up."""

    def snapshot(visitor: IVisitor, start: int, end: int) -> Deferred[None]:
        """Show a visitor the whole store as it is at one moment, in pieces, and the per-minute rows
        of a range.

        After a failure, the visitor is shown everything again from the start.
        """

    def correct(rows: Sequence[MinuteCount], serial: int) -> Deferred[int]:
        """Add to some per-minute rows, in one transaction; returns the new serial number.

        A negative number is subtracted; a row that becomes 0 is deleted. Minutes that were rolled
        up meanwhile are skipped. Fails with :class:`Superseded`, without a change, if the store was
        corrected since the snapshot with that ``serial``.
        """

    def revive() -> Deferred[None]:
        """Create tables again that were dropped."""

    def unapplied(batch_ids: Sequence[str]) -> Deferred[Sequence[str]]:
        """Return the given ids that have not been counted."""

    def roll_up(minutes_before: int, hours_before: int) -> Deferred[int]:
        """Roll up minutes before a time into hours, and hours into days.

        0 turns either off. Returns how many rows were rolled up.
        """

    def forget_batches(first: int) -> Deferred[int]:
        """Delete the ids of counted batches that the log no longer contains.

        ``first`` is the position of the log's first entry. Returns how many ids were deleted.
        """

    def retention_time() -> Deferred[float | None]:
        """Return the last saved time of the retention clock; None if there is none."""

    def keep_retention_time(seconds: float) -> Deferred[None]:
        """Save a time of the retention clock, in seconds since the epoch."""

    def forget_rejections(before: int) -> Deferred[int]:
        """Delete the rejections of minutes before a time; returns how many rows."""

    def close() -> Deferred[None]:
        """Finish running work and close; may be called again."""


__all__ = ["IStatsStore"]
