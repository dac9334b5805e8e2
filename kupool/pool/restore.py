"""After a restart: the nonces that were used for the jobs that are still live.

They are read back from the log, so that what was accepted before a crash is a
duplicate after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.logger import Logger

from kupool.log import Entry, ILog, ISpool, LogUnavailable
from kupool.pool.jobs import Job, JobBook
from kupool.pool.session import scope_key
from kupool.wire.batches import Batch, PoisonBatch, decode_batch

#: Entries read in one turn.
CHUNK = 50

#: Seconds that the clock on the wall may have been set back meanwhile.
SLACK = 300.0

#: The serial number of a batch of an earlier run: always durable.
EARLIER = 0

_log = Logger()


async def remember_used(log: ILog, book: JobBook, duplicate_scope: str) -> int:
    """Note the nonces in the log as used, for the jobs in the book; returns how many.

    Jobs for which the log cannot tell are retired: those older than its first entry,
    where entries before that one have been dropped, all of them in the duplicate scope
    ``session``, as the log knows no sessions, and all where it cannot be read. What waits
    in a spool before the log is read first: it may move on to the log at any time, but
    never the other way.
    """
    jobs = list(book)
    if not jobs:
        return 0
    if duplicate_scope == "session":
        _retire(book, jobs)
        return 0
    try:
        return await _read(log, book, jobs, duplicate_scope)
    except LogUnavailable as error:
        _log.warn("The log cannot be read: {reason}", reason=str(error))
        _retire(book, [job for job in jobs if job.job_id in book.jobs])
        return 0


async def _read(log: ILog, book: JobBook, jobs: list[Job], duplicate_scope: str) -> int:
    source: Any = log
    away = source.status().away
    if away:
        raise LogUnavailable(away)  # a read would wait for it, and nobody could work meanwhile
    first = await source.read(0, 1)
    if first and first[0].position > 1:
        _retire(book, [job for job in jobs if job.created_at <= first[0].appended_at])
    remembered = position = 0
    if ISpool.providedBy(log):
        while entries := await source.read_spool(position, CHUNK):
            remembered += _remember_all(entries, book, duplicate_scope)
            position = entries[-1].position
    position = await source.position_at(jobs[0].created_at - SLACK)
    while entries := await source.read(position, CHUNK):
        remembered += _remember_all(entries, book, duplicate_scope)
        position = entries[-1].position
    return remembered


def _remember_all(entries: Iterable[Entry], book: JobBook, duplicate_scope: str) -> int:
    count = 0
    for entry in entries:
        try:
            batch = decode_batch(entry.body)
        except PoisonBatch:
            continue  # the consumer puts it among the dead letters
        count += _remember(batch, book, duplicate_scope)
    return count


def _remember(batch: Batch, book: JobBook, duplicate_scope: str) -> int:
    count = 0
    rows = zip(batch.usernames, batch.job_ids, batch.client_nonces, strict=True)
    for username, job_id, client_nonce in rows:
        job = book.jobs.get(job_id)
        if job is not None:
            scope = job.nonces.scope(scope_key(duplicate_scope, username))
            if client_nonce in scope.used:
                continue  # a batch may be in there twice
            scope.reserve(client_nonce, EARLIER)
            job.remembered += 1
            count += 1
    return count


def _retire(book: JobBook, jobs: list[Job]) -> None:
    for job in jobs:
        book.retire(job)
        _log.info("Job {job_id} retired: its nonces are not in the log", job_id=job.job_id)
