"""The manifest of a backup: ``backup.json``, which says what the other files are.

It is written last, so that a folder without one is no backup.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from kupool.backup import BackupError, file_name
from kupool.backup.contents import PARTS

#: The name of the file.
MANIFEST = "backup.json"

#: The newest version of the manifest that this release reads.
FORMAT = 2

#: The version that it writes if there are no topics, which older releases read.
FORMAT_WITHOUT_TOPICS = 1

#: The largest size of a manifest in bytes.
LARGEST = 1024 * 1024


class CopiedFile(msgspec.Struct):
    """A copy: its size in bytes, and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class CopiedPartition(msgspec.Struct):
    """A partition of a topic: offsets from ``low`` up to, but without, ``high``, its batches and
    their records.
    """

    topic: str
    partition: int
    low: int
    high: int
    batches: int
    records: int


class Manifest(msgspec.Struct):
    """The contents of a backup. ``mq`` and ``store`` are the settings that it was made with.

    ``log_first`` and ``log_last`` are the positions in the log, ``counted_to`` is the position up
    to which the store has counted; ``spooled`` and ``dead_letters`` are numbers of batches.
    ``topics`` has the partitions of all topics; a backup of an older release has none.
    """

    format: int
    kupool: str
    made_at: str
    mq: str
    store: str
    pool_id: str
    epoch: str
    log_first: int
    log_last: int
    counted_to: int
    spooled: int
    dead_letters: int
    files: dict[str, CopiedFile]
    topics: list[CopiedPartition] = []

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that are in the backup."""
        return tuple(part for part in PARTS if file_name(part) in self.files)

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(file.size for file in self.files.values())

    @property
    def made(self) -> float:
        """When the backup was made, in seconds since the epoch."""
        return datetime.fromisoformat(self.made_at).timestamp()


def time_text(seconds: float) -> str:
    """Return seconds since the epoch as UTC in the manifest's format."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the text of the manifest's file."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a backup; raises :class:`BackupError`."""
    path = folder / MANIFEST
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            text = file.read(LARGEST)
    except FileNotFoundError:
        what = "it has no backup.json" if folder.is_dir() else "there is no such folder"
        raise BackupError(f"{folder}: not a backup: {what}") from None
    except NotADirectoryError:
        raise BackupError(f"{folder}: not a backup: this is not a folder") from None
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}") from None
    return _decode(path, text)


def _decode(path: Path, text: bytes) -> Manifest:
    class Form(msgspec.Struct):
        format: int

    try:
        form = msgspec.json.decode(text, type=Form).format
        if form > FORMAT:
            raise BackupError(f"{path}: form {form} is of a newer version; this one reads {FORMAT}")
        manifest = msgspec.json.decode(text, type=Manifest)
        _ = manifest.made
    except (ValueError, OverflowError, RecursionError) as error:
        raise BackupError(f"{path}: not a manifest: {error}") from None
    unknown = set(manifest.files) - {file_name(part) for part in PARTS}
    if unknown or not manifest.files:
        raise BackupError(
            f"{path}: it names files that do not belong to a backup: {sorted(unknown)}"
        )
    return manifest


__all__ = [
    "FORMAT",
    "FORMAT_WITHOUT_TOPICS",
    "MANIFEST",
    "CopiedFile",
    "CopiedPartition",
    "Manifest",
    "encode_manifest",
    "read_manifest",
    "time_text",
]
