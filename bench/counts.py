"""How fast the stores count: the same submissions into SQLite and into PostgreSQL.

``python -m bench.counts --pg-dsn DSN`` prints for each store the submissions per second and this
process's CPU time for one, and PostgreSQL's ratio to SQLite's. It creates tables and rows in the
database: use one that has nothing else.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from kupool.stats import BatchCounts
from kupool.stats.fold import fold_entry
from kupool.stats.postgres import PostgresStats
from kupool.stats.sqlite import SqliteStats
from kupool.storage.database import Database
from kupool.storage.postgres import PostgresDatabase
from kupool.wire.batches import Batch, encode_batch


class Cost(NamedTuple):
    """Seconds that passed, and seconds of our processor, for all submissions."""

    wall: float
    cpu: float


def bodies(options: argparse.Namespace) -> Iterator[bytes]:
    """Yield log entries: batches of submissions by random users, over ten minutes."""
    rng = random.Random(options.seed)
    start = int(time.time()) // 60 * 60
    run = f"{rng.getrandbits(64):x}-{time.time_ns():x}"
    for n in range(options.submissions // options.batch):
        names = [f"user{rng.randrange(options.users)}" for _ in range(options.batch)]
        at = (start + 600 * n * options.batch // options.submissions) * 1000
        nonces = [f"{n:x}-{k:x}" for k in range(options.batch)]
        yield encode_batch(Batch(1, f"{run}-{n}", at, names, [1] * options.batch, nonces))


async def measure(store: Any, entries: Sequence[bytes], flush: int) -> Cost:
    """Decode, fold and commit all entries, so many in a flush, and see that they count."""
    await store.open()
    before = await store.total(0, 2**62)
    wall, cpu = time.perf_counter(), time.process_time()
    submissions = 0
    for at in range(0, len(entries), flush):
        counts: list[BatchCounts] = [fold_entry(body) for body in entries[at : at + flush]]
        await store.apply(counts, {})
        submissions += sum(len(batch.usernames) for batch in counts)
    cost = Cost(time.perf_counter() - wall, time.process_time() - cpu)
    after = await store.total(0, 2**62)
    await store.close()
    if after - before != submissions:
        raise SystemExit(f"{submissions} submissions were applied, {after - before} are counted")
    return cost


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """Measure each store, and print a line for it."""
    entries = list(bodies(options))
    number = len(entries) * options.batch
    digest = sha256(b"".join(entries)).hexdigest()[:12]
    print(f"{number} submissions in {len(entries)} batches, {options.users} users ({digest})")
    with tempfile.TemporaryDirectory(dir=options.data) as folder:
        file = Database(reactor, Path(folder) / "store.sqlite", "store")
        stores = {
            "sqlite": SqliteStats(file),
            "postgres": PostgresStats(PostgresDatabase(reactor, options.pg_dsn)),
        }
        costs: dict[str, Cost] = {}
        for name, store in stores.items():
            cost = costs[name] = await measure(store, entries, options.flush)
            print(
                f"{name:9} {number / cost.wall:12,.0f} submissions/s "
                f"{cost.cpu / number * 1e6:8.2f} us of our processor each"
            )
    ratio = costs["sqlite"].wall / costs["postgres"].wall
    cpu = costs["postgres"].cpu / costs["sqlite"].cpu
    print(f"postgres / sqlite: throughput {ratio:.2f}, processor {cpu:.2f}")


def parse() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pg-dsn", required=True, help="a database for this alone")
    parser.add_argument("--submissions", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=100, help="submissions in a batch")
    parser.add_argument("--flush", type=int, default=1000, help="batches in a transaction")
    parser.add_argument("--data", default=None, help="where SQLite's file is made")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    chosen = parse()
    react(lambda reactor: ensureDeferred(main(reactor, chosen)))
