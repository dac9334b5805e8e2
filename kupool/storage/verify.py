"""Checks the pages of a SQLite file after an unclean end."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Files up to this size, in bytes, are checked before use. Larger ones are checked during use,
#: which takes some seconds for each GB.
AT_ONCE = 64 * 1024 * 1024

#: Errors that mean that the file itself is damaged.
_DAMAGE = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))


def is_damage(error: BaseException | None) -> bool:
    """Say whether an error means that the file's content is damaged."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


def quick_check(connection: sqlite3.Connection) -> str:
    """Return the first fault of a file; empty if there is none. Blocks.

    Raises :class:`sqlite3.Error` if it cannot be read at all.
    """
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return "" if found == "ok" else " ".join(str(found).replace("***", "").split())


class Verifier:
    """Checks a file in a thread, through a read-only connection.

    ``found`` is called in that thread with the fault, if there is one.
    """

    def __init__(self, path: Path, found: Callable[[str], object]) -> None:
        self._path = path
        self._found = found
        self._stopped = False
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name=f"verify-{path.stem}", daemon=True)

    def start(self) -> None:
        """Start the check."""
        self._thread.start()

    def stop(self) -> None:
        """Cancel the check; blocks until the file is closed."""
        self._stopped = True
        while self._thread.is_alive():
            connection = self._connection
            if connection is not None:
                with suppress(sqlite3.Error):  # closed meanwhile
                    connection.interrupt()
            self._thread.join(0.05)

    def _run(self) -> None:
        problem = ""
        try:
            uri = self._path.absolute().as_uri() + "?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=30.0, check_same_thread=False)
            self._connection = connection
            try:
                if not self._stopped:
                    problem = quick_check(connection)
            finally:
                self._connection = None
                connection.close()
        except sqlite3.Error as error:
            # Interrupted or locked: that says nothing about the content of the file.
            problem = str(error) if is_damage(error) else ""
        if problem:
            self._found(problem)


__all__ = ["AT_ONCE", "Verifier", "is_damage", "quick_check"]
