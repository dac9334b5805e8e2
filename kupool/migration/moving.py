"""A move from its beginning to its end: what is done in which order, so that any kill is safe.

1. The source says that its data is being moved: no daemon starts on it any more.
2. The target says so too, and how far it is.
3. The log is copied, compared, and the dead letters are moved.
4. The tables are copied and compared. A store that stays is renumbered at once instead.
5. The target says of which pool it is, and that it is complete, in one transaction.
6. The source says where its data is.

Between any two of them a daemon starts on neither side, and the same command goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from kupool.migration import CannotMove
from kupool.migration import progress as phases
from kupool.migration.log_copy import check_log, copy_log, move_dead_letters
from kupool.migration.logs import Acknowledged, LogSide
from kupool.migration.notes import AWAY, INTO, LOG, MOVED, MOVING, UNDONE, MoveNote
from kupool.migration.positions import PositionMap, Unmoved
from kupool.migration.progress import MoveProgress, decode
from kupool.migration.reports import Compared, Report
from kupool.migration.source import examine
from kupool.migration.store import (
    Store,
    every_row,
    found_in,
    mark_of,
    newest_job,
)
from kupool.migration.table_copy import Pause, compare_tables, copy_tables, renumber_tables
from kupool.migration.tables import EPOCHS, POOL


@dataclass(frozen=True)
class Side:
    """One side of a move. ``name`` is its settings file."""

    name: str
    store: Store
    log: LogSide

    @property
    def shown(self) -> str:
        """The side as messages name it."""
        return f"{self.store.shown} and {self.log.shown}"

    def same_place(self, other: Side) -> bool:
        """Return whether both sides have the same store and the same log."""
        return (self.store.place, self.log.place) == (other.store.place, other.log.place)


class Move:
    """Moves a pool from one side to another. ``log`` is the ``ILog`` of the source, opened.

    ``wall`` returns seconds since the epoch, ``new_id`` an id that nobody else has.
    """

    def __init__(
        self,
        source: Side,
        target: Side,
        log: Any,
        report: Report,
        *,
        pause: Pause,
        wall: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._source = source
        self._target = target
        self._log = log
        self._report = report
        self._pause = pause
        self._wall = wall
        self._new_id = new_id
        self._store_stays = source.store.place == target.store.place
        self._log_stays = source.log.place == target.log.place
        self._compared: list[Compared] = []

    async def run(self) -> list[Compared]:
        """Move everything that is not moved yet; returns what was compared.

        Returns nothing if all was moved before. Raises :class:`CannotMove`.
        """
        if self._store_stays and self._log_stays:
            raise CannotMove("both settings name the same store and the same log")
        if self._was_moved():
            self._tell_source(MOVED)
            return []
        for side in (self._source, self._target):
            if user := await side.log.in_use():
                raise CannotMove(f"{side.log.shown} is in use: {user}; stop the daemon first")
        progress = await self._begin(
            await examine(self._source.store, self._log, self._source.log, self._new_id)
        )
        for side in (self._source, self._target):
            side.store.commit()  # no transaction stays open while the log is copied
        if progress.moves_log:
            await self._move_log(progress)
        if self._store_stays:
            await self._renumber(progress)
        else:
            await self._move_store(progress)
        self._tell_source(MOVED)
        return self._compared

    # -- the notes

    def _was_moved(self) -> bool:
        """Whether the move is complete and only has to be reported; refuses impossible moves."""
        into = self._target.store.notes().get(INTO)
        away = None if self._store_stays else self._source.store.notes().get(AWAY)
        if away is not None and away.other != self._target.shown:
            raise CannotMove(
                f"{self._source.store.shown}: its data was moved to {away.other}"
                if away.state == MOVED
                else f"{self._source.store.shown}: its data is being moved to {away.other}; "
                "finish that first, or undo it"
            )
        if into is None:
            return False
        if into.state == UNDONE:
            raise CannotMove(
                f"{self._target.store.shown} has data of a move that was undone; empty it"
            )
        if into.state == MOVING and into.other != self._source.shown:
            raise CannotMove(
                f"data of {into.other} is being moved to {self._target.store.shown}; finish that "
                f"first: kupool migrate --from {decode(into.progress).source} "
                f"--to {decode(into.progress).target}"
            )
        return into.state == MOVED and into.other == self._source.shown and away is not None

    def _tell_source(self, state: str) -> None:
        if self._store_stays:
            return
        store, before = self._source.store, self._source.store.notes().get(AWAY)
        progress = before.progress if before is not None else ""
        names = {"source": self._source.name, "target": self._target.name}
        text = progress or msgspec.json.encode(names).decode()
        store.note(MoveNote(AWAY, self._target.shown, state, text, int(self._wall())))
        store.commit()

    def _keep(self, progress: MoveProgress, state: str = MOVING) -> None:
        """Save the progress, in the target's open transaction."""
        at = int(self._wall())
        self._target.store.note(MoveNote(INTO, self._source.shown, state, progress.encode(), at))

    async def _begin(self, found: MoveProgress) -> MoveProgress:
        """Return the progress of the move: it continues, or begins in an empty target."""
        into = self._target.store.notes().get(INTO)
        if into is not None and into.state == MOVING:
            progress = decode(into.progress)
            if not progress.same_source(found):
                raise CannotMove(
                    f"{self._source.shown} is not as it was when the move began; empty "
                    f"{self._target.shown} and start again"
                )
            progress.source, progress.target = self._source.name, self._target.name
            return progress
        full = [] if self._store_stays else found_in(self._target.store)
        if full:
            raise CannotMove(
                f"{self._target.store.shown} is not empty, it has rows in {', '.join(full)}; name "
                "another one, or move it away"
            )
        full = [] if self._log_stays else await self._target.log.found()
        if full:
            raise CannotMove(
                f"{self._target.log.shown} is not empty, it has {', '.join(full)}; name another "
                "one, or move it away"
            )
        found.source, found.target = self._source.name, self._target.name
        if not self._log_stays:
            found.epoch = self._new_id()
            found.base = max(found.last, found.mark, found.epochs[-1][1] if found.epochs else 0)
        self._tell_source(MOVING)
        self._keep(found)
        self._target.store.commit()
        return found

    # -- the log

    async def _move_log(self, progress: MoveProgress) -> None:
        target, base, first = self._target.log, progress.base, progress.first
        total = max(0, progress.last - first + 1)
        await target.begin(progress.identity)
        if progress.phase == phases.LOG:
            await copy_log(self._log, target, first, base, total=total, report=self._report)
            self._reached(progress, phases.CHECK_LOG)
        if progress.phase == phases.CHECK_LOG:
            positions, compared = await check_log(
                self._log, target, first, base, total=total, report=self._report
            )
            self._compared.append(compared)
            progress.runs = [(run.source, run.target, run.length) for run in positions.runs]
            await target.finish(Acknowledged(positions(progress.mark), base))
            self._reached(progress, phases.DEAD_LETTERS)
        if progress.phase == phases.DEAD_LETTERS:
            self._compared.append(await move_dead_letters(self._source.log, target, self._report))
            self._reached(progress, phases.TABLES)

    def _reached(self, progress: MoveProgress, phase: int) -> None:
        progress.phase = phase
        self._keep(progress)
        self._target.store.commit()

    # -- the store

    async def _move_store(self, progress: MoveProgress) -> None:
        source, target = self._source.store, self._target.store
        if progress.phase < phases.CHECK_TABLES:
            await copy_tables(
                source, target, progress, self._keep, report=self._report, pause=self._pause
            )
            self._reached(progress, phases.CHECK_TABLES)
        self._compared += await compare_tables(
            source, target, progress.positions, report=self._report, pause=self._pause
        )
        pool = every_row(source, POOL)
        target.insert(POOL, pool)
        self._complete(progress)

    async def _renumber(self, progress: MoveProgress) -> None:
        """Give the store that stays the positions of the log that moved, in one transaction."""
        store = self._target.store
        self._compared += await renumber_tables(
            store, progress.positions, self._report, self._pause
        )
        store.clear(EPOCHS)
        self._complete(progress)

    def _complete(self, progress: MoveProgress) -> None:
        store = self._target.store
        epochs = [(number, *epoch) for number, epoch in enumerate(progress.identity.epochs)]
        store.insert(EPOCHS, epochs)
        kind = msgspec.json.encode(self._target.log.kind).decode()
        store.note(MoveNote(LOG, self._target.log.shown, MOVED, kind, int(self._wall())))
        progress.phase = phases.DONE
        self._keep(progress, MOVED)
        store.commit()


def moved_positions(store: Store) -> PositionMap:
    """Return where entries of the log are since the move into a store, by their old positions.

    All positions stay if the log was not moved.
    """
    note = store.notes().get(INTO)
    return Unmoved() if note is None else decode(note.progress).positions


def undo(source: Side, target: Side | None, wall: Callable[[], float]) -> None:
    """Let daemons start on the source again, and no longer on the target.

    Without a target, it is gone. Raises :class:`CannotMove` if a daemon has worked on the target
    since.
    """
    stays = target is not None and source.store.place == target.store.place
    if not stays and AWAY not in source.store.notes():
        raise CannotMove(f"nothing of {source.store.shown} was moved away")
    into = None if target is None else target.store.notes().get(INTO)
    if target is not None and into is not None:
        if stays and into.state != MOVING:
            raise CannotMove("the log is in use where it was moved to: move it back instead")
        if into.state == MOVED and _was_used(target.store, decode(into.progress)):
            raise CannotMove(
                f"a daemon has worked on {target.store.shown} since: move the data back instead"
            )
        if stays:
            target.store.drop_note(INTO)
        else:
            target.store.note(into._replace(state=UNDONE, changed_at=int(wall())))
        target.store.commit()
    if not stays:
        source.store.drop_note(AWAY)
        source.store.commit()


def _was_used(store: Store, progress: MoveProgress) -> bool:
    """Whether anything was counted or a job made since the move."""
    counted = progress.positions(progress.mark)
    return mark_of(store).position > counted or newest_job(store) > progress.newest_job


__all__ = ["Move", "Side", "moved_positions", "undo"]
