"""Whether the pages of a SQLite file make sense, looked at after an unclean end."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Files up to this size, in bytes, are looked at before they are used; larger ones while
#: they are, as that takes some seconds for each GB.
AT_ONCE = 64 * 1024 * 1024

#: Errors that say that the file itself is wrong.
_DAMAGE = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))


def is_damage(error: BaseException | None) -> bool:
    """Say whether an error means that the file's content is wrong."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


def quick_check(connection: sqlite3.Connection) -> str:
    """Return the first thing that is wrong with a file; empty when nothing is. Blocks.

    Raises :class:`sqlite3.Error` where it cannot be read at all.
    """
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return "" if found == "ok" else " ".join(str(found).replace("***", "").split())


class Verifier:
    """Looks at a file in a thread of its own, through a connection that only reads.

    ``found`` is called from that thread with what is wrong, if anything is.
    """

    def __init__(self, path: Path, found: Callable[[str], object]) -> None:
        self._path = path
        self._found = found
        self._stopped = False
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name=f"verify-{path.stem}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what is not done; blocks until the file is closed."""
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
            # Interrupted, or locked: that says nothing about what is in the file.
            problem = str(error) if is_damage(error) else ""
        if problem:
            self._found(problem)


__all__ = ["AT_ONCE", "Verifier", "is_damage", "quick_check"]
