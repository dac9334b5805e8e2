"""Finds data of a pool in a data folder whose settings use another engine."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from kupool.migration.notes import AWAY, MOVED


class LeftBehind(NamedTuple):
    """Whether the files of a folder hold data: counts or jobs that were not moved, log entries, and
    the number of entries in a spool.
    """

    store: bool
    log: bool
    spooled: int


def look(store: Path, log: Path, spool: Path) -> LeftBehind:
    """Read the files that exist. Blocks; changes nothing."""
    moved = f"SELECT 1 FROM migration WHERE direction = '{AWAY}' AND state = '{MOVED}'"
    full = any(
        _ask(store, f"SELECT 1 FROM {table} LIMIT 1")
        for table in ("submissions", "applied_batches", "job_history")
    )
    return LeftBehind(
        store=full and not _ask(store, moved),
        log=bool(_ask(log, "SELECT 1 FROM entries LIMIT 1")),
        spooled=_ask(spool, "SELECT count(*) FROM spooled"),
    )


def _ask(path: Path, query: str) -> int:
    """Return a number from a file; 0 if there is no such file or table."""
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as found:
            row = found.execute(query).fetchone()
    except sqlite3.Error:
        return 0
    return 0 if row is None else int(row[0])


__all__ = ["LeftBehind", "look"]
