"""``kupool migrate``: move a pool from one pair of engines to another."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater, react

from kupool.amqp import BrokerError
from kupool.commands.console import complain, make_console, say
from kupool.commands.data_files import missing_file
from kupool.commands.migrate_topics import (
    TopicMigration,
    TopicPlace,
    is_running,
    moves_topics,
    tell_copied,
    topic_place,
)
from kupool.daemon.engines import check_engines
from kupool.daemon.files import LOG_FILE, SPOOL_FILE, STORE_FILE, has_spool
from kupool.log import LogUnavailable
from kupool.log.sqlite import SqliteLog
from kupool.migration import CannotMove
from kupool.migration.logs import LogSide
from kupool.migration.moving import Move, Side, moved_positions, undo
from kupool.migration.positions import Unmoved
from kupool.migration.reports import Compared
from kupool.migration.sqlite_log import SqliteLogSide
from kupool.migration.sqlite_store import SqliteStore
from kupool.migration.store import Store
from kupool.migration.topic_notes import forget_away
from kupool.settings import Loaded, SettingError, Settings, StorageSettings, load, value_of
from kupool.storage.database import Database, DatabaseUnusable
from kupool.storage.database import connect as connect_file
from kupool.storage.folder import DataFolder, FolderError
from kupool.storage.migrations import SchemaTooNew
from kupool.timing.waiting import and_then
from kupool.topics.errors import TopicError

#: Expected failures, whose text explains them.
_TROUBLE = (
    CannotMove,
    BrokerError,
    LogUnavailable,
    TopicError,
    DatabaseUnusable,
    SchemaTooNew,
    FolderError,
    SettingError,
)


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    text = "move a pool to another log, store or engine of topics"
    parser = subparsers.add_parser(
        "migrate", help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    parser.set_defaults(func=run)
    for name, what in (("from", "current"), ("to", "new")):
        parser.add_argument(
            f"--{name}", dest=f"settings_{name}", metavar="SETTINGS", help=f"{what} settings file"
        )
    parser.add_argument(
        "--undo",
        action="store_true",
        help="let the daemon start with the old settings again; without --to, the new side is gone",
    )


def run(arguments: argparse.Namespace) -> int:
    """Move, or undo a move; the status is 1 if that failed."""
    old, new = arguments.settings_from, arguments.settings_to
    if not old or not (new or arguments.undo):
        complain(
            "migrate needs --from SETTINGS and --to SETTINGS, the daemon's current settings file "
            "and its new one; see kupool migrate --help"
        )
        return 2
    status = 1

    async def main(reactor: Any) -> None:
        nonlocal status
        with ExitStack() as stack:
            opened = _Opened(reactor, stack)
            if arguments.undo:
                _undo(opened, old, new)
            else:
                await _migrate(reactor, opened, old, new)
        status = 0

    def begin(reactor: Any) -> Any:
        return ensureDeferred(main(reactor)).addErrback(_explain)

    try:
        react(begin)
    except SystemExit as end:
        return status or (1 if end.code else 0)
    return status


async def _migrate(reactor: Any, opened: _Opened, old: str, new: str) -> None:
    """Move topics, and then the log and the store; of a daemon that runs, topics only."""
    before, after = _load(old), _load(new)
    topics = opened.topics(topic_place(old, before.settings), topic_place(new, after.settings))
    if topics is not None and is_running(before.settings):
        await _move_topics(topics, running=True, log_position=Unmoved())
        return
    source = opened.side(old, before, new=False)
    target = opened.side(new, after, new=True)
    log_position: Callable[[int], int] = Unmoved()
    if topics is not None:
        topics.begin()
    if topics is None or not source.same_place(target):
        await _move(reactor, source, target, before.settings)
        log_position = moved_positions(target.store)
    if topics is not None:
        await _move_topics(topics, running=False, log_position=log_position)
        topics.finish()
    say(f"Start the daemon with --config {target.name}")


async def _move_topics(
    topics: TopicMigration, *, running: bool, log_position: Callable[[int], int]
) -> None:
    with TerminalBar() as bar:
        copied = await topics.copy(bar, running=running, log_position=log_position)
    tell_copied(copied, topics.old, topics.new)
    if not running and copied is not None:
        say(f"{copied.positions:,} positions of groups were moved")
    elif copied is not None:
        say(
            "The daemon runs: what it writes from now on is not copied yet. Stop it and run the "
            "same command again, which moves the rest"
        )


def _undo(opened: _Opened, old: str, new: str) -> None:
    """Let the daemon start with the old settings again."""
    before, after = _load(old), _load(new) if new else None
    place = topic_place(old, before.settings)
    topics = None
    if after is not None:
        topics = opened.topics(place, topic_place(new, after.settings))
    source = opened.side(old, before, new=False)
    target = opened.side(new, after, new=True) if after is not None else None
    if topics is None or target is None or not source.same_place(target):
        undo(source, target, time.time)
    if topics is not None:
        topics.undo()
    else:
        forget_away(place.side.file)
    say(f"The daemon starts with {old} again")


def _explain(failure: Any) -> None:
    from kupool.storage.postgres.blocking import trouble
    from kupool.storage.postgres.trouble import explain

    error = failure.value
    if isinstance(error, trouble()):
        complain(f"PostgreSQL: {explain(error)}")
    elif isinstance(error, (*_TROUBLE, OSError)):
        complain(" ".join(str(error).split()))
    else:
        failure.printTraceback(file=sys.stderr)


def _load(path: str) -> Loaded:
    """Return the settings of a file only: environment and flags would change both sides."""
    loaded = load({"config": path}, {})
    for name in ("mq", "store"):
        if value_of(loaded.settings, name) == "memory":
            raise CannotMove(f"{path}: {name} is 'memory', which stores nothing on disk")
    check_engines(loaded)
    return loaded


class _Opened:
    """Opens stores and logs; each folder and each of them only once."""

    def __init__(self, reactor: Any, stack: ExitStack) -> None:
        self._reactor = reactor
        self._stack = stack
        self._folders: set[Path] = set()
        self._databases: dict[object, Store] = {}
        self.settings: dict[str, Settings] = {}

    def side(self, name: str, loaded: Loaded, *, new: bool) -> Side:
        """Open the store of some settings, and prepare their log; ``new`` allows empty ones."""
        settings = self.settings[name] = loaded.settings
        folder = Path(settings.storage.data)
        files = {STORE_FILE: settings.storage.kind, LOG_FILE: settings.log.kind}
        wanted = [folder / file for file, kind in files.items() if kind == "sqlite"]
        if not new:
            for path in wanted:
                problem = missing_file(path, f"'data' of {name}")
                if problem:
                    raise CannotMove(problem)
        if (wanted or has_spool(settings.log)) and (new or folder.exists()):
            self.lock(folder)
        _refuse_spool(folder / SPOOL_FILE)
        store = self._store(settings.storage)
        return Side(str(Path(name).resolve()), store, self._log(settings))

    def topics(self, old: TopicPlace, new: TopicPlace) -> TopicMigration | None:
        """Return the move of topics between two places; None if there are none to move."""
        if not moves_topics(old, new):
            return None
        if new.side.file.parent.resolve() != old.side.file.parent.resolve():
            self.lock(new.side.file.parent)
        found = TopicMigration(self._reactor, old, new)
        self._stack.callback(found.close)
        return found

    def lock(self, folder: Path) -> None:
        """Lock a data folder, unless this was done before."""
        if folder.resolve() not in self._folders:
            data = DataFolder(folder)
            data.open()
            self._stack.callback(data.close)
            self._folders.add(folder.resolve())

    def _store(self, settings: StorageSettings) -> Store:
        if settings.kind == "pg":
            return self._database(settings.pg_dsn)
        path = Path(settings.data) / STORE_FILE
        Database(self._reactor, path, "store").check()
        store = SqliteStore(path)
        self._stack.callback(store.close)
        return store

    def _database(self, dsn: str) -> Store:
        """Open a database, or return it if it is open already."""
        from kupool.migration.postgres_store import PostgresStore
        from kupool.storage.postgres import PostgresDatabase

        PostgresDatabase(self._reactor, dsn).check()
        store = PostgresStore(dsn)
        if store.place in self._databases:
            store.close()
            return self._databases[store.place]
        self._databases[store.place] = store
        self._stack.callback(store.close)
        store.keep_daemons_off()
        return store

    def _log(self, settings: Settings) -> LogSide:
        if settings.log.kind == "rabbit":
            from kupool.daemon.rabbit_log import topology  # imports the framework as well
            from kupool.migration.rabbit_log import RabbitLogSide

            queues = topology(settings.log, settings.submissions)
            return RabbitLogSide(self._reactor, settings.log.url, queues)
        return SqliteLogSide(Path(settings.storage.data) / LOG_FILE)


def _refuse_spool(path: Path) -> None:
    """Refuse a spool with entries: accepted submissions in it are in no log yet."""
    if not path.exists():
        return
    Database(None, path, "spool").check()
    connection = connect_file(path)
    try:
        (count,) = connection.execute("SELECT count(*) FROM spooled").fetchone()
    finally:
        connection.close()
    if count:
        raise CannotMove(
            f"{path} holds {count} entries that are not in the log yet; start the daemon with the "
            "old settings once more while RabbitMQ runs, and stop it with SIGTERM"
        )


async def _move(reactor: Any, source: Side, target: Side, settings: Settings) -> None:
    log: Any
    if settings.log.kind == "rabbit":
        from kupool.daemon.rabbit_log import make_rabbit

        log = make_rabbit(settings.log, settings.submissions, reactor, time.time, required=True)
    else:
        log = SqliteLog(
            Database(reactor, Path(settings.storage.data) / LOG_FILE, "log"), reactor, time.time
        )
    same = source.log.place == target.log.place
    sides = [source.log] if same else [source.log, target.log]

    async def move() -> list[Compared]:
        for side in sides:
            await side.open()
        await log.open()
        with TerminalBar() as bar:
            return await Move(
                source,
                target,
                log,
                bar,
                pause=lambda: deferLater(reactor, 0),
                wall=time.time,
                new_id=lambda: secrets.token_hex(16),
            ).run()

    async def close() -> None:
        await log.close()
        for side in sides:
            await side.close()

    _tell(await and_then(move(), close), source, target)


def _tell(compared: list[Compared], source: Side, target: Side) -> None:
    if not compared:
        say(f"Everything was moved to {target.shown} before")
    for found in compared:
        if not found.number:
            continue
        total = "" if found.total is None else f", {found.total:,} in all"
        say(f"{found.name}: {found.number:,}{total}, sha256 {found.checksum[:16]}, equal")
    if compared:
        say(f"Moved {source.shown} to {target.shown}")


class TerminalBar:
    """A progress bar with an estimate, on a terminal."""

    def __init__(self) -> None:
        console = make_console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> TerminalBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, text: str, total: int) -> None:
        """A step of the move begins."""
        if self._task is not None:
            self._progress.update(self._task, visible=False)
        self._task = self._progress.add_task(text, total=total or None)

    def advance(self, steps: int) -> None:
        """This amount of work is done."""
        if self._task is not None:
            self._progress.advance(self._task, steps)
