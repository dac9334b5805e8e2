"""The store of counts in PostgreSQL, for several daemons and for access by SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from kupool.log import Gap, Mark, Plan, StoreState
from kupool.stats import Applied, BatchCounts, IStatsStore, MinuteCount, Rejection
from kupool.stats import postgres_marks as marks
from kupool.stats import postgres_snapshot as snapshots
from kupool.stats import postgres_writes as writes
from kupool.stats.daily import fold_days
from kupool.stats.fold import as_rows, fold_rows, roll_ups
from kupool.stats.positions import spans
from kupool.stats.postgres_history import PostgresStatsHistory, add_days
from kupool.stats.postgres_writes import AT, SECONDS, within
from kupool.stats.snapshot import IVisitor
from kupool.storage.postgres import PostgresDatabase

#: The most names that are counted on the reactor at once; more are counted in a thread.
FOLD_AT_ONCE = 5000


class _Attempt(NamedTuple):
    """Rejections in a transaction whose outcome may not be known."""

    serial: int
    rejections: Counter[Rejection]


@implementer(IStatsStore)
class PostgresStats:
    """Keeps the counts in the tables of ``storage/sql/postgres``.

    Calls fail with :class:`kupool.storage.postgres.DatabaseUnavailable` while the database is
    unavailable. Call a failed :meth:`apply` again with the same rejections: if the reply to its
    commit was lost, they may have been counted, and are then not counted again.
    """

    persistent = True

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self.history = PostgresStatsHistory(database)
        self._process = uuid4().hex
        self._serial = 0
        self._attempt: _Attempt | None = None
        #: Rejections counted by attempts that seemed to fail; the caller does not know yet.
        self._settled: Counter[Rejection] = Counter()

    def open(self) -> Deferred[None]:
        """Connect and make the tables."""
        return self._database.open()

    # -- position in the log

    def state(self) -> Deferred[StoreState]:
        """Return up to which position the store has counted, and of which log."""
        return self._database.run(marks.state)

    def identify(self, plan: Plan) -> Deferred[None]:
        """Take over the identity of a plan, and its other changes of the store."""
        return self._database.write(lambda cursor: marks.identify(cursor, plan))

    def gaps(self) -> Deferred[Sequence[tuple[Gap, str]]]:
        """Return the positions that were lost, each with the reason, oldest first."""
        return self._database.run(marks.gaps)

    def forget_gaps(self) -> Deferred[int]:
        """Delete the gaps; returns how many."""
        return self._database.write(marks.forget_gaps)

    def cover(self, minutes: Mapping[int, int]) -> Deferred[None]:
        """Save, for minutes, a position that every batch of the minute is above."""
        return self._database.write(lambda cursor: marks.cover(cursor, minutes), maintenance=True)

    # -- counting

    def apply(
        self,
        batches: Sequence[BatchCounts],
        rejections: Mapping[Rejection, int],
        mark: Mark | None = None,
    ) -> Deferred[Applied]:
        """Count some batches in one transaction; each counts at most once ever."""
        return Deferred.fromCoroutine(self._apply(list(batches), Counter(rejections), mark))

    async def _apply(
        self, batches: Sequence[BatchCounts], rejections: Counter[Rejection], mark: Mark | None
    ) -> Applied:
        if not batches and not rejections and mark is None:
            return Applied(0, 0, [])

        async def work(cursor: Any) -> Applied:
            applied, rows = await self._count(cursor, batches)
            if mark is not None:
                await marks.move(cursor, mark)
            await self._settle(cursor)
            # A caller that does not know yet passes them again.
            again = rejections >= self._settled
            left = rejections - self._settled if again else rejections
            if left:
                self._serial += 1
                self._attempt = _Attempt(self._serial, left)
                await writes.note_flush(cursor, self._process, self._serial)
                await writes.add_rejections(cursor, left)
            await add_days(cursor, fold_days(rows, left))
            return applied

        applied = await self._database.count(work)
        self._attempt = None
        self._settled.clear()
        return applied

    async def _count(
        self, cursor: Any, batches: Sequence[BatchCounts]
    ) -> tuple[Applied, Sequence[MinuteCount]]:
        """Count the batches that are not counted yet; of batches with the same id, the first.

        Returns also the per-minute rows that were added.
        """
        if not batches:
            return Applied(0, 0, []), []
        marked = (await marks.newest(cursor)).position
        firsts: dict[str, BatchCounts] = {}
        for batch in batches:
            firsts.setdefault(batch.batch_id, batch)
        new = await writes.remember(cursor, list(firsts.values()), marked)
        known = {batch_id: batch.digest for batch_id, batch in firsts.items() if batch_id in new}
        if len(new) < len(firsts):
            old = [batch_id for batch_id in firsts if batch_id not in new]
            known.update(await writes.digests(cursor, old))
        conflicts = [
            (batch.batch_id, batch.digest)
            for batch in batches
            # An id that was deleted meanwhile was counted all the same.
            if known.get(batch.batch_id, batch.digest) != batch.digest
        ]
        counted = [firsts[batch_id] for batch_id in new]
        await marks.place(cursor, spans(counted, marked))
        rows = await self._fold(counted)
        await writes.add(cursor, rows)
        return Applied(len(new), len(batches) - len(new) - len(conflicts), conflicts), rows

    async def _settle(self, cursor: Any) -> None:
        """Find out what happened to the rejections of the last attempt."""
        if self._attempt is None:
            return
        if await writes.last_flush(cursor, self._process) == self._attempt.serial:
            self._settled += self._attempt.rejections
        self._attempt = None

    async def _fold(self, batches: Sequence[BatchCounts]) -> list[MinuteCount]:
        def fold() -> list[MinuteCount]:
            return as_rows(fold_rows(batches))

        if sum(len(batch.usernames) for batch in batches) <= FOLD_AT_ONCE:
            return fold()
        reactor = self._database.reactor
        return await deferToThreadPool(reactor, reactor.getThreadPool(), fold)

    # -- queries

    def count(self, username: str, minute: int, worker: str = "") -> Deferred[int]:
        """Return the accepted submissions of a user, or one worker, in one minute."""
        table, where, values = _of(username, worker)
        return self._number(
            f"SELECT coalesce(sum(submission_count), 0) FROM {table} "
            f"WHERE {where} AND timestamp = {AT} AND %s",
            (*values, within(minute), minute == within(minute)),
        )

    def counted(self, username: str, worker: str = "") -> Deferred[bool]:
        """Return whether there are counts of a user, or of one worker, at any time."""
        table, where, values = _of(username, worker)
        parts = " UNION ALL ".join(
            f"SELECT 1 FROM {table}{grain} WHERE {where}" for grain in ("", "_hour", "_day")
        )
        found = self._database.query(f"SELECT EXISTS ({parts})", values * 3)
        return found.addCallback(lambda rows: bool(rows[0][0]))

    def series(
        self, username: str, start: int, end: int, worker: str = ""
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (minute, count) of a user in a range, oldest first."""
        table, where, values = _of(username, worker)
        return self._database.query(
            f"SELECT {SECONDS}, submission_count FROM {table} "
            f"WHERE {where} AND timestamp >= {AT} AND timestamp < {AT} ORDER BY timestamp",
            (*values, within(start), within(end)),
        )

    def workers(
        self, username: str, start: int, end: int, limit: int = 0
    ) -> Deferred[Sequence[tuple[str, int]]]:
        """Return (worker, count) of a user in a range, highest first."""
        return self._database.query(
            "SELECT worker, sum(submission_count)::bigint FROM worker_submissions "
            f"WHERE username = %s AND timestamp >= {AT} AND timestamp < {AT} "
            'GROUP BY worker ORDER BY 2 DESC, worker COLLATE "C" LIMIT %s',
            (username, within(start), within(end), limit or None),
        )

    def names(self, start: int, end: int, username: str = "") -> Deferred[int]:
        """Return how many users have counts in a range, or how many workers of one user."""
        user, values = _by(username)
        table, column = ("worker_submissions", "worker") if user else ("submissions", "username")
        return self._number(
            f"SELECT count(DISTINCT {column}) FROM {table} "
            f"WHERE timestamp >= {AT} AND timestamp < {AT} {user}",
            (within(start), within(end), *values),
        )

    def top(self, limit: int, start: int, end: int) -> Deferred[Sequence[tuple[str, int]]]:
        """Return (username, count) of the users with the highest counts in a range."""
        return self._database.query(
            "SELECT username, sum(submission_count)::bigint FROM submissions "
            f"WHERE timestamp >= {AT} AND timestamp < {AT} "
            'GROUP BY username ORDER BY 2 DESC, username COLLATE "C" LIMIT %s',
            (within(start), within(end), limit),
        )

    def minutes(self, start: int, end: int) -> Deferred[Sequence[tuple[int, int, int]]]:
        """Return (minute, users, count) over all users in a range, oldest first."""
        return self._database.query(
            f"SELECT {SECONDS}, count(*), sum(submission_count)::bigint FROM submissions "
            f"WHERE timestamp >= {AT} AND timestamp < {AT} GROUP BY timestamp ORDER BY timestamp",
            (within(start), within(end)),
        )

    def total(self, start: int, end: int, username: str = "") -> Deferred[int]:
        """Return the accepted submissions in a range, including rolled-up ones."""
        user, values = _by(username)
        part = (
            "SELECT sum(submission_count) AS n FROM submissions{grain} "
            f"WHERE timestamp >= {AT} AND timestamp < {AT} {user}"
        )
        parts = " UNION ALL ".join(part.format(grain=grain) for grain in ("", "_hour", "_day"))
        return self._number(
            f"SELECT coalesce(sum(n), 0) FROM ({parts}) AS parts",
            (within(start), within(end), *values) * 3,
        )

    def worker_total(self, username: str, worker: str, start: int, end: int) -> Deferred[int]:
        """Return the accepted submissions of a worker in minutes that are not rolled up."""
        return self._number(
            "SELECT coalesce(sum(submission_count), 0) FROM worker_submissions WHERE username = %s "
            f"AND worker = %s AND timestamp >= {AT} AND timestamp < {AT}",
            (username, worker, within(start), within(end)),
        )

    def rejection_codes(
        self, start: int, end: int, username: str = ""
    ) -> Deferred[Sequence[tuple[int, int]]]:
        """Return (code, count) of rejections in a range, highest first."""
        user, values = _by(username)
        return self._database.query(
            "SELECT code, sum(rejection_count)::bigint FROM rejections "
            f"WHERE timestamp >= {AT} AND timestamp < {AT} {user} "
            "GROUP BY code ORDER BY 2 DESC, code",
            (within(start), within(end), *values),
        )

    def rejections(
        self, start: int, end: int, username: str = ""
    ) -> Deferred[Sequence[tuple[str, int, int]]]:
        """Return (username, code, count) of rejections in a range, highest first."""
        user, values = _by(username)
        return self._database.query(
            "SELECT username, code, sum(rejection_count)::bigint FROM rejections "
            f"WHERE timestamp >= {AT} AND timestamp < {AT} {user} "
            'GROUP BY username, code ORDER BY 3 DESC, username COLLATE "C", code',
            (within(start), within(end), *values),
        )

    def rolled_up_before(self) -> Deferred[int]:
        """Return the minute before which the per-minute rows have been rolled up."""
        return self._database.read(writes.rolled_up_before)

    def unapplied(self, batch_ids: Sequence[str]) -> Deferred[Sequence[str]]:
        """Return the given ids that have not been counted."""

        async def work(cursor: Any) -> Sequence[str]:
            found: list[str] = []
            for chunk in writes.chunks(batch_ids):
                await cursor.execute(
                    "SELECT id FROM unnest(%s::text[]) WITH ORDINALITY AS given (id, n) "
                    "WHERE NOT EXISTS (SELECT FROM applied_batches WHERE batch_id = id) "
                    "ORDER BY n",
                    (list(chunk),),
                )
                found.extend(batch_id for (batch_id,) in cursor.fetchall())
            return found

        return self._database.run(work)

    # -- upkeep

    def snapshot(self, visitor: IVisitor, start: int, end: int) -> Deferred[None]:
        """Show a visitor the whole store as it is at one moment."""
        return self._database.run(
            lambda cursor: snapshots.show(cursor, visitor, start, end), maintenance=True
        )

    def correct(self, rows: Sequence[MinuteCount], serial: int) -> Deferred[int]:
        """Add to per-minute rows, unless they were corrected since ``serial``."""
        return self._database.write(
            lambda cursor: snapshots.correct(cursor, rows, serial), maintenance=True
        )

    def revive(self) -> Deferred[None]:
        """Create tables again that were dropped."""
        return self._database.write(self._database.revive, maintenance=True)

    def roll_up(self, minutes_before: int, hours_before: int) -> Deferred[int]:
        """Roll up minutes before a time into hours, and hours into days."""
        return Deferred.fromCoroutine(self._roll_up(minutes_before, hours_before))

    async def _roll_up(self, minutes_before: int, hours_before: int) -> int:
        moved = 0
        for grain, into, before in roll_ups(minutes_before, hours_before):
            for table in writes.KEYS:
                moved += await self._in_chunks(writes.roll, table, grain, into, before=before)
            if not grain:
                # Last: a minute with rows that was never counted would look like a foreign one.
                await self._database.write(partial(marks.forget_minutes, before=before))
        return moved

    def forget_batches(self, first: int) -> Deferred[int]:
        """Delete the ids of counted batches that the log no longer contains."""
        return Deferred.fromCoroutine(self._forget_batches(first))

    async def _forget_batches(self, first: int) -> int:
        boundary = await self._database.write(partial(marks.forget_before, first=first))
        if not boundary:
            return 0
        return await self._in_chunks(marks.forget, boundary, writes.ROLL_CHUNK)

    def retention_time(self) -> Deferred[float | None]:
        """Return the last saved time of the retention clock; None if there is none."""
        return self._database.run(marks.retention_time)

    def keep_retention_time(self, seconds: float) -> Deferred[None]:
        """Save a time of the retention clock, in seconds since the epoch."""
        return self._database.write(partial(marks.keep_retention_time, seconds=seconds))

    def forget_rejections(self, before: int) -> Deferred[int]:
        """Delete the rejections of minutes before a time."""
        return Deferred.fromCoroutine(self._forget_rejections(before))

    async def _forget_rejections(self, before: int) -> int:
        await self._database.write(writes.forget_flushes)
        key = "username, code, timestamp"
        forgotten = await self._in_chunks(
            writes.forget, "rejections", key, "timestamp", before=before
        )
        await self._in_chunks(
            writes.forget, "worker_rejections", f"{key}, worker", "timestamp", before=before
        )
        return forgotten

    async def _in_chunks(self, work: Callable[..., Awaitable[int]], *of: Any, **named: Any) -> int:
        """Repeat some work in transactions of their own, until little is left to do."""
        done, chunk = 0, writes.ROLL_CHUNK
        while chunk >= writes.ROLL_CHUNK:
            chunk = await self._database.write(
                lambda cursor: work(cursor, *of, **named), maintenance=True
            )
            done += chunk
        return done

    def close(self) -> Deferred[None]:
        """Finish running work and disconnect."""
        return self._database.close()

    def _number(self, query: str, values: Sequence[object]) -> Deferred[int]:
        return self._database.query(query, values).addCallback(lambda rows: int(rows[0][0]))


def _of(username: str, worker: str) -> tuple[str, str, tuple[str, ...]]:
    """Return table, condition and values for a user or one worker."""
    if worker:
        return "worker_submissions", "username = %s AND worker = %s", (username, worker)
    return "submissions", "username = %s", (username,)


def _by(username: str) -> tuple[str, tuple[str, ...]]:
    """Return a condition and its values for one user, or for all."""
    return ("AND username = %s", (username,)) if username else ("", ())
