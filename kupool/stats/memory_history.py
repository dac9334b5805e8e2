"""Counts of days and months in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from kupool.stats import MinuteCount, Rejection
from kupool.stats.daily import DayCount, DayCounts
from kupool.stats.fold import DAY, HOUR
from kupool.stats.history import (
    CountedBatch,
    IHistory,
    Rank,
    RolledUp,
    WorkerPage,
    WorkerQuery,
    WorkerRow,
)
from kupool.stats.history_sql import lowered
from kupool.stats.positions import Span

#: (user, worker, minute or hour or day) -> count; the user's own row has an empty worker.
Rows = Counter[tuple[str, str, int]]


class Sums(NamedTuple):
    """What a user or a worker did on a day; ``last`` is 0 if nothing was accepted."""

    accepted: int
    rejected: int
    last: int


class Days:
    """What users, or workers, did on each day."""

    def __init__(self) -> None:
        self._days: dict[int, dict[tuple[str, str], Sums]] = {}

    def add(self, counts: Iterable[DayCount]) -> None:
        """Add to the days."""
        for day, username, worker, accepted, rejected, last in counts:
            names = self._days.setdefault(day, {})
            old = names.get((username, worker), Sums(0, 0, 0))
            names[username, worker] = Sums(
                old.accepted + accepted, old.rejected + rejected, max(old.last, last)
            )

    def put(self, day: int, name: tuple[str, str], accepted: int, last: int) -> None:
        """Replace what was accepted; a day without anything is deleted."""
        names = self._days.setdefault(day, {})
        old = names.get(name, Sums(0, 0, 0))
        names[name] = Sums(accepted, old.rejected, (old.last or last) if accepted else 0)
        if names[name] == (0, 0, 0):
            del names[name]

    def within(self, days: range) -> Iterator[tuple[tuple[str, str], Sums]]:
        """Yield what was done on some days."""
        for day in days:
            yield from self._days.get(day, {}).items()

    def of(self, name: tuple[str, str], days: range) -> Iterator[tuple[int, int]]:
        """Yield the days on which one name has accepted submissions, and how many."""
        for day in days:
            found = self._days.get(day, {}).get(name)
            if found is not None and found.accepted:
                yield day, found.accepted


class MemoryTables(NamedTuple):
    """What the store has."""

    minutes: Rows
    hours: Rows
    days: Rows
    rejections: Counter[Rejection]
    daily_users: Days
    daily_workers: Days
    rolled_up: RolledUp
    spans: Mapping[int, Span]
    batches: Mapping[str, CountedBatch]

    @property
    def grains(self) -> tuple[Rows, Rows, Rows]:
        """The counts of minutes, hours and days."""
        return self.minutes, self.hours, self.days

    def add_days(self, counts: DayCounts) -> None:
        """Add to the days of users and of workers."""
        self.daily_users.add(counts.users)
        self.daily_workers.add(counts.workers)

    def count_days_again(self, rows: Iterable[MinuteCount]) -> None:
        """Make the days of some corrected rows again."""
        for day, username in {(row.minute // DAY * DAY, row.username) for row in rows}:
            found: dict[str, tuple[int, int]] = {"": (0, 0)}
            for (user, worker, at), count in self._all():
                if user == username and at // DAY * DAY == day:
                    known, last = found.get(worker, (0, 0))
                    found[worker] = (known + count, max(last, at))
            total, last = found.pop("")
            self.daily_users.put(day, (username, ""), total, last)
            named = sum(count for count, _ in found.values())
            self.daily_workers.put(day, (username, ""), max(0, total - named), last)
            for row in rows:
                if row.worker and row.username == username:
                    accepted, last = found.get(row.worker, (0, 0))
                    self.daily_workers.put(day, (username, row.worker), accepted, last)

    def _all(self) -> Iterator[tuple[tuple[str, str, int], int]]:
        for rows in self.grains:
            yield from rows.items()


@implementer(IHistory)
class MemoryStatsHistory:
    """Answers from the tables that ``tables`` returns."""

    def __init__(self, tables: Callable[[], MemoryTables]) -> None:
        self._tables = tables

    def series(
        self, username: str, worker: str, step: str, between: tuple[int, int]
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (time, count) of a user, or of one worker, oldest first."""
        tables, (start, end) = self._tables(), between
        if step == "day":
            days = tables.daily_workers if worker else tables.daily_users
            return succeed(list(days.of((username, worker), range(start, end, DAY))))
        found: Counter[int] = Counter()
        for rows in (tables.minutes,) if step == "minute" else (tables.minutes, tables.hours):
            for (user, of, at), count in rows.items():
                if (user, of) == (username, worker) and start <= at < end:
                    found[at if step == "minute" else at // HOUR * HOUR] += count
        return succeed(sorted(found.items()))

    def rejection_codes(
        self, username: str, worker: str, start: int, end: int
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (code, count) of the rejections of a user, or of one worker."""
        found: Counter[int] = Counter()
        for rejection, count in self._tables().rejections.items():
            mine = rejection.username == username and worker in ("", rejection.worker)
            if mine and start <= rejection.minute < end:
                found[rejection.code] += count
        return succeed(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def workers(self, query: WorkerQuery) -> Deferred[WorkerPage]:
        """Return workers with their counts in a range."""
        daily = self._tables().daily_workers
        sums: dict[tuple[str, str], list[int]] = {}
        for name, (accepted, rejected, last) in daily.within(range(query.start, query.end, DAY)):
            entry = sums.setdefault(name, [0, 0, 0])
            entry[0] += accepted
            entry[1] += rejected
            entry[2] = max(entry[2], last)
        for name in query.present:
            sums.setdefault(name, [0, 0, 0])
        needle = lowered(query.search)
        rows = [
            WorkerRow(user, worker, accepted, rejected, last or None)
            for (user, worker), (accepted, rejected, last) in sums.items()
            if query.user in ("", user) and needle in lowered(f"{user}.{worker}")
        ]
        rows.sort(key=lambda row: (row.username, row.worker))
        down = query.descending
        if query.sort == "accepted":
            rows.sort(key=lambda row: row.accepted, reverse=down)
        elif query.sort == "worker":
            rows.sort(key=lambda row: row.worker, reverse=down)
        elif query.sort == "last":
            rows.sort(key=lambda row: row.last or 0, reverse=down)
            rows.sort(key=lambda row: row.last is None)
        elif down:
            rows.reverse()
        return succeed(WorkerPage(len(rows), rows[query.offset : query.offset + query.limit]))

    def rank(self, username: str, start: int, end: int) -> Deferred[Rank]:
        """Return the place of a user by accepted submissions."""
        found: Counter[str] = Counter()
        for (user, _), sums in self._tables().daily_users.within(range(start, end, DAY)):
            found[user] += sums.accepted
        mine = found[username]
        more = sum(count > mine for count in found.values())
        return succeed(Rank(more + 1 if mine else 0, sum(n > 0 for n in found.values()), mine))

    def rolled_up(self) -> Deferred[RolledUp]:
        """Return what has been rolled up."""
        return succeed(self._tables().rolled_up)

    def batch(self, batch_id: str) -> Deferred[CountedBatch | None]:
        """Return a counted batch."""
        return succeed(self._tables().batches.get(batch_id))

    def span(self, start: int, end: int) -> Deferred[Span | None]:
        """Return between which positions the batches of a range are."""
        found = [span for at, span in self._tables().spans.items() if start <= at < end]
        if not found:
            return succeed(None)
        return succeed(Span(min(s.after for s in found), max(s.to for s in found)))


__all__ = ["Days", "MemoryStatsHistory", "MemoryTables", "Rows"]
