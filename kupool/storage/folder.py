"""The data folder: created if it is missing, and used by one process at a time.

Only its owner has access. After a proper close it contains a marker, so that the next start knows
whether it has to check the files.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Collection
from contextlib import suppress
from errno import ELOOP
from pathlib import Path

#: The lock file, which also names the process that uses the folder.
LOCK = "lock"

#: The marker of a proper close, until the next use; it has the state of the files.
CLEAN = "clean"

#: The modes of the folder and of what is made in it.
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600


class FolderError(Exception):
    """The data folder cannot be used; says which and why."""


class FolderInUse(FolderError):
    """Another process uses the data folder; says which."""


class DataFolder:
    """A folder that only this process may write to while it is open."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        #: Locked descriptors: the lock file, and the folder if the file system can lock it.
        self._locked: list[int] = []
        #: The state of the files when the folder was last closed properly.
        self._known: dict[str, list[int]] = {}
        #: A warning for the operator about the folder; empty if there is none.
        self.warning = ""

    def open(self) -> None:
        """Create the folder if needed, and lock it; raises :class:`FolderError`."""
        try:
            self._make()
            self._locked.append(self._open_lock())
        except OSError as error:
            raise self._failed(error) from None
        try:
            self._lock(self._locked[0])
            self._lock_folder()
            self._sign(self._locked[0])
            self._known = self._take_marker()
        except OSError as error:
            self._let_go()
            raise self._failed(error) from None
        except FolderError:
            self._let_go()
            raise

    def _in_use(self, reason: str) -> FolderInUse:
        return FolderInUse(f"data folder {self.path}: in use by another process{reason}")

    def _error(self, reason: str) -> FolderError:
        return FolderError(f"data folder {self.path}: {reason}")

    def _failed(self, error: OSError) -> FolderError:
        if isinstance(error, NotADirectoryError):
            return self._error("a part of this path is a file; name a folder with --data")
        where = "" if Path(error.filename or self.path) == self.path else f"{LOCK}: "
        return self._error(f"{where}{error.strerror or error}")

    def _make(self) -> None:
        """Create the folder for its owner only; an existing one keeps its mode."""
        try:
            self.path.mkdir(_FOLDER_MODE, parents=True)
        except FileExistsError:
            if not self.path.is_dir():
                raise self._error("this is a file; name a folder with --data") from None
            mode = stat.S_IMODE(self.path.stat().st_mode)
            if mode & (stat.S_IWGRP | stat.S_IWOTH):
                self.warning = (
                    f"data folder {self.path}: users other than its owner may write to "
                    f"it (mode {mode:04o}); set its mode to 0700"
                )
        else:
            self.path.chmod(_FOLDER_MODE)  # whatever the umask

    def _open_lock(self) -> int:
        """Open the lock file; refuse a link or folder of its name."""
        path = self.path / LOCK
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            lock = os.open(path, flags, _FILE_MODE)
        except OSError as error:
            if error.errno != ELOOP:
                raise
            raise self._error(
                f"{LOCK} is a symbolic link, and is not followed; remove it"
            ) from None
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            os.close(lock)
            raise self._error(f"{LOCK} is not a file; remove it")
        return lock

    def _lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 500, 0).decode(errors="replace").strip() or "pid unknown"
            owner = f"pid {owner}" if owner.isdigit() else owner  # from an older release
            raise self._in_use(f" ({' '.join(owner.split())})") from None
        except OSError as error:
            raise self._error(
                f"cannot be locked: {error.strerror}; its file system has to support flock"
            ) from None

    def _lock_folder(self) -> None:
        """Lock the folder as well: somebody may remove the lock file with good intentions."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._locked.append(folder)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._in_use(f", whose {LOCK} was removed") from None
        except OSError:
            pass  # NFS locks files only

    def _sign(self, lock: int) -> None:
        """Write into the lock file who holds it."""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        text = f"pid {os.getpid()} on {socket.gethostname()} since {since} UTC\n"
        os.fchmod(lock, _FILE_MODE)
        os.ftruncate(lock, 0)
        os.pwrite(lock, text.encode(), 0)

    # -- whether it was closed properly

    def _take_marker(self) -> dict[str, list[int]]:
        """Return what the last close recorded, and remove it until this use ends properly."""
        marker = self.path / CLEAN
        try:
            found = json.loads(marker.read_bytes())
        except (OSError, ValueError):
            found = {}
        with suppress(FileNotFoundError):
            marker.unlink()
        return found if isinstance(found, dict) else {}

    def is_clean(self, path: Path) -> bool:
        """Say whether a file is as it was when the folder was closed properly.

        It is not if something is in its write-ahead log, or if it was replaced or written to since.
        """
        looks = _looks(path)
        return looks is not None and self._known.get(path.name) == looks

    def close(self, clean: Collection[Path] = ()) -> None:
        """Release the folder to other processes.

        ``clean`` are the files in it that were closed properly and had no problem.
        """
        if self._locked and clean:
            with suppress(OSError):  # the next start then checks the files, which is harmless
                self._leave_marker(clean)
        self._let_go()

    def _leave_marker(self, clean: Collection[Path]) -> None:
        looks = {path.name: _looks(path) for path in clean}
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        marker = os.open(self.path / CLEAN, flags, _FILE_MODE)
        try:
            os.fchmod(marker, _FILE_MODE)
            os.write(marker, json.dumps(looks).encode() + b"\n")
            os.fsync(marker)
        finally:
            os.close(marker)

    def _let_go(self) -> None:
        locked, self._locked = self._locked, []
        for descriptor in locked:
            os.close(descriptor)

    def file(self, name: str) -> Path:
        """Return the path of a file in the folder."""
        return self.path / name


def _looks(path: Path) -> list[int] | None:
    """Return a value that changes with every write to a file; None if it has a ``-wal``."""
    if os.path.lexists(f"{path}-wal"):
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


__all__ = ["CLEAN", "LOCK", "DataFolder", "FolderError"]
