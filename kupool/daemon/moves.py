"""Checks at a start whether the pool's data was moved between engines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kupool.daemon.files import (
    LOG_FILE,
    SPOOL_FILE,
    STORE_FILE,
    TOPICS_FILE,
    topics_kind,
    topics_note_file,
)
from kupool.daemon.parts import Parts
from kupool.log import LogUnavailable
from kupool.migration.left_behind import look
from kupool.migration.notes import AWAY, INTO, LOG, SELECT_NOTES, MoveNote, refusal
from kupool.migration.topic_notes import (
    moved_kind,
    progress_name,
    read_note,
    topics_left_behind,
)
from kupool.settings import LogSettings, Settings, StorageSettings

_COMMAND = (
    "'kupool migrate --from SETTINGS --to SETTINGS' moves it; to begin with an empty pool, move "
    "the file away"
)


class MovedAway(Exception):
    """The daemon must not start here; the text says in one line why, and what to do."""


async def look_for_moves(storage: StorageSettings, log: LogSettings, parts: Parts) -> Sequence[str]:
    """Return one line for each part of the data folder that is not used.

    The log and the store must be open. Raises :class:`MovedAway` if the store's data was moved, if
    a new pool would begin beside an existing one, or if accepted submissions would never be
    counted.
    """
    notes = await _notes(parts)
    kind = {"mq": log.kind}
    if log.kind == "rabbit":
        kind["queue"] = log.queue
    reason = refusal(notes, kind)
    if reason:
        where = "the store" if parts.postgres is None else "the database"
        raise MovedAway(f"{where}: {reason}")
    folder = Path(storage.data)
    found = look(folder / STORE_FILE, folder / LOG_FILE, folder / SPOOL_FILE)
    if log.kind == "sqlite" and found.spooled:
        raise MovedAway(
            f"{folder / SPOOL_FILE} holds {found.spooled} accepted batches that are not in "
            "RabbitMQ yet; start once more with --mq rabbit, or they are never counted"
        )
    lines = []
    if storage.kind != "sqlite" and found.store:
        store = storage.kind
        text = f"{folder / STORE_FILE} holds the counts of a pool, and store is {store!r}"
        if store == "pg" and not (await parts.stats.state()).holds_data:
            raise MovedAway(f"{text}, which is empty; {_COMMAND}")
        lines.append(f"{text}: it is not used; {_COMMAND}")
    moved = any(note.direction == LOG for note in notes)
    if log.kind != "sqlite" and found.log and not moved:
        text = f"{folder / LOG_FILE} holds the log of a pool, and mq is {log.kind!r}"
        if log.kind == "rabbit" and await _is_empty(parts):
            raise MovedAway(f"{text}, which is empty; {_COMMAND}")
        lines.append(f"{text}: it is not used; {_COMMAND}")
    return lines


def look_for_moved_topics(settings: Settings) -> None:
    """Read the notes about moves of topics, before anything is written to them.

    Raises :class:`MovedAway` if they were moved away, or are not all here yet.
    """
    folder, kind = Path(settings.storage.data), topics_kind(settings)
    notes = []
    file = topics_note_file(settings)
    if file:
        notes.append(read_note(folder / file, AWAY))
    into = read_note(folder / progress_name(kind), INTO)
    if into is not None and moved_kind(into) == kind:
        notes.append(into)
    reason = refusal(filter(None, notes), {})
    if reason:
        raise MovedAway(f"topics: {reason}")
    if kind != "rabbit":
        return
    from kupool.topics.events import EVENTS  # of a package that is not needed without topics
    from kupool.topics.submissions import SUBMISSIONS

    left = topics_left_behind(folder / TOPICS_FILE, (EVENTS, SUBMISSIONS))
    if left:
        raise MovedAway(
            f"{folder / TOPICS_FILE} has the topic {left[0]}, and topics is {kind!r}: "
            "'kupool migrate --from SETTINGS --to SETTINGS' moves topics; to leave them, move the "
            "file away, or choose --topics sqlite"
        )


async def _notes(parts: Parts) -> Sequence[MoveNote]:
    """Return the notes about moves in the store."""
    rows: Sequence[Any] = ()
    if parts.postgres is not None:
        rows = await parts.postgres.query(SELECT_NOTES)
    for database in parts.databases:
        if database.path.name == STORE_FILE:
            rows = await database.run(lambda c: c.execute(SELECT_NOTES).fetchall())
    return [MoveNote(*row) for row in rows]


async def _is_empty(parts: Parts) -> bool:
    """Return whether the log is known to be empty."""
    state = await parts.stats.state()
    try:
        extent = await parts.log.extent(state.identity, state.mark)
    except LogUnavailable:
        return False
    return not extent.holds_data


__all__ = ["MovedAway", "look_for_moved_topics", "look_for_moves"]
