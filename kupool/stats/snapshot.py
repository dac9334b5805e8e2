"""What a store holds at one moment, for those who compare it with the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from kupool.log import Gap, Identity, Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kupool.stats.counts import MinuteCount

#: Rows that a visitor gets at once.
ROWS_AT_ONCE = 2000


class Snapshot(NamedTuple):
    """A store at one moment, but for its rows.

    ``serial`` grows with each correction. Times are in seconds since the epoch: before
    ``rolled_up_before`` the per-minute rows have been rolled up, and those before
    ``taken_over_before`` were there before KuPool was.
    """

    identity: Identity | None
    mark: Mark
    forgotten: int
    rolled_up_before: int
    taken_over_before: int
    gaps: Sequence[tuple[Gap, str]]
    serial: int


class MinuteSpan(NamedTuple):
    """Where the batches of a minute are in the log: after one position, up to another.

    ``after`` is below 0 where parts of the minute are in no log any more.
    """

    minute: int
    after: int
    to: int


class IVisitor(Protocol):
    """What is shown a store: all of it as it was at one moment, in pieces."""

    def begin(self, snapshot: Snapshot) -> None:
        """Begin, and forget what was shown before: the store had to start again."""

    def spans(self, spans: Sequence[MinuteSpan]) -> None:
        """Take minutes that have been counted."""

    def batches(self, batch_ids: Sequence[str]) -> None:
        """Take the ids of counted batches that may be above the mark."""

    def counts(self, rows: Sequence[MinuteCount]) -> None:
        """Take per-minute rows, of users and of workers."""


class Superseded(Exception):
    """The store was corrected by another since it was looked at."""


__all__ = ["ROWS_AT_ONCE", "IVisitor", "MinuteSpan", "Snapshot", "Superseded"]
