"""One number in a file, written in place: this works even when the disk is full."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

#: The size of the file from the beginning, so that a write needs no further block.
_ROOM = 4096
_DIGITS = 19


class InPlaceNumber:
    """A durable number from 0 to 10**19 - 1. Everything here blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Create the file with its full size if it is missing; raises :class:`OSError`."""
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return
        try:
            os.write(file, _encode(0).ljust(_ROOM, b"\n"))
            os.fsync(file)
        finally:
            os.close(file)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def read(self) -> int | None:
        """Return the number; 0 if there is no file, None if the file has no number."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return 0
        try:
            found = os.read(file, len(_encode(0)))
        finally:
            os.close(file)
        digits = found[:_DIGITS]
        return int(digits) if digits.isdigit() and found == _encode(int(digits)) else None

    def write(self, number: int) -> None:
        """Replace the number; durable when it returns. Raises :class:`OSError`."""
        file = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.pwrite(file, _encode(number), 0)
            os.fsync(file)
        finally:
            os.close(file)


def _encode(number: int) -> bytes:
    digits = b"%019d" % number
    return b"%b %08x\n" % (digits, crc32(digits))


__all__ = ["InPlaceNumber"]
