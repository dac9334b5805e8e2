"""Restores jobs and their used nonces after a restart.

The nonces are read from the log, so that a submission accepted before a crash is a duplicate after
it. The same pass finds the job ids that were used, whatever the store knows. The wall clock does
not decide where to start reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import floor
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kupool.log import Entry, Extent, Identity, ILog, ISpool, LogUnavailable, Plan
from kupool.pool import SavedJobs
from kupool.pool.coordinator import Coordinator
from kupool.pool.jobs import LAST_ID, Job, JobBook, id_of_clock
from kupool.pool.keeping import Choice, choose
from kupool.pool.session import scope_key
from kupool.wire.batches import Batch, PoisonBatch, decode_batch

#: Entries read in one reactor turn.
CHUNK = 50

#: Entries at the end of the log in which to look for used ids if no saved job says where to start.
TAIL = 10_000

#: Ids left out where jobs may have had some that nobody saved. Notes in the log are not as
#: far apart.
JUMP = 1000

#: The serial number for batches of an earlier run: they are all durable.
EARLIER = 0

_log = Logger()


class RestoredJobs(NamedTuple):
    """How many jobs were restored, and how many used nonces are known for them.

    ``minutes`` is for a log of the previous release: the minutes that it holds completely (seconds
    since the epoch), each with a position that all batches of the minute are above.
    """

    jobs: int
    used: int
    minutes: dict[int, int]


async def restore_jobs(
    clock: IReactorTime,
    log: ILog,
    plan: Plan | None,
    extent: Extent | None,
    *,
    coordinator: Coordinator,
    duplicate_scope: str,
) -> RestoredJobs:
    """Let the coordinator continue with saved jobs whose nonces can be known.

    The other jobs are retired: those that the log or the plan says nothing about, all jobs if the
    duplicate scope is ``session``, as the log does not contain sessions, and all jobs if the log
    cannot be read. Entries in a spool are read first, because they may move to the log at any time,
    and never back. New ids start above all ids that the store and the log know.

    ``plan`` and ``extent`` are None if the log is unavailable, and so was not compared with the
    store. Then it cannot be read either.
    """
    if plan is None or extent is None:
        plan = Plan(Identity("", ()), 0, 0, keep_jobs=False)
        extent = Extent(None, 1, 0, holds_data=False)
    book = coordinator.book
    await _begin_above_the_last_second(clock, coordinator)
    saved = await coordinator.load()
    if duplicate_scope == "session":
        plan = plan._replace(keep_jobs=False)
    choice = choose(saved.jobs, plan, extent, coordinator.moment(), window=book.window)
    now = clock.seconds()
    coordinator.take_over([Job.restored(job, now - age) for job, age in choice.kept])
    _report(choice)
    reading = _Reading(book, duplicate_scope)
    try:
        await _read(
            clock, log, _begin(saved, choice, plan, extent), reading, with_minutes=plan.adopt
        )
    except LogUnavailable as error:
        for job in list(book):
            book.retire(job)
        _log.warn(
            "The log cannot be read, so all earlier jobs are retired: {reason}",
            reason=str(error),
        )
        reading.remembered = 0
        reading.minutes.clear()
        coordinator.go_on_above(_last_id_unread(saved, coordinator.moment().wall))
    else:
        last = _last_id(saved, reading.highest_id, coordinator.moment().wall, book.max_jobs)
        coordinator.go_on_above(last)
        coordinator.save_positions(_with_positions(book, extent))
    return RestoredJobs(len(book), reading.remembered, reading.minutes)


def _with_positions(book: JobBook, extent: Extent) -> list[Job]:
    """Give jobs of the previous release the position that all their submissions are above."""
    jobs = [job for job in book if job.log_position is None]
    for job in jobs:
        job.log_position = extent.first - 1
    return jobs


async def _begin_above_the_last_second(clock: IReactorTime, coordinator: Coordinator) -> None:
    """Wait for the second in which the process started to end, if ids come from the clock.

    An earlier process may have started in the same second, with the same ids.
    """
    if coordinator.persistent:
        return
    wall = coordinator.moment().wall
    if floor(wall) == floor(wall - coordinator.running_for):
        await deferLater(clock, floor(wall) + 1 - wall)


def _report(choice: Choice) -> None:
    """Log in one line which jobs are retired, and why."""
    reasons = []
    if choice.unknown:
        reasons.append(f"{choice.unknown} jobs, whose nonces the log cannot tell")
    if choice.ageless:
        reasons.append(f"{choice.ageless} jobs, whose age no clock can tell")
    if reasons:
        _log.info("Retired jobs: {reasons}", reasons=", and ".join(reasons))


# -- which ids were used


def _last_id(saved: SavedJobs, in_log: int, wall: float, history: int) -> int:
    """Return the highest id that may have been used.

    ``in_log`` is the highest id found in the log. A note is written before an unsaved job is sent.
    So a store that knows the newest id of the log knows all of them.
    """
    newest = saved.jobs[-1].job_id if saved.jobs else 0
    last = max(newest, saved.reserved_until)
    if in_log > newest:
        # Without jobs, only the end of the log was read, and a batch may name an old job.
        last = max(last, in_log + JUMP + (0 if saved.jobs else history))
    return last if saved.jobs else max(last, id_of_clock(wall))


def _last_id_unread(saved: SavedJobs, wall: float) -> int:
    """Return the same if the log may contain more ids but cannot be read."""
    newest = saved.jobs[-1].job_id if saved.jobs else 0
    last = max(newest, saved.reserved_until)
    return max(last + JUMP if last else 0, id_of_clock(wall))


# -- what is in the log


def _begin(saved: SavedJobs, choice: Choice, plan: Plan, extent: Extent) -> int:
    """Return the position after which to read the log, for both nonces and ids."""
    if choice.kept or plan.adopt:
        return choice.after
    newest = saved.jobs[-1].log_position if saved.jobs else None
    if newest is None:
        newest = extent.last - TAIL
    return max(newest, extent.first - 1)


class _Reading:
    """The result of reading the log: used nonces, which go to the book, and job ids."""

    def __init__(self, book: JobBook, duplicate_scope: str) -> None:
        self._book = book
        self._scope = duplicate_scope
        self.remembered = 0
        #: The highest job id in the log.
        self.highest_id = 0
        self.minutes: dict[int, int] = {}
        self._whole_from: int | None = None

    def take(self, entries: Iterable[Entry]) -> list[tuple[Entry, Batch]]:
        """Take note of some entries; returns the readable ones."""
        batches = []
        for entry in entries:
            try:
                batch = decode_batch(entry.body)
            except PoisonBatch:
                continue  # the consumer moves it to the dead letters
            self._remember(batch)
            self._note_ids(batch)
            batches.append((entry, batch))
        return batches

    def _remember(self, batch: Batch) -> None:
        jobs = self._book.jobs
        if not jobs:
            return
        rows = zip(batch.usernames, batch.job_ids, batch.client_nonces, strict=True)
        for username, job_id, client_nonce in rows:
            job = jobs.get(job_id)
            if job is not None:
                scope = job.nonces.scope(scope_key(self._scope, username))
                if client_nonce in scope.used:
                    continue  # the log may contain a batch twice
                scope.reserve(client_nonce, EARLIER)
                job.remembered += 1
                self.remembered += 1

    def _note_ids(self, batch: Batch) -> None:
        # Ids in milliseconds, which a previous release used, are never reached.
        ids = [job_id for job_id in (*batch.job_ids, batch.jobs_until) if job_id <= LAST_ID]
        self.highest_id = max([self.highest_id, *ids])

    def note_minutes(self, batches: Iterable[tuple[Entry, Batch]]) -> None:
        """Record where the batches of each minute begin, for minutes that the log holds
        completely.
        """
        for entry, batch in batches:
            minute = batch.at // 60000 * 60
            if self._whole_from is None:
                # Trimmed entries may have been of the same minute as the first entry.
                appended = int(entry.appended_at) // 60 * 60
                trimmed = entry.position > 1
                self._whole_from = max(minute, appended) + 60 if trimmed else 0
            if minute >= self._whole_from:
                before = entry.position - 1
                self.minutes[minute] = min(before, self.minutes.get(minute, before))


async def _read(
    clock: IReactorTime, log: ILog, after: int, reading: _Reading, *, with_minutes: bool
) -> None:
    """Read the spool and the log after a position; raises :class:`LogUnavailable`."""
    source: Any = log
    position = 0
    if ISpool.providedBy(log):
        while entries := await source.read_spool(position, CHUNK):
            reading.take(entries)
            position = entries[-1].position
            await _next_turn(clock, entries)
    away = source.status().away
    if away:
        raise LogUnavailable(away)  # a read would block the start until it is back
    while entries := await source.read(after, CHUNK):
        batches = reading.take(entries)
        if with_minutes:
            reading.note_minutes(batches)
        after = entries[-1].position
        await _next_turn(clock, entries)


async def _next_turn(clock: IReactorTime, entries: Sequence[Entry]) -> None:
    """Give other tasks a reactor turn, unless the end was reached."""
    if len(entries) >= CHUNK:
        await deferLater(clock, 0)


__all__ = ["CHUNK", "JUMP", "TAIL", "RestoredJobs", "restore_jobs"]
