"""What the daemon keeps, opened beside it by the commands that read or repair it."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from kupool.daemon.checks import check_engines
from kupool.daemon.parts import LOG_FILE, STORE_FILE, make_rabbit
from kupool.log.sqlite import SqliteLog
from kupool.settings import Loaded, SettingError, Settings
from kupool.stats.postgres import PostgresStats
from kupool.stats.sqlite import SqliteStats
from kupool.storage.database import Database
from kupool.storage.postgres import PostgresDatabase

#: Gets the log and the store; returns an exit status.
Work = Callable[[Any, Any], Awaitable[int]]


class Unusable(Exception):
    """What the command needs is not there; says what."""


def with_stores(loaded: Loaded, work: Work) -> int:
    """Open the log and the store of the daemon, which may be running, and do some work.

    Returns the exit status; prints in one line what went wrong.
    """
    status = 1

    async def main(reactor: Any) -> None:
        nonlocal status
        log, stats = _open(reactor, loaded.settings)
        try:
            await log.open()
            await stats.open()
            status = await work(log, stats)
        finally:
            await stats.close()
            await log.close()

    def run(reactor: Any) -> Deferred[None]:
        done: Deferred[None] = ensureDeferred(main(reactor))
        return done.addErrback(
            lambda failure: print(f"kupool: {failure.getErrorMessage()}", file=sys.stderr)
        )

    try:
        _check(loaded)
        react(run)
    except Unusable as error:
        print(f"kupool: {error}", file=sys.stderr)
    except SystemExit as end:
        return status or (1 if end.code else 0)
    return status


def _check(loaded: Loaded) -> None:
    for name, file in (("mq", LOG_FILE), ("store", STORE_FILE)):
        value = getattr(loaded.settings, name)
        if value == "memory":
            raise Unusable(f"{name} is {value!r}: nothing is kept that could be looked at")
        path = Path(loaded.settings.data) / file
        if value == "sqlite" and not path.exists():
            raise Unusable(f"{path}: no such file; is --data the daemon's data folder?")
    try:
        check_engines(loaded)
    except SettingError as error:
        raise Unusable(str(error)) from None


def _open(reactor: Any, settings: Settings) -> tuple[Any, Any]:
    """Return the log and the counts, not opened; what waits in a spool is in neither."""
    folder = Path(settings.data)
    log: Any
    if settings.mq == "rabbit":
        log = make_rabbit(settings, reactor, time.time, required=True)
    else:
        log = SqliteLog(Database(reactor, folder / LOG_FILE, "log"), reactor, time.time)
    if settings.store == "pg":
        return log, PostgresStats(PostgresDatabase(reactor, settings.pg_dsn))
    return log, SqliteStats(Database(reactor, folder / STORE_FILE, "store"))


class Reading:
    """A progress bar over the entries of a log, where there is a terminal for it."""

    def __init__(self, text: str) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(text, total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        """Show the bar; returns what is called with (entries read, entries in all)."""
        self._progress.start()
        return lambda done, total: self._progress.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
