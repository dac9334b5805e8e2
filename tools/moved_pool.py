"""A pool of any size in SQLite files, made without a daemon, and what was counted in it."""

from __future__ import annotations

import argparse
import secrets
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import react

from kupool.log import Mark, reconcile
from kupool.log.sqlite import SqliteLog
from kupool.pool import SavedJob
from kupool.pool.jobstore import SqliteJobStore
from kupool.stats import Rejection
from kupool.stats.fold import fold_entry
from kupool.stats.sqlite import SqliteStats
from kupool.storage.database import Database
from kupool.wire.batches import Batch, encode_batch

#: Submissions of a batch, and batches that are appended and counted at once.
PER_BATCH = 100
AT_ONCE = 100

USERS = 400

#: The newest job of the pool, and the ids reserved with it.
NEWEST_JOB = 5000
RESERVED = 5400


async def fill(reactor: Any, folder: Path, submissions: int, began: int) -> None:
    """Make a log and a store in a folder, with so many submissions that are counted.

    ``began`` is when the first was accepted, in seconds since the epoch; a minute has about
    20,000 of them. There are workers, rejections, jobs, and a dead letter.
    """
    log = SqliteLog(Database(reactor, folder / "log.sqlite", "log"), reactor, lambda: began)
    store = Database(reactor, folder / "store.sqlite", "store")
    stats, jobs = SqliteStats(store), SqliteJobStore(store)
    await log.open()
    await stats.open()
    state = await stats.state()
    extent = await log.extent(state.identity, state.mark)
    plan = reconcile(extent, state, lambda: secrets.token_hex(16))
    await stats.identify(plan)
    await log.identify(plan.identity)
    await log.append("poison", b"no batch at all")
    made, after = 0, 0
    while made < submissions:
        appends = []
        for _ in range(AT_ONCE):
            size = min(PER_BATCH, submissions - made)
            if size > 0:
                batch = _batch(made, size, began)
                appends.append(log.append(batch.batch, encode_batch(batch)))
                made += size
        await gatherResults(appends)
        entries = [entry for entry in await log.read(after, 2 * AT_ONCE) if len(entry.body) > 20]
        after = entries[-1].position
        counts = [fold_entry(entry.body, entry.position) for entry in entries]
        minute = counts[-1].minute
        rejections = {Rejection(f"user{made % USERS}", 20 + made % 3, minute): 3}
        await stats.apply(counts, rejections, Mark(after, entries[-1].entry_id))
    for number in range(3):
        made_at = began + 30.0 * number
        job = SavedJob(NEWEST_JOB - 2 + number, secrets.token_hex(16), made_at, after)
        await jobs.save(job, RESERVED)
    await stats.keep_retention_time(began + 3600.5)
    await log.close()
    await stats.close()
    with closing(sqlite3.connect(folder / "log.sqlite")) as files:
        files.execute(
            "INSERT INTO consumer_groups (name, position) VALUES ('stats', ?) ON CONFLICT (name) "
            "DO UPDATE SET position = excluded.position",
            (after,),
        )
        files.execute(
            "INSERT INTO dead_letters (consumer_group, position, entry_id, reason, deliveries, "
            "failed_at, body) VALUES ('stats', 1, 'poison', 'not a batch', 1, 1, ?)",
            (b"no batch at all",),
        )
        files.commit()


def _batch(made: int, size: int, began: int) -> Batch:
    numbers = range(made, made + size)
    at = (began + made // 20_000 * 60) * 1000
    names = [f"user{n % USERS}.rig{n % 3}" if n % 2 else f"user{n % USERS}" for n in numbers]
    nonces = [f"n{n}" for n in numbers]
    jobs = [NEWEST_JOB - 10 - n % 3 for n in numbers]  # all of them retired
    return Batch(1, f"batch-{made}", at, names, jobs, nonces)


def main(arguments: list[str]) -> None:
    """Make a pool in a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("submissions", type=int)
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    began = int(time.time()) // 60 * 60 - 86400
    react(lambda reactor: ensureDeferred(fill(reactor, given.folder, given.submissions, began)))


if __name__ == "__main__":
    main(sys.argv[1:])
