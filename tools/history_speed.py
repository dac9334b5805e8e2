"""Measures the questions about workers with a large store: ``python -m tools.history_speed``.

Makes a store of many workers that submitted in each of some minutes, and prints how long each
question takes, in milliseconds: the median and the longest of several. ``--pg-dsn`` takes an empty
database of PostgreSQL instead of a file.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from kupool.stats import BatchCounts, Rejection
from kupool.stats.history import WorkerQuery
from kupool.stats.sqlite import SqliteStats
from kupool.storage.database import Database
from kupool.storage.reading import ReadOnlyDatabase
from kupool.wire.messages import split_username

DAY = 86400

#: Midnight, UTC.
T = 1_800_057_600

#: Workers in one transaction.
AT_ONCE = 20_000


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the arguments of the command."""
    parser = argparse.ArgumentParser(prog="tools.history_speed", description=__doc__)
    parser.add_argument("--workers", type=int, default=100_000)
    parser.add_argument("--per-user", type=int, default=10, help="workers of each user")
    parser.add_argument("--minutes", type=int, default=5, help="minutes of each of the days")
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--pg-dsn", default="")
    return parser.parse_args(arguments)


def make_store(reactor: Any, dsn: str, folder: str) -> Any:
    """Return a store that is not open."""
    if dsn:
        from kupool.stats.postgres import PostgresStats
        from kupool.storage.postgres import PostgresDatabase

        return PostgresStats(PostgresDatabase(reactor, dsn))
    path = Path(folder) / "store.sqlite"
    return SqliteStats(Database(reactor, path, "store"), ReadOnlyDatabase(reactor, path, "store"))


def name_of(number: int, per_user: int) -> str:
    """Return the name of a worker."""
    return f"user{number // per_user}.rig{number % per_user}"


async def fill(store: Any, given: argparse.Namespace) -> float:
    """Count a submission of each worker in each minute; returns the seconds of a minute."""
    spent = 0.0
    for day in range(given.days):
        for minute in range(given.minutes):
            at = T + day * DAY + minute * 60
            for first in range(0, given.workers, AT_ONCE):
                last = min(first + AT_ONCE, given.workers)
                names = [name_of(n, given.per_user) for n in range(first, last)]
                refused = {
                    Rejection(split_username(name)[0], 23, at, split_username(name)[1]): 1
                    for name in names[::100]
                }
                # Some have submitted more than others.
                names += names[:: 2 + minute]
                began = time.perf_counter()
                await store.apply([BatchCounts(f"b{at}-{first}", b"", at, names)], refused)
                spent += time.perf_counter() - began
    return float(spent / (given.days * given.minutes))


def questions(store: Any, given: argparse.Namespace) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return the questions by what they ask."""
    history = store.history
    day = T + (given.days - 1) * DAY
    today = (day, day + DAY)
    user, worker = f"user{given.workers // given.per_user // 2}", "rig0"
    present = [("new", f"rig{n}") for n in range(1000)]
    days = (T, T + given.days * DAY)
    return {
        "workers of today, most accepted": lambda: history.workers(WorkerQuery(*today)),
        "workers of today, page 500": lambda: history.workers(WorkerQuery(*today, offset=50_000)),
        "workers of today, by name": lambda: history.workers(WorkerQuery(*today, sort="worker")),
        "workers of today, newest": lambda: history.workers(WorkerQuery(*today, sort="last")),
        "workers of today, searched": lambda: history.workers(
            WorkerQuery(*today, search="777.rig")
        ),
        "workers of today and 1,000 present": lambda: history.workers(
            WorkerQuery(*today, present=present)
        ),
        "workers of one user": lambda: history.workers(WorkerQuery(*today, user=user)),
        "workers of one user, all days": lambda: history.workers(WorkerQuery(*days, user=user)),
        "rank today": lambda: history.rank(user, *today),
        "rank of all days": lambda: history.rank(user, *days),
        "history of a worker by minute": lambda: history.series(user, worker, "minute", today),
        "history of a worker by hour": lambda: history.series(user, worker, "hour", days),
        "history of a worker by day, a year": lambda: history.series(
            user, worker, "day", (day - 364 * DAY, day + DAY)
        ),
        "rejections of a worker": lambda: history.rejection_codes(user, worker, *days),
    }


async def measure(reactor: Any, given: argparse.Namespace) -> None:
    """Fill a store, and print the time of each question."""
    with tempfile.TemporaryDirectory(prefix="kupool-history-") as folder:
        store = make_store(reactor, given.pg_dsn, folder)
        await store.open()
        seconds = await fill(store, given)
        print(
            f"{given.workers} workers x {given.minutes} minutes x {given.days} days; "
            f"counting a minute takes {seconds:.2f} s"
        )
        for what, ask in questions(store, given).items():
            took = []
            for _ in range(given.repeat):
                began = time.perf_counter()
                await ask()
                took.append(1000 * (time.perf_counter() - began))
            print(f"{what:36} {statistics.median(took):8.1f} ms  (most {max(took):.1f})")
        await store.close()


def main(arguments: list[str]) -> None:
    """Run the command."""
    given = parse(arguments)
    react(lambda reactor: Deferred.fromCoroutine(measure(reactor, given)))


if __name__ == "__main__":
    main(sys.argv[1:])
