"""Notes about moves of topics, in the files of both sides. Every call blocks for a moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import msgspec

from kupool.migration.notes import AWAY, SELECT_NOTES, MoveNote
from kupool.storage.database import Database, connect


def progress_name(kind: str) -> str:
    """Return the name of the file that says how far a move to an engine is."""
    return "topic-move-rabbit.sqlite" if kind == "rabbit" else "topic-move.sqlite"


def read_note(path: Path, direction: str) -> MoveNote | None:
    """Return a note about a move of topics from a file; None without one. Blocks."""
    if not path.exists():
        return None
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            rows = connection.execute(SELECT_NOTES).fetchall()
        finally:
            connection.close()
    except sqlite3.Error:
        return None
    return next((note for note in map(MoveNote._make, rows) if note.direction == direction), None)


def write_away(path: Path, schema: str, note: MoveNote) -> None:
    """Write into a file of a schema, which is made if need be, that its topics were moved away."""
    Database(None, path, schema).check()
    with closing(connect(path)) as connection:
        connection.execute(
            "INSERT OR REPLACE INTO migration (direction, other, state, progress, changed_at) "
            "VALUES (?, ?, ?, ?, ?)",
            note,
        )


def forget_away(path: Path) -> None:
    """Forget that the topics of a file were moved away."""
    if read_note(path, AWAY) is None:
        return
    with closing(connect(path)) as connection:
        connection.execute("DELETE FROM migration WHERE direction = ?", (AWAY,))


def topics_left_behind(path: Path, own: Collection[str]) -> list[str]:
    """Return the topics in a file that were not moved away, without the daemon's ``own``.

    Blocks.
    """
    if not path.exists() or read_note(path, AWAY) is not None:
        return []
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT name FROM topics ORDER BY name").fetchall()
    except sqlite3.Error:
        return []
    return [name for (name,) in rows if name not in own]


def moved_kind(note: MoveNote) -> str:
    """Return the engine that topics are moved to."""
    try:
        found = msgspec.json.decode(note.progress)
    except ValueError:
        return ""
    return str(found.get("kind", "")) if isinstance(found, dict) else ""


__all__ = ["forget_away", "moved_kind", "progress_name", "read_note", "write_away"]
