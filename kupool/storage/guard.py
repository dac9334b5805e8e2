"""Checks whether an open SQLite file is still where it was opened.

A program that holds a file open still writes to it after it was moved or deleted. The writes
succeed, but the next start does not find that file. Device and inode tell the difference. If a file
is overwritten in place, both stay the same, and this check does not notice it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: What Linux appends to the path of an open file that has no name any more.
_DELETED = " (deleted)"


class Guard:
    """Remembers where a file, its write-ahead log and their folder are.

    Construct it while the file is open, when its write-ahead log exists. Raises :class:`OSError` if
    one of the three does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._folder = os.path.abspath(path.parent)
        file = os.path.abspath(path)
        # SQLite follows a symbolic link before it names the write-ahead log.
        self._log = os.path.realpath(file) + "-wal"
        #: The real path of the folder, to tell a move from a deletion.
        self._real = os.path.realpath(self._folder)
        #: Kept open, so that no other folder can get the same inode.
        self._handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._places = tuple(
                (place, found.st_dev, found.st_ino)
                for place in (self._folder, file, self._log)
                for found in (os.stat(place),)
            )
        except OSError:
            self.close()
            raise
        self._files = self._places[1:]
        #: Whether only the write-ahead log is missing.
        self.only_log = False

    def check(self) -> str:
        """Return what happened to one of the three; empty if all are in place."""
        return self._compare(self._places)

    def check_files(self) -> str:
        """Do the same for the two files only.

        The next start opens the files. If the folder is another one that has the same files at the
        same paths, nothing is lost.
        """
        lost = self._compare(self._files)
        return lost and (self.check() or lost)

    def _compare(self, places: Sequence[tuple[str, int, int]]) -> str:
        for place, device, inode in places:
            try:
                found = os.stat(place)
            except OSError as error:
                return self._explain(place, error)
            if found.st_ino != inode or found.st_dev != device:
                return self._explain(place, None)
        return ""

    def _explain(self, place: str, error: OSError | None) -> str:
        self.only_log = place == self._log
        if error is not None and not isinstance(error, FileNotFoundError):
            return f"{place} cannot be looked at: {error.strerror}"
        if place == self._folder:
            return f"{place} was {self._fate()}"
        if error is not None:
            return f"{place} was moved away or deleted"
        return f"{place} was replaced by another file"

    def _fate(self) -> str:
        """Say what happened to the folder, as far as the system can tell."""
        now = self._real
        with suppress(OSError):  # no /proc
            now = os.readlink(f"/proc/self/fd/{self._handle}")
        if now.endswith(_DELETED):
            return "deleted"
        return "replaced by another folder" if now == self._real else f"moved to {now}"

    def close(self) -> None:
        """Close the folder's descriptor; may be called again."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


__all__ = ["Guard"]
