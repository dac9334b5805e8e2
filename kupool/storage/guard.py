"""Whether an open SQLite file still is where it was opened.

A program that holds a file open writes to it wherever it has been moved, and also after it
has been deleted: the writes succeed, and are in a file that the next start does not find.
Device and inode say so. What is written over in place keeps both, and is not noticed here.
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

    Made while the file is open, so that its write-ahead log is there. Raises
    :class:`OSError` where one of the three is not.
    """

    def __init__(self, path: Path) -> None:
        self._folder = os.path.abspath(path.parent)
        file = os.path.abspath(path)
        # SQLite follows a symbolic link before it names the write-ahead log.
        self._log = os.path.realpath(file) + "-wal"
        #: Where the folder really is, to tell a move from a deletion.
        self._real = os.path.realpath(self._folder)
        #: Open, so that the inode cannot be given to another folder.
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
        #: Whether only the write-ahead log is not where it was.
        self.only_log = False

    def check(self) -> str:
        """Return what happened to one of the three; empty while all are in place."""
        return self._compare(self._places)

    def check_files(self) -> str:
        """Return the same, having looked at the two files only.

        They are what the next start opens: a folder that is another and has the same files at
        the same paths loses nothing.
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
        """Say what became of the folder, as far as the system tells."""
        now = self._real
        with suppress(OSError):  # no /proc
            now = os.readlink(f"/proc/self/fd/{self._handle}")
        if now.endswith(_DELETED):
            return "deleted"
        return "replaced by another folder" if now == self._real else f"moved to {now}"

    def close(self) -> None:
        """Let go of the folder; may be called again."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


__all__ = ["Guard"]
