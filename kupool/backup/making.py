"""Makes a backup of a data folder that a daemon may be writing to."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from kupool import __version__
from kupool.backup import BackupError, Bar, file_name
from kupool.backup.checking import check_contents
from kupool.backup.contents import PARTS, Contents, check_agreement, merge, read_part
from kupool.backup.manifest import (
    FORMAT,
    FORMAT_WITHOUT_TOPICS,
    MANIFEST,
    CopiedFile,
    Manifest,
    encode_manifest,
    time_text,
)
from kupool.backup.topic_copies import copied_partitions
from kupool.storage.copies import (
    CopyError,
    FileSnapshot,
    check_copy,
    digest,
    require_room,
    sync_folder,
    write_file,
)

#: How often the files are read until they agree, and the seconds between: a daemon that starts
#: writes a new epoch into one after the other.
ATTEMPTS, PAUSE = 5, 0.5


class Source(NamedTuple):
    """What to back up: the parts of a data folder, with the settings ``mq`` and ``store``."""

    folder: Path
    parts: Sequence[str]
    mq: str
    store: str


def make_backup(source: Source, target: Path, bar: Bar, wall: Callable[[], float]) -> Manifest:
    """Copy the files to the new folder ``target``, as of one moment; returns the manifest.

    The folder gets its name once it is complete, checked and on disk. Raises :class:`BackupError`,
    and then leaves nothing behind. ``wall`` returns seconds since the epoch.
    """
    check_target(target)
    try:
        with ExitStack() as stack:
            snapshots, contents = _look(source)
            for snapshot in snapshots.values():
                stack.callback(snapshot.close)
            made_at = time_text(wall())
            size = sum(snapshot.size for snapshot in snapshots.values())
            require_room(target.parent, size)
            bar.total(2 * size)
            partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
            stack.callback(shutil.rmtree, partial, ignore_errors=True)
            files = _copy(snapshots, partial, bar)
            manifest = _manifest(source, contents, made_at, files)
            if contents.topics is not None:
                manifest.topics = copied_partitions(partial)
            if contents.topics is not None or contents.topics_rabbit is not None:
                manifest.format = FORMAT
            if check_contents(partial, manifest) != contents:
                raise BackupError("the copies differ from the files; try again")
            write_file(partial / MANIFEST, encode_manifest(manifest))
            sync_folder(partial)
            os.rename(partial, target)
            sync_folder(target.parent)
            return manifest
    except CopyError as error:
        raise BackupError(str(error)) from error
    except OSError as error:
        raise BackupError(f"{target}: {error.strerror}") from error


def check_target(target: Path) -> None:
    """Raise :class:`BackupError` unless the folder can be created, or exists and is empty."""
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise BackupError(f"{target}: there is no folder {target.parent}") from None
        return
    except OSError as error:
        raise BackupError(f"{target}: {error.strerror}") from None
    if stat.S_ISLNK(found.st_mode):
        raise BackupError(f"{target}: this is a symbolic link; name a new folder")
    if not stat.S_ISDIR(found.st_mode):
        raise BackupError(f"{target}: this is not a folder; name a new folder")
    if target.is_mount():
        raise BackupError(f"{target}: a file system is mounted there; name a new folder in it")
    try:
        empty = not any(os.scandir(target))
    except OSError as error:
        raise BackupError(f"{target}: {error.strerror}") from None
    if not empty:
        raise BackupError(f"{target}: this folder is not empty; name a new folder")


def _look(source: Source) -> tuple[dict[str, FileSnapshot], Contents]:
    """Find a moment at which the files agree; returns their snapshots and contents."""
    for attempt in range(ATTEMPTS):
        snapshots: dict[str, FileSnapshot] = {}
        try:
            for part in (part for part in PARTS if part in source.parts):
                snapshots[part] = FileSnapshot(source.folder / file_name(part))
            contents = merge([_read(snapshot, part) for part, snapshot in snapshots.items()])
            check_agreement(contents)
        except BaseException as error:
            for snapshot in snapshots.values():
                snapshot.close()
            if not isinstance(error, BackupError) or attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE)
        else:
            return snapshots, contents
    raise AssertionError("unreachable")


def _read(snapshot: FileSnapshot, part: str) -> Contents:
    try:
        return read_part(snapshot.connection, part)
    except sqlite3.Error as error:
        raise CopyError(f"{snapshot.path}: {error}") from error


def _copy(snapshots: dict[str, FileSnapshot], folder: Path, bar: Bar) -> dict[str, CopiedFile]:
    """Copy the snapshots, and check the copies.

    The log, which grows most, is first: until it is copied, its ``-wal`` keeps growing.
    """
    for part, snapshot in reversed(snapshots.items()):
        name = file_name(part)
        snapshot.copy(folder / name, bar.stage(f"Copying {name}"))
        snapshot.close()
    files = {}
    for part in reversed(snapshots):
        path = folder / file_name(part)
        progress = bar.stage(f"Checking {path.name}")
        check_copy(path)
        files[path.name] = CopiedFile(path.stat().st_size, digest(path, progress))
    return files


def _manifest(
    source: Source, contents: Contents, made_at: str, files: dict[str, CopiedFile]
) -> Manifest:
    log, store, spool, identity = (
        contents.log,
        contents.store,
        contents.spool,
        contents.identity,
    )
    return Manifest(
        format=FORMAT_WITHOUT_TOPICS,
        kupool=__version__,
        made_at=made_at,
        mq=source.mq,
        store=source.store,
        pool_id=contents.pool_id,
        epoch=identity.epoch if identity is not None else "",
        log_first=log.first if log is not None else 0,
        log_last=log.last if log is not None else 0,
        counted_to=store.mark if store is not None else 0,
        spooled=spool.waiting if spool is not None else 0,
        dead_letters=log.dead_letters if log is not None else 0,
        files=files,
    )


__all__ = ["Source", "check_target", "make_backup"]
