"""Checks a backup: the files match the manifest, and belong together."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from kupool.backup import BackupError, Bar, file_name
from kupool.backup.contents import Contents, check_agreement, merge, read_part
from kupool.backup.manifest import Manifest, read_manifest
from kupool.backup.topic_copies import copied_partitions
from kupool.storage.copies import CopyError, check_copy, check_regular, digest, open_copy


def check_backup(folder: Path, bar: Bar) -> tuple[Manifest, Contents]:
    """Read all of a backup and compare it with its manifest; raises :class:`BackupError`."""
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    bar.total(manifest.size)
    for part in manifest.parts:
        progress = bar.stage(f"Checking {file_name(part)}")
        try:
            found = digest(folder / file_name(part), progress)
            check_digest(folder, manifest, part, found)
            check_copy(folder / file_name(part))
        except CopyError as error:
            raise BackupError(str(error)) from error
    return manifest, check_contents(folder, manifest)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Check that every file is there, plain, and has its size; raises :class:`BackupError`."""
    for part in manifest.parts:
        path = folder / file_name(part)
        try:
            size = check_regular(path)
        except CopyError as error:
            raise BackupError(str(error)) from error
        expected = manifest.files[file_name(part)].size
        if size != expected:
            raise BackupError(f"{path}: it has {size:,} bytes instead of {expected:,}")
        for beside in ("-wal", "-journal"):
            other = folder / (file_name(part) + beside)
            if other.exists() and other.stat().st_size:
                raise BackupError(
                    f"{other}: this file is not part of the backup; somebody wrote to the folder"
                )


def check_digest(folder: Path, manifest: Manifest, part: str, found: str) -> None:
    """Raise :class:`BackupError` if a file does not match the manifest."""
    if found != manifest.files[file_name(part)].sha256:
        raise BackupError(f"{folder / file_name(part)}: its SHA-256 differs from the manifest")


def check_contents(folder: Path, manifest: Manifest) -> Contents:
    """Return the contents of the copies; raises :class:`BackupError` if they disagree."""
    contents = merge([_read(folder, part) for part in manifest.parts])
    check_agreement(contents)
    epoch = contents.identity.epoch if contents.identity is not None else ""
    if (contents.pool_id, epoch) != (manifest.pool_id, manifest.epoch):
        raise BackupError(
            f"{folder}: the manifest is of pool {manifest.pool_id}, the files of "
            f"{contents.pool_id}, or of another epoch"
        )
    if contents.topics is not None and copied_partitions(folder) != manifest.topics:
        raise BackupError(f"{folder}: the topics are not those of the manifest")
    return contents


def _read(folder: Path, part: str) -> Contents:
    path = folder / file_name(part)
    try:
        with closing(open_copy(path)) as connection:
            return read_part(connection, part)
    except (sqlite3.Error, CopyError) as error:
        raise BackupError(f"{path}: {error}") from error


__all__ = ["check_backup", "check_contents", "check_digest", "check_files"]
