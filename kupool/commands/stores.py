"""Opens the daemon's log and store for commands that read or repair them.

Files are read through connections that change nothing. For a repair they are opened as the daemon
opens them, and only if the daemon of this version has created or updated them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.commands.console import complain
from kupool.commands.data_files import missing_file
from kupool.daemon.engines import check_engines
from kupool.daemon.files import LOG_FILE, SPOOL_FILE, STORE_FILE, has_spool
from kupool.log import Entry, ISpool
from kupool.log.spool_file import read_spooled
from kupool.log.sqlite import SqliteLog
from kupool.settings import Loaded, SettingError, Settings, StorageSettings, value_of
from kupool.stats.sqlite import SqliteStats
from kupool.storage.database import Database
from kupool.storage.reading import ReadOnlyDatabase
from kupool.timing.waiting import and_then


class Stores(NamedTuple):
    """The log and the store for a command. ``spool`` is None if these settings have none."""

    reactor: Any
    log: Any
    stats: Any
    spool: Any


#: Work on the open stores; returns an exit status.
StoresWork = Callable[[Stores], Awaitable[int]]


class Unusable(Exception):
    """Something that the command needs is missing; says what."""


def with_stores(loaded: Loaded, work: StoresWork, *, writing: bool = False) -> int:
    """Open the log and the store of the daemon, which may be running, and do some work.

    The store can be changed only with ``writing``; the log never is. Returns the exit status;
    prints in one line what went wrong.
    """
    status = 1
    no_reader = False

    async def main(reactor: Any) -> None:
        nonlocal status
        settings = loaded.settings
        if writing and settings.storage.kind == "sqlite":
            await _check_version(reactor, Path(settings.storage.data) / STORE_FILE)
        stores = _make(reactor, settings, writing)
        status = await and_then(_work(stores, work), lambda: _close(stores))

    def run(reactor: Any) -> Deferred[None]:
        done: Deferred[None] = ensureDeferred(main(reactor))
        return done.addErrback(explain)

    def explain(failure: Failure) -> None:
        nonlocal no_reader
        if failure.check(BrokenPipeError):
            no_reader = True
        else:
            text = " ".join(failure.getErrorMessage().split())
            complain(text or repr(failure.value))

    try:
        _check(loaded)
        react(run)
    except Unusable as error:
        complain(str(error))
    except SystemExit as end:
        status = status or (1 if end.code else 0)
    if no_reader:
        raise BrokenPipeError
    return status


async def _work(stores: Stores, work: StoresWork) -> int:
    for part in (stores.log, stores.stats, stores.spool):
        if part is not None:
            await part.open()
    return await work(stores)


async def _close(stores: Stores) -> None:
    for part in (stores.spool, stores.stats, stores.log):
        if part is not None:
            await part.close()


def _check(loaded: Loaded) -> None:
    for name, file in (("mq", LOG_FILE), ("store", STORE_FILE)):
        value = value_of(loaded.settings, name)
        if value == "memory":
            raise Unusable(
                f"{name} is {value!r}: there is nothing on disk for this command to read"
            )
        path = Path(loaded.settings.storage.data) / file
        problem = missing_file(path, "--data") if value == "sqlite" else ""
        if problem:
            raise Unusable(problem)
    try:
        check_engines(loaded)
    except SettingError as error:
        raise Unusable(str(error)) from None


async def _check_version(reactor: Any, path: Path) -> None:
    """Refuse a store that opening it would upgrade."""
    reading = ReadOnlyDatabase(reactor, path, "store")
    await and_then(reading.open(), reading.close)


def _make(reactor: Any, settings: Settings, writing: bool) -> Stores:
    """Return the log and the counts without opening them."""
    folder = Path(settings.storage.data)
    log: Any
    spool = None
    if settings.log.kind == "rabbit":
        from kupool.daemon.rabbit_log import make_rabbit  # imports the framework as well

        log = make_rabbit(settings.log, settings.submissions, reactor, time.time, required=True)
        path = folder / SPOOL_FILE
        if has_spool(settings.log) and path.exists():
            spool = SpoolReader(ReadOnlyDatabase(reactor, path, "spool"))
    else:
        log = SqliteLog(ReadOnlyDatabase(reactor, folder / LOG_FILE, "log"), reactor, time.time)
    if settings.storage.kind == "pg":
        from kupool.stats.postgres import PostgresStats
        from kupool.storage.postgres import PostgresDatabase

        stats: Any = PostgresStats(PostgresDatabase(reactor, settings.storage.pg_dsn, update=False))
    elif writing:
        stats = SqliteStats(Database(reactor, folder / STORE_FILE, "store"))
    else:
        stats = SqliteStats(ReadOnlyDatabase(reactor, folder / STORE_FILE, "store"))
    return Stores(reactor, log, stats, spool)


@implementer(ISpool)
class SpoolReader:
    """Reads the entries in the file of a daemon's spool."""

    def __init__(self, database: ReadOnlyDatabase) -> None:
        self._database = database

    def open(self) -> Deferred[None]:
        """Open the file."""
        return self._database.open()

    def read_spool(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` entries after a position in the spool."""
        return self._database.run(lambda connection: read_spooled(connection, after, limit))

    def close(self) -> Deferred[None]:
        """Close the file."""
        return self._database.close()


def temporary_folder(settings: StorageSettings) -> Path | None:
    """Return a folder for a large temporary file: ``TMPDIR``, or beside the data folder.

    The system's own place for temporary files may be in memory.
    """
    if os.environ.get("TMPDIR"):
        return None
    beside = Path(settings.data).absolute().parent
    for folder in (beside, Path("/var/tmp")):  # noqa: S108  # mkstemp makes the file in it
        if folder.is_dir() and os.access(folder, os.W_OK):
            return folder
    return None


__all__ = ["Stores", "StoresWork", "Unusable", "temporary_folder", "with_stores"]
