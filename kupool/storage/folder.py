"""The data folder: made when it is missing, and used by one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO


class FolderError(Exception):
    """The data folder cannot be used; says which and why."""


class DataFolder:
    """A folder that this process alone may write to, while it is open."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Make the folder if need be and lock it; raises :class:`FolderError`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / "lock", "a+")  # noqa: SIM115
        except OSError as error:
            raise FolderError(f"data folder {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise FolderError(
                f"data folder {self.path}: in use by another process (pid {owner})"
            ) from None
        except OSError as error:
            lock.close()
            raise FolderError(
                f"data folder {self.path}: cannot be locked: {error.strerror}"
            ) from None
        try:
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        except OSError as error:
            lock.close()
            raise FolderError(f"data folder {self.path}: {error.strerror}") from None
        self._lock = lock

    def file(self, name: str) -> Path:
        """Return the path of a file in the folder."""
        return self.path / name

    def close(self) -> None:
        """Let another process use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
