"""Read the account file, and change it atomically.

Blocking: for commands, and for a thread of the daemon.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kupool.accounts.entries import (
    MAX_SIZE,
    BrokenAccounts,
    KnownAccounts,
    Secret,
    parse,
    parse_line,
)
from kupool.storage.copies import CopyError, replace_file

#: The mode of a new file.
_MODE = 0o600

#: Identifies a version of a file: its inode, size and modification time.
Fingerprint = tuple[int, int, int]

#: Returns whether to remove a secret.
Leaves = Callable[[Secret], bool]


class AccountFile:
    """The account file at a path."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def read(self) -> KnownAccounts:
        """Return the accounts; raises :class:`OSError` and :class:`BrokenAccounts`."""
        with open(self.path, "rb") as file:
            return parse(file.read(MAX_SIZE + 1))

    def read_if_any(self) -> KnownAccounts:
        """Return the accounts; none if there is no file, or no account in it.

        Raises :class:`OSError`, and :class:`BrokenAccounts` if no line can be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return KnownAccounts()
        return parse(data) if data.strip() else KnownAccounts()

    def fingerprint(self) -> Fingerprint:
        """Return the version of the file; raises :class:`OSError` and :class:`BrokenAccounts`."""
        found = os.stat(self.path)
        if not stat.S_ISREG(found.st_mode):
            raise BrokenAccounts("it is not a file")
        return found.st_ino, found.st_size, found.st_mtime_ns

    @property
    def open_to_others(self) -> bool:
        """Whether other users of this machine may read it; raises :class:`OSError`."""
        return bool(os.stat(self.path).st_mode & (stat.S_IROTH | stat.S_IRGRP))

    def replace(self, leaves: Leaves, added: tuple[Secret, ...] = ()) -> int:
        """Remove the secrets that ``leaves`` selects, and add others; returns the number removed.

        Comments and unreadable lines stay. The first new secret replaces the first removed
        one. Raises :class:`OSError` and :class:`CopyError`.
        """
        with self._locked():
            lines, gone = [], 0
            for line in self._lines():
                if _goes(line, leaves):
                    if not gone:
                        lines += [secret.line() for secret in added]
                    gone += 1
                else:
                    lines.append(line)
            if not gone:
                lines += [secret.line() for secret in added]
            text = "".join(f"{line}\n" for line in lines)
            replace_file(self.path, text.encode("utf-8", "surrogateescape"))
        return gone

    def _lines(self) -> list[str]:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        # Bytes that are not text are written back unchanged.
        text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        return [line.removesuffix("\r") for line in text.split("\n") if line or text == "\n"]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the file against other commands; creates an empty one if there is none.

        If the previous holder of the lock replaced the file, the new file is locked.
        """
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self._is(descriptor):
                    yield
                    return
            finally:
                os.close(descriptor)

    def _is(self, descriptor: int) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        return False


def _goes(line: str, leaves: Leaves) -> bool:
    try:
        secret = parse_line(line)
    except ValueError:
        return False
    return secret is not None and leaves(secret)


__all__ = ["AccountFile", "CopyError", "Fingerprint"]
