"""The notes of a store about moves, and when they keep a daemon from starting. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

#: The subjects of a note: a move into this store, a move of its data to another one, a move of its
#: log.
INTO, AWAY, LOG = "into", "away", "log"

#: States of a note.
MOVING, MOVED, UNDONE = "moving", "moved", "undone"

#: Reads the columns of :class:`MoveNote`.
SELECT_NOTES = "SELECT direction, other, state, progress, changed_at FROM migration"


class MoveNote(NamedTuple):
    """A store's note about a move; ``other`` names the other side."""

    direction: str
    other: str
    state: str
    progress: str
    changed_at: int


def refusal(notes: Iterable[MoveNote], kind: Mapping[str, str]) -> str:
    """Return in one line why no daemon may start on a store; empty if one may.

    ``kind`` is the kind of log according to the settings.
    """
    of = {note.direction: note for note in notes}
    into, away, log = of.get(INTO), of.get(AWAY), of.get(LOG)
    if into is not None and into.state == MOVING:
        return (
            f"the data of {into.other} is being moved, and not all of it is here yet; "
            f"{_command(into)} continues it"
        )
    if into is not None and into.state == UNDONE:
        return f"the move of its data from {into.other} was undone; empty it before it is used"
    if away is not None and away.state == MOVING:
        return (
            f"its data is being moved to {away.other}; {_command(away)} continues it, "
            "or undoes it with --undo"
        )
    if away is not None:
        return (
            f"its data was moved to {away.other}; start with --config {_names(away)['target']}, or "
            f"undo the move with {_command(away, '--undo')}"
        )
    if log is not None and _loaded(log) != dict(kind):
        return (
            f"its log was moved to {log.other}, and the settings name another one; start with "
            "the settings that it was moved to, or move it with 'kupool migrate'"
        )
    return ""


def _loaded(note: MoveNote) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(note.progress)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _names(note: MoveNote) -> dict[str, str]:
    found = _loaded(note)
    return {name: str(found.get(name, "SETTINGS")) for name in ("source", "target")}


def _command(note: MoveNote, *flags: str) -> str:
    names = _names(note)
    words = ["kupool migrate", f"--from {names['source']}", f"--to {names['target']}", *flags]
    return f"'{' '.join(words)}'"


__all__ = [
    "AWAY",
    "INTO",
    "LOG",
    "MOVED",
    "MOVING",
    "SELECT_NOTES",
    "UNDONE",
    "MoveNote",
    "refusal",
]
