"""The store of counts in memory, for tests and trials. It is lost with the process."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from kupool.log import Gap, Identity, Mark, Plan, StoreState
from kupool.stats import Applied, BatchCounts, IStatsStore, MinuteCount, Rejection
from kupool.stats.daily import fold_days
from kupool.stats.fold import DAY, HOUR, as_rows, fold_rows
from kupool.stats.history import CountedBatch, RolledUp
from kupool.stats.memory_history import Days, MemoryStatsHistory, MemoryTables
from kupool.stats.memory_history import Rows as _Rows
from kupool.stats.positions import NOWHERE, Span, spans
from kupool.stats.snapshot import IVisitor, MinuteSpan, Snapshot, Superseded


@implementer(IStatsStore)
class MemoryStats:
    """Keeps the counts in dictionaries."""

    persistent = False

    def __init__(self) -> None:
        self._minutes: _Rows = Counter()
        self._hours: _Rows = Counter()
        self._days: _Rows = Counter()
        #: The users, and users with workers, that have rows.
        self._names: set[tuple[str, str]] = set()
        self._rejections: Counter[Rejection] = Counter()
        self._applied: dict[str, tuple[bytes, int]] = {}
        self._counted: dict[str, CountedBatch] = {}
        self._rolled_up = self._hours_rolled_up = 0
        self._daily_users, self._daily_workers = Days(), Days()
        self.history = MemoryStatsHistory(self._tables)
        #: The serial number, which grows with each correction.
        self._serial = 0
        self._identity: Identity | None = None
        self._mark = Mark(0)
        #: The positions of earlier marks, and the position of each batch, or the mark that it is
        #: above.
        self._marks: list[int] = []
        self._positions: dict[str, int] = {}
        self._forgotten = 0
        self._spans: dict[int, Span] = {}
        self._gaps: list[tuple[Gap, str]] = []
        self._retention_time: float | None = None

    def _tables(self) -> MemoryTables:
        return MemoryTables(
            self._minutes,
            self._hours,
            self._days,
            self._rejections,
            self._daily_users,
            self._daily_workers,
            RolledUp(self._rolled_up, self._hours_rolled_up),
            self._spans,
            self._counted,
        )

    def open(self) -> Deferred[None]:
        """Make the store ready."""
        return succeed(None)

    # -- position in the log

    def state(self) -> Deferred[StoreState]:
        """Return up to which position the store has counted, and of which log."""
        state = StoreState(self._identity, self._mark, self._forgotten, bool(self._applied))
        return succeed(state)

    def identify(self, plan: Plan) -> Deferred[None]:
        """Take over the identity of a plan, and its other changes of the store."""
        before, self._identity = self._identity, plan.identity
        # If the log is another one, batches counted above the mark are not in it either.
        if before not in (None, plan.identity):
            self._spans = {
                minute: Span(NOWHERE, span.to) if span.to > plan.fork else span
                for minute, span in self._spans.items()
            }
        if plan.resume != self._mark.position:
            self._marks = [position for position in self._marks if position < plan.resume]
            self._mark = Mark(plan.resume)
        if plan.gap is not None:
            self._gaps.append((plan.gap, plan.text))
        return succeed(None)

    def gaps(self) -> Deferred[Sequence[tuple[Gap, str]]]:
        """Return the positions that were lost, oldest first."""
        return succeed(sorted(self._gaps))

    def forget_gaps(self) -> Deferred[int]:
        """Delete the gaps; returns how many."""
        count = len(self._gaps)
        self._gaps.clear()
        return succeed(count)

    def cover(self, minutes: Mapping[int, int]) -> Deferred[None]:
        """Save the positions of minutes that the previous release counted."""
        for minute, after in minutes.items():
            self._spans.setdefault(minute, Span(after, max(after, self._mark.position)))
        return succeed(None)

    def retention_time(self) -> Deferred[float | None]:
        """Return the last saved time of the retention clock."""
        return succeed(self._retention_time)

    def keep_retention_time(self, seconds: float) -> Deferred[None]:
        """Save a time of the retention clock."""
        self._retention_time = seconds
        return succeed(None)

    # -- counting

    def apply(
        self,
        batches: Sequence[BatchCounts],
        rejections: Mapping[Rejection, int],
        mark: Mark | None = None,
    ) -> Deferred[Applied]:
        """Count some batches; each counts at most once ever."""
        new: list[BatchCounts] = []
        conflicts: list[tuple[str, bytes]] = []
        for batch in batches:
            known = self._applied.get(batch.batch_id)
            if known is None:
                self._applied[batch.batch_id] = (batch.digest, batch.minute)
                position = batch.position or self._mark.position
                self._positions[batch.batch_id] = position
                self._counted[batch.batch_id] = CountedBatch(
                    batch.minute, position, int(time.time())
                )
                new.append(batch)
            elif known[0] != batch.digest:
                conflicts.append((batch.batch_id, batch.digest))
        rows = fold_rows(new)
        self._minutes.update(rows)
        self._names.update(key[:2] for key in rows)
        for minute, span in spans(new, self._mark.position).items():
            known_span = self._spans.get(minute, span)
            self._spans[minute] = Span(
                min(span.after, known_span.after), max(span.to, known_span.to)
            )
        if mark is not None and mark.position > self._mark.position:
            self._marks.append(self._mark.position)
            self._mark = mark
        self._rejections.update(rejections)
        self._tables().add_days(fold_days(as_rows(rows), rejections))
        repeated = len(batches) - len(new) - len(conflicts)
        return succeed(Applied(len(new), repeated, conflicts))

    def count(self, username: str, minute: int, worker: str = "") -> Deferred[int]:
        """Return the accepted submissions of a user, or one worker, in one minute."""
        return succeed(self._minutes[username, worker, minute])

    def counted(self, username: str, worker: str = "") -> Deferred[bool]:
        """Return whether there are counts of a user, or of one worker, at any time."""
        return succeed((username, worker) in self._names)

    def _find_names(self) -> None:
        every = (self._minutes, self._hours, self._days)
        self._names = {(user, worker) for rows in every for user, worker, _ in rows}

    def series(
        self, username: str, start: int, end: int, worker: str = ""
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (minute, count) of a user in a range, oldest first."""
        return succeed(
            sorted(
                (at, count)
                for (user, of, at), count in self._minutes.items()
                if user == username and of == worker and start <= at < end
            )
        )

    def workers(
        self, username: str, start: int, end: int, limit: int = 0
    ) -> Deferred[Sequence[tuple[str, int]]]:
        """Return (worker, count) of a user in a range, highest first."""
        found: Counter[str] = Counter()
        for (user, worker, at), count in self._minutes.items():
            if user == username and worker and start <= at < end:
                found[worker] += count
        return succeed(_ranked(found)[: limit or None])

    def names(self, start: int, end: int, username: str = "") -> Deferred[int]:
        """Return how many users have counts in a range, or how many workers of one user."""
        found = {
            (user, worker)
            for user, worker, at in self._minutes
            if start <= at < end and bool(worker) == bool(username) and username in ("", user)
        }
        return succeed(len(found))

    def top(self, limit: int, start: int, end: int) -> Deferred[Sequence[tuple[str, int]]]:
        """Return (username, count) of the users with the highest counts in a range."""
        found: Counter[str] = Counter()
        for (user, worker, at), count in self._minutes.items():
            if not worker and start <= at < end:
                found[user] += count
        return succeed(_ranked(found)[:limit])

    def minutes(self, start: int, end: int) -> Deferred[Sequence[tuple[int, int, int]]]:
        """Return (minute, users, count) over all users in a range, oldest first."""
        users: Counter[int] = Counter()
        counts: Counter[int] = Counter()
        for (_, worker, at), count in self._minutes.items():
            if not worker and start <= at < end:
                users[at] += 1
                counts[at] += count
        return succeed([(at, users[at], counts[at]) for at in sorted(counts)])

    def total(self, start: int, end: int, username: str = "") -> Deferred[int]:
        """Return the accepted submissions in a range, including rolled-up ones."""
        return succeed(
            sum(
                count
                for rows in (self._minutes, self._hours, self._days)
                for (user, worker, at), count in rows.items()
                if not worker and start <= at < end and username in ("", user)
            )
        )

    def worker_total(self, username: str, worker: str, start: int, end: int) -> Deferred[int]:
        """Return the accepted submissions of a worker in minutes that are not rolled up."""
        counts = (
            count
            for (user, of, at), count in self._minutes.items()
            if user == username and of == worker and start <= at < end
        )
        return succeed(sum(counts))

    def rejection_codes(
        self, start: int, end: int, username: str = ""
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (code, count) of rejections in a range, highest first."""
        found: Counter[int] = Counter()
        for rejection, count in self._rejections.items():
            if start <= rejection.minute < end and username in ("", rejection.username):
                found[rejection.code] += count
        return succeed(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def rejections(
        self, start: int, end: int, username: str = ""
    ) -> Deferred[Sequence[tuple[str, int, int]]]:
        """Return (username, code, count) of rejections in a range, highest first."""
        found: Counter[tuple[str, int]] = Counter()
        for rejection, count in self._rejections.items():
            if start <= rejection.minute < end and username in ("", rejection.username):
                found[rejection.username, rejection.code] += count
        ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        return succeed([(user, code, count) for (user, code), count in ranked])

    def rolled_up_before(self) -> Deferred[int]:
        """Return the minute before which the per-minute rows have been rolled up."""
        return succeed(self._rolled_up)

    def snapshot(self, visitor: IVisitor, start: int, end: int) -> Deferred[None]:
        """Show a visitor the whole store."""
        visitor.begin(
            Snapshot(
                self._identity,
                self._mark,
                self._forgotten,
                self._rolled_up,
                0,
                sorted(self._gaps),
                self._serial,
            )
        )
        visitor.spans([MinuteSpan(minute, *span) for minute, span in self._spans.items()])
        least = self._marks[-1] if self._marks else 0
        visitor.batches([name for name, position in self._positions.items() if position >= least])
        chosen = {key: count for key, count in self._minutes.items() if start <= key[2] < end}
        visitor.counts([MinuteCount(*key, count) for key, count in chosen.items()])
        return succeed(None)

    def correct(self, rows: Sequence[MinuteCount], serial: int) -> Deferred[int]:
        """Add to per-minute rows, unless they were corrected since ``serial``."""
        if serial != self._serial:
            return fail(Superseded(serial))
        self._serial += 1
        for row in rows:
            key = (row.username, row.worker, row.minute)
            if row.minute >= self._rolled_up and (row.submissions > 0 or key in self._minutes):
                self._minutes[key] += row.submissions
                if not self._minutes[key]:
                    del self._minutes[key]
        self._find_names()
        self._tables().count_days_again([row for row in rows if row.minute >= self._rolled_up])
        return succeed(self._serial)

    def revive(self) -> Deferred[None]:
        """Nothing to do."""
        return succeed(None)

    def unapplied(self, batch_ids: Sequence[str]) -> Deferred[Sequence[str]]:
        """Return the given ids that have not been counted."""
        return succeed([batch_id for batch_id in batch_ids if batch_id not in self._applied])

    def roll_up(self, minutes_before: int, hours_before: int) -> Deferred[int]:
        """Roll up minutes before a time into hours, and hours into days."""
        moved = _move(self._minutes, self._hours, minutes_before // HOUR * HOUR, HOUR)
        self._rolled_up = max(self._rolled_up, minutes_before // HOUR * HOUR)
        self._spans = {minute: s for minute, s in self._spans.items() if minute >= self._rolled_up}
        moved += _move(self._hours, self._days, hours_before // DAY * DAY, DAY)
        self._hours_rolled_up = max(self._hours_rolled_up, hours_before // DAY * DAY)
        return succeed(moved)

    def forget_batches(self, first: int) -> Deferred[int]:
        """Delete the ids of counted batches that the log no longer contains."""
        below = [position for position in (*self._marks, self._mark.position) if position < first]
        if len(below) < 2:
            return succeed(0)
        boundary = below[-2]
        self._marks = [position for position in self._marks if position >= boundary]
        self._forgotten = max(self._forgotten, boundary)
        old = [name for name, position in self._positions.items() if position <= boundary]
        for batch_id in old:
            del self._positions[batch_id], self._applied[batch_id], self._counted[batch_id]
        return succeed(len(old))

    def forget_rejections(self, before: int) -> Deferred[int]:
        """Delete the rejections of minutes before a time."""
        old = [rejection for rejection in self._rejections if rejection.minute < before]
        for rejection in old:
            del self._rejections[rejection]
        return succeed(len(old))

    def close(self) -> Deferred[None]:
        """Nothing to do."""
        return succeed(None)


def _ranked(found: Counter[str]) -> list[tuple[str, int]]:
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _move(rows: _Rows, into: _Rows, before: int, grain: int) -> int:
    old = [key for key in rows if key[2] < before]
    for user, worker, at in old:
        into[user, worker, at // grain * grain] += rows.pop((user, worker, at))
    return len(old)
