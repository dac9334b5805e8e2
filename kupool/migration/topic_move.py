"""A move of topics from its beginning to its end.

While the daemon runs, as often as one likes: what it has written by now is copied, and read again.
Once it is stopped: the rest, the groups and the delayed records. Then both sides say what they are:

1. The new side says from its beginning that the move is not complete: no daemon starts there.
2. At the end it says that it is, and then the old one says where its topics are.

An interruption at any moment leaves the old side in use, or the new one; the same command goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kupool.migration import CannotMove
from kupool.migration.notes import AWAY, INTO, MOVED, MOVING, UNDONE, MoveNote
from kupool.migration.reports import Report
from kupool.migration.topic_copy import TopicCopier
from kupool.migration.topic_groups import GroupMover
from kupool.migration.topic_notes import forget_away, progress_name, read_note, write_away
from kupool.migration.topic_progress import Tally, TopicMoveProgress
from kupool.migration.topic_source import TopicSource
from kupool.topics.partition import Partition

#: A pass that copied fewer records was the last one while the daemon runs.
FEW = 5_000


class TopicSide(NamedTuple):
    """One side of a move of topics.

    ``name`` is its settings file, ``shown`` what messages call it, ``kind`` its engine. ``file`` is
    the file of the topics, or of what is known of them here; the note that they were moved away is
    in it.
    """

    name: str
    shown: str
    kind: str
    file: Path

    @property
    def schema(self) -> str:
        """The schema of the file."""
        return "topics_rabbit" if self.kind == "rabbit" else "topics"

    @property
    def progress_file(self) -> Path:
        """The file that says how far a move to this side is."""
        return self.file.with_name(progress_name(self.kind))


class TopicsCopied(NamedTuple):
    """What was compared and is equal, and how many positions of groups were moved.

    ``left`` is how many records the last pass copied: about so many are written meanwhile.
    """

    compared: Mapping[Partition, Tally]
    positions: int
    left: int


class TopicMove:
    """Moves the topics of ``old`` to ``new``; ``wall`` returns seconds since the epoch."""

    def __init__(
        self,
        old: TopicSide,
        new: TopicSide,
        progress: TopicMoveProgress,
        *,
        wall: Callable[[], float],
    ) -> None:
        self._old = old
        self._new = new
        self._progress = progress
        self._wall = wall

    def begin(self) -> bool:
        """Note that the move has begun; returns whether it is complete already.

        Raises :class:`CannotMove` if the new side has something else.
        """
        note = self._progress.note()
        if note is not None and note.state == UNDONE:
            raise CannotMove(
                f"{self._new.shown} has topics of a move that was undone; delete them, and the "
                "file of the move beside them"
            )
        if note is not None and note.other != self._old.shown:
            raise CannotMove(f"{self._new.shown} has the topics of {note.other}")
        if note is not None and note.state == MOVED:
            return True
        away = read_note(self._old.file, AWAY)
        if away is not None:
            raise CannotMove(f"{self._old.shown}: its topics were moved to {away.other}")
        self._note(MOVING)
        return False

    async def copy(
        self,
        source: TopicSource,
        target: Any,
        report: Report,
        *,
        running: bool,
        log_position: Callable[[int], int],
    ) -> TopicsCopied:
        """Copy and compare; if the old side is still ``running``, only what it has by now.

        ``log_position`` returns where an entry of the submission log is now, by its old position.
        Raises :class:`CannotMove`.
        """
        await self._drop_moved(target)
        copier = TopicCopier(source, target, self._progress, report)
        left = await copier.copy()
        await copier.verify()
        while running and left >= FEW:
            before, left = left, await copier.copy()
            await copier.verify()
            if left >= before:
                break  # more is written than is copied: it is for the daemon to stop
        positions = 0
        if not running:
            report.begin("Moving groups", 0)
            mover = GroupMover(source, target, self._progress, log_position)
            positions = await mover.move()
        return TopicsCopied(copier.compared(), positions, left)

    async def _drop_moved(self, target: Any) -> None:
        """Delete from the new side what was moved from there to the old side, and comes back."""
        away = read_note(self._new.file, AWAY)
        if away is None or away.other != self._old.shown:
            return
        for name in list(target.topics()):
            await target.delete(name)
        self._old.progress_file.unlink(missing_ok=True)  # of that move
        forget_away(self._new.file)

    def finish(self) -> None:
        """Let daemons start on the new side, and not on the old one; may be called again."""
        self._note(MOVED)
        note = MoveNote(AWAY, self._new.shown, MOVED, self._names(), int(self._wall()))
        write_away(self._old.file, self._old.schema, note)

    def undo(self) -> None:
        """Let daemons start on the old side again, and not on the new one."""
        forget_away(self._old.file)
        if self._progress.note() is not None:
            self._note(UNDONE)

    def _note(self, state: str) -> None:
        now = int(self._wall())
        self._progress.save_note(MoveNote(INTO, self._old.shown, state, self._names(), now))

    def _names(self) -> str:
        names = {"source": self._old.name, "target": self._new.name, "kind": self._new.kind}
        return msgspec.json.encode(names).decode()


__all__ = ["FEW", "TopicMove", "TopicSide", "TopicsCopied"]
