"""Replaces files by others so that an interruption can be repaired.

A note in the folder says which files are being replaced. While it is there, the files may be of two
different moments, and nobody may use them. :func:`finish` continues the work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from kupool.backup import BackupError
from kupool.storage.copies import CopyError, sync_folder, write_file

#: The name of the note.
NOTE = "restoring.json"


class Switch(msgspec.Struct):
    """Files that move from the folder ``staging`` to their places, while the old ones move to the
    folder ``replaced``. Both are in the data folder; ``source`` is the backup.
    """

    source: str
    staging: str
    replaced: str
    files: list[str]


def unfinished(folder: Path) -> Switch | None:
    """Return the unfinished switch of a folder, if any; raises :class:`BackupError`."""
    path = folder / NOTE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Switch)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BackupError(f"{path}: {error}") from error


def check_finished(folder: Path) -> None:
    """Raise :class:`BackupError` if a folder has an unfinished switch."""
    begun = unfinished(folder)
    if begun is not None:
        raise BackupError(
            f"{folder}: a restore was interrupted, and its files are from two moments; "
            f"'kupool restore {begun.source}' finishes it"
        )


def begin(folder: Path, source: Path, staging: Path, files: Sequence[str]) -> Switch:
    """Write the note of a switch; raises :class:`BackupError`."""
    replaced = _new_folder(folder)
    switch = Switch(os.fspath(source), staging.name, replaced.name, list(files))
    pending = folder / f"{NOTE}.new"
    try:
        pending.unlink(missing_ok=True)
        write_file(pending, msgspec.json.encode(switch))
        sync_folder(staging)
        sync_folder(folder)
        os.rename(pending, folder / NOTE)
    except (CopyError, OSError) as error:
        raise BackupError(f"{folder}: {error}") from error
    return switch


def _new_folder(folder: Path) -> Path:
    name = f"replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    for number in range(1, 1000):
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise BackupError(f"{path}: {error.strerror}") from error
        own(path, folder)
        return path
    raise BackupError(f"{folder}: too many folders {name}")


def finish(folder: Path, switch: Switch) -> None:
    """Do the rest of a switch; raises :class:`BackupError`, and may be called again."""
    staging, replaced = folder / switch.staging, folder / switch.replaced
    try:
        sync_folder(folder)  # the note has to be durable before any file moves
        for name in switch.files:
            if not (staging / name).exists():
                continue  # already in its place
            # Move the files beside the old one first: the new file must not be used with them.
            for old in (*_beside(folder, name), name):
                if os.path.lexists(folder / old):
                    os.rename(folder / old, replaced / old)
            sync_folder(replaced)
            os.rename(staging / name, folder / name)
        sync_folder(folder)
        (folder / NOTE).unlink()
        staging.rmdir()
        if not any(replaced.iterdir()):
            replaced.rmdir()
        sync_folder(folder)
    except (CopyError, OSError) as error:
        raise BackupError(f"{folder}: {error}; run the restore again") from error


def _beside(folder: Path, name: str) -> list[str]:
    """Return the names of the files beside a database, such as its ``-wal``."""
    return sorted(other for other in os.listdir(folder) if other.startswith(f"{name}-"))


def own(path: Path, folder: Path) -> None:
    """Give a file the owner of its folder, if root runs the command."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


__all__ = ["NOTE", "Switch", "begin", "check_finished", "finish", "own", "unfinished"]
