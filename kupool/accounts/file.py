"""The account file on disk: read it, and change it so that nobody reads half of it.

Blocking: for the commands, and for a thread of the daemon.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from kupool.accounts.entries import (
    MAX_SIZE,
    BrokenAccounts,
    KnownAccounts,
    Secret,
    parse,
    parse_line,
)
from kupool.storage.copies import CopyError, sync_folder, write_file

#: The mode of a file that is made.
_MODE = 0o600

#: What is another one after each change of a file: its number, size and time of change.
Fingerprint = tuple[int, int, int]

#: Says of a secret whether it is to go.
Leaves = Callable[[Secret], bool]


class AccountFile:
    """The account file at a path."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def read(self) -> KnownAccounts:
        """Return what is in it; raises :class:`OSError` and :class:`BrokenAccounts`."""
        with open(self.path, "rb") as file:
            return parse(file.read(MAX_SIZE + 1))

    def read_if_any(self) -> KnownAccounts:
        """Return what is in it, nothing where there is no file, or no account in it.

        Raises :class:`OSError`, and :class:`BrokenAccounts` where no line can be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return KnownAccounts()
        return parse(data) if data.strip() else KnownAccounts()

    def fingerprint(self) -> Fingerprint:
        """Return what the file is now; raises :class:`OSError` and :class:`BrokenAccounts`."""
        found = os.stat(self.path)
        if not stat.S_ISREG(found.st_mode):
            raise BrokenAccounts("it is not a file")
        return found.st_ino, found.st_size, found.st_mtime_ns

    @property
    def open_to_others(self) -> bool:
        """Whether somebody else on this machine may read it; raises :class:`OSError`."""
        return bool(os.stat(self.path).st_mode & (stat.S_IROTH | stat.S_IRGRP))

    def replace(self, leaves: Leaves, added: tuple[Secret, ...] = ()) -> int:
        """Drop the secrets that ``leaves`` names, and add others; returns how many went.

        Comments, and lines that cannot be read, stay. The first new secret takes the place
        of the first that goes. Raises :class:`OSError` and :class:`CopyError`.
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
            self._write("".join(f"{line}\n" for line in lines))
        return gone

    def _lines(self) -> list[str]:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        # Bytes that are no text come back as they were.
        text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        return [line.removesuffix("\r") for line in text.split("\n") if line or text == "\n"]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Wait until no other command changes the file; make an empty one where there is none.

        Whoever had the lock may have replaced the file: then the new one is locked.
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

    def _write(self, text: str) -> None:
        """Put a new file in the place of the old one, with its owner and its mode."""
        target = self.path.resolve()
        fresh = target.with_name(f".{target.name}.{token_hex(8)}")
        try:
            write_file(fresh, text.encode("utf-8", "surrogateescape"))
            with suppress(FileNotFoundError):
                old = os.stat(target)
                os.chmod(fresh, stat.S_IMODE(old.st_mode))
                with suppress(PermissionError):
                    os.chown(fresh, old.st_uid, old.st_gid)
            os.replace(fresh, target)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(fresh)
            raise
        sync_folder(target.parent)


def _goes(line: str, leaves: Leaves) -> bool:
    try:
        secret = parse_line(line)
    except ValueError:
        return False
    return secret is not None and leaves(secret)


__all__ = ["AccountFile", "CopyError", "Fingerprint"]
