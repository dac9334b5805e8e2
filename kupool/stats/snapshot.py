"""Snapshots of a store, for a comparison with the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from kupool.log import Gap, Identity, Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kupool.stats.counts import MinuteCount

#: Rows that a visitor gets at once.
ROWS_AT_ONCE = 2000


class Snapshot(NamedTuple):
    """The state of a store at one moment, without its rows.

    ``serial`` grows with each correction. Times are in seconds since the epoch: per-minute rows
    before ``rolled_up_before`` have been rolled up, and those before ``taken_over_before`` existed
    before KuPool used the table.
    """

    identity: Identity | None
    mark: Mark
    forgotten: int
    rolled_up_before: int
    taken_over_before: int
    gaps: Sequence[tuple[Gap, str]]
    serial: int


class MinuteSpan(NamedTuple):
    """The positions of a minute's batches in the log: above one position, up to another.

    ``after`` is below 0 if parts of the minute are in no log any more.
    """

    minute: int
    after: int
    to: int


class IVisitor(Protocol):
    """Receives a whole store as it was at one moment, in pieces."""

    def begin(self, snapshot: Snapshot) -> None:
        """Start, and discard everything from before: the store had to start again."""

    def spans(self, spans: Sequence[MinuteSpan]) -> None:
        """Receive minutes that have been counted."""

    def batches(self, batch_ids: Sequence[str]) -> None:
        """Receive the ids of counted batches that may be above the mark."""

    def counts(self, rows: Sequence[MinuteCount]) -> None:
        """Receive per-minute rows, of users and of workers."""


class Superseded(Exception):
    """The store was corrected by another process since the snapshot."""


__all__ = ["ROWS_AT_ONCE", "IVisitor", "MinuteSpan", "Snapshot", "Superseded"]
