"""The site whose log and store are SQLite files in the data folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tools.torture_accounts import Accounts, Row, Stored
from tools.torture_faults import Fault, shared_faults
from tools.torture_site import Site

_AT = "CAST(strftime('%s', timestamp) AS INTEGER)"
_ROWS = (
    f"SELECT username AS name, {_AT} AS minute, submission_count FROM submissions{{grain}} "
    f"UNION ALL SELECT username || '.' || worker, {_AT}, submission_count "
    "FROM worker_submissions{grain} WHERE worker <> ''"
)
_ALL_ROWS = " UNION ALL ".join(_ROWS.format(grain=grain) for grain in ("", "_hour", "_day"))


class FilesSite(Site):
    """SQLite log and SQLite store."""

    name = "sqlite"
    folder_is_the_log = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__(["--mq=sqlite", "--store=sqlite"], "256m", seed)
        self._locks: list[sqlite3.Connection] = []

    @property
    def log(self) -> Path:
        """The file of the log."""
        return self.daemon.data / "log.sqlite"

    @property
    def store(self) -> Path:
        """The file of the store."""
        return self.daemon.data / "store.sqlite"

    def make_accounts(self) -> Accounts:
        return Accounts(self.read, self.count, rolled=self.rolled)

    def read(self, start: int) -> tuple[list[Stored], int]:
        """Return the log from a position on, and the number of dead letters."""
        with _opened(self.log) as log:
            found = log.execute(
                "SELECT position, entry_id, body FROM entries WHERE position >= ? "
                "ORDER BY position",
                (start,),
            ).fetchall()
            (dead,) = log.execute("SELECT count(*) FROM dead_letters").fetchone()
        return [Stored(*row) for row in found], dead

    def count(self, since: int) -> Sequence[tuple[str, int, int]]:
        """Return the rows of every resolution from a minute on."""
        with _opened(self.store) as store:
            found: list[tuple[str, int, int]] = store.execute(
                f"SELECT * FROM ({_ALL_ROWS}) WHERE minute >= ?", (since,)
            ).fetchall()
        return found

    def rows(self) -> list[Row]:
        with _opened(self.store) as store:
            return sorted(Row(*row) for row in store.execute(_ROWS.format(grain="")))

    def rolled(self) -> int:
        """Return the minute before which minutes are rolled up."""
        with _opened(self.store) as store:
            found = store.execute(
                "SELECT CAST(strftime('%s', before) AS INTEGER) FROM rollups"
            ).fetchone()
        return found[0] if found else 0

    def set_row(self, row: Row, count: int | None) -> None:
        user, _, worker = row.name.partition(".")
        at = datetime.fromtimestamp(row.minute, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table, key, values = "submissions", "username", [user]
        if worker:
            table, key, values = "worker_submissions", "username, worker", [user, worker]
        marks = ", ".join("?" * len(values))
        with _opened(self.store, "rw") as store, store:
            store.execute(
                f"DELETE FROM {table} WHERE ({key}, timestamp) = ({marks}, ?)", (*values, at)
            )
            if count is not None:
                store.execute(
                    f"INSERT INTO {table} ({key}, timestamp, submission_count) "
                    f"VALUES ({marks}, ?, ?)",
                    (*values, at, count),
                )

    def claimed(self) -> set[int]:
        with _opened(self.log) as log, _opened(self.store) as store:
            (first,) = log.execute("SELECT coalesce(min(position), 1) FROM entries").fetchone()
            return {
                minute
                for minute, after in store.execute(
                    "SELECT minute, after_position FROM counted_minutes"
                )
                if after >= first - 1
            }

    # -- what is done to them

    def copy_log(self, target: Path) -> bool:
        _copy(self.log, target)
        return True

    def copy_store(self, target: Path) -> None:
        _copy(self.store, target)

    def put_store(self, source: Path) -> None:
        _put(source, self.store)

    def move_log(self) -> None:
        """Move the log away, after an end in order."""

        def take() -> None:
            for path in _files(self.log):
                shutil.move(path, self.new_path(path.name))

        self.take_log(take)

    def replace_log(self) -> None:
        """Put an older copy of the log in its place, after an end in order."""
        copy = self.some_log_copy()
        self.take_log(lambda: _put(copy, self.log))

    def lock(self, path: Path) -> None:
        """Keep everybody else from writing to a file."""
        with contextlib.suppress(sqlite3.OperationalError):  # the folder may be away
            connection = sqlite3.connect(
                f"file:{path}?mode=rw", uri=True, timeout=5, check_same_thread=False
            )
            self._locks.append(connection)
            connection.execute("BEGIN IMMEDIATE")

    def unlock(self) -> None:
        """Let others write."""
        while self._locks:
            self._locks.pop().close()

    def heal_services(self) -> None:
        self.unlock()
        super().heal_services()

    def audit_flags(self) -> list[str]:
        return [f"--data={self.daemon.data}"]

    def faults(self) -> list[Fault]:
        """Return every fault of this site."""
        return [
            *shared_faults(self),
            Fault("disk full", "disk", self.fill_disk, self.clear_disk, (0.7, 3.0), 2),
            Fault("log locked", "lock", lambda: self.lock(self.log), self.unlock, (0.5, 5.0), 2),
            Fault(
                "store locked", "lock", lambda: self.lock(self.store), self.unlock, (0.5, 5.0), 2
            ),
            Fault("log moved", "daemon", self.move_log, self.start_daemon, (0, 0.2), 2, True),
            Fault("log older", "daemon", self.replace_log, self.start_daemon, (0, 0.2), 2, True),
            Fault(
                "store older", "daemon", self.replace_store, self.start_daemon, (0, 0.2), 3, True
            ),
        ]


@contextlib.contextmanager
def _opened(path: Path, mode: str = "ro") -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"file:{path}?mode={mode}", uri=True, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def _files(path: Path) -> list[Path]:
    """Return a database's files that are there."""
    names = (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"))
    return [file for file in names if file.exists()]


def _copy(source: Path, target: Path) -> None:
    """Copy a database that may be written to meanwhile."""
    with _opened(source) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _put(source: Path, target: Path) -> None:
    """Replace a database by a copy of it."""
    for path in _files(target):
        os.unlink(path)
    shutil.copy(source, target)


__all__ = ["FilesSite"]
