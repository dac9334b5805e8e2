"""Copies SQLite files while others write to them, checks the copies and makes them durable.

Everything here blocks: it is for commands, not for the reactor.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote

#: Pages copied in one step; a page has 4 KiB.
STEP = 256

#: Bytes after which a copy is forced to disk. More at once would keep the disk busy and delay
#: everybody who writes to it.
SYNC_BYTES = 4 * 1024 * 1024

#: The longest rest in seconds after that. Half of the time the disk is left to others.
LONGEST_REST = 1.0

#: Bytes read and written at once.
CHUNK = 1024 * 1024

#: The files that SQLite keeps beside a database.
BESIDE = ("-wal", "-shm", "-journal")

#: Gets the number of bytes handled since the last call.
Progress = Callable[[int], None]


class CopyError(Exception):
    """A file cannot be copied, or a copy is damaged; says which and why."""


def nothing(_: int) -> None:
    """Show no progress."""


class FileSnapshot:
    """The content of a SQLite file at one moment, unaffected by later writes.

    It lasts until it is closed. Writers do not wait for it; the file's ``-wal`` grows meanwhile.
    """

    def __init__(self, path: Path) -> None:
        """Take the snapshot; raises :class:`CopyError`."""
        self.path = path
        try:
            self.connection = sqlite3.connect(
                f"file:{quote(os.fspath(path))}?mode=rw", uri=True, isolation_level=None, timeout=30
            )
        except sqlite3.Error as error:
            raise CopyError(f"{path}: {error}") from error
        try:
            self.connection.execute("PRAGMA query_only=ON")
            self.connection.execute("BEGIN")
            # The transaction begins with the first read.
            self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (pages,) = self.connection.execute("PRAGMA page_count").fetchone()
            (size,) = self.connection.execute("PRAGMA page_size").fetchone()
        except sqlite3.Error as error:
            self.connection.close()
            raise CopyError(f"{path}: {error}") from error
        #: The size of a copy in bytes.
        self.size: int = pages * size

    def copy(self, target: Path, progress: Progress = nothing) -> None:
        """Write the snapshot to a new file, durably; raises :class:`CopyError`."""
        descriptor = create(target)
        try:
            with closing(sqlite3.connect(target, isolation_level=None)) as copy:
                # Nothing reads the copy before it is complete, and on disk.
                copy.execute("PRAGMA synchronous=OFF")
                copy.execute("PRAGMA journal_mode=OFF")
                self._copy(copy, descriptor, progress)
            os.fsync(descriptor)
        except (sqlite3.Error, OSError) as error:
            raise CopyError(f"{target}: {_text(error)}") from error
        finally:
            os.close(descriptor)

    def _copy(self, copy: sqlite3.Connection, descriptor: int, progress: Progress) -> None:
        done = synced = 0
        began = time.monotonic()

        def stepped(_: int, remaining: int, total: int) -> None:
            nonlocal done, synced, began
            now = self.size * (total - remaining) // max(total, 1)
            progress(now - done)
            done = now
            if done - synced >= SYNC_BYTES:
                os.fsync(descriptor)
                synced = done
                time.sleep(min(LONGEST_REST, time.monotonic() - began))
                began = time.monotonic()

        self.connection.backup(copy, pages=STEP, progress=stepped)

    def close(self) -> None:
        """Release the snapshot; may be called again."""
        self.connection.close()


def create(path: Path) -> int:
    """Create a file with access for its owner only, and return its descriptor.

    Raises :class:`CopyError` if it cannot be created or exists already.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise CopyError(f"{path}: {_text(error)}") from error


def open_copy(path: Path) -> sqlite3.Connection:
    """Open a copy, to which nobody writes, for reading; raises :class:`CopyError`."""
    try:
        return sqlite3.connect(
            f"file:{quote(os.fspath(path))}?mode=ro&immutable=1", uri=True, isolation_level=None
        )
    except sqlite3.Error as error:
        raise CopyError(f"{path}: {error}") from error


def check_copy(path: Path) -> None:
    """Read a whole copy and check that the database is sound; raises :class:`CopyError`."""
    try:
        with closing(open_copy(path)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise CopyError(f"{path}: {error}") from error
    if found != ("ok",):
        raise CopyError(f"{path}: the database is damaged: {found[0] if found else 'no answer'}")


def check_regular(path: Path) -> int:
    """Return the size of a plain file in bytes; raises :class:`CopyError` for anything else."""
    try:
        status = os.lstat(path)
    except OSError as error:
        raise CopyError(f"{path}: {_text(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a file"
        raise CopyError(f"{path}: is {kind}")
    return status.st_size


def digest(path: Path, progress: Progress = nothing) -> str:
    """Return the SHA-256 of a file, in hexadecimal; raises :class:`CopyError`."""
    return _pass_on(path, None, progress)


def copy_file(source: Path, target: Path, progress: Progress = nothing) -> str:
    """Copy a file that nobody writes to, durably; returns its SHA-256, in hexadecimal.

    Raises :class:`CopyError`.
    """
    descriptor = create(target)
    try:
        return _pass_on(source, (target, descriptor), progress)
    finally:
        os.close(descriptor)


def _pass_on(source: Path, into: tuple[Path, int] | None, progress: Progress) -> str:
    found, about, synced = hashlib.sha256(), source, 0
    try:
        with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
                if into is not None:
                    about = into[0]
                    _write(into[1], chunk)
                    synced += len(chunk)
                    if synced >= SYNC_BYTES:
                        os.fsync(into[1])
                        synced = 0
                    about = source
                progress(len(chunk))
        if into is not None:
            about = into[0]
            os.fsync(into[1])
    except OSError as error:
        raise CopyError(f"{about}: {_text(error)}") from error
    return found.hexdigest()


def _write(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def write_file(path: Path, content: bytes) -> None:
    """Write a new file, durably; raises :class:`CopyError`."""
    descriptor = create(path)
    try:
        _write(descriptor, content)
        os.fsync(descriptor)
    except OSError as error:
        raise CopyError(f"{path}: {_text(error)}") from error
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the list of files in a folder durable; raises :class:`CopyError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot
            raise CopyError(f"{path}: {_text(error)}") from error


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file durably; the new one gets the owner and the mode of the old one.

    Nobody ever reads half of it. If there was no file, only the owner has access to the new one.
    Raises :class:`CopyError`.
    """
    target = path.resolve()
    fresh = target.with_name(f".{target.name}.{token_hex(8)}")
    try:
        write_file(fresh, content)
        with suppress(FileNotFoundError):
            old = os.stat(target)
            os.chmod(fresh, stat.S_IMODE(old.st_mode))
            with suppress(PermissionError):
                os.chown(fresh, old.st_uid, old.st_gid)
        os.replace(fresh, target)
    except OSError as error:
        raise CopyError(f"{path}: {_text(error)}") from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(fresh)
    sync_folder(target.parent)


def require_room(folder: Path, needed: int) -> None:
    """Raise :class:`CopyError` if a file system has fewer free bytes than needed."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        raise CopyError(f"{folder}: {_text(error)}") from error
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise CopyError(
            f"{folder}: {needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free"
        )


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


__all__ = [
    "BESIDE",
    "CopyError",
    "FileSnapshot",
    "Progress",
    "check_copy",
    "check_regular",
    "copy_file",
    "create",
    "digest",
    "nothing",
    "open_copy",
    "replace_file",
    "require_room",
    "sync_folder",
    "write_file",
]
