"""Restores a backup into a data folder that no daemon uses."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from kupool.backup import BackupError, Bar, file_name
from kupool.backup.checking import check_contents, check_digest, check_files
from kupool.backup.comparing import highest_position, next_job, objections
from kupool.backup.contents import OPTIONAL, Contents, merge, read_part
from kupool.backup.manifest import Manifest, read_manifest
from kupool.backup.rabbit_positions import newer_positions, pass_over_numbers
from kupool.backup.switching import begin, finish, own
from kupool.backup.topic_copies import newer_topics, pass_over_offsets
from kupool.log import Identity
from kupool.storage.copies import (
    BESIDE,
    CopyError,
    check_copy,
    check_regular,
    copy_file,
    require_room,
)
from kupool.storage.migrations import SchemaTooNew, migrate


class Into(NamedTuple):
    """A data folder, the parts that its settings need, and the seconds between its jobs."""

    folder: Path
    parts: Sequence[str]
    interval: float


class Restored(NamedTuple):
    """The result of a restore.

    The new epoch begins after ``begins_after``. Job ids continue from ``next_job``. Both are 0 if
    the backup has no such part. ``replaced`` is the folder with the old files, None if there were
    none. ``there`` are their contents, and ``forced`` the objections to replacing them.
    """

    manifest: Manifest
    begins_after: int
    next_job: int
    replaced: Path | None
    there: Contents
    forced: Sequence[str]


class Refused(BackupError):
    """The data in the folder should not be replaced; says why."""


def restore_backup(
    source: Path, into: Into, bar: Bar, wall: Callable[[], float], *, force: bool = False
) -> Restored:
    """Restore a backup and begin a new epoch; the caller has locked the folder.

    Raises :class:`Refused` if the folder has data that should not be replaced, unless with
    ``force``. Raises :class:`BackupError` if the backup is damaged or cannot be written there. The
    folder is then unchanged. ``wall`` returns seconds since the epoch.
    """
    manifest = read_manifest(source)
    into = _parts_to_restore(manifest, into)
    check_files(source, manifest)
    backup = check_contents(source, manifest)
    there, damage = _look(into)
    waiting = _waiting_only_there(source, into) if there.spool and backup.spool else 0
    reasons = [*damage, *objections(backup, there, waiting)]
    reasons += newer_topics(backup.topics or (), there.topics or ())
    reasons += newer_positions(backup.topics_rabbit, there.topics_rabbit)
    if reasons and not force:
        raise Refused(f"{into.folder}: {'; '.join(reasons)}")
    try:
        require_room(into.folder, manifest.size)
        staging = Path(tempfile.mkdtemp(prefix=".restoring-", dir=into.folder))
    except (CopyError, OSError) as error:
        raise BackupError(str(error)) from error
    try:
        _copy(source, manifest, staging, bar)
        job = _next_job(manifest, wall(), into, backup=backup, there=there) if backup.store else 0
        position = highest_position(backup, there) if backup.log else 0
        _begin_anew(staging, backup, position=position, job=job, now=wall())
        if backup.topics is not None:
            seconds = wall() - manifest.made
            _change(staging, "topics", lambda c: pass_over_offsets(c, there.topics or (), seconds))
        if backup.topics_rabbit is not None:
            _change(staging, "topics_rabbit", pass_over_numbers)
        for part in manifest.parts:
            own(staging / file_name(part), into.folder)
        switch = begin(into.folder, source, staging, [file_name(p) for p in manifest.parts])
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finish(into.folder, switch)
    replaced = into.folder / switch.replaced
    return Restored(
        manifest, position, job, replaced if replaced.is_dir() else None, there, reasons
    )


def _parts_to_restore(manifest: Manifest, into: Into) -> Into:
    """Return the target with the parts that the backup holds; raises :class:`BackupError` if the
    settings want others.
    """
    if set(manifest.parts) - OPTIONAL != set(into.parts) - OPTIONAL:
        held = " and ".join(sorted(manifest.files))
        wanted = " and ".join(sorted(file_name(part) for part in into.parts)) or "no file"
        raise BackupError(
            f"the backup holds {held}, and these settings want {wanted}: restore it with "
            f"--mq {manifest.mq} --store {manifest.store}, as it was made; 'kupool migrate' then "
            "moves it to other engines"
        )
    return into._replace(parts=manifest.parts)


def _look(into: Into) -> tuple[Contents, list[str]]:
    """Return the contents of the folder, and the files that cannot be read."""
    found, damage = [], []
    for part in into.parts:
        path = into.folder / file_name(part)
        if not os.path.lexists(path):
            continue
        try:
            check_regular(path)
        except CopyError as error:
            raise BackupError(f"{error}; move it away first") from error
        try:
            with closing(_open(path)) as connection:
                found.append(read_part(connection, part))
        except sqlite3.Error as error:
            damage.append(f"{path.name} cannot be read: {error}")
        except BackupError as error:
            damage.append(str(error))
    return merge(found), damage


def _open(path: Path) -> sqlite3.Connection:
    """Open a file that nobody uses, with its ``-wal``, without changing it."""
    uri = f"file:{quote(os.fspath(path))}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _waiting_only_there(source: Path, into: Into) -> int:
    """Return how many batches wait in the folder's spool that are not in the backup's."""
    name, query = file_name("spool"), "SELECT entry_id FROM spooled"
    try:
        with closing(_open(source / name)) as backup, closing(_open(into.folder / name)) as there:
            known = {entry_id for (entry_id,) in backup.execute(query)}
            return sum(entry_id not in known for (entry_id,) in there.execute(query))
    except sqlite3.Error as error:
        raise BackupError(f"{name}: {error}") from error


def _next_job(
    manifest: Manifest, now: float, into: Into, *, backup: Contents, there: Contents
) -> int:
    try:
        return next_job(manifest.made, now, into.interval, backup, there)
    except ValueError as error:
        raise BackupError(str(error)) from error


def _copy(source: Path, manifest: Manifest, staging: Path, bar: Bar) -> None:
    bar.total(manifest.size)
    try:
        for part in manifest.parts:
            name = file_name(part)
            progress = bar.stage(f"Copying {name}")
            check_digest(source, manifest, part, copy_file(source / name, staging / name, progress))
            check_copy(staging / name)
    except CopyError as error:
        raise BackupError(str(error)) from error


def _begin_anew(staging: Path, backup: Contents, *, position: int, job: int, now: float) -> None:
    """Begin a new epoch in the copies, after a position, with a job of this id."""
    identity = backup.identity
    if backup.log is not None and identity is not None:
        identity = identity.with_epoch(secrets.token_hex(16), position)
    for part in ("spool", "log", "store"):
        if getattr(backup, part) is None:
            continue
        path = staging / file_name(part)
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                migrate(connection, part)
                connection.execute("BEGIN IMMEDIATE")
                if part == "log" and identity is not None:
                    _write_epochs(connection, "epochs", identity)
                elif part == "store" and backup.store is not None:
                    if backup.log is not None and identity is not None:
                        _write_epochs(connection, "log_epochs", identity)
                    after = position if backup.log is not None else backup.store.mark
                    _retire_jobs(connection, job, after, now)
                connection.execute("COMMIT")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            _settle(path)
        except (sqlite3.Error, OSError, SchemaTooNew) as error:
            raise BackupError(f"{path.name}: {error}") from error


def _change(staging: Path, part: str, change: Callable[[sqlite3.Connection], None]) -> None:
    """Update the tables of a restored part, and change it in a transaction."""
    path = staging / file_name(part)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            migrate(connection, part)
            connection.execute("BEGIN IMMEDIATE")
            change(connection)
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _settle(path)
    except (sqlite3.Error, OSError, SchemaTooNew) as error:
        raise BackupError(f"{path.name}: {error}") from error


def _write_epochs(connection: sqlite3.Connection, table: str, identity: Identity) -> None:
    connection.execute(f"DELETE FROM {table}")
    connection.executemany(
        f"INSERT INTO {table} (number, epoch, begins_after) VALUES (?, ?, ?)",
        [(number, *epoch) for number, epoch in enumerate(identity.epochs)],
    )


def _retire_jobs(connection: sqlite3.Connection, job: int, position: int, now: float) -> None:
    """Leave one job, which nobody has seen: nonces used for others since are unknown."""
    connection.execute("DELETE FROM job_history")
    connection.execute(
        "INSERT INTO job_history (job_id, server_nonce, created_at, log_position) "
        "VALUES (?, ?, ?, ?)",
        (job, secrets.token_hex(16), now, position),
    )
    connection.execute(
        "INSERT INTO job_ids (only_row, reserved_until) VALUES (1, ?) "
        "ON CONFLICT (only_row) DO UPDATE SET reserved_until = excluded.reserved_until",
        (job,),
    )


def _settle(path: Path) -> None:
    """Make a changed file durable; raises ``OSError``."""
    left = [path.name + beside for beside in BESIDE if path.with_name(path.name + beside).exists()]
    if left:
        raise OSError(f"{left[0]} is still there")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["Into", "Refused", "Restored", "restore_backup"]
